"""What an encoder returns as one vector per image."""

from __future__ import annotations

from torch import Tensor

from memloc.encoders._flow import as_tensor
from memloc.encoders._layer import Layer
from memloc.errors import EncoderError


def features_of(output: object) -> Tensor:
    """An encoder's output as one vector per view: tokens and maps are averaged.

    >>> import torch
    >>> features_of(torch.ones(2, 5, 3)).shape, features_of(torch.ones(2, 3, 4, 4)).shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    tensor = as_tensor(output)
    if tensor is None or tensor.ndim not in (2, 3, 4):
        shape = type(output).__name__ if tensor is None else tuple(tensor.shape)
        raise EncoderError(
            f"the encoder returns {shape}. Expected (point, feature), (point, token, feature) or (point, channel,"
            " height, width). Wrap it in a module that returns one of these."
        )
    if tensor.ndim == 3:
        return tensor.mean(dim=1)
    return tensor.mean(dim=(2, 3)) if tensor.ndim == 4 else tensor


def features_at(layer: Layer, output: object) -> Tensor:
    """The same of the row that an encoder's output is read as, whose units may be the last axis of four.

    >>> import torch
    >>> features_at(Layer("output", "", 0, "output", None, 3, last=True), torch.ones(2, 4, 5, 3)).shape
    torch.Size([2, 3])
    """
    tensor = as_tensor(output)
    return features_of(tensor.movedim(3, 1) if tensor is not None and tensor.ndim == 4 and layer.last else output)
