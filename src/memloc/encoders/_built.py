"""What an adapter gives back: a module, and what its input needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from memloc.fit import Fit


@dataclass(frozen=True)
class Recipe:
    """How images reach a model, by its own configuration.

    Attributes:
        mean, std: per channel, of values in [0, 1]; empty where there is none. flip: whether channels come as BGR.
        fit: how images are brought to its size.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    flip: bool = False
    fit: Fit = field(default_factory=Fit)


@dataclass(frozen=True)
class Built:
    """A module with the preprocessing that it was trained with.

    Attributes:
        recipe: its preprocessing; None where none is known. size: height and width it takes, None for any.
        note: what a person should know of its output.
    """

    module: nn.Module
    recipe: Recipe | None = None
    size: int | None = None
    note: str = ""
