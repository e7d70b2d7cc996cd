"""Settings of a robust training."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from memloc.errors import SpecError, nearest
from memloc.views import policy_named

MIXUPS = ("label", "cluster", "none")
SCHEDULES = ("step", "cosine", "constant")


@dataclass(frozen=True)
class RobustSpec:
    """How a model is trained on coresets; flags map onto it one to one.

    Attributes:
        epochs: passes over what is selected. warmup: epochs on all points before the first selection. every: epochs
            between selections.
        batch_size, learning_rate, momentum, weight_decay: of SGD. schedule: "step" (a tenth after .65 and again after
            .825 of the epochs), "cosine" or "constant".
        mixup: partner "label" (of the same given label), "cluster" (that the same pick stands for) or "none".
            mixup_alpha: of λ ~ Beta.
        augmentation: "none" or a view policy, of images; selection sees none.
        rounds, folds: of a scikit-learn classifier: selections, and parts for predictions of points that a fit has not
            seen.
        seed: of order, partners and views. precision: "float32", "bfloat16", or "auto": bfloat16 where the machine is
            fast at it.
    """

    epochs: int = 40
    warmup: int = 5
    every: int = 1
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step"
    mixup: str = "label"
    mixup_alpha: tuple[float, float] = (1.0, 0.1)
    augmentation: str = "none"
    rounds: int = 3
    folds: int = 5
    seed: int = 0
    precision: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("warmup", 1),
            ("every", 1),
            ("batch_size", 2),
            ("rounds", 1),
            ("folds", 2),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected at least {least}. Pass {_flag(name)} {least}."
                )
        for name, above in (("learning_rate", True), ("momentum", False), ("weight_decay", False)):
            value = getattr(self, name)
            if not (value > 0 if above else value >= 0):
                raise SpecError(
                    f"{name} is {value}. Expected {'more than 0' if above else '0 or more'}. Pass {_flag(name)} 0.05."
                )
        for name, known in (("mixup", MIXUPS), ("schedule", SCHEDULES), ("precision", ("float32", "bfloat16", "auto"))):
            if getattr(self, name) not in known:
                raise SpecError(
                    f"there is no {name} {getattr(self, name)!r}. {nearest(getattr(self, name), known)} Expected one of"
                    f" {', '.join(known)}. Pass {_flag(name)} {known[0]}."
                )
        if len(self.mixup_alpha) != 2 or min(self.mixup_alpha) <= 0:
            raise SpecError(
                f"mixup_alpha is {self.mixup_alpha}. Expected two numbers above 0. Pass mixup_alpha=(1.0, 0.1)."
            )
        if self.augmentation != "none":
            policy_named(self.augmentation)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        done = epoch / self.epochs
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (1.0 if self.schedule == "constant" else 0.1 ** ((done >= 0.65) + (done >= 0.825)))


def make_robust_spec(settings: dict[str, Any]) -> RobustSpec:
    """Settings by name.

    Raises:
        SpecError: an unknown one, with the nearest, or one out of range.
    """
    known = [field.name for field in fields(RobustSpec)]
    for name in settings:
        if name not in known:
            raise SpecError(
                f"there is no setting {name!r}. {nearest(name, known)} Expected one of {', '.join(known)}. Correct it."
            )
    return RobustSpec(**settings)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
