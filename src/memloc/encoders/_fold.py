"""Batch-norm folded into the convolution before it, for as long as an encoder is read in eval mode.

In eval mode batch-norm is a fixed scale and shift per channel, so conv followed by norm is one convolution with other
weights. That saves a pass over every activation: about a sixth of ResNet9's time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import is_parametrized

from memloc.encoders._layer import Layer
from memloc.encoders._taps import tapped

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SAME = 1e-4  # largest difference that rounding may make, relative to a layer's largest activation


@contextmanager
def folded(
    module: nn.Module, layers: Sequence[Layer], example: Tensor, *, keep: Collection[nn.Module] = ()
) -> Iterator[int]:
    """Fold every batch-norm that directly follows a convolution into it; on leaving the module is as it was.

    Parameters are not touched: the two modules' `forward` is replaced meanwhile. Whether anything else uses the
    convolution's own output is settled by trying: where a reading of the example changes by more than rounding, nothing
    is folded.

    Args:
        module: an encoder that is read in eval mode. layers: what is read; a convolution that is read itself is not
            folded.
        example: prepared views to try it with. keep: parts to leave alone, such as those that another encoder shares.
    Yields:
        How many batch-norms are folded.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    >>> with folded(net, (Layer("out", "1", 0, "batch-norm", None, 2),), torch.rand(2, 1, 8, 8)) as count:
    ...     count
    1
    """
    pairs = _pairs(module, layers, example, keep)
    plain = _readings(module, layers, example) if pairs else {}
    try:
        for conv, norm in pairs:
            weight, bias = _weights(conv, norm)
            conv.__dict__["forward"] = partial(_convolve, conv, weight=weight, bias=bias)
            norm.__dict__["forward"] = _identity
        if pairs and not _same_readings(plain, module, layers, example):
            _restore(pairs)
            pairs = []
        plain.clear()
        yield len(pairs)
    finally:
        _restore(pairs)


def _convolve(conv: _ConvNd, input: Tensor, *, weight: Tensor, bias: Tensor) -> Tensor:
    return conv._conv_forward(input, weight, bias)


def _identity(input: Tensor) -> Tensor:
    return input


def _restore(pairs: Sequence[tuple[_ConvNd, _BatchNorm]]) -> None:
    for pair in pairs:
        for part in pair:
            part.__dict__.pop("forward", None)


def _weights(conv: _ConvNd, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weights and bias of the one convolution that does the work of both."""
    assert norm.running_var is not None, "norms without statistics are not folded"
    assert norm.running_mean is not None, "norms without statistics are not folded"
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.double()
        bias = (0.0 if conv.bias is None else conv.bias.double()) - norm.running_mean.double()
        bias = bias * scale + (0.0 if norm.bias is None else norm.bias.double())
        weight = conv.weight.double() * scale.view(-1, *[1] * (conv.weight.ndim - 1))
        return weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)


def _pairs(
    module: nn.Module, layers: Sequence[Layer], example: Tensor, keep: Collection[nn.Module]
) -> list[tuple[_ConvNd, _BatchNorm]]:
    """Convolutions, called once, whose output is what a batch-norm, called once, is given."""
    read = {layer.read_at.partition("#")[0] for layer in layers}
    convolutions = {
        part for name, part in module.named_modules() if isinstance(part, _CONVOLUTIONS) and name not in read
    }
    norms = {part for part in module.modules() if isinstance(part, _NORMS) and part.running_mean is not None}
    outputs: dict[int, tuple[_ConvNd, Tensor]] = {}  # the tensor is kept so that its id stays its own
    calls: dict[nn.Module, int] = {}
    found: list[tuple[_ConvNd, _BatchNorm]] = []

    def after_convolution(conv: _ConvNd, _inputs: object, output: Tensor) -> None:
        calls[conv] = calls.get(conv, 0) + 1
        outputs[id(output)] = (conv, output)

    def before_norm(norm: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        calls[norm] = calls.get(norm, 0) + 1
        if inputs and id(inputs[0]) in outputs:
            found.append((outputs[id(inputs[0])][0], norm))

    handles = [
        conv.register_forward_hook(after_convolution) for conv in convolutions if _is_plain(conv) and conv not in keep
    ]
    handles += [norm.register_forward_pre_hook(before_norm) for norm in norms if _is_plain(norm) and norm not in keep]
    try:
        _readings(module, (), example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if all(calls[part] == 1 for part in pair)]


def _is_plain(part: nn.Module) -> bool:
    """Whether calling the module does what its class says: no hooks, no replaced forward, no computed weights."""
    if is_parametrized(part):  # reading such weights may change the module's state
        return False
    usual = type(part).forward in {kind.forward for kind in (*_CONVOLUTIONS, *_NORMS)}
    return usual and "forward" not in part.__dict__ and not part._forward_hooks and not part._forward_pre_hooks


def _readings(module: nn.Module, layers: Sequence[Layer], example: Tensor) -> dict[str, Tensor]:
    readings: dict[str, Tensor] = {}
    with tapped(module, layers, lambda layer, output: readings.__setitem__(layer.name, output.detach().clone())) as run:
        run(example)
    return readings


def _same_readings(plain: dict[str, Tensor], module: nn.Module, layers: Sequence[Layer], example: Tensor) -> bool:
    try:
        folded_readings = _readings(module, layers, example)
    except Exception:  # whatever a module does with its parts, it is then read as it is
        return False
    return all(
        float((reading - folded_readings[name]).abs().max()) <= _SAME * float(reading.abs().max())
        for name, reading in plain.items()
    )
