"""Settings of a robust training."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from memloc.encoders import ENCODER_NAMES
from memloc.errors import SpecError
from memloc.settings import SEEDS, check_limits, documented, setting
from memloc.views import policy_named

if TYPE_CHECKING:
    from memloc.coreset._crust import Crust

MIXUPS = ("label", "cluster", "none")
SCHEDULES = ("step", "cosine", "constant")


EPSILON = 0.01  # of stochastic greedy


@dataclass(frozen=True)
class SelectionSpec:
    """How many points are selected, and how their distances are computed; see Crust."""

    fraction: float = setting(0.5, "Share of each group to select.")
    _: KW_ONLY
    budget: int | None = setting(None, "Points of each group, instead of a fraction.")
    optimizer: str = setting("lazy", "Of facility location: lazy, stochastic or naive.")
    epsilon: float = setting(EPSILON, "Of stochastic.")
    metric: str = setting("euclidean", "euclidean, cosine or manhattan.")
    memory: str = setting("auto", "auto, dense or free of distances.")


@documented
@dataclass(frozen=True)
class RobustSpec:
    """How a model is trained on coresets."""

    epochs: int = setting(40, "Images: of training.", low=1)
    warmup: int = setting(5, "Images: epochs on all points before the first selection.", low=1)
    every: int = setting(1, "Images: epochs between selections.", low=1)
    batch_size: int = setting(128, "Images per step.", low=2)
    learning_rate: float = setting(0.05, "Images: of SGD.", above=0)
    momentum: float = setting(0.9, "Images: of SGD.", low=0)
    weight_decay: float = setting(5e-4, "Images: of SGD.", low=0)
    schedule: str = setting(
        "step",
        "Images: step (a tenth after .65 and again after .825 of the epochs), cosine or constant.",
        choices=SCHEDULES,
    )
    mixup: str = setting(
        "label",
        "Images: partners of the same label, cluster (that the same pick stands for), or none.",
        choices=MIXUPS,
    )
    mixup_alpha: tuple[float, float] = (1.0, 0.1)
    augmentation: str = setting(
        "none", "Images: none, or weak, normal, strong, independent, crop; selection sees none."
    )
    rounds: int = setting(3, "Tables: selections.", low=1)
    folds: int = setting(5, "Tables: parts for predictions of rows that a fit has not seen.", low=2)
    seed: int = setting(0, "Of weights, order, partners and noise.", low=0, high=SEEDS)
    precision: str = setting(
        "float32",
        "Images: auto (bfloat16 where the machine is fast at it), bfloat16 or float32.",
        choices=("float32", "bfloat16", "auto"),
    )
    device: str = setting("auto", "auto, cpu or cuda.")

    def __post_init__(self) -> None:
        check_limits(self)
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


@documented
@dataclass(frozen=True)
class CoresetSpec:
    """What a coreset is selected by."""

    by: str = setting(
        "gradient",
        "gradient (trains on labels) or representation (of --encoder; no labels).",
        choices=("gradient", "representation"),
    )
    encoder: str = setting("resnet9", f"Images: {ENCODER_NAMES}.")
    weights: str | None = setting(None, "Checkpoint of --encoder; new weights by default, or random.")
    learner: str = setting(
        "forest",
        "Tables: forest, boosting, logistic or mlp.",
        choices=("forest", "boosting", "logistic", "mlp"),
    )
    truth: str | None = setting(None, "Tables: the column with verified labels, to report and not to train on.")
    noise: float | None = setting(
        None, "An experiment: make this share of the labels wrong; the given ones are the truth."
    )
    noise_kind: str = setting(
        "symmetric", "symmetric, or asymmetric (CIFAR-10's pairs).", choices=("symmetric", "asymmetric")
    )

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def made(self) -> dict[str, Any]:
        """The noise that is made, if any."""
        return {"noise": self.noise, "noise_kind": self.noise_kind if self.noise is not None else None}

    def crust(self, objective: str | None, group_by: str | None, **settings: Any) -> Crust:
        """How to select: centrality within predictions by gradient, facility location of all by representation.

        Args:
            objective, group_by: as given, None for the usual ones; "none" is one group.
        """
        from memloc.coreset._crust import Crust

        gradient = self.by == "gradient"
        grouping = group_by or ("prediction" if gradient else "none")
        usual = "centrality" if gradient else "facility_location"
        return Crust(objective=objective or usual, group_by=None if grouping == "none" else grouping, **settings)
