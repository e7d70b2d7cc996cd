"""What an adapter gives back: a module, and what its input needs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Built:
    """A module with the preprocessing that it was trained with.

    Attributes:
        mean, std: per channel, empty where there is none. size: height and width it takes, None for any.
    """

    module: nn.Module
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
