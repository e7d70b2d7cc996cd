"""Settings of acts on an encoder; read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memloc.settings import SEEDS, check_limits, documented, setting

CRITERIA, ORDERS = ("delta", "layermem", "random"), ("highest", "lowest")
UNIT_ORDERS, SCOPES = ("top", "low", "random"), ("layer", "network")
POINT_ORDERS = ("most", "least", "random")
GOALS = ("unitmem", "contrast")


class _Checked:
    """Settings that are within their limits from the moment they exist."""

    def __post_init__(self) -> None:
        check_limits(self)


@documented
@dataclass(frozen=True)
class LayerSpec(_Checked):
    """Which layers to act on: by name, or by the figures of an audit."""

    layers: list[str] | None = setting(None, "Layers by name; repeat for more.")
    by: str = setting("delta", "With --audit: delta, layermem or random.", choices=CRITERIA)
    order: str = setting("highest", "With --audit: highest or lowest.", choices=ORDERS)
    count: int = setting(1, "With --audit: how many layers.", low=1)
    seed: int = setting(0, "Of random choices and of training.", low=0, high=SEEDS)


@documented
@dataclass(frozen=True)
class FinetuneSpec(_Checked):
    """How chosen layers and a linear head are trained."""

    epochs: int = setting(20, "Over the training images.", low=1)
    batch_size: int = setting(128, "Images per step.", low=2)
    learning_rate: float = setting(1e-3, "At the start; it falls by a cosine.", above=0)
    weight_decay: float = setting(1e-4, "Of AdamW.", low=0)
    policy: str | None = setting(None, "Augmentation of the training images, such as weak; none by default.")
    seed: int = setting(0, "Of random choices and of training.", low=0, high=SEEDS)


@documented
@dataclass(frozen=True)
class PruneSpec(_Checked):
    """Which units are silenced."""

    fraction: float = setting(0.1, "Share of the units, above 0 to 1.", above=0, high=1)
    order: str = setting("top", "top or low UnitMem first, or random.", choices=UNIT_ORDERS)
    per: str = setting("layer", "layer (the share of every layer) or network (of all units together).", choices=SCOPES)
    layers: list[str] | None = setting(None, "Layers by name; repeat for more.")
    seed: int = setting(0, "Of random choices and of training.", low=0, high=SEEDS)


@documented
@dataclass(frozen=True)
class InsertSpec(_Checked):
    """How one unit is trained on one point."""

    goal: str = setting(
        "unitmem",
        "unitmem (raises the unit's contrast) or contrast (goes on with NT-Xent, as published).",
        choices=GOALS,
    )
    steps: int = setting(200, "Of Adam.", low=1)
    learning_rate: float = setting(1e-3, "Of Adam.", above=0)
    policy: str | None = setting(None, "Of the views; as in training by default.")
    seed: int = setting(0, "Of random choices and of training.", low=0, high=SEEDS)
    limit: int = setting(200, "Images to use at most, the point among them.", low=3, example=200)

    def training(self) -> dict[str, Any]:
        """Those that `insert_point` takes."""
        return {key: value for key, value in vars(self).items() if key != "limit"}


@documented
@dataclass(frozen=True)
class RemoveSpec(_Checked):
    """Which points an encoder is trained again without."""

    order: str = setting("most", "most or least memorized first, or random.", choices=POINT_ORDERS)
    encoder: str | None = setting(None, "Encoder of the run to train again; the first by default.")
    seed: int = setting(0, "Of the random choice.", low=0, high=SEEDS)
