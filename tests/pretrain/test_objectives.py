"""Objectives: losses by hand, by slow loops and against lightly; heads, teachers, masks; privacy; several processes."""

import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from memloc.data import as_images
from memloc.encoders import build_vit, load_encoder, patches_of
from memloc.errors import DataError, EncoderError, SpecError
from memloc.objectives import (
    OBJECTIVES,
    Batch,
    alignment_penalty,
    dino_loss,
    mae_loss,
    make_objective,
    negative_cosine,
    nt_xent,
    recipe,
    vicreg,
)
from memloc.pretrain import LARS, TrainSpec, spec_of, train_encoder, train_pair

VIT = "hf:vit,hidden_size=24,num_hidden_layers=2,num_attention_heads=3,intermediate_size=48,image_size=8,patch_size=4"
SMALL = {"epochs": 4, "batch_size": 16, "candidates": 8, "workers": 1, "precision": "float32"}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(count=48, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 1), dtype=np.uint8)


def objective_of(name, module=None, **settings):
    module = module or (
        build_vit("vit-tiny", size=8) if name == "mae" else nn.Sequential(nn.Flatten(), nn.Linear(192, 6))
    )
    spec = TrainSpec(objective=name, **settings)
    return module, make_objective(spec, module, torch.zeros(2, 3, 8, 8), classes=3, seed=0)


def batch(count=4):
    rows = torch.arange(count)
    return Batch(rows, rows % 3, rows, 0, 0)


def test_vicreg_against_loops():
    first, second = random(5, 3), random(5, 3, seed=1)
    total = 25 * sum(float((a - b) ** 2) for a, b in zip(first.flatten(), second.flatten(), strict=True)) / 15
    for view in (first, second):
        mean = view.mean(0)
        for i in range(3):
            variance = sum(float(view[n, i] - mean[i]) ** 2 for n in range(5)) / 4
            total += 25 * max(0.0, 1 - math.sqrt(variance + 1e-4)) / 3 / 2
            for j in range(3):
                if i != j:
                    total += (
                        sum(float((view[n, i] - mean[i]) * (view[n, j] - mean[j])) for n in range(5)) / 4
                    ) ** 2 / 3
    assert float(vicreg(first, second)) == pytest.approx(total, rel=1e-5)


def test_dino_against_loops():
    student, teacher, centre = random(4, 3, 5), random(2, 3, 5, seed=1), random(5, seed=2)
    losses = []
    for t in range(2):
        for s in range(4):
            if s != t:
                target = torch.softmax((teacher[t] - centre) / 0.04, 1)
                losses.append(-(target * torch.log_softmax(student[s] / 0.1, 1)).sum(1).mean())
    assert float(dino_loss(student, teacher, centre)) == pytest.approx(float(sum(losses) / len(losses)), rel=1e-5)


def test_simsiam_by_hand():
    predicted, projected = (
        torch.tensor([[1.0, 1.0]], requires_grad=True),
        torch.tensor([[2.0, 0.0]], requires_grad=True),
    )
    loss = negative_cosine(predicted, projected)
    assert float(loss) == pytest.approx(-math.sqrt(0.5))
    loss.backward()
    assert projected.grad is None  # the stop-gradient
    assert predicted.grad.abs().sum() > 0


def test_mae_by_hand_and_against_transformers():
    from transformers import ViTMAEForPreTraining

    vit, objective = objective_of("mae")
    inputs, noise = random(3, 3, 8, 8), torch.rand(3, 4)
    predicted, target, hidden = objective.reconstruct(vit.eval(), inputs, noise)
    assert hidden.sum(1).tolist() == [3.0, 3.0, 3.0]  # 3 of 4 patches
    assert (hidden.argmin(1) == noise.argmin(1)).all()  # the one of lowest noise is seen
    assert torch.equal(target[1, 2], inputs[1, :, 4:8, 0:4].permute(1, 2, 0).flatten())
    from transformers import ViTMAEConfig

    own = vit.config
    config = ViTMAEConfig(
        hidden_size=own.hidden_size, num_hidden_layers=own.num_hidden_layers, num_attention_heads=own.num_attention_heads,
        intermediate_size=own.intermediate_size, image_size=8, patch_size=4, decoder_hidden_size=96, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3, decoder_intermediate_size=384, norm_pix_loss=True,
    )  # fmt: skip
    theirs = ViTMAEForPreTraining(config).eval()
    theirs.vit.load_state_dict(vit.state_dict())
    theirs.decoder.load_state_dict(objective.decoder.state_dict())
    with torch.no_grad():
        out = theirs(inputs, noise=noise)
        assert torch.allclose(out.logits, predicted, atol=1e-5)
        assert float(mae_loss(predicted, target, hidden).mean()) == pytest.approx(float(out.loss), rel=1e-3)


@pytest.mark.vision
def test_losses_equal_lightlys(torchvision):
    from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss

    first, second = random(6, 16), random(6, 16, seed=1)
    assert float(nt_xent(first, second, torch.arange(6), temperature=0.5)) == pytest.approx(
        float(NTXentLoss(0.5)(first, second)), rel=1e-5
    )
    assert float(negative_cosine(first, second)) == pytest.approx(
        float(NegativeCosineSimilarity()(first, second)), rel=1e-5
    )
    assert float(vicreg(first, second)) == pytest.approx(float(VICRegLoss()(first, second)), rel=1e-4)
    student, teacher = random(4, 6, 16), random(2, 6, 16, seed=1)
    theirs = DINOLoss(output_dim=16, warmup_teacher_temp=0.04, teacher_temp=0.04, student_temp=0.1)
    centre = theirs.center.value.flatten() if hasattr(theirs.center, "value") else theirs.center.flatten()
    expected = float(theirs(list(teacher), list(student), epoch=0))
    assert float(dino_loss(student, teacher, centre)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_is_finite_and_reaches_the_encoder(name):
    module, objective = objective_of(name)
    inputs = random(4 * objective.views, 3, 8, 8)
    loss = objective.loss(objective.project(module, inputs, batch()), batch())
    assert loss.ndim == 0
    assert loss.isfinite()
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name in ("mae", "supervised")])
def test_uncoupled_losses_are_means_over_points(name):
    module, objective = objective_of(name)
    module.eval()
    inputs, whole = random(4, 3, 8, 8), batch()
    with torch.no_grad():
        together = objective.loss(objective.project(module, inputs, whole), whole)
        alone = [
            objective.loss(objective.project(module, inputs[[i]], one), one)
            for i in range(4)
            for one in [Batch(whole.points[[i]], whole.labels[[i]], whole.slots[[i]], 0, 0)]
        ]
    assert float(together) == pytest.approx(
        float(torch.stack(alone).mean()), rel=1e-5
    )  # masks belong to the point, too


def test_dinos_teacher_follows_and_is_what_is_kept():
    module, objective = objective_of("dino")
    before = [p.clone() for p in objective.teacher.parameters()]
    inputs = random(8, 3, 8, 8)
    objective.loss(objective.project(module, inputs, batch()), batch()).backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    centre = objective.centre.clone()
    assert centre.abs().sum() > 0
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    objective.after_step(module, objective.pace(0, 1_000_000))
    for old, new in zip(before, objective.teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.004, atol=1e-6)
    objective.after_step(module, objective.pace(999_999, 1_000_000))  # momentum 1: the teacher stays
    for old, new in zip(before, objective.teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.004, atol=1e-6)
    taught, learned = ([p.clone() for p in each.parameters()] for each in (objective.teacher, module))
    objective.finish(module)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), taught, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(objective.student.parameters(), learned, strict=True))
    assert not hasattr(objective, "teacher")  # which is the encoder now


def test_dinos_teacher_forgets_within_a_short_training():
    module, objective = objective_of("dino")
    before = [p.clone() for p in objective.teacher.parameters()]
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1.0)
    objective.after_step(module, objective.pace(49, 100))  # half of it done: momentum .95, from .9
    for old, new in zip(before, objective.teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.05, atol=1e-6)


def test_dinos_head_has_batch_norm_where_the_encoder_has():
    norms = [isinstance(part, nn.BatchNorm1d) for part in objective_of("dino")[1].head.modules()]
    assert not any(norms)
    with_norm = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert sum(isinstance(part, nn.BatchNorm1d) for part in objective_of("dino", with_norm)[1].head.modules()) == 2


@pytest.mark.vision
def test_lars_equals_lightlys(torchvision):
    import lightly.utils.lars

    one, two = (nn.Parameter(random(4, 3)) for _ in range(2))
    ours = LARS(
        [one], learning_rate=0.3, weight_decay=1e-9
    )  # with more, lightly divides by |g| + wd |w|, SimCLR by |g + wd w|
    theirs = lightly.utils.lars.LARS([two], lr=0.3, momentum=0.9, weight_decay=1e-9)
    for step in range(3):
        one.grad, two.grad = random(4, 3, seed=step), random(4, 3, seed=step)
        ours.step()
        theirs.step()
    assert torch.allclose(one, two, atol=1e-6)


def test_recipes_are_the_published_settings():
    spec = spec_of(recipe="published", objective="mae")
    assert (spec.encoder, spec.optimizer, spec.learning_rate, spec.batch_size, spec.epochs) == (
        "vit-tiny",
        "adamw",
        1.2e-3,
        1024,
        600,
    )
    assert recipe("published", "simclr")["learning_rate"] == 4.8
    assert spec_of(recipe="published", objective="simsiam").epochs == 200
    assert spec_of(recipe="published", objective="dino", learning_rate=0.1).learning_rate == 0.1  # what is given wins
    assert spec_of(objective="mae").encoder == "vit-tiny"
    with pytest.raises(SpecError, match="no recipe 'publihsed'. Nearest: 'published'"):
        spec_of(recipe="publihsed")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "simclar"}, "no objective 'simclar'. Nearest: 'simclr'"),
        ({"optimizer": "adam"}, "no optimizer 'adam'. Nearest: 'adamw'"),
        ({"alignment_penalty": -1.0}, "alignment_penalty is -1.0"),
        ({"local_crops": 2}, "local_crops is 2 for simclr"),
        ({"dp_epsilon": 8.0}, "dp_epsilon is set for simclr: its loss compares the points of a batch"),
        ({"dp_epsilon": 8.0, "objective": "supervised"}, "batch-norms"),
        ({"dp_epsilon": -1.0, "objective": "mae"}, "dp_epsilon is -1.0"),
        ({"dp_epsilon": 8.0, "objective": "mae", "plant": 2, "repeats": 3}, "with plant or alignment_penalty"),
        ({"dp_delta": 1e-5}, "dp_delta is given without dp_epsilon"),
        ({"dp_epsilon": 8.0, "objective": "mae", "precision": "bfloat16"}, "with precision bfloat16"),
        (
            {"temperature": 0.1, "objective": "dino"},
            "temperature is 0.1 for dino and would do nothing. Expected it for simclr alone",
        ),
        ({"dp_clip": 5.0}, "dp_clip is 5.0 and would do nothing"),
        ({"fraction": 0.3}, "fraction is 0.3 and would do nothing. Expected it for an ensemble"),
    ],
)
def test_messages(settings, message):
    with pytest.raises(SpecError, match=message):
        TrainSpec(**settings)


def test_what_supervised_training_and_mae_need():
    pixels = images(20)
    with pytest.raises(DataError, match="needs a label for every training point"):
        train_pair(pixels, objective="supervised", epochs=1)
    with pytest.raises(DataError, match="the class '1' has one training point"):
        train_pair(as_images(pixels, labels=[0] * 19 + [1]), objective="supervised", epochs=1)
    with pytest.raises(DataError, match="there is one class, '0'"):
        train_pair(as_images(pixels, labels=[0] * 20), objective="supervised", epochs=1)
    with pytest.raises(EncoderError, match="resnet9 is no plain ViT"):
        train_pair(pixels, objective="mae", encoder="resnet9", epochs=1)
    for other in ("beit", "deit", "ijepa"):
        small = f"hf:{other},hidden_size=24,num_hidden_layers=1,num_attention_heads=2,intermediate_size=32,image_size=8,patch_size=4"
        with pytest.raises(EncoderError, match="no plain ViT|cannot be made with these options"):
            train_pair(pixels, objective="mae", encoder=small, epochs=1)
    narrow = VIT.replace("hidden_size=24", "hidden_size=22").replace("num_attention_heads=3", "num_attention_heads=2")
    with pytest.raises(EncoderError, match="a width of 22. Expected a multiple of 4"):
        train_pair(pixels, objective="mae", encoder=narrow, epochs=1)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param("simsiam", marks=SLOW), pytest.param("vicreg", marks=SLOW), "dino", "mae", "supervised"])  # fmt: skip
def test_every_objective_resumes_to_the_same_weights(tmp_path, name):
    labelled = as_images(images(), labels=[row % 3 for row in range(48)])
    settings = {**SMALL, **({"encoder": VIT} if name == "mae" else {})}
    whole = train_pair(labelled, objective=name, **settings, out=tmp_path / "whole", checkpoint_every=1)

    class StoppedError(Exception):
        pass

    def stop(_text, done, _total):
        if done >= 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_pair(labelled, objective=name, **settings, out=tmp_path / "cut", checkpoint_every=1, progress=stop)
    assert (tmp_path / "cut/checkpoints/f.pt").is_file()
    again = train_pair(labelled, objective=name, **settings, out=tmp_path / "cut", checkpoint_every=1)
    for side in ("f", "g"):
        one, two = (getattr(pair, side).module.state_dict() for pair in (whole, again))
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["simclr", "mae"])
def test_a_vit_attends_plainly_in_training_and_then_as_before(tmp_path, name):

    encoder = load_encoder(VIT, weights="random")
    before, seen = encoder.module.config._attn_implementation, set()
    encoder.module.layernorm.register_forward_pre_hook(lambda *_: seen.add(encoder.module.config._attn_implementation))
    spec = spec_of(objective=name, epochs=1, batch_size=8)
    objective = train_encoder(
        encoder, as_images(images(8)).pixels, torch.arange(8), spec, seed=0, device=torch.device("cpu"), checkpoint=tmp_path / "c.pt", log=lambda _: None
    )  # fmt: skip
    assert before == "sdpa"
    assert seen == {"eager"}
    decoders = [each.config._attn_implementation for each in objective.modules() if hasattr(each, "config")]
    assert set(decoders) == ({"eager"} if name == "mae" else set())
    assert encoder.module.config._attn_implementation == before


def test_mae_knows_where_each_patch_belongs():
    from memloc.encoders import mae_decoder, visible_tokens
    from memloc.encoders.from_transformers import mae_positions

    torch.manual_seed(0)
    encoder = load_encoder(VIT, weights="random")
    decoder = mae_decoder(encoder.module)
    assert torch.allclose(encoder.module.embeddings.position_embeddings, mae_positions(2, 24))
    assert decoder.mask_token.abs().sum() > 0
    image = torch.rand(1, 3, 8, 8)
    kept, restore = torch.tensor([[2]]), torch.tensor([[1, 2, 0, 3]])
    drawn = decoder.eval()(visible_tokens(encoder.module.eval(), image, kept), restore).logits[0]
    hidden = drawn[[0, 1, 3]]
    assert (hidden[0] - hidden[1]).abs().max() > 1e-4  # the same picture for every hidden place would know no places
    assert (hidden[1] - hidden[2]).abs().max() > 1e-4
    with pytest.raises(EncoderError, match="a width of 6. Expected a multiple of 4"):
        mae_positions(2, 6)


def test_mae_draws_its_weights_as_published():
    from memloc.objectives._mae import MAE

    def made(seed):
        encoder = load_encoder(VIT, weights="random")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            objective = MAE(encoder.module)
        return encoder.module, objective

    (module, objective), (again, _), (other, _) = made(0), made(0), made(1)
    linear = [each for part in (module, objective) for each in part.modules() if isinstance(each, torch.nn.Linear)]
    bounds = {each: math.sqrt(6 / sum(each.weight.shape)) for each in linear}
    patches = module.embeddings.patch_embeddings.projection
    bounds[patches] = math.sqrt(6 / (patches.weight.shape[0] + patches.weight[0].numel()))
    assert len(bounds) > 10
    for layer, bound in bounds.items():
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert layer.bias is None or not layer.bias.any()
    assert torch.equal(patches.weight, again.embeddings.patch_embeddings.projection.weight)
    assert not torch.equal(patches.weight, other.embeddings.patch_embeddings.projection.weight)


@pytest.mark.slow
def test_the_alignment_penalty_is_the_mean_distance_and_lowers_it():
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 5.0]])
    assert float(alignment_penalty(features)) == pytest.approx(math.sqrt(2) / 2)
    from memloc import Views, audit

    found = []
    for weight in (0.0, 4.0):
        pair = train_pair(images(), **{**SMALL, "epochs": 12}, alignment_penalty=weight)
        table = audit(pair.f, images=images(), views=Views(n=4)).points
        found.append(table["align_in"].mean())
    assert found[1] < 0.8 * found[0]


def test_privacy_is_kept_and_recorded(tmp_path):
    pair = train_pair(
        images(),
        objective="mae",
        encoder=VIT,
        **{**SMALL, "epochs": 2},
        dp_epsilon=4.0,
        dp_delta=0.01,
        out=tmp_path / "run",
    )
    record = pair.run.record["privacy"]
    assert record["delta"] == {"f": 0.01, "g": 0.01}
    assert all(3.5 < spent <= 4.0 for spent in record["epsilon"].values())
    start = load_encoder(VIT, weights="random").module  # positions are fixed, the CLS token is not trained
    assert pair.f.module.embeddings.cls_token.shape == start.embeddings.cls_token.shape
    assert load_file(tmp_path / "run/encoders/f.safetensors").keys() == pair.f.module.state_dict().keys()
    from memloc.pretrain._private import check_private, noise_of

    noises = [
        noise_of(TrainSpec(objective="mae", dp_epsilon=epsilon, epochs=2, batch_size=16), 48)[0]
        for epsilon in (2.0, 8.0, 20.0)
    ]
    assert noises == sorted(noises, reverse=True)
    with pytest.raises(EncoderError, match=r"has BatchNorm2d at '1'"):
        check_private(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))


def test_one_point_changes_a_private_step_by_no_more_than_the_clip():
    """The gradient of a step, before noise, moves by at most the clipping norm when a point is taken out."""
    from memloc.pretrain._private import _library, _Loss, freeze_tokens

    opacus = _library()
    vit, objective = objective_of("mae")
    freeze_tokens(vit, objective)
    work = _Loss(vit, objective)
    per_point = opacus.GradSampleModule(work, loss_reduction="sum")
    parameters = [p for p in work.parameters() if p.requires_grad]
    private = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(parameters, lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=0.01,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    inputs, noise = random(5, 3, 8, 8), torch.rand(5, 4, generator=torch.Generator().manual_seed(1))
    steps = []
    for rows in (slice(0, 5), slice(0, 4)):
        private.zero_grad()
        per_point(inputs[rows], noise[rows]).sum().backward()
        private.pre_step()
        steps.append(torch.cat([p.grad.flatten() for p in parameters]))
    assert float((steps[0] - steps[1]).norm()) <= 0.01 * 1.001
    assert float(steps[0].norm()) > 0.01  # the others are clipped one by one, not together


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """torchrun with gloo: the same splits and views, and (without batch-norm) the same weights up to rounding."""
    np.savez(tmp_path / "images.npz", images=images(48))
    flags = [
        "train", "images.npz", "--objective", "mae", "--epochs", "2", "--batch-size", "20", "--candidates", "8", "--precision", "float32",
        "--workers", "1", "--device", "cpu", "--held-out", "0",
    ]  # fmt: skip
    one = [sys.executable, "-m", "memloc", *flags, "--out", "one"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "memloc"]
    for command in (one, [*launch, *flags, "--out", "two"]):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-2000:]
    tables = [pd.read_parquet(tmp_path / f"{name}/points.parquet") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*tables)
    for side in ("f", "g"):
        weights = [load_file(tmp_path / f"{name}/encoders/{side}.safetensors") for name in ("one", "two")]
        moved = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
        assert moved < 2e-4
    assert patches_of(build_vit("vit-tiny", size=8), torch.zeros(1, 3, 8, 8)).shape == (1, 4, 48)


def test_lars_as_simclr_uses_it():
    weight, bias = nn.Parameter(torch.tensor([[3.0, 4.0]])), nn.Parameter(torch.tensor([1.0]))
    optimizer = LARS([weight, bias], learning_rate=2.0, weight_decay=0.5, trust=0.1)
    for _ in range(2):
        weight.grad, bias.grad = torch.tensor([[0.5, -1.0]]), torch.tensor([0.25])
        expected_w, expected_b = weight.detach().clone(), bias.detach().clone()
        before = (
            optimizer.state[weight].get("momentum", torch.zeros(1, 2)).clone(),
            optimizer.state[bias].get("momentum", torch.zeros(1)).clone(),
        )
        change = weight.grad + 0.5 * expected_w
        step = 0.9 * before[0] + 2.0 * 0.1 * expected_w.norm() / change.norm() * change
        optimizer.step()
        assert torch.allclose(weight, expected_w - step)
        assert torch.allclose(bias, expected_b - (0.9 * before[1] + 2.0 * 0.25))  # neither scaled nor decayed


def private_run(tmp_path, name, **settings):
    flags = {
        **SMALL,
        "epochs": 2,
        "objective": "mae",
        "encoder": VIT,
        "dp_epsilon": 8.0,
        "optimizer": "sgd",
        **settings,
    }
    return train_pair(images(), **flags, out=tmp_path / name)


@pytest.mark.slow
def test_noise_and_draws_of_private_training_are_secret(tmp_path):
    """From the published seed nobody can draw the noise again: two trainings with one seed differ, f's and g's noise too."""
    one, two = (private_run(tmp_path, name).f.module.state_dict() for name in ("one", "two"))
    assert any(not torch.equal(one[key], two[key]) for key in one)
    assert "secret" not in (tmp_path / "one/run.json").read_text()
    assert not (tmp_path / "one/checkpoints").exists()  # which held the secret


def test_an_empty_batch_is_a_step_of_noise_alone(tmp_path, monkeypatch):
    from memloc.pretrain import _private

    monkeypatch.setattr(
        _private, "uniforms", lambda *_arguments: torch.ones(len(_arguments[1]), 1, 1, dtype=torch.float64)
    )
    pair = private_run(
        tmp_path, "noise", held_out=0, epochs=1, learning_rate=1.0, warmup=0.0, weight_decay=0.0, dp_clip=0.5
    )
    spec = TrainSpec(**{**SMALL, "epochs": 1, "objective": "mae", "dp_epsilon": 8.0, "dp_clip": 0.5})
    noise, rate, steps = _private.noise_of(spec, 40)
    from memloc.objectives import make_objective
    from memloc.pretrain._one import seed_of

    encoder, seed = load_encoder(VIT, weights="random"), seed_of(spec, "f")
    make_objective(spec, encoder.module, torch.zeros(1, 3, 8, 8), classes=0, seed=seed)  # which draws MAE's own weights
    start = encoder.module.state_dict()
    keys = [f"layers.{layer}.mlp.{part}.weight" for layer in (0, 1) for part in ("fc1", "fc2")]
    moved = torch.cat([(pair.f.module.state_dict()[key] - start[key]).flatten() for key in keys])
    # SGD with momentum .9, and a cosine that begins at 1
    scales = [0.5 * (1 + math.cos(math.pi * (step - 1) / (steps - 1))) if step else 1.0 for step in range(steps)]
    weights = [sum(scales[later] * 0.9 ** (later - step) for later in range(step, steps)) for step in range(steps)]
    expected = noise * 0.5 / round(rate * 40) * math.sqrt(sum(weight**2 for weight in weights))
    assert float(moved.std()) == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_private_training_resumes_to_the_same_weights_and_budget(tmp_path, monkeypatch):
    from memloc.pretrain import _checkpoints

    monkeypatch.setattr(_checkpoints.secrets, "randbits", lambda _bits: 12345)
    whole = private_run(tmp_path, "whole", epochs=4, checkpoint_every=1)

    class StoppedError(Exception):
        pass

    def stop(_text, done, _total):
        if done >= 3:
            raise StoppedError

    flags = {
        **SMALL,
        "epochs": 4,
        "objective": "mae",
        "encoder": VIT,
        "dp_epsilon": 8.0,
        "optimizer": "sgd",
        "checkpoint_every": 1,
    }
    with pytest.raises(StoppedError):
        train_pair(images(), **flags, out=tmp_path / "cut", progress=stop)
    monkeypatch.setattr(
        _checkpoints.secrets, "randbits", lambda _bits: 999
    )  # an unfinished encoder goes on with its own secret
    again = train_pair(images(), **flags, out=tmp_path / "cut")
    one, two = (pair.f.module.state_dict() for pair in (whole, again))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert whole.run.record["privacy"]["epsilon"]["f"] == again.run.record["privacy"]["epsilon"]["f"]


def test_a_budget_that_cannot_be_kept_is_refused_before_training():
    with pytest.raises(SpecError, match="which 4 epochs on 35 points cannot keep"):
        train_pair(images(), objective="mae", **SMALL, dp_epsilon=0.001, dp_delta=1e-12)


def test_training_starts_from_new_weights_alone(tmp_path):
    pair = train_pair(images(), **{**SMALL, "epochs": 1}, out=tmp_path / "run")
    with pytest.raises(SpecError, match="is a file of weights"):
        train_pair(images(), encoder=str(tmp_path / "run/encoders/f.safetensors"), epochs=1)
    assert pair.f.augmentation == "normal"


def test_a_recipe_does_not_stand_in_the_way_of_an_ensemble():
    assert not spec_of(recipe="published", objective="simclr", ensemble=4).unpaired
    assert spec_of(recipe="published", objective="simclr").unpaired
    assert not spec_of(recipe="published", objective="simclr", unpaired=False).unpaired


def test_dinos_teacher_keeps_batch_norm_statistics_of_its_own():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module, objective = objective_of("dino", module)
    inputs = random(8, 3, 8, 8)
    objective.loss(objective.project(module, inputs, batch()), batch())
    before = [b.clone() for b in objective.teacher.buffers()]
    assert before[0].abs().sum() > 0  # its own passes moved them
    with torch.no_grad():
        for buffer in module.buffers():
            buffer.fill_(7)
    objective.after_step(module, objective.pace(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(before, objective.teacher.buffers(), strict=True))


@pytest.mark.long
def test_coupled_losses_of_two_processes_have_the_gradient_of_one(tmp_path):
    script = tmp_path / "gradient.py"
    script.write_text(
        """
import atexit
import torch
from memloc.objectives import nt_xent
from memloc.pretrain._distributed import average_gradients, gathered, join, rank, share_of, world
# Runs after what `join` registers.
atexit.register(lambda: print("left" if not torch.distributed.is_initialized() else "still joined"))
join(torch.device("cpu"))
torch.manual_seed(0)
net, x, ids = torch.nn.Linear(5, 3), torch.randn(2, 8, 5), torch.arange(8)
mine = share_of(ids)
z = net(x[:, mine].flatten(0, 1))
left, right = gathered(z, 2).chunk(2)
loss = nt_xent(left, right, gathered(mine, 1))
loss.backward()
average_gradients(list(net.parameters()))
if rank() == 0:
    torch.save({"loss": loss.detach(), "grad": net.weight.grad}, f"found{world()}.pt")
"""
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for processes, launch in ((1, [sys.executable, str(script)]), (2, [*torchrun, str(script)])):
        done = subprocess.run(
            launch, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.replace("\n", "") == "left" * processes
    one, two = (torch.load(tmp_path / f"found{processes}.pt") for processes in (1, 2))
    assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-6)
    assert torch.allclose(one["grad"], two["grad"], atol=1e-6)


def test_the_learning_rate_by_hand(tmp_path, tiny):
    """Four epochs of one step: two of them rise to the full rate, then a cosine from 1 to 1/2."""
    spec = spec_of(epochs=4, batch_size=8, learning_rate=0.2, warmup=0.5)
    encoder, lines = load_encoder(tiny(0), shape=(1, 8, 8)), []
    train_encoder(
        encoder, as_images(images(8)).pixels, torch.arange(8), spec, seed=0, device=torch.device("cpu"), checkpoint=tmp_path / "c.pt", log=lines.append
    )  # fmt: skip
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.1, 0.2, 0.2, 0.1])
