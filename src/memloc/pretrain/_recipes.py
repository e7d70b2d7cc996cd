"""Published hyper-parameters as named recipes (REFERENCE A6; weight decays from the objectives' own papers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memloc.errors import SpecError, nearest

_COMMON: Mapping[str, Any] = {"epochs": 600, "batch_size": 1024, "warmup": 0.1, "policy": "normal", "unpaired": True}
RECIPES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {
        "simclr": {},
        "simsiam": {},
        "vicreg": {},
        "dino": {},
        "mae": {"encoder": "vit-tiny", "policy": "crop", "weight_decay": 0.05},
        "supervised": {},
    },
    "published": {
        "simclr": {**_COMMON, "optimizer": "lars", "learning_rate": 4.8, "weight_decay": 1e-6},
        "simsiam": {**_COMMON, "epochs": 200, "optimizer": "sgd", "learning_rate": 2.5e-2, "weight_decay": 1e-4},
        "vicreg": {**_COMMON, "optimizer": "lars", "learning_rate": 0.8, "weight_decay": 1e-6},
        "dino": {**_COMMON, "encoder": "vit-tiny", "optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.04},
        "mae": {
            **_COMMON,
            "encoder": "vit-tiny",
            "optimizer": "adamw",
            "learning_rate": 1.2e-3,
            "weight_decay": 0.05,
            "policy": "crop",
        },
        "supervised": {**_COMMON, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
    },
}


def recipe(name: str, objective: str) -> dict[str, Any]:
    """The settings of a recipe for an objective; what is not in it keeps TrainSpec's defaults.

    >>> recipe("published", "simsiam")["learning_rate"], recipe("small", "simclr")
    (0.025, {})
    """
    if name not in RECIPES:
        raise SpecError(
            f"there is no recipe {name!r}. {nearest(name, RECIPES)} Expected small or published. Pass --recipe small."
        )
    if objective not in RECIPES[name]:
        known = RECIPES[name]
        raise SpecError(
            f"there is no objective {objective!r}. {nearest(objective, known)} Expected one of {', '.join(known)}. Pass"
            " --objective simclr."
        )
    return dict(RECIPES[name][objective])
