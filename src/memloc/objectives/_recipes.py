"""Recipes: published hyper-parameters by name (REFERENCE A6; weight decays from the objectives' own papers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memloc.errors import SpecError, nearest
from memloc.objectives._named import objective_named

RECIPES = ("small", "published")
PUBLISHED: Mapping[str, Any] = {"epochs": 600, "batch_size": 1024, "warmup": 0.1, "policy": "normal", "unpaired": True}


def recipe(name: str, objective: str) -> dict[str, Any]:
    """The settings of a recipe for an objective; what is not in it keeps TrainSpec's defaults.

    >>> recipe("published", "simsiam")["learning_rate"], recipe("small", "simclr")
    (0.025, {})
    """
    if name not in RECIPES:
        raise SpecError(
            f"there is no recipe {name!r}. {nearest(name, RECIPES)} Expected small or published. Pass --recipe small."
        )
    kind = objective_named(objective)
    return dict(kind.small) if name == "small" else {**PUBLISHED, **kind.published}
