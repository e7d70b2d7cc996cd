"""A module in evaluation mode for a while, whatever its own train() does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of a module in evaluation mode, also where an overridden train() keeps some training, whose running
    statistics would change; afterwards each is as it was.

    >>> net = nn.Sequential(nn.BatchNorm2d(3))
    >>> with evaluating(net):
    ...     print(net[0].training)
    False
    >>> net[0].training
    True
    """
    parts = list(module.modules())
    before = [part.training for part in parts]
    try:
        module.eval()
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, before, strict=True):
            part.training = training
