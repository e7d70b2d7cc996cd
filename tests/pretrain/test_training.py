"""SimCLR's loss, plans, and runs that resume exactly."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from memloc.data import as_images
from memloc.errors import DataNotFoundError, MemlocWarning, ResultsError, SpecError
from memloc.objectives import nt_xent
from memloc.pretrain import TrainSpec, make_plan, slots, spec_of, train_ensemble, train_pair
from memloc.pretrain import train as train_run
from memloc.runs import open_run

VIT = "hf:vit,hidden_size=24,num_hidden_layers=2,num_attention_heads=3,intermediate_size=48,image_size=8,patch_size=4"

SMALL = {"epochs": 3, "batch_size": 16, "candidates": 8, "workers": 1, "precision": "float32"}


def slow_nt_xent(first, second, points, temperature):
    z = torch.cat([first, second]).double()
    z = z / z.norm(dim=1, keepdim=True)
    ids, count = points.tolist() * 2, len(first)
    total = 0.0
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        below = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * count) if k == j or ids[k] != ids[i])
        total -= math.log(math.exp(float(z[i] @ z[j]) / temperature) / below)
    return total / (2 * count)


@pytest.mark.parametrize("points", [[0, 1, 2, 3, 4], [0, 1, 1, 2, 0]])
def test_nt_xent_against_a_slow_loop(points):
    random = torch.Generator().manual_seed(0)
    first, second = torch.randn(5, 7, generator=random), torch.randn(5, 7, generator=random)
    assert float(nt_xent(first, second, torch.tensor(points), temperature=0.3)) == pytest.approx(
        slow_nt_xent(first, second, torch.tensor(points), 0.3), abs=1e-5
    )


def test_copies_of_a_point_do_not_meet_as_negatives():
    random = torch.Generator().manual_seed(0)
    first, second = torch.randn(4, 7, generator=random), torch.randn(4, 7, generator=random)
    first[1], second[1] = first[0], second[0]
    as_copies = nt_xent(first, second, torch.tensor([0, 0, 1, 2]))
    as_strangers = nt_xent(first, second, torch.arange(4))
    assert as_copies < as_strangers


def images(count=60, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 1), dtype=np.uint8)


def test_paired_slots_meet_slot_by_slot():
    plan = make_plan(as_images(images()), TrainSpec(candidates=10, plant=4, repeats=3, held_out=0))
    (rows_f, points_f), (rows_g, points_g) = slots(plan, "f"), slots(plan, "g")
    assert len(rows_f) == len(rows_g) == 40 + 10 + 4 * 2
    split, repeats = plan.points["split"].to_numpy(), plan.points["repeats"].to_numpy()
    for f, g in zip(rows_f.tolist(), rows_g.tolist(), strict=True):
        if split[f] == "shared":
            assert f == g
        else:
            assert (split[f], split[g]) == ("candidate", "independent")
            assert repeats[f] == repeats[g]
    counts = torch.bincount(rows_f, minlength=60).numpy()
    assert (counts[(split == "candidate")] == repeats[split == "candidate"]).all()
    assert set(points_f.tolist()) != set(points_g.tolist())


def test_nobody_sees_what_it_must_not():
    plan = make_plan(as_images(images()), TrainSpec(candidates=6, shared=20), external=15)
    split = plan.points["split"]
    assert (split == "external").sum() == 15 + 45 - 32
    for name, never in (("f", ("independent", "external")), ("g", ("candidate", "external"))):
        rows, _ = slots(plan, name)
        assert not split.iloc[rows.numpy()].isin(never).any()


def weights(run):
    return torch.cat(
        [
            value.flatten().double()
            for encoder in run.encoders.values()
            for value in encoder.module.state_dict().values()
        ]
    )


def test_paired_runs_start_alike_and_unpaired_do_not():
    from memloc.pretrain._one import seed_of

    spec = TrainSpec(seed=3)
    assert seed_of(spec, "f") == seed_of(spec, "g")
    unpaired = TrainSpec(seed=3, unpaired=True)
    assert seed_of(unpaired, "f") != seed_of(unpaired, "g")


def test_a_pair_with_equal_data_gives_equal_encoders(tmp_path, monkeypatch):
    """Paired training: if g's independents were f's candidates, g would be f, bit for bit."""
    monkeypatch.setattr("memloc.pretrain._held_out.near_duplicates", lambda _: [])  # as which these would be
    pixels = images()
    settings = {**SMALL, "held_out": 0}
    pair = train_pair(pixels, **settings, out=tmp_path / "one")
    split = np.array(pair.splits)
    copied = pixels.copy()
    plan = make_plan(as_images(pixels), TrainSpec(**settings))
    rows_f, rows_g = slots(plan, "f")[0], slots(plan, "g")[0]
    copied[rows_g] = pixels[rows_f]
    twin = train_pair(copied, **settings, out=tmp_path / "two")
    assert (np.array(twin.splits) == split).all()
    one, two = twin.f.module.state_dict(), twin.g.module.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not all(torch.equal(pair.f.module.state_dict()[key], pair.g.module.state_dict()[key]) for key in one)


@pytest.mark.slow  # tests/faults kills what trains in one process
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, workers):
    np.savez(tmp_path / "set.npz", images=images(60, 16))
    flags = [
        "--epochs",
        "8",
        "--batch-size",
        "16",
        "--candidates",
        "8",
        "--checkpoint-every",
        "1",
        "--workers",
        str(workers),
    ]
    command = [
        sys.executable,
        "-c",
        "import sys; from memloc.cli import main; sys.exit(main())",
        "train",
        str(tmp_path / "set.npz"),
        *flags,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, env=environment)
    process = subprocess.Popen([*command, "--out", str(tmp_path / "broken")], env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (tmp_path / "broken/checkpoints/f.pt").is_file():
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "broken/run.json").exists()
    with pytest.raises(DataNotFoundError, match="not finished"):
        open_run(tmp_path / "broken")
    time.sleep(0.5)  # workers notice that their parent is gone
    subprocess.run([*command, "--out", str(tmp_path / "broken")], check=True, env=environment)
    whole, broken = open_run(tmp_path / "whole"), open_run(tmp_path / "broken")
    assert torch.equal(weights(whole), weights(broken))
    lines = [json.loads(line) for line in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()]
    assert sorted((line["encoder"], line["epoch"]) for line in lines) == [
        (name, epoch) for name in "fg" for epoch in range(1, 9)
    ]


def test_training_lowers_the_loss(tmp_path):
    train_pair(images(60, 16), **{**SMALL, "epochs": 8}, out=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["encoder"] == "f"]
    assert np.mean(losses[-3:]) < losses[0] - 0.05


def test_ensemble_and_its_membership(tmp_path):
    found = train_ensemble(images(24), k=4, epochs=1, workers=1, held_out=0, out=tmp_path / "run")
    assert found.membership.shape == (4, 24)
    assert found.membership.sum(dim=0).unique().tolist() == [2]
    again = open_run(tmp_path / "run")
    assert again.is_ensemble
    assert list(again.encoders) == ["e00", "e01", "e02", "e03"]
    assert (found.membership.numpy() == again.membership.iloc[:, 1:].to_numpy().T).all()


def test_several_runs_differ(tmp_path):
    pair = train_pair(images(), **{**SMALL, "epochs": 1}, runs=2, out=tmp_path / "run")
    assert [encoder.name for encoder in pair.f] == ["f0", "f1"]
    assert not torch.equal(pair.f[0].module.conv1.conv.weight, pair.f[1].module.conv1.conv.weight)


def test_own_modules_can_be_trained(tiny):
    pair = train_pair(images(), encoder=tiny(0), **{**SMALL, "epochs": 1})
    assert type(pair.f.module).__name__ == "TinyNet"
    assert not torch.equal(pair.f.module.conv1.weight, tiny(0).conv1.weight)
    compiled = train_pair(images(), encoder=torch.compile(tiny(0)), **{**SMALL, "epochs": 1})
    assert compiled.f.layers[-1].name == "output"


def test_what_a_module_keeps_of_its_weights_is_said(tiny):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.scale = tiny(0), torch.nn.Parameter(torch.full((1,), 5.0))

        def forward(self, x):
            return self.net(x) * self.scale

    with pytest.warns(MemlocWarning, match="1 parameters of Scaled are not drawn anew .* 'scale'"):
        train_pair(images(), encoder=Scaled(), **{**SMALL, "epochs": 1})


def test_mean_and_deviation_are_those_of_all_pixels():
    from memloc.pretrain._folder import statistics

    pixels = torch.randint(0, 256, (300, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = statistics(pixels)
    values = pixels.transpose(0, 1).flatten(1).double() / 255
    assert torch.allclose(mean, values.mean(dim=1), atol=1e-14)
    assert torch.allclose(std, values.std(dim=1), atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "views"),
    [({}, 2), ({"objective": "mae", "encoder": VIT}, 1), ({"objective": "dino", "local_crops": 2}, 6)],
)
def test_a_plan_counts_the_views_of_its_objective(settings, views):
    from memloc.pretrain import spec_of, train_cost

    plan = train_cost(as_images(images(20)), spec_of(**{"epochs": 3, "batch_size": 8, "workers": 1, **settings}))
    assert plan["forward_passes"] == views * 3 * sum(plan["images_per_epoch"].values())
    assert plan["memory_mb"] >= 1


def test_gray_images_in_three_channels_are_said(tmp_path):
    run = train_pair(images(20)[:, :1], **{**SMALL, "epochs": 1}, out=tmp_path / "run").run
    assert run.record["warnings"] == [
        "The images are gray and the encoder takes three channels: the gray channel is repeated."
    ]


def test_a_folder_of_other_settings_is_refused_and_replaced(tmp_path):
    train_pair(images(), **{**SMALL, "epochs": 1}, out=tmp_path / "run")
    with pytest.raises(ResultsError, match=r"temperature: 0.5 there, 0.2 now.*overwrite="):
        train_pair(images(), **{**SMALL, "epochs": 1}, temperature=0.2, out=tmp_path / "run")
    train_pair(images(), **{**SMALL, "epochs": 1}, temperature=0.2, out=tmp_path / "run", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("mine")
    with pytest.raises(ResultsError, match="not made by memloc"):
        train_pair(images(), **SMALL, out=tmp_path / "other")
    assert (tmp_path / "other/thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "simclrr"}, "no objective 'simclrr'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 2}, "Expected at least 4"),
        ({"learning_rate": float("nan")}, "Expected a number above 0"),
        ({"candidates": 40}, "do not fit 60 images"),
        ({"shared": 100}, "Pass shared=48 or fewer"),
        ({"independents": 9, "candidates": 8}, "unpaired="),
        ({"plant": 9, "repeats": 2, "candidates": 8}, "9 planted points do not fit 8"),
        ({"plant": 4}, "how often to show them"),
        ({"plant": -1}, "plant is -1"),
        ({"policy": "weka"}, "Nearest: 'weak'"),
        ({"precision": "int8"}, "no precision 'int8'"),
        ({"warmup": 1.5}, "Expected a number below 1"),
    ],
)
def test_messages(settings, message):
    with pytest.raises(SpecError, match=message):
        train_pair(images(), **{"epochs": 1, "workers": 1, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"temprature": 1}, "Nearest: 'temperature'"), ({"ensemble": 4, "candidates": 4}, "an ensemble has no pairs")],
)
def test_messages_of_a_spec(settings, message):
    with pytest.raises(SpecError, match=message):
        spec_of(**settings)


def test_overwriting_a_foreign_folder_is_never_done(tmp_path):
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/file").write_text("x")
    with pytest.raises(ResultsError):
        train_run(images(), TrainSpec(**SMALL), out=tmp_path / "keep", overwrite=True)
    assert (tmp_path / "keep/file").exists()


def test_dropout_is_reproducible():
    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 8, 3)
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(torch.relu(self.conv(x))).mean(dim=(2, 3))

    module = Dropping()
    state = torch.random.get_rng_state()
    one, two = (train_pair(images(), encoder=module, **{**SMALL, "epochs": 1}) for _ in range(2))
    assert torch.equal(one.f.module.conv.weight, two.f.module.conv.weight)
    assert torch.equal(state, torch.random.get_rng_state())
