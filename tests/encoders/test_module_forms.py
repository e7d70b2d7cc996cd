"""Modules that tied weights, odd states, the batch, an overridden train() or a cache would make wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from memloc import Views, audit, load_encoder, train_pair
from memloc.encoders import copied, layer_parts, represent, silence
from memloc.encoders import tapped as tap
from memloc.errors import EncoderError

SHAPE = (1, 8, 8)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean(dim=(2, 3)))


class Tied(nn.Module):
    """Two layers with one weight: one parameter under two names, or two parameters in the same memory."""

    def __init__(self, how="parameter"):
        super().__init__()
        self.conv0, self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        if how == "parameter":
            self.conv2.weight = self.conv1.weight
        elif how == "module":
            self.again = self.conv1
        else:
            self.conv2.weight = nn.Parameter(self.conv1.weight.detach())

    def forward(self, images):
        return self.conv2(self.conv1(self.conv0(images).relu()).relu()).mean(dim=(2, 3))


@pytest.mark.parametrize("how", ["parameter", "module"])
def test_tied_weights_are_trained_stored_and_audited(how, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (24, 12, 12, 1), dtype=np.uint8)
    pair = train_pair(images, encoder=Tied(how), epochs=1, candidates=4, batch_size=8, workers=1, out=tmp_path / "run")
    again = load_encoder(Tied(how), weights=tmp_path / "run/encoders/f.safetensors", shape=(1, 12, 12))
    assert torch.equal(again.module.conv2.weight, pair.f.module.conv2.weight)
    assert len(audit(pair.f, pair.g, images=images, splits=pair.splits, views=Views(n=2)).layers) > 3


def test_tied_weights_are_not_changed_by_halves():
    encoder = load_encoder(Tied(), shape=(1, 12, 12))
    with pytest.raises(EncoderError, match="weights of 'conv1' are tied to those of 'conv2'"):
        silence(copied(encoder), layer_parts(encoder, ["conv1"])["conv1"], [0])
    silence(copied(encoder), layer_parts(encoder, ["conv0"])["conv0"], [0])
    view = load_encoder(Tied("view"), shape=(1, 12, 12))
    with pytest.raises(EncoderError, match="'conv1.weight' and 'conv2.weight' of Tied are views of the same memory"):
        copied(view)
    images = np.random.default_rng(0).integers(0, 256, (24, 12, 12, 1), dtype=np.uint8)
    with pytest.raises(EncoderError, match="views of the same memory"):
        train_pair(images, encoder=Tied("view"), epochs=1, candidates=4, batch_size=8)


class Extra(Small):
    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state):
        pass


def test_states_that_are_no_tensors(tiny, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    assert len(audit(Extra(), images=images, views=Views(n=2)).layers)
    torch.save(Extra().state_dict(), tmp_path / "w.pth")
    assert load_encoder(Extra(), weights=tmp_path / "w.pth", shape=SHAPE).layers
    with pytest.raises(EncoderError, match="keeps state of its own in '_extra_state'"):
        train_pair(images, encoder=Extra(), epochs=1, candidates=4, batch_size=8)
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
    meta = tiny(0).to("meta")
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), {nn.Linear})
    for module, message in (
        (lazy, "without a shape yet"),
        (meta, "on the meta device"),
        (quantized, "as quantized modules"),
    ):
        with pytest.raises(EncoderError, match=message):
            load_encoder(module, shape=SHAPE)


def _attended(x):
    flat = x.flatten(1)
    return (torch.softmax(flat @ flat.T / 10, dim=1) @ flat).view_as(x)


BATCH_WISE = {
    "batch-norm without statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "batch-norm by function": lambda: lambda x: nn.functional.batch_norm(x, None, None, training=True),
    "centring": lambda: lambda x: x - x.mean(dim=0, keepdim=True),
    "scaling by the batch": lambda: lambda x: x / x.abs().max(),
    "softmax over images": lambda: lambda x: torch.softmax(x, dim=0),
    "attention over images": lambda: _attended,
    "only above four images": lambda: lambda x: x - x.mean(dim=0, keepdim=True) if len(x) > 4 else x,
}


class Applies(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)
        self.what = what if isinstance(what, nn.Module) else None
        self.function = what

    def forward(self, images):
        return self.head(self.function(self.conv(images)).mean(dim=(2, 3)))


@pytest.mark.parametrize("kind", BATCH_WISE)
def test_outputs_that_depend_on_the_batch_are_refused(kind):
    with pytest.raises(EncoderError, match="other features beside other images"):
        load_encoder(Applies(BATCH_WISE[kind]()), shape=SHAPE)


class Second(nn.Module):
    """Its second output depends on the batch."""

    def __init__(self):
        super().__init__()
        self.net, self.norm = Small(), nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, images):
        embedding = self.net(images)
        return {"embedding": embedding, "z": self.norm(embedding)}


def test_the_output_that_is_asked_for_is_looked_at():
    assert load_encoder(Second(), shape=SHAPE).layers
    with pytest.raises(EncoderError, match="other features beside other images"):
        load_encoder(Second(), shape=SHAPE, output="z")


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)], ids=repr)
def test_norms_of_each_image_or_with_statistics_are_right(norm):
    assert load_encoder(Applies(norm), shape=SHAPE).layers


class KeepsTraining(nn.Module):
    """An overridden train() that keeps batch-norm training, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.register_buffer("seen", torch.zeros(()))

    def train(self, mode=True):
        super().train(mode)
        self.norm.training = True
        return self

    def forward(self, images):
        self.seen += len(images)
        return self.head(self.norm(self.conv(images)).mean(dim=(2, 3)))


def test_running_statistics_of_the_user_stay():
    module = KeepsTraining()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    audit(module, images=images, views=Views(n=2))
    represent(load_encoder(module, shape=SHAPE), torch.from_numpy(images).permute(0, 3, 1, 2), device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.norm.training


class Caches(nn.Module):
    """Keeps a tensor that it made in the first pass, as positions and masks are kept."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.kept = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), None

    def forward(self, images):
        found = self.conv(images)
        if self.kept is None or self.kept.shape[2:] != found.shape[2:]:
            self.kept = torch.linspace(0, 1, found.shape[3], dtype=images.dtype).expand(1, 1, *found.shape[2:]) * 1
        return self.head((found * self.kept).mean(dim=(2, 3)))


@pytest.mark.parametrize("first", ["audit", "represent", "tapped", "load"])
def test_a_module_trains_after_it_was_read(first, tiny):
    module = Caches()
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    if first == "audit":
        audit(module, images=images, views=Views(n=2))
    elif first == "represent":
        represent(load_encoder(module, shape=(1, 16, 16)), pixels, device="cpu")
    elif first == "tapped":
        with tap(module, load_encoder(module, shape=SHAPE).layers, lambda layer, tensor: None) as forward:
            forward(pixels.float())
    else:
        try:
            raise ValueError
        except ValueError:  # a load while another error is handled
            load_encoder(module, shape=SHAPE)
    module(pixels.float()).sum().backward()
    assert module.conv.weight.grad is not None
