"""Projection heads found beside encoders and in files of their own, and rebuilt from their weights."""

import copy
import itertools

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memloc.encoders import ResNet, build_head, pick_weights, read_head
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, NonFiniteError
from memloc.objectives import objective_named

WIDTH = 8
ONE = torch.ones(1)


@pytest.fixture(scope="module")
def own():
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1)).state_dict()


def drawn(head, seed=0):
    """A head in evaluation mode, whose every weight and statistic is random."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in head.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return head.eval()


def mlp(*sizes, norm=True, bias=True, last_norm=None, act=nn.ReLU):
    """Linear, batch-norm and activation; after the last linear layer the batch-norm that is given."""
    parts = []
    for before, after in itertools.pairwise(sizes[:-1]):
        parts += [nn.Linear(before, after, bias=bias), *([nn.BatchNorm1d(after)] if norm else []), act()]
    parts.append(nn.Linear(sizes[-2], sizes[-1], bias=bias))
    return nn.Sequential(*parts, *([last_norm] if last_norm else []))


def without_scale(width):
    return nn.BatchNorm1d(width, affine=False)


class DINOHead(nn.Module):
    """As published: an MLP with GELU, unit length, weight-normed prototypes."""

    def __init__(self, norm=False, form=nn.utils.weight_norm):
        super().__init__()
        self.mlp = mlp(WIDTH, 16, 12, 6, norm=norm, act=nn.GELU)
        self.last_layer = form(nn.Linear(6, 20, bias=False))

    def forward(self, x):
        return self.last_layer(nn.functional.normalize(self.mlp(x), dim=-1, p=2))


def under(prefix, state):
    state = state.state_dict() if isinstance(state, nn.Module) else state
    return {f"{prefix}{name}": value for name, value in state.items()}


def others(own):
    """Another copy of an encoder."""
    return {name: value + 1 for name, value in own.items()}


def agrees(weights, *heads, seed=3):
    """Whether a head rebuilt from weights gives what the heads give one after the other."""
    x = expected = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for head in heads:
            expected = head(expected)
        rebuilt = build_head(weights, features=WIDTH, name="w.pth")
        assert not any(part.training for part in rebuilt.modules())
        torch.testing.assert_close(rebuilt(x), expected, rtol=1e-6, atol=1e-6)
    return rebuilt


TWO = drawn(mlp(WIDTH, 16, 4, norm=False))  # MoCo v2, SimCLR
THREE = drawn(mlp(WIDTH, 16, 16, 4, bias=False), 1)  # VICReg, Barlow Twins
SIMSIAM = drawn(mlp(WIDTH, 16, 16, 6, bias=False, last_norm=without_scale(6)), 2)
PREDICTOR = drawn(mlp(6, 3, 6), 4)
OTHER = drawn(mlp(WIDTH, 16, 4, norm=False), 5)
DINOS = drawn(DINOHead(norm=True), 6)
CLASSES = nn.Linear(WIDTH, 10)

LAYOUTS = {
    "MoCo v2": (
        lambda own: {
            "state_dict": under("module.encoder_q.", own)
            | under("module.encoder_q.fc.", TWO)
            | under("module.encoder_k.", others(own))
            | under("module.encoder_k.fc.", OTHER)
            | {"module.queue": torch.ones(4, 9), "module.queue_ptr": ONE}
        },
        [TWO],
        "'state_dict.module.encoder_q.fc'",
    ),
    "MoCo v1": (
        lambda own: {
            "state_dict": under("module.encoder_q.", own)
            | under("module.encoder_q.fc.", CLASSES)
            | under("module.encoder_k.", others(own))
        },
        [CLASSES],
        "encoder_q.fc'",
    ),
    "MoCo v3": (
        lambda own: {
            "state_dict": under("module.base_encoder.", own)
            | under("module.base_encoder.fc.", SIMSIAM)
            | under("module.predictor.", PREDICTOR)
            | under("module.momentum_encoder.", others(own))
            | under("module.momentum_encoder.fc.", OTHER)
        },
        [SIMSIAM, PREDICTOR],
        "'state_dict.module.base_encoder.fc' and 'state_dict.module.predictor'",
    ),
    "SimSiam": (
        lambda own: {
            "state_dict": under("module.encoder.", own)
            | under("module.encoder.fc.", SIMSIAM)
            | under("module.predictor.", PREDICTOR)
        },
        [SIMSIAM, PREDICTOR],
        "module.encoder.fc' and",
    ),
    "SimCLR of sthalles": (
        lambda own: {"state_dict": under("backbone.", own) | under("backbone.fc.", TWO), "epoch": 3},
        [TWO],
        "backbone.fc'",
    ),
    "SimCLR of Spijkervet": (
        lambda own: under("encoder.", own) | under("projector.", TWO),
        [TWO],
        "found in 'projector'",
    ),
    "VICReg": (
        lambda own: {"model": under("module.backbone.", own) | under("module.projector.", THREE), "epoch": 3},
        [THREE],
        "'model.module.projector'",
    ),
    "SwAV": (
        lambda own: {
            "state_dict": under("module.", own)
            | under("module.projection_head.", THREE)
            | {"module.prototypes.weight": torch.ones(9, 4)}
        },
        [THREE],
        "1 entries of heads left out, projection head found in 'state_dict.module.projection_head'",
    ),
    "lightly": (
        lambda own: {
            "state_dict": under("backbone.", own)
            | under("projection_head.layers.", SIMSIAM)
            | under("prediction_head.layers.", PREDICTOR)
            | under("backbone_momentum.", others(own))
            | under("projection_head_momentum.layers.", OTHER)
        },
        [SIMSIAM, PREDICTOR],
        "'state_dict.projection_head' and 'state_dict.prediction_head'",
    ),
    "solo-learn": (
        lambda own: {
            "state_dict": under("backbone.", own)
            | under("classifier.", CLASSES)
            | under("momentum_backbone.", others(own))
            | under("momentum_projector.", OTHER)
            | under("projector.", SIMSIAM)
            | under("predictor.", PREDICTOR)
        },
        [SIMSIAM, PREDICTOR],
        "'state_dict.projector' and 'state_dict.predictor'",
    ),
    "DINO": (
        lambda own: {
            "student": under("module.backbone.", others(own)) | under("module.head.", drawn(DINOHead(norm=True), 9)),
            "teacher": under("backbone.", own) | under("head.", DINOS),
        },
        [DINOS],
        "'teacher.head'",
    ),
    "DINO in lightly": (
        lambda own: (
            under("student_backbone.", others(own))
            | under("student_head.", drawn(DINOHead(norm=True), 9))
            | under("teacher_backbone.", own)
            | under("teacher_head.", DINOS)
        ),
        [DINOS],
        "'teacher_head'",
    ),
    "DINOv2": (
        lambda own: {
            "teacher": under("backbone.", own)
            | under("dino_head.", DINOS)
            | under("ibot_head.", drawn(DINOHead(norm=True), 9))
        },
        [DINOS],
        "'teacher.dino_head'",
    ),
    "BYOL of lucidrains": (
        lambda own: (
            under("online_encoder.net.", own)
            | under("online_encoder.projector.", SIMSIAM)
            | under("online_predictor.", PREDICTOR)
            | under("target_encoder.net.", others(own))
            | under("target_encoder.projector.", OTHER)
        ),
        [SIMSIAM, PREDICTOR],
        "'online_encoder.projector' and 'online_predictor'",
    ),
    "dictionaries of their own": (
        lambda own: {"encoder": own, "projector": TWO.state_dict(), "optimizer": {"state": {0: ONE}}},
        [TWO],
        "'projector'",
    ),
    "in the encoder itself": (lambda own: own | under("fc.", TWO), [TWO], "projection head found in 'fc'"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_head_beside_an_encoder_gives_what_it_gave(own, layout):
    wrap, heads, note = LAYOUTS[layout]
    picked = pick_weights(wrap(own), own, name="w.pth")
    assert all(torch.equal(picked.weights[name], value) for name, value in own.items())
    agrees(picked.head, *heads)
    assert note in picked.note
    assert ("left out" in picked.note) == ("left out" in note)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_head_is_read_from_the_whole_checkpoint_as_a_file(own, layout, tmp_path):
    if layout == "MoCo v1":
        pytest.skip("one layer beside an encoder, in a file that was not said to be MoCo's, may be a classifier")
    wrap, heads, _ = LAYOUTS[layout]
    torch.save(wrap(own), tmp_path / "w.pth")
    agrees(read_head(tmp_path / "w.pth"), *heads)


def test_the_head_is_that_of_the_copy_that_was_asked_for(own):
    solo = LAYOUTS["solo-learn"][0](own)
    momentum = pick_weights(solo, own, name="w", strip_prefix="momentum_backbone.")
    agrees(momentum.head, OTHER)  # without the predictor, which the momentum network does not have
    moco = pick_weights(LAYOUTS["MoCo v2"][0](own), own, name="w", strip_prefix="module.encoder_k.")
    agrees(moco.head, OTHER)
    third = pick_weights(LAYOUTS["MoCo v3"][0](own), own, name="w", strip_prefix="module.momentum_encoder.")
    agrees(third.head, OTHER)
    dino = LAYOUTS["DINO"][0](own)
    agrees(pick_weights(dino, own, name="w", state_key="student").head, drawn(DINOHead(norm=True), 9))
    lightly = pick_weights(LAYOUTS["DINO in lightly"][0](own), own, name="w", strip_prefix="student_backbone.")
    agrees(lightly.head, drawn(DINOHead(norm=True), 9))


@pytest.mark.parametrize(
    "state",
    [
        lambda own: own,
        lambda own: own | under("fc.", CLASSES),
        lambda own: {"model": own | under("head.", CLASSES)},
        lambda own: {"state_dict": under("backbone.", own) | under("classifier.", TWO)},
        lambda own: under("backbone.", own) | under("linear.", CLASSES),
        lambda own: {"model": own | {"mask_token": ONE, "decoder_embed.weight": torch.ones(2, 2)}},
        lambda own: {"encoder": own, "predictor": mlp(WIDTH, 4, WIDTH).state_dict()},  # I-JEPA
        lambda own: under("teacher.", own) | under("student.", others(own)) | under("student.head.", TWO),
    ],
)
def test_what_is_no_projection_head_is_none(own, state):
    picked = pick_weights(state(own), own, name="w")
    assert picked.head == {}
    assert "projection head" not in picked.note


def test_a_classifier_beside_a_projector_does_not_take_its_place(own):
    state = under("backbone.", own) | under("backbone.fc.", CLASSES) | under("projector.", TWO)
    picked = pick_weights(state, own, name="w")
    agrees(picked.head, TWO)
    assert picked.note.endswith("2 entries of heads left out, projection head found in 'projector'")


def test_of_two_heads_the_one_nearer_to_the_encoder_is_taken(own):
    state = under("first.backbone.", own) | under("projector.", OTHER) | under("first.head.", TWO)
    agrees(pick_weights(state, own, name="w").head, TWO)


def test_of_two_heads_side_by_side_the_projector_is_taken(own):
    state = under("backbone.", own) | under("fc.", OTHER) | under("projector.", TWO)
    agrees(pick_weights(state, own, name="w").head, TWO)


def test_an_encoders_own_layers_are_no_head(own):
    names = own | under("head.", TWO)
    picked = pick_weights(under("module.", names), names, name="w")
    assert picked.head == {}
    assert set(picked.weights) == set(names)


FORMS = {
    "batch-norm without scale and shift": lambda: mlp(WIDTH, 16, 4, last_norm=without_scale(4)),
    "batch-norm at the end": lambda: mlp(WIDTH, 16, 4, last_norm=nn.BatchNorm1d(4)),
    "no bias": lambda: mlp(WIDTH, 16, 4, bias=False),
    "no norm": lambda: mlp(WIDTH, 16, 4, norm=False),
    "eleven layers": lambda: mlp(*[WIDTH] * 12, norm=False),
    "eleven layers with norms": lambda: mlp(*[WIDTH] * 12),
    "one layer": lambda: nn.Linear(WIDTH, 4),
    "one layer in a sequence": lambda: nn.Sequential(nn.Linear(WIDTH, 4, bias=False)),
    "layer-norm": lambda: nn.Sequential(nn.Linear(WIDTH, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 4)),
    "norm after the activation": lambda: nn.Sequential(
        nn.Linear(WIDTH, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4)
    ),
    "dropout": lambda: nn.Sequential(
        nn.Linear(WIDTH, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4)
    ),
    "dropout before the norm": lambda: nn.Sequential(
        nn.Linear(WIDTH, 16), nn.Dropout(), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
    ),
    "DINO": DINOHead,
    "DINO with batch-norm": lambda: DINOHead(norm=True),
    "DINO parametrized": lambda: DINOHead(form=nn.utils.parametrizations.weight_norm),
    "DINOv3": lambda: DINOHead(form=lambda layer: layer),
    "wrapped twice": lambda: nn.DataParallel(nn.Sequential(nn.Identity(), mlp(WIDTH, 16, 4))),
    "blocks": lambda: nn.Sequential(
        *(nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU()) for _ in range(3)),
        nn.Linear(WIDTH, 4),
    ),
    "half precision": lambda: mlp(WIDTH, 16, 4).to(torch.float16),
    "double precision": lambda: mlp(WIDTH, 16, 4).double(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_head_in_a_file_is_rebuilt(form, kind, tmp_path):
    head = drawn(FORMS[form]())
    state = {name: value.contiguous() for name, value in head.state_dict().items()}
    if kind == "safetensors":
        save_file(state, tmp_path / "head.safetensors")
    else:
        torch.save(state, tmp_path / "head.pth")
    rebuilt = agrees(read_head(tmp_path / f"head.{kind}"), head.float())
    assert [name for name, _ in rebuilt.named_children()] == [str(number) for number in range(len(rebuilt))]
    assert all(value.dtype != torch.float16 for value in rebuilt.state_dict().values())


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "head.", "projection_head.", "projector.", "layers.", "module.head.layers."]
)
@pytest.mark.parametrize(
    "wrap", [lambda state: state, lambda state: {"net": state, "epoch": 3, "optimizer_state_dict": {"state": {0: ONE}}}]
)
def test_prefixes_and_dictionaries_around_a_head_do_not_matter(prefix, wrap, tmp_path):
    torch.save(wrap(under(prefix, THREE)), tmp_path / "head.pth")
    agrees(read_head(tmp_path / "head.pth"), THREE)


def test_a_momentum_head_alone_is_read(tmp_path):
    torch.save(under("momentum_projector.", THREE) | {"queue": ONE}, tmp_path / "head.pth")
    agrees(read_head(tmp_path / "head.pth"), THREE)


def test_a_batch_norm_without_shift_is_rebuilt():
    head = drawn(mlp(WIDTH, 16, 4))
    head[1].bias.data.zero_()
    agrees({name: value for name, value in head.state_dict().items() if name != "1.bias"}, head)


@pytest.mark.parametrize("prefix", ["", "module.", "head.", "model.module."])
def test_a_projector_and_a_predictor_are_chained(prefix, tmp_path):
    state = under(f"{prefix}predictor.", PREDICTOR) | under(f"{prefix}projector.", SIMSIAM)
    torch.save(state, tmp_path / "head.pth")
    rebuilt = agrees(read_head(tmp_path / "head.pth"), SIMSIAM, PREDICTOR)
    assert [name for name, _ in rebuilt.named_children()] == ["projector", "predictor"]
    assert isinstance(rebuilt.get_submodule("projector.7"), nn.BatchNorm1d)


def test_layers_that_are_numbered_by_name_are_put_in_order():
    head = drawn(mlp(WIDTH, 16, 16, 4, bias=False))
    spoken = {"0": "fc1", "1": "bn1", "3": "fc2", "4": "bn2", "6": "fc3"}
    state = {}
    for name, value in head.state_dict().items():
        number, _, own = name.partition(".")
        state[f"{spoken[number]}.{own}"] = value
    agrees(state, head)
    agrees(dict(sorted(state.items())), head)
    blocks = {
        "0": "layer1.0",
        "1": "layer1.1",
        "3": "layer2.0",
        "4": "layer2.1",
        "6": "layer3",
    }  # SimSiam by PatrickHua
    agrees(
        {f"{blocks[name.partition('.')[0]]}.{name.partition('.')[2]}": v for name, v in head.state_dict().items()}, head
    )


@pytest.mark.parametrize(("objective", "own"), [("simclr", ()), ("vicreg", ()), ("simsiam", ()), ("supervised", (5,))])
def test_heads_that_memloc_wrote_are_read(objective, own, tmp_path):
    trained = drawn(objective_named(objective)(WIDTH, *own))
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, tmp_path / "f.safetensors")
    agrees(read_head(tmp_path / "f.safetensors"), *trained.children())


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)),
        nn.ModuleDict({"embeddings": nn.ModuleDict({"projection": nn.Conv2d(1, 2, 3)})}),  # as in transformers' ViT
    ],
)
def test_the_head_of_memlocs_dino_is_the_teachers(module, tmp_path):
    trained = drawn(objective_named("dino")(module, WIDTH))
    save_file({name: value.clone() for name, value in trained.state_dict().items()}, tmp_path / "f.safetensors")
    agrees(read_head(tmp_path / "f.safetensors"), trained.teacher_head)


def test_lightlys_heads_are_rebuilt(torchvision):
    from lightly.models.modules import heads

    for head in (
        heads.SimCLRProjectionHead(WIDTH, 16, 4),
        heads.SimCLRProjectionHead(WIDTH, 16, 4, num_layers=3, batch_norm=False),
        heads.MoCoProjectionHead(WIDTH, 16, 4),
        heads.MoCoProjectionHead(WIDTH, 16, 4, num_layers=3, batch_norm=True),
        heads.BYOLProjectionHead(WIDTH, 16, 4),
        heads.VICRegProjectionHead(WIDTH, 16, 4),
        heads.BarlowTwinsProjectionHead(WIDTH, 16, 4),
        heads.SwaVProjectionHead(WIDTH, 16, 4),
        heads.NNCLRProjectionHead(WIDTH, 16, 4),
        heads.DINOProjectionHead(WIDTH, 16, 6, 20),
        heads.DINOProjectionHead(WIDTH, 16, 6, 20, batch_norm=True),
    ):
        agrees(drawn(head).state_dict(), head)
    projector, predictor = drawn(heads.SimSiamProjectionHead(WIDTH, 16, 6)), drawn(heads.SimSiamPredictionHead(6, 3, 6))
    agrees(under("projector.", projector) | under("predictor.", predictor), projector, predictor)


def test_a_model_of_lightly_is_taken_apart(own, torchvision):
    from lightly.models.modules import heads

    class SimSiamModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = ResNet((1, 1, 1, 1))
            self.projection_head = drawn(heads.SimSiamProjectionHead(WIDTH, 16, 6))
            self.prediction_head = drawn(heads.SimSiamPredictionHead(6, 3, 6))

    model = SimSiamModel()
    picked = pick_weights({"state_dict": model.state_dict()}, own, name="lightly.ckpt")
    agrees(picked.head, model.projection_head, model.prediction_head)


def test_rebuilding_changes_neither_the_weights_nor_the_generator():
    state = copy.deepcopy(THREE.state_dict())
    before = torch.get_rng_state()
    rebuilt = build_head(state, features=WIDTH, name="w")
    assert torch.equal(before, torch.get_rng_state())
    with torch.no_grad():
        for value in rebuilt.state_dict().values():
            value.zero_()
    assert all(torch.equal(value, THREE.state_dict()[name]) for name, value in state.items())


def square(**entries):
    return {"0.weight": torch.ones(WIDTH, WIDTH), **entries}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "head.pth holds no MLP: it is empty. Expected linear layers, such as '0.weight'"),
        (drawn(without_scale(WIDTH)).state_dict(), "holds no MLP: 'running_mean', 'running_var'"),
        (
            mlp(6, 5, 4).state_dict(),
            "head.pth takes features of width 6 and the encoder gives 8. Expected the head that",
        ),
        (
            square(**{"1.running_mean": torch.ones(5), "1.running_var": torch.ones(5)}),
            "do not follow each other: '1' takes 5 values and '0' gives 8",
        ),
        (square(**{"2.weight": torch.ones(4, 9)}), "'2' takes 9 values and '0' gives 8. Expected them in the order"),
        (
            under("projector.", SIMSIAM) | under("predictor.", mlp(5, 4, 5)),
            "the predictor of head.pth takes features of width 5 and its projector gives 6",
        ),
        (
            {"0.weight": torch.ones(4, WIDTH, 1, 1), "0.bias": torch.ones(4)},
            r"holds more than an MLP: 'weight' of shape \(4, 8, 1, 1\) and 'bias' of shape \(4,\) in '0'",
        ),
        (square(queue=torch.ones(4, 9)), r"holds more than an MLP: 'queue' of shape \(4, 9\). Expected linear layers"),
        (square(**{"0.scale": ONE}), "holds more than an MLP: .*'scale' of shape"),
        (square(**{"0.bias": torch.ones(3)}), "holds more than an MLP: .*'bias' of shape"),
        (square(**{"1.weight": torch.ones(WIDTH)}), "holds more than an MLP: 'weight' of shape .* in '1'"),  # PReLU
        (square(**{"1.running_mean": torch.ones(WIDTH)}), "holds more than an MLP: 'running_mean'"),
        (square(**{"1.num_batches_tracked": ONE}), "holds more than an MLP: 'num_batches_tracked'"),
        (
            {"last_layer.weight_g": torch.ones(1, 4), "last_layer.weight_v": torch.ones(3, 4)},
            "holds more than an MLP: 'weight_g'",
        ),
        (square(**{"2.weight_v": ONE[0]}), "holds more than an MLP: 'weight_v'"),
        (square(**{"2.weight_v": torch.ones(3, WIDTH, 1)}), "holds more than an MLP: 'weight_v'"),
        ({"last_layer.weight_g": torch.ones(3, 1), "last_layer.weight_v": torch.ones(3, WIDTH)}, "holds no MLP"),
        (
            {
                "projection.weight": torch.ones(WIDTH, WIDTH),
                "fc.weight": torch.ones(WIDTH, WIDTH),
                "layer_norm.weight": torch.ones(WIDTH),
                "layer_norm.bias": torch.ones(WIDTH),
            },
            "order is unknown: 'projection', 'fc', 'layer_norm'. Expected a number in each name, such as 0, 1 and 3",
        ),
        (under("a.", mlp(WIDTH, 8, norm=False)) | under("b.", mlp(8, 8, norm=False)), "order is unknown: 'a.0', 'b.0'"),
    ],
)
def test_what_is_no_mlp_of_that_width_is_refused(state, message, tmp_path):
    with pytest.raises(EncoderError, match=message):
        build_head(state, features=WIDTH, name="head.pth")
    with pytest.raises(EncoderError, match=" Pass a file that holds another head | Save the head as "):
        build_head(state, features=WIDTH, name="head.pth")
    if state and not any(name.startswith("predictor") for name in state):
        torch.save(state, tmp_path / "head.pth")
        with pytest.raises(EncoderError, match=message):  # reading drops nothing that would be refused
            build_head(read_head(tmp_path / "head.pth"), features=WIDTH, name="head.pth")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_head_that_is_not_finite_is_refused(value):
    for name in ("0.weight", "1.running_var", "3.bias"):
        state = {own: each.clone() for own, each in drawn(mlp(WIDTH, 16, 4)).state_dict().items()}
        state[name].view(-1)[0] = value
        with pytest.raises(NonFiniteError, match=f"head.pth has NaN or Inf in '{name}'"):
            build_head(state, features=WIDTH, name="head.pth")


def test_files_without_a_head_are_refused(own, tmp_path):
    with pytest.raises(DataNotFoundError, match="there is no checkpoint"):
        read_head(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "settings.pth")
    with pytest.raises(CheckpointError, match="no dictionary of tensors"):
        read_head(tmp_path / "settings.pth")
    torch.save(own, tmp_path / "encoder.pth")
    with pytest.raises(EncoderError, match="holds more than an MLP: .* and no convolutions"):
        build_head(read_head(tmp_path / "encoder.pth"), features=WIDTH, name="encoder.pth")
