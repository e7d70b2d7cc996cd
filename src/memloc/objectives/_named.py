"""The objective that a name stands for; a new objective is a file of this room and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from memloc.errors import SpecError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from memloc.objectives._objective import Objective

# By name, the file of this room and the class in it; read without torch.
OBJECTIVES = {
    "simclr": ("_simclr", "SimCLR"),
    "simsiam": ("_simsiam", "SimSiam"),
    "vicreg": ("_vicreg", "VICReg"),
    "dino": ("_dino", "DINO"),
    "mae": ("_mae", "MAE"),
    "supervised": ("_supervised", "Supervised"),
}


class Settings(Protocol):
    """What an objective is made from: its name, the weight of the alignment penalty, and its own settings by name."""

    @property
    def objective(self) -> str:
        """A key of OBJECTIVES."""

    @property
    def alignment_penalty(self) -> float:
        """Weight of the distance between two views."""


def objective_named(name: str) -> type[Objective]:
    """The class of an objective.

    Raises:
        SpecError: there is none of that name.

    >>> objective_named("mae").needs_patches, objective_named("simclr").own_settings
    (True, ('temperature',))
    """
    if name not in OBJECTIVES:
        raise SpecError(
            f"there is no objective {name!r}. {nearest(name, OBJECTIVES)} Expected one of {', '.join(OBJECTIVES)}."
            " Pass --objective simclr."
        )
    file, kind = OBJECTIVES[name]
    found: type[Objective] = getattr(import_module(f"memloc.objectives.{file}"), kind)
    return found


def make_objective(spec: Settings, module: nn.Module, example: Tensor, *, classes: int, seed: int) -> Objective:
    """The objective that a spec names, with seeded weights.

    Args:
        example: prepared images to find the width of the features with. classes: of the labels, for supervised
            training.
    """
    import torch

    kind = objective_named(spec.objective)
    own = {name: getattr(spec, name) for name in kind.own_settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = kind.build(module, example, classes=classes, **own)
    if spec.alignment_penalty:  # two views of each point, whose alignment is penalized
        objective.views = max(objective.views, 2)
    return objective
