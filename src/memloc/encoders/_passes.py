"""Trial passes: whether an encoder says the same of an image every time, and whoever else is in its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memloc.encoders._evaluating import evaluating
from memloc.encoders._layer import NORMS
from memloc.encoders._memory import is_out_of_memory
from memloc.encoders._output import AUTO, features_of, output_of
from memloc.errors import EncoderError

_APART, _BESIDE = 1e-3, 1e-4  # of the largest feature: more is no rounding, of a device and of a processor
_OTHERS = 7  # images beside the two


@torch.no_grad()
def check_passes(module: nn.Module, name: str, shape: tuple[int, int, int], take: str = AUTO) -> object:
    """What an encoder returns for two images.

    Args:
        take: which tensor of it is looked at, as `output_of` takes it.
    Raises:
        EncoderError: the same images give other features in a second pass, or beside other images: every score would
            hold that noise, or depend on the size of the batch.
    """
    parameter = next((weight for weight in module.parameters() if weight.is_floating_point()), None)
    drawn = torch.rand(2 + _OTHERS, *shape, generator=torch.Generator().manual_seed(0))
    drawn[2:6] = 0.9 * drawn[:2].repeat(2, 1, 1, 1) + 0.1 * drawn[2:6]  # beside images that are much like them
    drawn[6:] = drawn[6:] * 3 - 1  # and unlike
    drawn = drawn if parameter is None else drawn.to(parameter.device, parameter.dtype)
    with evaluating(module), torch.random.fork_rng():
        returned = module(drawn[:2])
        one = _features(returned, take).float()
        again = _features(module(drawn[:2]), take).float()
        try:
            beside = _features(module(drawn), take).float()[:2]
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            beside = one  # where so few do not fit, one image is read at a time
    most = _APART * float(one.abs().max())
    apart = float((one - again).abs().max())
    if apart > most:
        raise EncoderError(
            f"{name} gives the same images other features in a second pass (they differ by up to {apart:.2g}), although"
            " it is in evaluation mode. Expected an encoder without random parts, such as dropout by functions or"
            " ViTMAE's masking. Take them out; for a ViTMAE pass hf:NAME, which sees every patch."
        )
    apart = float((one - beside).abs().max())
    most = _BESIDE * float(one.abs().max()) if drawn.device.type == "cpu" else most
    if apart > most:  # what is not finite is found where layers are read
        raise EncoderError(
            f"{name} gives the same images other features beside other images (they differ by up to {apart:.2g}),"
            f" although it is in evaluation mode{_culprit(module)}. Expected features of each image alone: scores would"
            " depend on --batch-size. Give it running statistics, or wrap it in a module that reads images one by one."
        )
    return returned


def _features(returned: object, take: str) -> Tensor:
    tensor = output_of(returned, take)
    return features_of(returned if tensor is None else tensor)


def _culprit(module: nn.Module) -> str:
    """The part that most likely looks at the whole batch."""
    for name, part in module.named_modules():
        if isinstance(part, NORMS) and not isinstance(part, nn.GroupNorm) and part.running_mean is None:
            return f"; {name!r} is a {type(part).__name__} without running statistics"
    return ""
