"""Each point's own loss, on five points, against the training loss of the same views computed by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from memloc.encoders import load_encoder
from memloc.objectives import Shown, make_objective, nt_xent, own_nt_xent
from memloc.pretrain import TrainSpec
from memloc.streams import Stream
from memloc.views import uniforms

POINTS, VIEWS, FEATURES = 5, 4, 256


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return load_encoder("resnet9")


def objective(encoder, name, classes=0, **own):
    spec = TrainSpec(objective=name, encoder="resnet9" if name != "mae" else "vit-tiny", **own)
    example = encoder.prepare(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    found = make_objective(spec, encoder.module, example, classes=classes, seed=0).eval().requires_grad_(False)
    for part in found.modules():  # statistics of a training, not the first ones
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return found


def shown(encoder, **more):
    drawn = torch.Generator().manual_seed(2)
    views = torch.rand(POINTS * VIEWS, 3, 32, 32, generator=drawn)
    inputs = encoder.prepare(views)
    module = encoder.module.eval()
    with torch.no_grad():
        out = module(inputs)
    features = getattr(out, "last_hidden_state", out)
    features = features.mean(dim=1) if features.ndim == 3 else features
    return Shown(
        module, inputs, features.detach(), torch.tensor([3, 1, 4, 15, 9]), VIEWS, 7, **{"labels": None, **more}
    )


def symmetric(found):
    assert found.shape == (POINTS, VIEWS, VIEWS)
    assert torch.equal(found, found.transpose(1, 2))
    assert not found.diagonal(dim1=1, dim2=2).any()
    return found


def test_simclr(encoder):
    found = objective(encoder, "simclr", temperature=0.3)
    found.batch_size = 6
    given = shown(encoder)
    others = torch.randn(10, FEATURES, generator=torch.Generator().manual_seed(3))
    references = found.embed(others)
    same = torch.zeros(POINTS, 10, dtype=torch.bool)
    same[2, :4] = True
    losses = symmetric(found.own_losses(Shown(**{**vars(given), "references": references, "same": same})))
    z = F.normalize(found.head(given.features), dim=1).view(POINTS, VIEWS, -1)
    for point in range(POINTS):
        mine = references[~same[point]]
        for one in range(VIEWS):
            for two in range(one + 1, VIEWS):
                both = []
                for first, second in ((one, two), (two, one)):
                    positive = math.exp(float(z[point, first] @ z[point, second]) / 0.3)
                    negative = (10 * (z[point, first] @ mine.T / 0.3).exp().mean()).item()  # 2B - 2 of them
                    both.append(-math.log(positive / (positive + negative)))
                assert float(losses[point, one, two]) == pytest.approx(sum(both) / 2, rel=1e-5)


def test_simclr_is_nt_xent_where_the_negatives_are_the_batchs():
    z = F.normalize(torch.randn(POINTS, 2, 8, generator=torch.Generator().manual_seed(4)), dim=2)
    ids = torch.arange(POINTS)
    total = 0.0
    for point in range(POINTS):
        others = z[ids != point].flatten(0, 1)
        same = torch.zeros(1, len(others), dtype=torch.bool)
        total += float(own_nt_xent(z[point : point + 1], others, same, batch=POINTS)[0, 0, 1])
    assert total / POINTS == pytest.approx(float(nt_xent(z[:, 0], z[:, 1], ids)), rel=1e-6)


def test_a_point_is_not_its_own_negative():
    z = F.normalize(torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(5)), dim=2)
    references = torch.cat([z[0], -z[0], z[1]])
    same = torch.tensor([[True, True, False, False, False, False], [False, False, False, False, True, True]])
    without = own_nt_xent(z[:1], references[2:], same[:1, 2:], batch=4)
    assert torch.equal(own_nt_xent(z[:1], references, same[:1], batch=4), without)


def test_vicreg(encoder):
    found, given = objective(encoder, "vicreg"), shown(encoder)
    losses = symmetric(found.own_losses(given))
    z = found.expander(given.features).view(POINTS, VIEWS, -1)
    for one, two in ((0, 1), (2, 3), (0, 3)):
        mean = float(losses[:, one, two].mean())
        assert mean == pytest.approx(25 * float(F.mse_loss(z[:, one], z[:, two])), rel=1e-4)


def test_simsiam(encoder):
    found, given = objective(encoder, "simsiam"), shown(encoder)
    losses = symmetric(found.own_losses(given))
    z = found.projector(given.features)
    p, z = (each.view(POINTS, VIEWS, -1) for each in (found.predictor(z), z))
    trained = 0.5 * sum(-F.cosine_similarity(p[:, a], z[:, b], dim=1) for a, b in ((0, 2), (2, 0)))
    assert torch.allclose(losses[:, 0, 2], 1 + trained, atol=1e-5)  # its negative cosine, shifted


def test_supervised(encoder):
    found = objective(encoder, "supervised", classes=3)
    labels = torch.tensor([0, 2, 1, 1, 0])
    losses = symmetric(found.own_losses(shown(encoder, labels=labels)))
    logits = found.head(shown(encoder).features).view(POINTS, VIEWS, -1)
    expected = sum(F.cross_entropy(logits[:, view], labels, reduction="none") for view in (1, 3)) / 2
    assert torch.allclose(losses[:, 1, 3].float(), expected, rtol=1e-5)


def test_dino(encoder):
    found, given = objective(encoder, "dino"), shown(encoder)
    found.centre.uniform_(-0.01, 0.01)
    found.finish(encoder.module)
    losses = symmetric(found.own_losses(given))
    student = found.head(found.student.eval()(given.inputs)).view(POINTS, VIEWS, -1)
    teacher = found.teacher_head(given.features).view(POINTS, VIEWS, -1)
    target = ((teacher - found.centre) / 0.04).softmax(dim=2)
    guess = (student / 0.1).log_softmax(dim=2)
    expected = -0.5 * ((target[:, 0] * guess[:, 1]).sum(dim=1) + (target[:, 1] * guess[:, 0]).sum(dim=1))
    assert torch.allclose(losses[:, 0, 1], expected, rtol=1e-4)


def test_mae():
    torch.manual_seed(0)
    tiny = "hidden_size=24,num_hidden_layers=1,num_attention_heads=3,intermediate_size=48,image_size=32,patch_size=8"
    vit = load_encoder(f"hf:vit,{tiny}", weights="random")
    found = objective(vit, "mae")
    given = shown(vit)
    losses = symmetric(found.own_losses(given))
    noise = uniforms(Stream.OWN_MASKS.keyed(7), given.points, torch.arange(VIEWS), 16, "independent").flatten(0, 1)
    predicted, target, hidden = found.reconstruct(vit.module, given.inputs, noise)
    target = (target - target.mean(dim=2, keepdim=True)) / (target.var(dim=2, keepdim=True) + 1e-6).sqrt()
    assert hidden.sum(dim=1).unique().tolist() == [12.0]
    each = ((predicted - target).square().mean(dim=2) * hidden).sum(dim=1).view(POINTS, VIEWS) / 12
    assert torch.allclose(losses[:, 0, 3], (each[:, 0] + each[:, 3]) / 2, rtol=1e-5)
    fewer = Shown(
        **{
            **vars(given),
            "inputs": given.inputs[VIEWS:],
            "features": given.features[VIEWS:],
            "points": given.points[1:],
        }
    )
    assert torch.allclose(found.own_losses(fewer), losses[1:], rtol=1e-5)  # masks belong to points


def test_what_a_finished_dino_keeps(encoder):
    torch.manual_seed(0)
    module = load_encoder("resnet9").module
    example = torch.rand(2, 3, 32, 32)
    spec = TrainSpec(objective="dino")
    one = make_objective(spec, module, example, classes=0, seed=0)
    student, teacher = (
        {k: v.clone() + add for k, v in each.state_dict().items()} for each, add in ((module, 0), (one.teacher, 0))
    )
    with torch.no_grad():
        one.teacher.conv1.conv.weight.add_(1)
    one.finish(module)
    assert torch.equal(module.state_dict()["conv1.conv.weight"], teacher["conv1.conv.weight"] + 1)
    assert torch.equal(one.state_dict()["student.conv1.conv.weight"], student["conv1.conv.weight"])
    assert one.has_own_losses
    again = make_objective(spec, load_encoder("resnet9").module, example, classes=0, seed=1)
    assert not again.has_own_losses
    again.settle(one.state_dict())
    again.load_state_dict(one.state_dict())
    assert again.has_own_losses
