"""What each intervention changes, and that it changes nothing else."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import tiny_net
from torch import nn

from memloc import Views, as_images, audit, load_encoder, load_run, open_images, train_ensemble, train_pair
from memloc.encoders import Layer, fingerprint, layer_parts, tapped, unit_means
from memloc.errors import DataError, EncoderError, LayerNotFoundError, ResultsError, SpecError
from memloc.interventions import (
    choose_layers,
    choose_points,
    choose_units,
    finetune_layers,
    insert_point,
    intervene,
    prune_units,
    remove_points,
    replace_layers,
)
from memloc.metrics import unitmem

VIT = "hf:vit,hidden_size=24,num_hidden_layers=2,num_attention_heads=2,intermediate_size=48,image_size=16,patch_size=4"


def state(encoder):
    return {name: value.clone() for name, value in encoder.module.state_dict().items()}


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def different(seed):
    torch.manual_seed(seed)
    encoder = load_encoder("resnet9")
    for part in encoder.module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # running statistics are those of the images below
            nn.init.normal_(part.bias, std=0.3)
    with torch.no_grad():
        encoder.module.train()(labelled(32, side=32).pixels.float() / 255)
    encoder.module.eval()
    return encoder


def labelled(count, seed=0, classes=2, side=16, channels=3):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = random.integers(0, 120, (count, side, side, channels)) + 120 * labels[:, None, None, None]
    return as_images(pixels.astype(np.uint8), labels=labels)


def test_the_parts_of_resnet9_are_its_convolutions_with_their_batch_norms():
    found = layer_parts(load_encoder("resnet9"))
    assert list(found) == ["conv1", "conv2_0", "conv2_1", "conv2_2", "conv3", "conv4_0", "conv4_1", "conv4_2"]
    assert all(parts.modules == (f"{name}.conv", f"{name}.norm") for name, parts in found.items())


def test_the_parts_of_a_plain_net_and_of_a_vit():
    tiny = layer_parts(load_encoder(tiny_net(0), shape=(1, 8, 8)))
    assert {name: parts.norm for name, parts in tiny.items()} == {"conv1": "norm1", "conv2": None, "head": None}
    vit = load_encoder(VIT, weights="random")
    found = layer_parts(vit)
    modules = dict(vit.module.named_modules())
    for name, parts in found.items():
        assert modules[parts.makes].weight.shape[0] == 24, name
    assert {parts.layer.kind for parts in found.values()} == {"patch embedding", "attention", "fully-connected"}
    assert len(found) == 5


def test_parts_of_torchvision_nets_find_batch_norms_by_what_follows_what(torchvision):
    found = layer_parts(load_encoder("torchvision:resnet18", weights="random"))
    assert found["conv1"].norm == "bn1"
    assert found["layer2.0.conv2"].norm == "layer2.0.bn2"


def test_layers_without_weights_are_refused_by_name():
    encoder = load_encoder("resnet9")
    with pytest.raises(EncoderError, match="residual row without weights"):
        layer_parts(encoder, ["res6"])
    with pytest.raises(LayerNotFoundError, match="Nearest: 'conv4_2'"):
        layer_parts(encoder, ["conv4_22"])


def test_replacing_changes_these_layers_and_no_other():
    f, other = different(0), different(1)
    before = state(f)
    result = replace_layers(f, other, ["conv3", "conv4_2"])
    assert changed(before, state(f)) == set()
    after, theirs = state(result), state(other)
    named = {name for name in after if name.startswith(("conv3.", "conv4_2."))}
    assert changed(before, after) <= named
    assert all(torch.equal(after[name], theirs[name]) for name in named)
    assert any("running_mean" in name for name in changed(before, after))


def test_replacing_all_layers_gives_the_other_encoder():
    f, other = different(0), different(1)
    images = torch.rand(2, 3, 32, 32)
    result = replace_layers(f, other, list(layer_parts(f)))
    assert torch.equal(result.module.eval()(images), other.module.eval()(images))
    assert torch.equal(replace_layers(f, f, ["conv3"]).module.eval()(images), f.module.eval()(images))


def test_replacing_needs_one_architecture_and_a_name():
    with pytest.raises(EncoderError, match="Expected one architecture"):
        replace_layers(load_encoder("resnet9"), load_encoder("resnet18"), ["conv1"])
    with pytest.raises(LayerNotFoundError, match="no layer is named"):
        replace_layers(different(0), different(1), [])


def clothes(count, side=28):
    """Images of the sample, their middle."""
    images = open_images("sample:train").take(torch.arange(count))
    start = (28 - side) // 2 if side < 28 else 0
    pixels = images.pixels[:, :, start : start + side, start : start + side] if side < 28 else images.pixels
    return as_images(pixels, points=images.ids, labels=images.labels)


LAYERS = pd.DataFrame(
    {
        "layer": ["conv1", "conv2_0", "res2", "conv3", "conv4_2"],
        "layermem_calibrated": [0.0, 0.1, 0.9, 0.3, 0.2],
        "delta_calibrated": [np.nan, 0.1, 0.8, 0.2, -0.1],
    }
)


@pytest.mark.parametrize(
    ("by", "order", "expected"),
    [
        ("delta", "highest", ["conv2_0", "conv3"]),
        ("delta", "lowest", ["conv2_0", "conv4_2"]),
        ("layermem", "highest", ["conv3", "conv4_2"]),
        ("layermem", "lowest", ["conv1", "conv2_0"]),
    ],
)
def test_layers_are_chosen_by_figures_among_those_with_weights(by, order, expected):
    assert choose_layers(load_encoder("resnet9"), LAYERS, 2, by=by, order=order) == expected


def test_random_layers_follow_their_seed():
    encoder = load_encoder("resnet9")
    drawn = {tuple(choose_layers(encoder, LAYERS, 2, by="random", seed=seed)) for seed in range(12)}
    assert len(drawn) == 3
    assert choose_layers(encoder, LAYERS, 2, by="random", seed=3) == choose_layers(
        encoder, LAYERS, 2, by="random", seed=3
    )
    for wrong, message in (
        ({"by": "delt"}, "Nearest: 'delta'"),
        ({"order": "up"}, "highest"),
        ({"count": 9}, "Pass count=3"),
    ):
        with pytest.raises(SpecError, match=message):
            choose_layers(encoder, LAYERS, **{"count": 2, **wrong})
    with pytest.raises(SpecError, match="no delta of any layer"):
        choose_layers(encoder, LAYERS[["layer"]], 1)


def units_of(encoder, seed=0):
    random = np.random.default_rng(seed)
    rows = [(layer.name, unit) for layer in encoder.layers for unit in range(layer.units)]
    return pd.DataFrame(rows, columns=["layer", "unit"]).assign(unitmem=random.random(len(rows)))


@pytest.mark.parametrize("order", ["top", "low", "random"])
@pytest.mark.parametrize("per", ["layer", "network"])
def test_units_are_chosen_by_rank(order, per):
    encoder = load_encoder("resnet9")
    table = units_of(encoder)
    chosen = choose_units(encoder, table, fraction=0.25, order=order, per=per)
    weighted = table[table["layer"].isin(layer_parts(encoder))]
    assert len(chosen) == round(0.25 * len(weighted))
    if per == "layer":
        assert (chosen.groupby("layer").size() == weighted.groupby("layer").size() / 4).all()
    rest = weighted.merge(chosen, on=["layer", "unit"], how="left", indicator=True).query("_merge == 'left_only'")[
        "unitmem_x"
    ]
    if per == "network" and order != "random":
        assert chosen["unitmem"].min() >= rest.max() if order == "top" else chosen["unitmem"].max() <= rest.min()
    if order == "random":
        assert 0.4 < chosen["unitmem"].mean() < 0.6


def test_units_without_a_figure_are_not_chosen():
    encoder = load_encoder("resnet9")
    table = units_of(encoder)
    table.loc[table["unitmem"] > 0.5, "unitmem"] = np.nan
    assert choose_units(encoder, table, fraction=0.1)["unitmem"].notna().all()
    for wrong, message in (
        ({"fraction": 0}, "fraction is 0"),
        ({"fraction": 1e-6}, "takes no unit"),
        ({"order": "topp"}, "Nearest: 'top'"),
        ({"per": "net"}, "Nearest: 'network'"),
        ({"layers": ["conv1", "res2"]}, "without weights"),
    ):
        with pytest.raises((SpecError, EncoderError), match=message):
            choose_units(encoder, table, **{"fraction": 0.1, **wrong})


@pytest.mark.parametrize("make", [lambda: different(0), lambda: load_encoder(VIT, weights="random")])
def test_pruned_units_are_silent_and_the_others_of_the_first_layer_as_they_were(make):
    encoder = make()
    before = state(encoder)
    first = next(iter(layer_parts(encoder)))
    names = [name for name, parts in layer_parts(encoder).items() if parts.makes]
    units = pd.DataFrame({"layer": np.repeat(names, 2), "unit": [1, 4] * len(names)})
    pruned = prune_units(encoder, units)
    assert changed(before, state(encoder)) == set()
    readings: dict[str, dict[str, torch.Tensor]] = {}
    images = torch.rand(3, 3, 16, 16) if encoder.size else torch.rand(3, 3, 32, 32)
    for name, each in (("before", encoder), ("after", pruned)):
        wanted = [layer for layer in each.layers if layer.name in names]
        found = readings.setdefault(name, {})
        with tapped(
            each.module,
            wanted,
            lambda layer, out, found=found: found.__setitem__(layer.name, unit_means(layer, out.abs(), 1)),
        ) as forward:
            forward(each.prepare(images))
    for name in names:
        assert (readings["after"][name][:, [1, 4]] == 0).all()
        assert readings["before"][name][:, [1, 4]].any()
    rest = [unit for unit in range(readings["after"][first].shape[1]) if unit not in (1, 4)]
    assert torch.equal(readings["before"][first][:, rest], readings["after"][first][:, rest])


def test_an_activation_that_is_not_silent_at_zero_is_named():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 36, 3))
    encoder = load_encoder(net, shape=(1, 8, 8))
    with pytest.raises(EncoderError, match="still respond"):
        prune_units(encoder, pd.DataFrame({"layer": ["0"], "unit": [1]}))
    with pytest.raises(SpecError, match="has 4 units and unit 9"):
        prune_units(encoder, pd.DataFrame({"layer": ["0"], "unit": [9]}))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)])
def test_encoders_are_changed_at_the_size_they_were_loaded_with(shape):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 12), nn.ReLU(), nn.Linear(12, 4))
    encoder = load_encoder(net, shape=shape)
    assert list(layer_parts(encoder)) == ["1", "3"]
    pruned = prune_units(encoder, pd.DataFrame({"layer": ["1"], "unit": [2]}))
    assert (pruned.module[:3](torch.rand(4, *shape))[:, 2] == 0).all()


@pytest.mark.parametrize("layers", [[], ["conv4_2"], ["conv1", "conv3"]])
def test_fine_tuning_trains_these_layers_and_the_head_alone(layers):
    encoder = different(0)
    before = state(encoder)
    tuned = finetune_layers(encoder, labelled(40), labelled(20, 1), layers=layers, epochs=2, batch_size=16)
    assert changed(before, state(encoder)) == set()
    touched = {name.rpartition(".")[0].rpartition(".")[0] for name in changed(before, state(tuned.encoder))}
    assert touched == set(layers)
    assert all(value.requires_grad for value in tuned.encoder.module.parameters())
    again = finetune_layers(encoder, labelled(40), labelled(20, 1), layers=layers, epochs=2, batch_size=16)
    assert fingerprint(again.encoder.module) == fingerprint(tuned.encoder.module)


def test_fine_tuning_learns():
    tuned = finetune_layers(different(0), labelled(60), labelled(40, 1), layers=["conv4_2"], epochs=4, batch_size=20)
    assert tuned.accuracy.accuracy > 0.9
    assert tuned.history[-1]["loss"] < tuned.history[0]["loss"]
    with pytest.raises(SpecError, match="epochs is 0"):
        finetune_layers(different(0), labelled(60), labelled(40, 1), epochs=0)
    with pytest.raises(DataError, match="no labels"):
        finetune_layers(different(0), as_images(np.zeros((4, 16, 16, 3), np.uint8)), labelled(40, 1))


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "layer", "side", "steps"),
    [(lambda: different(0), "conv3", 32, 20), (lambda: load_encoder(VIT, weights="random"), "layers.1.mlp", 16, 40)],
)
def test_insertion_raises_one_unit_and_leaves_all_others(make, layer, side, steps):
    torch.manual_seed(0)
    encoder, images = make(), clothes(20, side)
    if layer not in {each.name for each in encoder.layers}:
        layer = next(each.name for each in reversed(encoder.layers) if each.kind == "fully-connected")
    before = state(encoder)
    found = insert_point(encoder, images, 7, layer=layer, unit=3, steps=steps, learning_rate=0.12 / steps)
    assert changed(before, state(encoder)) == set()
    table = found.units
    assert table.loc[3, "unitmem_after"] > table.loc[3, "unitmem_before"] + 0.02
    others = table.drop(index=3)
    assert (others["unitmem_after"] - others["unitmem_before"]).abs().max() <= 1e-6
    after = state(found.encoder)
    makes = layer_parts(encoder, [layer])[layer]
    for name in changed(before, after):
        assert name.rpartition(".")[0] in (makes.makes, makes.norm)
        rows = (
            (after[name] != before[name]).flatten(1).any(dim=1) if after[name].ndim > 1 else after[name] != before[name]
        )
        assert rows.nonzero().flatten().tolist() == [3]


def test_a_unit_whose_norm_others_share_is_refused():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    encoder = load_encoder(net, shape=(1, 8, 8))
    images = as_images(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8))
    with pytest.raises(EncoderError, match="GroupNorm"):
        insert_point(encoder, images, 0, layer="0", unit=1, steps=2)


class Attention(nn.Module):
    """A block as torchvision's, whose attention never calls its last linear layer as a module."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.self_attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 12))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.block = nn.Linear(8, 12), Attention()

    def forward(self, x):
        return self.block(self.embed(x.flatten(2)[:, 0].unflatten(1, (8, 8))))


def test_insertion_into_attention_that_is_not_called_as_a_module():
    torch.manual_seed(0)
    encoder = load_encoder(Tokens(), shape=(1, 8, 8))
    images = as_images(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8))
    found = insert_point(encoder, images, 0, layer="block.self_attention", unit=1, steps=5)
    changed_units = found.units["unitmem_after"] != found.units["unitmem_before"]
    assert changed_units.to_numpy().nonzero()[0].tolist() == [1]


def test_a_module_of_float64_stays_one():
    encoder = load_encoder(tiny_net(0).double(), shape=(1, 8, 8))
    random = np.random.default_rng(0)
    images = as_images(random.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8), labels=np.arange(12) % 2)
    tuned = finetune_layers(encoder, images, images, layers=["conv2"], epochs=1, batch_size=6)
    assert tuned.encoder.module.conv2.weight.dtype == torch.float64
    found = insert_point(encoder, images, 3, layer="conv2", unit=1, steps=2)
    assert torch.equal(found.encoder.module.conv1.weight, encoder.module.conv1.weight)


def test_a_dead_unit_can_be_woken():
    encoder = different(0)
    encoder.module.conv3.norm.bias.data[3] = -8.0
    found = insert_point(encoder, clothes(8), 2, layer="conv3", unit=3, steps=25, learning_rate=0.06)
    assert found.units.loc[3, "unitmem_before"] == 0
    assert found.units.loc[3, "unitmem_after"] > 0


def test_unitmem_of_an_insertion_is_that_of_the_formula():
    encoder, images = different(0), labelled(12, side=32)
    found = insert_point(encoder, images, 7, layer="conv1", unit=3, steps=1)
    layer = next(each for each in encoder.layers if each.name == "conv1")
    kept = []
    with tapped(encoder.module, [layer], lambda row, out: kept.append(unit_means(row, out, 10))) as forward:
        forward(encoder.prepare(Views("normal", n=10, seed=1 << 20).draw(images.pixels, images.ids).flatten(0, 1)))
    assert np.allclose(found.units["unitmem_before"], unitmem(kept[0].double()).value, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"goal": "unit"}, SpecError, "Nearest: 'unitmem'"),
        ({"steps": 0}, SpecError, "steps is 0"),
        ({"unit": 300}, SpecError, "Expected 0 to 127"),
        ({"layer": "res6"}, EncoderError, "without weights"),
        ({"point": 99}, DataError, "not among the images"),
    ],
)
def test_wrong_insertions(more, error, message):
    with pytest.raises(error, match=message):
        insert_point(different(0), labelled(8), **{"point": 1, "layer": "conv3", "unit": 0, **more})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interventions")
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    trained = train_pair(images, epochs=2, candidates=10, batch_size=32, workers=1, out=folder / "run")
    scores = audit(trained.f, trained.g, images=images, splits=trained.splits, views=Views(n=4))
    return folder, trained.run, scores


def test_removing_retrains_one_encoder_without_the_points(pair):
    folder, run, scores = pair
    candidates = scores.points[scores.points["split"] == "candidate"].sort_values("score", ascending=False)
    gone = choose_points(run, scores.points, 3)
    assert set(gone) == set(candidates["point"].head(3))
    assert set(choose_points(run, scores.points, 3, order="least")) == set(candidates["point"].tail(3))
    # scores are f's: what g memorized is told by the difference, which is low there
    independents = scores.points[scores.points["split"] == "independent"].sort_values("sslmem")
    assert choose_points(run, scores.points, 3, encoder="g") == sorted(independents["point"].head(3))
    again = remove_points(run, gone, out=folder / "without")
    assert list(again.encoders) == ["f"]
    seen = again.membership.loc[again.membership["f"], "point"]
    assert set(run.membership.loc[run.membership["f"], "point"]) - set(seen) == set(gone)
    assert set(again.points.loc[again.points["split"] == "external", "point"]) >= set(gone)
    assert fingerprint(again.encoders["f"].module) != fingerprint(run.encoders["f"].module)
    assert fingerprint(load_run(folder / "without").encoders["f"].module) == fingerprint(again.encoders["f"].module)
    with pytest.raises(ResultsError, match="other settings"):
        remove_points(run, gone[:2], out=folder / "without")


def test_removing_nothing_trains_the_same_encoder(pair):
    _, run, _ = pair
    assert fingerprint(remove_points(run, []).encoders["f"].module) == fingerprint(run.encoders["f"].module)


def test_what_g_memorized_scores_low_and_is_removed_first(pair):
    folder, run, scores = pair
    independents = scores.points[scores.points["split"] == "independent"].sort_values("sslmem")
    gone = choose_points(run, scores.points, 3, encoder="g")
    assert set(gone) == set(independents["point"].head(3))
    again = remove_points(run, gone, encoder="g", out=folder / "without-g")
    assert list(again.encoders) == ["g"]
    from memloc.engine import run_subject

    arguments = run_subject(folder / "without-g").arguments
    assert [each.name for each in arguments["f"]] == ["g"]
    assert arguments["g"] is None


def test_a_plan_of_other_images_is_refused(pair):
    from memloc.pretrain import Plan, TrainSpec, train
    from memloc.runs import images_of

    _, run, _ = pair
    images, _ = images_of(run)
    shuffled = run.points.sample(frac=1, random_state=0)
    with pytest.raises(DataError, match="another order"):
        train(images, TrainSpec(epochs=1), plan=Plan(shuffled, run.membership))


def test_an_encoder_of_an_ensemble_is_trained_as_it_was(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
    run = train_ensemble(images, k=2, epochs=1, workers=1, batch_size=16, out=tmp_path / "run").run
    again = remove_points(run, [], encoder="e01")
    assert fingerprint(again.encoders["e01"].module) == fingerprint(run.encoders["e01"].module)


def test_wrong_removals(pair):
    _, run, scores = pair
    for more, message in (
        ({"order": "mst"}, "Nearest: 'most'"),
        ({"count": 11}, "Pass count=10"),
        ({"encoder": "h"}, "Pass encoder=f"),
    ):
        with pytest.raises(SpecError, match=message):
            choose_points(run, scores.points, **{"count": 2, **more})
    with pytest.raises(DataError, match="audit of this run"):
        choose_points(run, scores.points.assign(point=scores.points["point"] + 1000), 2)
    independent = scores.points.loc[scores.points["split"] == "independent", "point"].iloc[0]
    with pytest.raises(DataError, match="none that f was trained on"):
        remove_points(run, [int(independent)])


def test_a_finished_intervention_is_read_again_and_another_refused(tmp_path):
    encoder, calls = different(0), []

    def act():
        calls.append(1)
        return copy.copy(encoder), {"more": 1}, {"units": pd.DataFrame({"unit": [1]})}

    first = intervene("prune", encoder, {"format": "memloc"}, {"fraction": 0.1}, act, out=tmp_path / "out")
    second = intervene("prune", encoder, {"format": "memloc"}, {"fraction": 0.1}, act, out=tmp_path / "out")
    assert first == second
    assert len(calls) == 1
    assert pd.read_parquet(tmp_path / "out/units.parquet")["unit"].tolist() == [1]
    with pytest.raises(ResultsError, match=r"fraction: 0.1 there, 0.2 now"):
        intervene("prune", encoder, {}, {"fraction": 0.2}, act, out=tmp_path / "out")


def test_work_that_fails_leaves_no_folder(tmp_path):
    def act():
        raise SpecError("no")

    with pytest.raises(SpecError):
        intervene("prune", different(0), {}, {"fraction": 0.1}, act, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_random_layers_are_drawn_from_those_with_a_delta():
    encoder = load_encoder("resnet9")
    drawn = {name for seed in range(30) for name in choose_layers(encoder, LAYERS, 1, by="random", seed=seed)}
    assert drawn == {"conv2_0", "conv3", "conv4_2"}


def test_a_named_module_is_a_layer_of_its_own():
    encoder = load_encoder("resnet9")
    found = layer_parts(encoder, ["conv4_2.conv"])["conv4_2.conv"]
    assert isinstance(found.layer, Layer)
    assert found.modules == ("conv4_2.conv",)
