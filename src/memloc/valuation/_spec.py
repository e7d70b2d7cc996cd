"""Settings of a valuation of a table or of images; read without scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memloc.errors import SpecError
from memloc.settings import SEEDS, check_limits, documented, setting

LEARNERS = ("tree", "logistic", "mlp")


@documented
@dataclass(frozen=True)
class ValueSpec:
    """How a table is valued."""

    learners: int = setting(1000, "Weak learners at most.", low=1)
    max_features: float | int | str = setting(
        0.5, "Columns of each learner: a share such as 0.5, a number, or sqrt.", text_type=str
    )
    learner: Literal["tree", "logistic", "mlp"] = setting(
        "tree", "tree, logistic (linear for numbers) or mlp.", choices=LEARNERS
    )
    task: Literal["auto", "classification", "regression"] = setting(
        "auto", "What the target is.", choices=("auto", "classification", "regression")
    )
    distance_weight: float = setting(0.0, "Weight of a row's closeness to its class.")
    tol: float | None = setting(None, "Stop when every row's standard error is below this.", above=0, example=0.02)
    max_samples: float | int | None = setting(
        None,
        "Rows that each learner is fitted on: a share or a number; all by default.",
        above=0,
        example=10000,
        text_type=str,
    )
    class_weight: str | None = setting(None, "balanced weighs the rows of each class alike.", choices=("balanced",))
    seed: int = setting(0, "Of learners and samples.", low=0, high=SEEDS)
    workers: int = setting(1, "Threads; -1: all cores.")

    def __post_init__(self) -> None:
        check_limits(self)
        if self.workers == 0:
            raise SpecError("workers is 0. Expected a number of threads, or -1 for all cores. Pass --workers 2.")


@documented
@dataclass(frozen=True)
class PixelSpec:
    """How images are valued, whose pixels are the columns."""

    block: int = setting(1, "Images: side of the pixel blocks that are drawn together.")
    region: int | None = setting(
        None, "Images: side in pixels of the region sought; sets --max-features to find it.", low=1
    )
    limit: int | None = setting(None, "Images: value a seeded sample of this many.", low=2, example=1000)

    def __post_init__(self) -> None:
        check_limits(self)
