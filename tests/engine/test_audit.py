"""The audit: laws, equality with a slow loop, modes, resuming, and messages."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import few_draws

import memloc
from memloc import Views, audit
from memloc.data import as_images
from memloc.engine import audit_shard, prepare
from memloc.errors import DataError, EncoderError, LayerNotFoundError, NonFiniteError, ResultsError, SpecError
from memloc.metrics import pairwise_alignment, sslmem, unitmem

VIEWS = Views("normal", n=8, seed=3)
TABLES = ("points", "point_layers", "layers", "units")


@pytest.fixture
def pair(tiny):
    return tiny(0), tiny(1)


def leads(pair, gray, four_splits):
    """By how much each unit's strongest trained point leads over the second, in the order of the units table."""
    job = prepare(*pair, images=gray, splits=four_splits, views=VIEWS, rest="median")
    mu = audit_shard(job, slice(0, len(job.images))).activations["trained"]
    first, second = mu.topk(2, dim=0).values
    return (first - second).numpy()


def frames_agree(one, two, tolerance, lead):
    """Every figure within the tolerance, and the memorized point wherever its lead over the second exceeds it."""
    for name in TABLES:
        a, b = getattr(one, name), getattr(two, name)
        if name == "units":
            clear = lead > tolerance
            assert clear.sum() > len(clear) / 2
            assert (a["point"] == b["point"])[clear].all()
            a, b = a.drop(columns="point"), b.drop(columns="point")
        if name == "points":
            assert clear_counts(one, lead, tolerance).equals(clear_counts(two, lead, tolerance))
            a, b = a.drop(columns="n_units"), b.drop(columns="n_units")
        pd.testing.assert_frame_equal(a, b, check_exact=False, rtol=0, atol=tolerance)


def clear_counts(found, lead, tolerance):
    """How many units each point drives, of those whose lead exceeds the tolerance."""
    return found.units["point"][lead > tolerance].value_counts().sort_index()


@pytest.mark.parametrize("sampling", ["sobol", "independent"])
def test_every_table_against_a_slow_loop(pair, gray, four_splits, sampling):
    """One point at a time, from the formulas alone."""
    f, g = (net.double() for net in pair)
    views = Views("normal", n=6, seed=3, sampling=sampling)
    labels = np.arange(40) % 3
    found = audit(f, g, images=gray, splits=four_splits, labels=labels, views=views, dtype="float64", shard_size=16)
    pairs = "cross" if sampling == "sobol" else "all"
    align = {}
    means = {name: [] for name in ("conv1", "conv2", "output")}
    for point in range(40):
        image = torch.from_numpy(gray[point : point + 1]).permute(0, 3, 1, 2)
        drawn = views.draw(image, torch.tensor([point]))[0].double()
        for side, net in (("f", f.eval()), ("g", g.eval())):
            with torch.no_grad():
                one = torch.relu(net.norm1(net.conv1(drawn)))
                two = torch.relu(net.conv2(one))
                out = net.head(two.mean(dim=(2, 3)))
            for name, reading in (("conv1", one), ("conv2", two), ("output", out)):
                align[side, name, point] = float(pairwise_alignment(reading[None], pairs=pairs))
                if side == "f":
                    active = reading.clamp_min(0)
                    means[name].append((active.mean(dim=(2, 3)) if active.ndim == 4 else active).mean(dim=0))
    score = {
        name: np.array(
            [
                float(sslmem(*(torch.tensor(align[side, name, p], dtype=torch.float64) for side in "fg")))
                for p in range(40)
            ]
        )
        for name in means
    }
    split = np.array(four_splits)
    points = found.points.set_index("point")
    assert points["sslmem"].to_numpy() == pytest.approx(score["output"], abs=1e-9)
    assert points["sslmem_raw"].to_numpy() == pytest.approx(
        [align["g", "output", p] - align["f", "output", p] for p in range(40)], abs=1e-9
    )
    of_candidates = points.loc[points["split"] == "candidate", "sslmem_raw"]
    span = of_candidates.max() - of_candidates.min()
    assert points["sslmem_range"].to_numpy() == pytest.approx((points["sslmem_raw"] / span).to_numpy(), abs=1e-12)
    layers = found.layers.set_index("layer")
    trained = np.isin(split, ("candidate", "shared"))
    for name in means:
        row = layers.loc[name]
        assert row["layermem"] == pytest.approx(score[name][split == "candidate"].mean(), abs=1e-9)
        assert row["layermem_external"] == pytest.approx(score[name][split == "external"].mean(), abs=1e-9)
        half = (score[name][split == "candidate"].mean() - score[name][split == "independent"].mean()) / 2
        assert row["layermem_calibrated"] == pytest.approx(half, abs=1e-9)
        mu = torch.stack(means[name])[trained]
        dense = unitmem(mu)
        units = found.units[found.units["layer"] == name]
        assert units["unitmem"].to_numpy() == pytest.approx(dense.value.numpy(), abs=1e-6)
        assert units["point"].tolist() == np.flatnonzero(trained)[dense.point.numpy()].tolist()
        of_class = torch.stack([mu[labels[trained] == label].mean(0) for label in range(3)])
        best = of_class.amax(0)
        rest = (of_class.sum(0) - best) / 2
        expected = torch.where(best + rest > 0, (best - rest) / (best + rest), 0.0)
        assert units["classmem"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    own = score["output"][split == "candidate"].mean() - score["output"][split == "external"].mean()
    assert layers.loc["output", "layermem_own"] == pytest.approx(own, abs=1e-9)
    align_in = points["align_in"].to_numpy()
    expected = [
        np.mean([align[side, "output", p] for side in sides])
        if (sides := [s for s, seen in (("f", trained[p]), ("g", split[p] in ("independent", "shared"))) if seen])
        else np.nan
        for p in range(40)
    ]
    assert align_in == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("rest", ["mean", "median"])
def test_batch_size_equivalence(pair, gray, four_splits, rest):
    whole = audit(*pair, images=gray, splits=four_splits, views=VIEWS, batch_size=64, rest=rest)
    lead = leads(pair, gray, four_splits)
    for batch in (1, 7):
        other = audit(*pair, images=gray, splits=four_splits, views=VIEWS, batch_size=batch, rest=rest)
        frames_agree(whole, other, 1e-5, lead)


@pytest.mark.parametrize("rest", ["mean", "median"])
def test_partition_equivalence(pair, gray, four_splits, rest):
    whole = audit(*pair, images=gray, splits=four_splits, views=VIEWS, rest=rest)
    lead = leads(pair, gray, four_splits)
    for size in (1, 7, 64):
        other = audit(*pair, images=gray, splits=four_splits, views=VIEWS, shard_size=size, rest=rest)
        frames_agree(whole, other, 1e-5, lead)


def test_order_equivalence(pair, gray, four_splits):
    whole = audit(*pair, images=gray, splits=four_splits, views=VIEWS)
    order = np.random.default_rng(0).permutation(40)
    turned = audit(
        *pair, images=gray[order], points=order.tolist(), splits=[four_splits[row] for row in order], views=VIEWS
    )
    frames_agree(whole, turned, 1e-5, leads(pair, gray, four_splits))


def test_an_interrupted_audit_resumes_bit_equal(pair, gray, four_splits, tmp_path, monkeypatch):
    import memloc.engine._run as engine

    arguments = {"images": gray, "splits": four_splits, "views": VIEWS, "shard_size": 8}
    whole = audit(*pair, **arguments, out=tmp_path / "whole")
    calls = []

    def stop_at_third(job, shard):
        calls.append(shard)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return audit_shard(job, shard)

    monkeypatch.setattr(engine, "audit_shard", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        audit(*pair, **arguments, out=tmp_path / "broken")
    assert not (tmp_path / "broken/audit.json").exists()
    assert not list((tmp_path / "broken").glob("*.parquet"))
    monkeypatch.setattr(engine, "audit_shard", lambda job, shard: (calls.append(shard), audit_shard(job, shard))[1])
    resumed = audit(*pair, **arguments, out=tmp_path / "broken")
    assert len(calls) == 3 + 3  # two of five shards were kept
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(resumed, name), check_exact=True)
        pd.testing.assert_frame_equal(
            getattr(memloc.Audit.load(tmp_path / "broken"), name), getattr(resumed, name), check_exact=True
        )


def test_a_folder_is_continued_refused_or_replaced(pair, gray, four_splits, tmp_path):
    arguments = {"images": gray, "splits": four_splits}
    one = audit(*pair, **arguments, views=VIEWS, out=tmp_path / "a")
    again = audit(*pair, **arguments, views=VIEWS, out=tmp_path / "a")
    pd.testing.assert_frame_equal(one.points, again.points)
    with pytest.raises(ResultsError, match="holds the work of other settings"):
        audit(*pair, **arguments, views=Views(n=4), out=tmp_path / "a")
    other = audit(*pair, **arguments, views=Views(n=4), out=tmp_path / "a", overwrite=True)
    assert not other.points["sslmem"].equals(one.points["sslmem"])


def test_f_against_itself_is_zero(pair, gray, four_splits):
    found = audit(pair[0], pair[0], images=gray, splits=four_splits, views=VIEWS)
    assert (found.point_layers["sslmem"] == 0).all()
    assert (found.points["sslmem_pairwise"] == 0).all()


def test_swapping_f_and_g_negates_every_score(pair, gray, four_splits):
    one = audit(*pair, images=gray, splits=four_splits, views=VIEWS)
    two = audit(*reversed(pair), images=gray, splits=four_splits, views=VIEWS)
    for column in ("sslmem", "sslmem_raw", "sslmem_pairwise"):
        assert (one.points[column] == -two.points[column]).all()


def test_unitmem_does_not_change_with_scale(gray, tiny):
    net, scaled = tiny(0), tiny(0)
    scaled.head.weight.data *= 7
    scaled.head.bias.data *= 7
    one, two = (
        audit(each, images=gray, views=VIEWS, layers=["head"]).units["unitmem"].to_numpy() for each in (net, scaled)
    )
    assert one == pytest.approx(two, abs=1e-6)


def test_delta_sums_back_to_layermem(pair, gray, four_splits):
    layers = audit(*pair, images=gray, splits=four_splits, views=VIEWS).layers
    for figure, delta in (("layermem", "delta"), ("layermem_calibrated", "delta_calibrated")):
        assert layers[figure].iloc[0] + layers[delta].iloc[1:].sum() == pytest.approx(
            layers[figure].iloc[-1], abs=1e-12
        )


def test_standard_errors_are_those_of_means_over_points(pair, gray, four_splits):
    """Bootstrap errors against s / sqrt(n), of figures that are means over points or differences of them."""
    found = audit(*pair, images=gray, splits=four_splits, views=VIEWS)
    score = found.point_layers.pivot(index="point", columns="layer", values="sslmem")
    split = found.points.set_index("point")["split"]

    def error(values):
        return values.std(ddof=0) / len(values) ** 0.5

    for row in found.layers.itertuples():
        own = score[row.layer]
        parts = {name: error(own[split == name]) for name in set(four_splits)}
        assert row.se == pytest.approx(parts["candidate"], rel=0.1)
        assert row.external_se == pytest.approx(parts["external"], rel=0.1)
        assert row.own_se == pytest.approx((parts["candidate"] ** 2 + parts["external"] ** 2) ** 0.5, rel=0.15)
        if isinstance(row.predecessor, str):
            step = own - score[row.predecessor]
            assert row.delta_se == pytest.approx(error(step[split == "candidate"]), rel=0.1)
            halves = [error(step[split == name]) / 2 for name in ("candidate", "independent")]
            assert row.delta_calibrated_se == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5, rel=0.15)


def test_a_pair_is_the_special_case_of_an_ensemble(pair, gray, four_splits):
    split = np.array(four_splits)
    seen = np.stack([np.isin(split, ("candidate", "shared")), np.isin(split, ("independent", "shared"))])
    one = audit(*pair, images=gray, splits=four_splits, views=VIEWS).layers
    two = audit(encoders=list(pair), membership=seen, splits=four_splits, images=gray, views=VIEWS).layers
    for column in ("layermem_calibrated", "calibrated_se", "calibrated_low", "calibrated_high", "unitmem_mean"):
        assert one[column].to_numpy() == pytest.approx(two[column].to_numpy(), abs=1e-12)


def test_ensembles_score_points_both_ways(gray, tiny):
    seen = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[:, 39] = False
    seen[0, :39], seen[1, :39] = True, False
    found = audit(encoders=[tiny(seed) for seed in range(6)], membership=seen, images=gray, views=VIEWS)
    assert found.points["split"].tolist() == ["candidate"] * 39 + ["external"]
    scored = found.points.iloc[:39]
    expected = (scored["align_out"] - scored["align_in"]) / (scored["align_out"] + scored["align_in"])
    assert scored["sslmem"].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-12)
    assert np.isfinite(found.points["sslmem"].iloc[39])  # what chance gives: scored with another point's membership
    assert found.layers["auroc"].between(0.2, 0.8).all()
    assert found.layers["reliability_runs"].notna().all()


def test_points_that_no_encoder_saw_are_scored_as_chance_gives(gray, tiny):
    seen = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[0, :20], seen[1, :20], seen[:, 20:] = True, False, False
    job = prepare(encoders=[tiny(seed) for seed in range(6)], membership=seen, images=gray, views=VIEWS, seed=5)
    patterns = {tuple(column) for column in seen[:, :20].T.tolist()}
    assert torch.equal(job.target[:, :20], seen[:, :20])
    assert {tuple(column) for column in job.target[:, 20:].T.tolist()} <= patterns
    found = audit(encoders=list(job.encoders), membership=seen, images=gray, views=VIEWS, seed=5)
    align = audit_shard(replace(job, loss=None), slice(0, 40)).points.columns["align"][20:, -1]  # (point, encoder)
    chosen = job.target[:, 20:].T
    inside, outside = ((align * side).sum(1) / side.sum(1) for side in (chosen, ~chosen))
    expected = (outside - inside) / (outside + inside)
    assert found.points["sslmem"].iloc[20:].to_numpy() == pytest.approx(expected.numpy(), abs=1e-9)
    assert found.points["p_value"].iloc[:20].between(0, 1).all()
    assert found.points["align_in"].iloc[20:].isna().all()
    assert 0 <= found.layers["excess_low"].iloc[-1] <= 1


def test_several_runs_give_both_reliabilities(gray, four_splits, tiny):
    with few_draws():
        found = audit(
            [tiny(0), tiny(2), tiny(4)], [tiny(1), tiny(3), tiny(5)], images=gray, splits=four_splits, views=VIEWS
        )
    assert found.layers[["reliability_views", "reliability_runs"]].notna().all().all()
    one = audit(tiny(0), tiny(1), images=gray, splits=four_splits, views=VIEWS)
    assert one.layers["reliability_runs"].isna().all()
    assert (
        audit(tiny(0), tiny(1), images=gray, splits=four_splits, views=Views(n=2))
        .layers["reliability_views"]
        .isna()
        .all()
    )


def test_f_alone_gives_the_alignment_gap(gray, tiny):
    net = tiny(0)
    splits = ["candidate"] * 25 + ["external"] * 15
    found = audit(net, images=gray, splits=splits, views=VIEWS)
    rows = found.point_layers.merge(found.points[["point", "split"]])
    output = rows[rows["layer"] == "output"]
    gap = (
        output.loc[output["split"] == "external", "align_out"].mean()
        - output.loc[output["split"] == "candidate", "align_in"].mean()
    )
    layer = found.layers.set_index("layer").loc["output"]
    assert layer["alignment_gap"] == pytest.approx(gap, abs=1e-12)
    assert layer["gap_low"] < gap < layer["gap_high"]
    parts = [
        output.loc[output["split"] == split, column].std(ddof=0) / number**0.5
        for split, column, number in (("external", "align_out", 15), ("candidate", "align_in", 25))
    ]
    assert layer["gap_se"] == pytest.approx((parts[0] ** 2 + parts[1] ** 2) ** 0.5, rel=0.1)
    assert found.points["sslmem"].isna().all()
    assert "no reference" in found.warnings[-2]
    assert found.warnings[-1].startswith("There is no row for the training loss: a point's own loss compares it with")
    nothing = audit(net, images=gray, views=VIEWS)
    assert "alignment_gap" not in nothing.layers
    assert nothing.units["unitmem"].between(0, 1).all()


def test_auto_views_are_a_power_of_two_that_suffices(pair, gray, four_splits):
    found = audit(*pair, images=gray, splits=four_splits, views=Views(n="auto"))
    count = found.record["views"]["n"]
    assert count in (4, 8, 16, 32, 64)
    last = found.layers.iloc[-1]["reliability_views"]
    assert last >= 0.75 or count == 64


def test_shared_points_are_sampled(tiny):
    images = np.random.default_rng(1).integers(0, 256, (1300, 8, 8), dtype=np.uint8)
    job = prepare(
        tiny(0),
        tiny(1),
        images=images,
        splits=["shared"] * 1200 + ["candidate"] * 50 + ["independent"] * 50,
        views=VIEWS,
    )
    assert {name: int((job.split == name).sum()) for name in ("shared", "candidate", "independent")} == {
        "shared": 1000,
        "candidate": 50,
        "independent": 50,
    }


def test_the_users_modules_are_left_as_they_were(pair, gray, four_splits):
    f, g = pair
    f.train()
    before = {key: value.clone() for key, value in f.state_dict().items()}
    audit(f, g, images=gray, splits=four_splits, views=VIEWS)
    assert f.training
    assert f.norm1.training
    assert all(torch.equal(value, before[key]) for key, value in f.state_dict().items())
    assert not any(part._forward_hooks for part in f.modules())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1] * 19 + [0, 2], "The class '2' has one image that was trained on"),
        ([0, 1] * 18 + [2, 3, 0, 0], "2 classes, such as '2', have one image"),
        ([5] * 40, "are of one class, so ClassMem contrasts it with nothing"),
        ([0, 1] * 20, None),
    ],
)
def test_classes_that_say_little_are_named(tiny, gray, labels, said):
    found = audit(tiny(0), images=as_images(gray, labels=labels), views=Views(n=2)).warnings
    told = [text for text in found if "class" in text]
    assert (told == []) if said is None else (said in told[0])


def test_warnings_reach_the_record(pair, gray, four_splits):
    images = gray.copy()
    images[39] = images[0]
    with pytest.warns(memloc.MemlocWarning, match="identical copies"):
        found = audit(*pair, images=images, splits=four_splits, views=VIEWS)
    assert any("identical copies, such as 0 and 39" in text for text in found.warnings)
    assert any("augmentation that TinyNet was trained with is unknown" in text for text in found.warnings)


def test_peak_memory_does_not_grow_with_points(tiny):
    """States of twice the points are as large as those of one shard, tables aside."""
    images = np.random.default_rng(1).integers(0, 256, (96, 8, 8), dtype=np.uint8)
    job = prepare(
        tiny(0), tiny(1), images=images, splits=["candidate"] * 48 + ["independent"] * 48, views=VIEWS, batch_size=16
    )
    small, large = audit_shard(job, slice(0, 16)), audit_shard(job, slice(0, 96))
    for group, states in small.units.items():
        for name, state in states.items():
            assert state.total.shape == large.units[group][name].total.shape
    assert not large.activations


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": ["conv9"]}, LayerNotFoundError, "Nearest: 'conv2'"),
        ({"splits": ["candidate"] * 39}, DataError, "39 names for 40 images"),
        ({"splits": ["candidat"] * 40}, DataError, "Nearest: 'candidate'"),
        ({"splits": ["external"] * 40}, DataError, "there are no candidates"),
        ({"labels": [0, 1]}, DataError, "one label per image"),
        ({"distance": "l7"}, SpecError, "Expected one of l2"),
        ({"rest": "mode"}, SpecError, "Expected one of mean, median"),
        ({"batch_size": 0}, SpecError, "batch_size is 0"),
        ({"btach_size": 3}, TypeError, "unexpected keyword argument 'btach_size'"),
        ({"device": "tpu"}, SpecError, "there is no device 'tpu'"),
        ({"views": Views(size=16)}, DataError, "smaller than a view"),
        ({"membership": torch.ones(2, 40)}, SpecError, "goes with encoders"),
        ({"images": np.zeros((1, 8, 8), np.uint8)}, SpecError, "at least two points"),
    ],
)
def test_messages_before_work_starts(pair, gray, arguments, error, message):
    with pytest.raises(error, match=message):
        audit(*pair, **{"images": gray, "views": VIEWS, **arguments})


def test_an_unknown_option_of_prepare_is_named_with_the_nearest(pair, gray):
    with pytest.raises(SpecError, match="Nearest: 'batch_size'"):
        prepare(*pair, images=gray, views=VIEWS, btach_size=3)


def test_more_messages(pair, gray, tiny, monkeypatch):
    with pytest.raises(EncoderError, match="Expected one architecture"):
        audit(tiny(0), torch.nn.Sequential(torch.nn.Conv2d(1, 6, 3)), images=gray)
    with pytest.raises(SpecError, match="either f"):
        audit(images=gray)
    with pytest.raises(SpecError, match="without membership"):
        audit(encoders=[tiny(0), tiny(1)], images=gray)
    with pytest.raises(SpecError, match="one row per encoder"):
        audit(encoders=[tiny(0), tiny(1)], membership=torch.ones(40, 2), images=gray)
    with pytest.raises(DataError, match="nothing can be compared"):
        audit(encoders=[tiny(0), tiny(1)], membership=torch.ones(2, 40), images=gray)

    class Explodes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 3, 3)

        def forward(self, x):
            return self.conv(x) / x.sum().clamp(max=0)

    for at_hand in (True, False):  # a GPU is not waited for, and says so at the end of a shard
        monkeypatch.setattr("memloc.engine._shard.is_at_hand", lambda _, found=at_hand: found)
        with pytest.raises(NonFiniteError, match="layer 'output' of Explodes gives NaN or Inf"):
            audit(Explodes(), images=gray, views=VIEWS)


def test_labels_and_names_are_part_of_what_is_audited(pair, gray, four_splits, tmp_path):
    audit(*pair, images=gray, splits=four_splits, views=VIEWS, out=tmp_path / "a")
    with pytest.raises(ResultsError, match="described"):
        audit(*pair, images=gray, labels=[0, 1] * 20, splits=four_splits, views=VIEWS, out=tmp_path / "a")


def test_class_numbers_may_be_large(pair, gray):
    small = audit(pair[0], images=gray, labels=np.arange(40) % 3, views=VIEWS)
    large = audit(pair[0], images=gray, labels=np.array([5, 70, 10**9])[np.arange(40) % 3], views=VIEWS)
    assert small.units["classmem"].equals(large.units["classmem"])
    assert set(large.units["class"]) <= {5, 70, 10**9}


def test_copies_in_other_training_sets_of_an_ensemble_are_found(gray, tiny):
    images = gray.copy()
    images[39] = images[0]
    seen = torch.rand(4, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[0, :], seen[1, :], seen[3, 39] = True, False, ~seen[3, 0]
    with pytest.warns(memloc.MemlocWarning, match="different training sets"):
        audit(encoders=[tiny(seed) for seed in range(4)], membership=seen, images=images, views=VIEWS)


def test_median_control_is_a_median_too(pair, gray, four_splits):
    found = audit(*pair, images=gray, splits=four_splits, views=VIEWS, rest="median")
    splits = ["candidate" if split == "shared" else split for split in four_splits]
    members = [row for row, split in enumerate(splits) if split == "candidate"]
    assert len(members) > 10  # more members than external points, so a seeded sample of them is compared
    assert not np.allclose(found.layers["unitmem_equal_mean"], found.layers["unitmem_mean"])


def test_more_mistakes_before_work_starts(pair, gray, tiny):
    from memloc.encoders import ResNet9

    rgb = np.zeros((10, 32, 32, 3), np.uint8)
    with pytest.raises(EncoderError, match="takes 1 channel and the images have 3"):
        audit(ResNet9(1), images=rgb)
    with pytest.raises(SpecError, match="there are no encoders"):
        audit([], images=gray)
    with pytest.raises(DataError, match="there is 1 candidate"):
        audit(*pair, images=gray, splits=["candidate"] + ["independent"] * 39)
    with pytest.raises(DataError, match="was trained on 0 of the points"):
        audit(encoders=[tiny(0), tiny(1)], membership=np.stack([np.zeros(40), np.ones(40)]), images=gray)
    with pytest.raises(SpecError, match=r"Pass views=Views\(n=16\)"):
        audit(pair[0], images=gray, views=Views(n="auto"))


class Headed(torch.nn.Module):
    """A convolution with its norm, and a head; parts may belong to several such nets."""

    def __init__(self, conv, norm, head):
        super().__init__()
        self.conv, self.norm, self.act, self.head = conv, norm, torch.nn.ReLU(), head

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x))).mean(dim=(2, 3)))


@pytest.mark.parametrize("share", ["convolution", "backbone"])
def test_encoders_that_share_parts_score_as_their_copies(gray, four_splits, share):
    torch.manual_seed(0)
    conv, norms = torch.nn.Conv2d(1, 6, 3), [torch.nn.BatchNorm2d(6) for _ in range(2)]
    for norm in norms:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.2, 2)
    heads = [torch.nn.Linear(6, 4) for _ in range(2)]
    nets = [Headed(conv, norms[0 if share == "backbone" else side], heads[side]) for side in (0, 1)]
    copies = [copy.deepcopy(net) for net in nets]
    layers = ["norm", "head"]
    one, two = (audit(*pair, images=gray, splits=four_splits, views=VIEWS, layers=layers) for pair in (nets, copies))
    for table, column in (("layers", "layermem"), ("point_layers", "sslmem"), ("units", "unitmem")):
        scores = [getattr(found, table)[column].to_numpy() for found in (one, two)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_points_that_every_encoder_saw_are_shared(gray, tiny):
    seen = torch.rand(4, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    seen[:, 10:12], seen[0, :10], seen[1, :10] = True, True, False
    found = audit(encoders=[tiny(seed) for seed in range(4)], membership=seen, images=gray, views=VIEWS)
    assert found.points.set_index("point").loc[[10, 11], "split"].tolist() == ["shared", "shared"]
    assert found.layers["n_points"].iloc[0] == (seen.any(0) & ~seen.all(0)).sum()


def test_a_pair_as_an_ensemble_has_the_same_chance_scores(pair, gray, four_splits):
    """Never-seen points take a candidate's membership, so for K = 2 they are scored as f against g."""
    split = np.array(four_splits)
    seen = np.stack([np.isin(split, ("candidate", "shared")), np.isin(split, ("independent", "shared"))])
    one = audit(*pair, images=gray, splits=four_splits, views=VIEWS)
    two = audit(encoders=list(pair), membership=seen, splits=four_splits, images=gray, views=VIEWS)
    for split in ("candidate", "external"):
        scores = [found.points.loc[found.points["split"] == split, "sslmem"].to_numpy() for found in (one, two)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-12)
    assert one.layers["layermem_own"].to_numpy() == pytest.approx(two.layers["layermem_own"].to_numpy(), abs=1e-12)


def test_runs_of_an_ensemble_are_resampled(gray, tiny):
    """The encoders of an ensemble differ, so drawing others moves its uncalibrated mean by more than drawing other points."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.stack([torch.rand(8, generator=generator).argsort() < 4 for _ in range(40)], dim=1)
    found = audit(encoders=[tiny(seed) for seed in range(8)], membership=seen, images=gray, views=VIEWS)
    points = found.point_layers.groupby("layer", sort=False)["sslmem"].std().to_numpy() / 40**0.5
    assert (found.layers["se"].to_numpy() > 1.2 * points).all()
    assert (found.layers["low"] < found.layers["layermem"]).all()
    assert (found.layers["layermem"] < found.layers["high"]).all()
    few = audit(encoders=[tiny(seed) for seed in range(4)], membership=seen[:4], images=gray, views=VIEWS)
    kept = few.point_layers[few.point_layers["point"].isin(few.points.loc[few.points["split"] == "candidate", "point"])]
    points = (
        kept.groupby("layer", sort=False)["sslmem"].agg(lambda values: values.std() / len(values) ** 0.5).to_numpy()
    )
    assert few.layers["se"].to_numpy() == pytest.approx(points, rel=0.1)  # too few runs to resample


def test_one_external_point_has_no_interval(pair, gray, four_splits):
    splits = [
        "external" if number == 39 else "candidate" if split == "external" else split
        for number, split in enumerate(four_splits)
    ]
    found = audit(*pair, images=gray, splits=splits, views=VIEWS).layers
    assert found[["external_se", "external_low", "own_se", "own_low"]].isna().all().all()


def test_extremes_are_ranked_on_one_half_of_the_views_and_scored_on_the_other(pair, gray, four_splits):
    half = audit_shard(prepare(*pair, images=gray, splits=four_splits, views=VIEWS), slice(0, 40)).points.columns[
        "half"
    ]
    f, g = half[:12, :, 0], half[:12, :, 1]  # (candidate, layer, half)
    score = ((g - f) / (g + f)).numpy()
    layers = audit(*pair, images=gray, splits=four_splits, views=VIEWS).layers
    for number, row in enumerate(layers.itertuples()):
        orders = [np.argsort(score[:, number, ranked], kind="stable") for ranked in (0, 1)]
        least, top = (  # a quarter of twelve
            np.mean([score[order[part], number, 1 - ranked].mean() for ranked, order in enumerate(orders)])
            for part in (slice(None, 3), slice(-3, None))
        )
        assert row.layermem_least == pytest.approx(least, abs=1e-12)
        assert row.layermem_top == pytest.approx(top, abs=1e-12)


def test_as_many_external_points_enter_unitmem_as_trained_ones(pair, gray):
    splits = ["candidate"] * 6 + ["independent"] * 6 + ["external"] * 28
    groups = prepare(*pair, images=gray, splits=splits, views=VIEWS).groups
    assert {name: int(member.sum()) for name, member in groups.items()} == {
        "trained": 6, "trained_equal": 6, "external_equal": 6,
    }  # fmt: skip
    assert groups["trained"][:6].all()
    assert groups["external_equal"][12:].sum() == 6
