"""Batch-norm is folded where nothing else can tell, and the module is left as it was."""

import copy

import pytest
import torch
from torch import nn

from memloc.encoders import Layer, ResNet9, find_layers, folded, tapped


def trained(net):
    """A net with weights and statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in [*net.parameters(), *net.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.4 * (value.ndim == 1))
    return net.eval()


def readings(net, layers, images):
    found = {}
    with tapped(net, layers, lambda layer, output: found.__setitem__(layer.name, output.clone())) as forward:
        forward(images)
    return found


def test_every_reading_of_resnet9_is_the_same():
    net, images = trained(ResNet9()).double(), torch.rand(20, 3, 32, 32, dtype=torch.float64)
    layers = find_layers(net.float(), "auto", (3, 32, 32))
    net.double()
    plain = readings(net, layers, images)
    with folded(net, layers, images[:2]) as count:
        assert count == 8
        assert "forward" in net.conv1.norm.__dict__
        again = readings(net, layers, images)
    for name, reading in plain.items():
        assert torch.allclose(reading, again[name], rtol=1e-10, atol=1e-10), name


def test_the_module_is_restored_also_after_an_exception():
    net = trained(ResNet9())
    layers, before = find_layers(net, "auto", (3, 32, 32)), copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="stop"), folded(net, layers, torch.rand(2, 3, 32, 32)):
        raise ValueError("stop")
    assert not any("forward" in part.__dict__ for part in net.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Odd(nn.Module):
    """A convolution and its norm, with something else about them."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        if kind == "batch statistics":
            self.norm = nn.BatchNorm2d(2, track_running_stats=False)
        if kind == "spectral norm":
            self.conv = nn.utils.parametrizations.spectral_norm(self.conv)
        if kind == "a user's hook":
            self.conv.register_forward_hook(lambda _conv, _inputs, output: output + 1)

    def forward(self, x):
        inner = self.conv(input=x) if self.kind == "by keyword" else self.conv(x)
        out = self.norm(inner)
        if self.kind == "skip of the convolution":
            return out + inner
        return self.norm(self.conv(out)) if self.kind == "called twice" else out


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("plain", 1),
        ("by keyword", 1),
        ("spectral norm", 0),
        ("skip of the convolution", 0),
        ("called twice", 0),
        ("batch statistics", 0),
        ("a user's hook", 0),
    ],
)
def test_nothing_is_folded_where_it_would_be_seen(kind, count):
    net, images = trained(Odd(kind)), torch.rand(4, 2, 8, 8)
    layers = (Layer("output", "", 0, "output", None, 2),)
    plain, before = readings(net, layers, images), copy.deepcopy(net.train().state_dict())
    with folded(net, layers, images) as done:
        assert done == count
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        assert torch.allclose(readings(net, layers, images)["output"], plain["output"], rtol=1e-5)


def test_a_convolution_that_is_read_is_not_folded():
    net, images = trained(Odd("plain")), torch.rand(4, 2, 8, 8)
    with folded(net, (Layer("conv", "conv", 0, "convolution", None, 2),), images) as done:
        assert done == 0
