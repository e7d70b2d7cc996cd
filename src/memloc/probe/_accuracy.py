"""An accuracy with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.metrics import Z95


@dataclass(frozen=True)
class Probe:
    """How well a frozen representation tells classes apart.

    Attributes:
        accuracy: share of test points (positions, for a dense probe) that are classified rightly.
        low, high: its 95 % interval over test points; it does not cover the choice of training points or of the
            encoder.
        chance: share of the most frequent class among the test points.
        right: whether each test point (position) was right.
        settings: what the probe was fitted with, such as the regularization that was chosen.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    right: NDArray[np.bool_]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Figures without the points."""
        return {
            "accuracy": self.accuracy,
            "low": self.low,
            "high": self.high,
            "chance": self.chance,
            "n_test": len(self.right),
            **self.settings,
        }


def scored(predicted: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any] | None = None, **settings: Any) -> Probe:
    """A Probe from predictions; with groups (the image of each position) the interval counts groups, since positions of
    one image are alike.

    >>> found = scored(np.array([1, 0, 1, 1]), np.array([1, 0, 0, 1]))
    >>> found.accuracy, round(found.low, 2), round(found.high, 2), found.chance
    (0.75, 0.3, 0.95, 0.5)
    """
    right = predicted == labels
    chance = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    low, high = wilson(float(right.mean()), len(right)) if groups is None else _of_groups(right, groups)
    return Probe(float(right.mean()), low, high, chance, right, settings)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    >>> tuple(round(end, 3) for end in wilson(0.5, 100))
    (0.404, 0.596)
    """
    from scipy.stats import binomtest

    found = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return min(float(found.low), share), max(float(found.high), share)  # rounding may put an end just inside


def paired_difference(after: Probe, before: Probe) -> dict[str, float]:
    """Change of accuracy on the same test points, with its 95 % interval over them; NaN ends with one point.

    The interval is Wald's with half a point added to each kind of change (Agresti and Min, Statistics in Medicine
    2005), so that it has a width where nothing changed.

    >>> one, two = (scored(np.array(guess), np.array([1, 1, 0, 0])) for guess in ([1, 1, 0, 0], [1, 0, 0, 0]))
    >>> paired_difference(two, one)["change"]
    -0.25
    """
    gained, lost, count = (
        int((after.right & ~before.right).sum()),
        int((before.right & ~after.right).sum()),
        len(after.right),
    )
    change = (gained - lost) / count
    if count < 2:
        return {"change": change, "low": float("nan"), "high": float("nan")}
    total, difference = count + 2, gained - lost
    se = float(np.sqrt(gained + lost + 1 - difference**2 / total) / total)
    middle = difference / total
    return {"change": change, "low": min(middle - Z95 * se, change), "high": max(middle + Z95 * se, change)}


def _of_groups(right: NDArray[np.bool_], groups: NDArray[Any]) -> tuple[float, float]:
    _, code = np.unique(groups, return_inverse=True)
    sizes = np.bincount(code)
    if len(sizes) < 2:
        return float("nan"), float("nan")
    excess = np.bincount(code, right - right.mean())
    se = float(np.sqrt((excess**2).sum() * len(sizes) / max(len(sizes) - 1, 1)) / len(right))
    return float(max(right.mean() - Z95 * se, 0.0)), float(min(right.mean() + Z95 * se, 1.0))
