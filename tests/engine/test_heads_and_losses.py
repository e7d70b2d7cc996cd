"""Rows of the head and of the training loss: where they come from, that nothing depends on batches, shards or order, and
what is refused or said."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import memloc
from memloc import Views, audit, load_encoder, train_pair
from memloc.data import as_images
from memloc.encoders import save_weights, with_head
from memloc.engine import prepare
from memloc.engine._own_loss import encode_references
from memloc.errors import EncoderError, SpecError

VIEWS = Views(n=4, seed=3)
SIZES = {"candidates": 12, "independents": 12, "shared": 6}
COUNT = 60


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(pixels, tmp_path_factory):
    """A pair by SimCLR, with 30 points that neither saw."""
    out = tmp_path_factory.mktemp("heads") / "run"
    train_pair(pixels, epochs=2, batch_size=8, workers=1, out=out, **SIZES)
    return out


@pytest.fixture(scope="module")
def found(run):
    return audit(run, views=VIEWS)


def without(encoder):
    return replace(encoder, head=None, objective=None)


def mlp(features, *, seed=0, outputs=6):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(features, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, outputs)).eval()


def test_a_run_audits_its_heads_and_its_loss(found):
    rows = found.layers.set_index("layer")
    assert list(rows.index[-4:]) == ["output", "head.0", "head", "loss"]
    assert rows["kind"][-3:].tolist() == ["head", "head", "loss"]
    assert rows["order"].tolist() == list(range(len(rows)))
    assert rows["predecessor"][["head.0", "head"]].tolist() == ["output", "head.0"]
    assert rows["predecessor"][["loss"]].isna().all()
    assert not rows["predecessor"][:-3].isin(["head.0", "head", "loss"]).any()
    assert set(found.units["layer"]) == set(rows.index) - {"loss"}
    assert rows.loc["loss", ["unitmem_mean", "member_share"]].isna().all()
    assert rows.loc["head", "n_units"] == 128
    assert found.record["reading"]["layer"] == "head"


def test_older_rows_are_those_of_an_audit_without_heads(run, found):
    opened = memloc.open_run(run)
    subject = {name: opened.encoders[name] for name in "fg"}
    images = np.load(run / "images.npz")["images"]
    bare = audit(
        without(subject["f"]), without(subject["g"]), images=images, splits=opened.points["split"].tolist(), views=VIEWS,
        paired=True,
    )  # fmt: skip
    assert bare.layers["layer"].tolist() == [*found.layers["layer"][:-3], "loss (NT-Xent, assumed)"]
    names = [name for name in found.layers if name in bare.layers and found.layers[name].dtype == float]
    names = [
        name for name in names if not name.startswith("simultaneous")
    ]  # of all rows at once, of which there are more
    one, two = (each.layers[names][: len(bare.layers) - 1].to_numpy() for each in (found, bare))
    assert np.array_equal(one, two, equal_nan=True)
    assert bare.points["n_units"].tolist() == found.points["n_units"].tolist()


@pytest.mark.parametrize("changed", [{"batch_size": 7}, {"shard_size": 11}, {"batch_size": 1, "shard_size": 40}])
def test_batches_and_shards_change_nothing(run, found, changed):
    other = audit(run, views=VIEWS, **changed)
    last = found.point_layers["layer"].isin(["head", "loss"])
    for column in ("align_in", "align_out", "sslmem"):
        one, two = (each.point_layers.loc[last, column].to_numpy() for each in (found, other))
        assert one == pytest.approx(two, abs=1e-5, nan_ok=True)


def test_references_are_seeded_apart_from_views_and_kept(run, tmp_path):
    opened = memloc.open_run(run)
    images = np.load(run / "images.npz")["images"]
    job = prepare(
        opened.encoders["f"], opened.encoders["g"], images=images, splits=opened.points["split"].tolist(), views=VIEWS
    )
    never = (job.split == "external").nonzero()[0]
    assert job.loss.rows.tolist() == never.tolist()
    assert job.loss.objectives[0].batch_size == 8
    first = encode_references(job, tmp_path)
    assert [tuple(each.shape) for each in first] == [(2 * len(never), 128)] * 2
    assert first[0].norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    stored = (tmp_path / "references.pt").read_bytes()
    assert all(torch.equal(*pair) for pair in zip(first, encode_references(job, tmp_path), strict=True))
    assert (tmp_path / "references.pt").read_bytes() == stored
    (tmp_path / "references.pt").write_bytes(stored[:-40])
    with pytest.warns(match="encoded again"):
        again = encode_references(job, tmp_path)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    longer = replace(job, views=Views(n=8, seed=3))
    assert torch.equal(encode_references(longer, tmp_path / "..")[0], first[0])  # of the first two views alone


@pytest.mark.parametrize("objective", ["vicreg", "simsiam", "dino", "supervised"])
def test_every_objective_has_its_rows(pixels, objective, tmp_path):
    images = as_images(pixels, labels=[number % 3 for number in range(COUNT)])
    pair = train_pair(images, objective=objective, epochs=1, batch_size=16, workers=1, out=tmp_path / "run", **SIZES)
    rows = audit(pair.run, views=VIEWS).layers
    assert rows["layer"].iloc[-2:].tolist() == ["head", "loss"]
    assert rows["kind"].iloc[-2:].tolist() == ["head", "loss"]
    assert rows["layermem_calibrated"].notna().all()
    if objective == "dino":  # as memloc 0.1 wrote it
        head = tmp_path / "run/heads/f.safetensors"
        for name in "fg":
            old = pair.run.encoders[name].objective
            teacher = {f"teacher.{key}": value for key, value in pair.run.encoders[name].module.state_dict().items()}
            kept = {key: value for key, value in old.state_dict().items() if not key.startswith("student.")}
            head = tmp_path / f"run/heads/{name}.safetensors"
            _write(head, {**kept, **teacher})
        (tmp_path / "run/manifest.json").unlink()
        with pytest.warns(match="no manifest.json"):
            older = audit(tmp_path / "run", views=VIEWS)
        assert older.layers["layer"].iloc[-1] == "head"
        assert "does not hold all that its objective computes it from" in older.warnings[-1]


def _write(path, weights):
    class Plain(nn.Module):
        def state_dict(self):
            return weights

    save_weights(path, Plain(), {"format": "memloc"})


def test_labels_that_the_objective_asks_for(pixels):
    images = as_images(pixels, labels=[number % 3 for number in range(COUNT)])
    pair = train_pair(images, objective="supervised", epochs=1, batch_size=16, workers=1, **SIZES)
    for labels in (None, [-1] + [0] * (COUNT - 1), [7] + [0] * (COUNT - 1)):
        result = audit(pair.f, pair.g, images=pixels, splits=pair.splits, labels=labels, views=VIEWS)
        assert result.layers["layer"].iloc[-1] == "head"
        assert "not every point has one of its 3 classes" in result.warnings[-1]


def test_fewer_than_twenty_points_that_nobody_saw(pixels):
    splits = ["candidate"] * 20 + ["independent"] * 20 + ["external"] * 19
    nets = [load_encoder("resnet9") for _ in range(2)]
    result = audit(*nets, images=pixels[:59], splits=splits, views=VIEWS)
    assert "loss" not in set(result.layers["kind"])
    assert "there are 19, fewer than 20" in result.warnings[-1]
    enough = audit(*nets, images=pixels, splits=[*splits, "external"], views=VIEWS)
    assert enough.layers["layer"].iloc[-1] == "loss (NT-Xent, assumed)"


def test_heads_as_modules_and_as_files(tiny, gray, tmp_path):
    splits = ["candidate"] * 20 + ["external"] * 20
    heads = [mlp(5, seed=seed) for seed in (0, 1)]
    files = [tmp_path / f"{name}.safetensors" for name in "fg"]
    for path, head in zip(files, heads, strict=True):
        save_weights(path, head, {"format": "memloc"})
    nets, given = [tiny(0), tiny(1)], {"images": gray, "splits": splits, "views": VIEWS}
    before = [{name: value.clone() for name, value in head.state_dict().items()} for head in heads]
    one = audit(*nets, f_head=heads[0], g_head=heads[1], **given)
    two = audit(*nets, f_head=files[0], g_head=str(files[1]), **given)
    assert one.layers["layer"].tolist()[-3:] == [
        "projection head.0",
        "projection head",
        "loss (NT-Xent, assumed)",
    ]  # this net has a layer called head
    assert one.layers["layermem"].to_numpy() == pytest.approx(two.layers["layermem"].to_numpy(), abs=1e-6)
    assert all(torch.equal(value, head.state_dict()[name]) for head, kept in zip(heads, before, strict=True)
               for name, value in kept.items())  # fmt: skip
    with torch.no_grad():
        views = VIEWS.draw(torch.from_numpy(gray[:1]).permute(0, 3, 1, 2), torch.tensor([0]))[0]
        read = torch.nn.functional.normalize(heads[0](nets[0].eval()(views)), dim=1)
        apart = torch.cdist(read, read)[0::2, 1::2].mean()
    row = one.point_layers[(one.point_layers["layer"] == "projection head") & (one.point_layers["point"] == 0)]
    assert row["align_in"].item() == pytest.approx(float(apart), rel=1e-4)


def test_heads_that_do_not_fit(tiny, gray):
    splits = ["candidate"] * 20 + ["external"] * 20
    given = {"images": gray, "splits": splits, "views": VIEWS}
    with pytest.raises(EncoderError, match="takes 7 features and .* gives 5"):
        audit(tiny(0), tiny(1), f_head=mlp(7), g_head=mlp(7), **given)
    with pytest.raises(SpecError, match="there are 2 heads for 1 encoders of f"):
        audit(tiny(0), tiny(1), f_head=[mlp(5), mlp(5)], **given)
    with pytest.raises(EncoderError, match=r"differ: .*projection head \(6\) against .*projection head \(4\)"):
        audit(tiny(0), tiny(1), f_head=mlp(5), g_head=mlp(5, outputs=4), **given)
    one = audit(tiny(0), tiny(1), f_head=mlp(5), **given)
    assert "head" not in set(one.layers["kind"])
    assert any("has no head to read and others have one" in warning for warning in one.warnings)


def test_a_head_that_is_missing_from_a_run(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/heads/g.safetensors").unlink()
    with pytest.warns(match="is missing, so g is read without its head"):
        result = audit(tmp_path / "run", views=VIEWS)
    assert result.layers["layer"].iloc[-1] == "loss (NT-Xent, assumed)"


def test_a_reading_that_is_constant_has_no_score(tiny, gray):
    flat = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        flat[2].weight.zero_()
    splits = ["candidate"] * 20 + ["external"] * 20
    with pytest.warns(match="hardly differs between points"):
        result = audit(tiny(0), tiny(1), f_head=flat, g_head=flat, images=gray, splits=splits, views=VIEWS)
    at = result.point_layers[result.point_layers["layer"] == "projection head"]
    assert at["score"].isna().all()
    assert (at["sslmem"] == 0).all()
    assert result.layers.set_index("layer").loc["projection head", "layermem"] == 0
    assert result.record["reading"]["layer"] != "projection head"
    assert any("'projection head' hardly differs between points" in warning for warning in result.warnings)


class ChannelsLast(nn.Module):
    """Returns maps whose units are the last of four axes."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv, self.mix, self.norm = nn.Conv2d(1, 5, 3, stride=2), nn.Linear(5, 7), nn.LayerNorm(7)

    def forward(self, x):
        return self.norm(self.mix(torch.relu(self.conv(x)).permute(0, 2, 3, 1)))


def test_references_of_channels_last_maps_are_read_as_views_are(gray):
    splits = ["candidate"] * 15 + ["external"] * 25
    result = audit(ChannelsLast(0), ChannelsLast(1), images=gray, splits=splits, views=VIEWS, layers=["conv"])
    assert result.layers["kind"].iloc[-1] == "loss"
    assert result.layers["n_units"].tolist()[-2] == 7


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_a_users_head_keeps_its_type(tiny, gray, kind):
    splits = ["candidate"] * 15 + ["external"] * 25
    heads = [mlp(5).to(kind), mlp(5, seed=1).to(kind)]
    audit(tiny(0), tiny(1), f_head=heads[0], g_head=heads[1], images=gray, splits=splits, views=VIEWS)
    assert {value.dtype for head in heads for value in head.parameters()} == {kind}


def test_reliability_over_runs_is_none_where_nothing_is_memorized():
    """A point's own difficulty repeats in every run and is not reliability."""
    from memloc.engine._scores import difference, log_readings

    found = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        seen = np.stack([random.permutation(8) < 4 for _ in range(200)], axis=1)
        align = torch.from_numpy(np.exp(random.normal(0, 0.3, 200) + random.normal(0, 0.5, (8, 200))))
        job = _Job(torch.from_numpy(seen))
        logs = log_readings(job, align.T)
        halves = [difference(job, logs, torch.arange(8) % 2 == side) for side in (0, 1)]
        known = ~(halves[0].isnan() | halves[1].isnan())
        found.append(np.corrcoef(*(half[known].numpy() for half in halves))[0, 1])
    assert abs(np.mean(found)) < 3 * np.std(found) / 30**0.5


class _Job:
    """What scores ask of a job."""

    def __init__(self, seen):
        self.membership, self.target, self.reference, self.mode = seen, seen, ~seen, "ensemble"
        self.never = ~seen.any(dim=0)


def test_scores_of_unbalanced_memberships_have_one_scale():
    from memloc.engine._scores import _regression, log_readings
    from memloc.engine._scores import sides_of as sides

    random = np.random.default_rng(0)
    seen = random.random((8, 4000)) < 0.5
    seen[0], seen[1], seen[:, 2000:] = True, False, False
    job = _Job(torch.from_numpy(seen))
    job.target = torch.from_numpy(np.concatenate([seen[:, :2000], seen[:, :2000]], axis=1))  # placebo
    job.reference, job.options = ~job.target, type("Options", (), {"seed": 0})
    align = torch.from_numpy(np.exp(random.normal(0, 0.3, 4000) + random.normal(0, 0.3, (8, 4000))))
    logs = log_readings(job, align.T)
    score = _regression(job, logs).score(*sides(job, logs))[:2000]
    count = seen[:, :2000].sum(axis=0)
    by_count = [float(score[torch.from_numpy(count == number)].std()) for number in (2, 4, 6)]
    assert by_count == pytest.approx([1, 1, 1], abs=0.12)


def test_an_encoder_alone_has_scores_where_there_are_points_it_never_saw(run):
    opened = memloc.open_run(run)
    images = np.load(run / "images.npz")["images"]
    splits = opened.points["split"].replace({"independent": "external"}).tolist()
    result = audit(opened.encoders["f"], images=images, splits=splits, views=VIEWS)
    assert result.points["score"].notna().all()
    assert result.points["evidence"].notna().all()
    assert "cannot be looked at" in result.record["naming"]["reason"]  # of too few candidates
    assert (result.layers["reference_slope"] == 0).all()
    head = result.point_layers[result.point_layers["layer"] == "head"].merge(result.points[["point", "split"]])
    align = head["align_in"].fillna(head["align_out"])
    assert head["score"].corr(-np.log(align)) > 0.99


def test_points_intervals_follow_from_the_views(run):
    """The score of other views lies within the interval about as often as it says, for one pair; the scale of scores
    comes from thirty points that nobody saw and varies besides."""
    inside = []
    recipes = [Views(n=8, seed=seed, sampling="independent") for seed in range(4)]
    found = [audit(run, views=recipe).points for recipe in recipes]
    truth = sum(points["score"] for points in found) / len(found)
    for points in found:
        width = (points["score_high"] - points["score_low"]) / 2
        assert (width > 0).all()
        inside.append(((points["score"] - truth).abs() < width * (1 - 1 / len(found)) ** 0.5).mean())
    assert 0.8 < np.mean(inside) < 0.99


def test_a_float64_audit_leaves_the_users_modules(run):
    opened = memloc.open_run(run)
    images = np.load(run / "images.npz")["images"]
    result = audit(
        opened.encoders["f"], opened.encoders["g"], images=images, splits=opened.points["split"].tolist(), views=VIEWS,
        dtype="float64",
    )  # fmt: skip
    assert {value.dtype for value in opened.encoders["f"].objective.parameters()} == {torch.float32}
    assert result.layers["layer"].iloc[-1] == "loss"


def test_with_head_reads_a_head_like_any_net(tiny):
    encoder = with_head(load_encoder(tiny(0), shape=(1, 8, 8)), mlp(5))
    assert [(row.name, row.read_at, row.units) for row in encoder.rows[-2:]] == [
        ("projection head.0", "head.2", 9),
        ("projection head", "head", 6),
    ]
