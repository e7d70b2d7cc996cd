"""Taps: read at once, leave nothing behind, complain about layers that are not called once."""

import copy

import pytest
import torch
from torch import nn

from memloc.encoders import Layer, find_layers, load_encoder, tapped, unit_means
from memloc.errors import EncoderError, LayerNotFoundError, NonFiniteError


def layer(name, read_at=None, signed=True):
    return Layer(name, name if read_at is None else read_at, 0, "module", None, 1, signed)


def test_readings_are_the_layers_outputs(tiny):
    net, read = tiny(0).eval(), {}
    images = torch.rand(4, 1, 8, 8)
    with tapped(
        net, find_layers(net, "auto", (1, 8, 8)), lambda row, out: read.__setitem__(row.name, out.clone())
    ) as forward:
        forward(images)
    with torch.no_grad():
        one = torch.relu(net.norm1(net.conv1(images)))
        two = torch.relu(net.conv2(one))
    assert torch.equal(read["conv1"], one)
    assert torch.equal(read["conv2"], two)
    assert torch.equal(read["output"], net.head(two.mean(dim=(2, 3))))


def test_inplace_relu_does_not_corrupt_the_reading(tiny):
    net, read = tiny(0).eval(), {}
    images = torch.rand(4, 1, 8, 8)
    with tapped(
        net, find_layers(net, ["conv2"], (1, 8, 8)), lambda row, out: read.__setitem__(row.name, out.clone())
    ) as forward:
        forward(images)
    assert (read["conv2"] < 0).any()  # before its in-place ReLU, since the user named the module


def test_everything_is_restored_also_after_an_exception(tiny):
    net = tiny(0).train()
    net.norm1.eval()
    before = copy.deepcopy(net.state_dict())
    modes = [part.training for part in net.modules()]

    def fail(_layer, _output):
        raise ValueError("stop")

    for reduce in (lambda _layer, _output: None, fail):
        try:
            with tapped(net, find_layers(net, "auto", (1, 8, 8)), reduce) as forward:
                forward(torch.rand(2, 1, 8, 8))
        except ValueError:
            pass
        assert [part.training for part in net.modules()] == modes
        assert not any(part._forward_hooks for part in net.modules())
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.is_grad_enabled()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.unused = nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.act(self.act(self.conv(x)) - 0.5)


def test_a_layer_called_twice_needs_an_address():
    net = Twice()
    with (
        pytest.raises(EncoderError, match=r"called more than once.*'act#0'"),
        tapped(net, [layer("act")], lambda *_: None) as forward,
    ):
        forward(torch.rand(2, 1, 8, 8))
    with pytest.raises(LayerNotFoundError, match=r"called 2 times; address one call as 'act#0'"):
        find_layers(net, ["act"], (1, 8, 8))
    found = find_layers(net, ["act#1"], (1, 8, 8))
    assert [row.name for row in found] == ["act#1", "output"]
    read = {}
    with tapped(net, found, lambda row, out: read.__setitem__(row.name, out.clone())) as forward:
        forward(torch.rand(2, 1, 8, 8))
    assert torch.equal(read["act#1"], read["output"])


def test_layers_that_are_not_there_or_never_called():
    with pytest.raises(LayerNotFoundError, match=r"never calls layer 'unused'"):
        find_layers(Twice(), ["unused"], (1, 8, 8))
    with pytest.raises(LayerNotFoundError, match=r"has no layer 'cnov'. Nearest: 'conv'"):
        find_layers(Twice(), ["cnov"], (1, 8, 8))
    with (
        pytest.raises(LayerNotFoundError, match="was not called"),
        tapped(Twice(), [layer("unused")], lambda *_: None) as forward,
    ):
        forward(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4), (6, 4, 3, 3)])
def test_unit_means_by_number_of_axes(shape):
    out = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    active = out.clamp_min(0)
    over = {2: (), 3: (1,), 4: (2, 3)}[len(shape)]
    per_view = active.mean(over) if over else active
    expected = per_view.view(3, 2, 4).mean(1)
    assert torch.allclose(unit_means(layer("x"), out, 2), expected, atol=1e-6)
    if len(shape) == 4:
        assert torch.allclose(
            unit_means(layer("x"), out.contiguous(memory_format=torch.channels_last), 2), expected, atol=1e-6
        )
    assert not torch.allclose(unit_means(layer("x"), out, 2, rectify=False), expected, atol=1e-3)


def test_outputs_of_other_shapes_are_refused():
    with pytest.raises(EncoderError, match="Expected \\(point, unit\\)"):
        unit_means(layer("x"), torch.zeros(2, 3, 4, 5, 6), 1)


def test_nan_weights_are_refused(tiny):
    net = tiny(0)
    net.conv2.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"NaN or Inf in 'conv2.weight'"):
        load_encoder(net)


def test_a_residual_block_is_read_where_its_tensors_go():
    """A shortcut convolution hangs on its block's input, and the last convolution is not read after the residual sum."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.down, self.norm3, self.relu = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

        def forward(self, x):
            main = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
            return self.relu(main + self.norm3(self.down(x)))

    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), Block(), nn.Conv2d(4, 5, 3))
    rows = {row.name: row for row in find_layers(net, "auto", (3, 12, 12))}
    assert rows["2.conv1"].read_at == "2.relu#0"
    assert rows["2.conv2"].read_at == "2.norm2"
    assert (rows["2.down"].read_at, rows["2.down"].predecessor, rows["2.down"].kind) == (
        "2.norm3",
        "0",
        "convolution (branch)",
    )
    assert (rows["2"].kind, rows["2"].predecessor, rows["2"].read_at) == ("residual", "2.conv2", "2")
    assert rows["3"].predecessor == "2"
