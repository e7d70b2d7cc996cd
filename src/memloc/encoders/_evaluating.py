"""A module in evaluation mode for a while, whatever its own train() does, and as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of a module in evaluation mode, also where an overridden train() keeps some training, whose running
    statistics would change; afterwards each is as it was, and so are buffers that a forward pass changes.

    >>> net = nn.Sequential(nn.BatchNorm2d(3))
    >>> with evaluating(net):
    ...     print(net[0].training)
    False
    >>> net[0].training
    True
    """
    parts = list(module.modules())
    before = [part.training for part in parts]
    held = [(part, name, value) for part in parts for name, value in part._buffers.items() if value is not None]
    buffers = [(part, name, value, value.clone()) for part, name, value in held]
    try:
        module.eval()
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training
        for part, name, value, kept in buffers:
            part._buffers[name] = value
            if not torch.equal(value, kept):
                value.copy_(kept)
