"""A point's score free of what encoders differ in: its reading regressed on a reference's, in deviations of points that
nobody saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memloc.errors import ShapeError
from memloc.streams import Stream, generator

FEWEST_REFERENCES = 20  # points that nobody saw, for a slope and a deviation of their own
_FOLDS = 5


@dataclass(frozen=True)
class Regression:
    """How the readings of encoders that did not see a point foretell those of encoders that did.

    Attributes:
        slope, centre, spread: of each point, found without the points of its fold, shape (point,).
        overall: the slope over all points that nobody saw. correlation: of the two readings over them.
    """

    slope: Tensor
    centre: Tensor
    spread: Tensor
    overall: float
    correlation: float

    def score(self, seen: Float[Tensor, " point"], unseen: Float[Tensor, " point"] | None) -> Float[Tensor, " point"]:
        """Scores of log readings: by how many deviations a point lies below what its reference foretells."""
        foretold = self.centre if unseen is None else self.centre + self.slope * unseen
        return (foretold - seen) / self.spread


def folds_of(points: int, seed: int = 0) -> Int[Tensor, " point"]:
    """The fold of each point, of five alike in size.

    >>> folds_of(10).bincount()
    tensor([2, 2, 2, 2, 2])
    """
    order = torch.from_numpy(generator(Stream.SCORE_FOLDS, seed, points).permutation(points))
    return torch.empty(points, dtype=torch.int64).scatter_(0, order, torch.arange(points) % _FOLDS)


def regress_readings(
    seen: Float[Tensor, " point"],
    unseen: Float[Tensor, " point"] | None,
    never: Bool[Tensor, " point"],
    *,
    seed: int = 0,
) -> Regression:
    """Find slope, centre and spread from points that no encoder saw, for each fold of points from those of the others.

    A slope of 1 is the published difference, one of 0 the encoder alone. With fewer than 20 such points nothing is
    found by folds: the slope is 1, and centre and spread are those of all points that have both readings; those of an
    encoder alone are of the points that nobody saw, and without any it has no score.

    Args:
        seen: mean log reading of the encoders that stand for those that saw a point.
        unseen: of those that stand for the others; None for an encoder alone.
        never: which points no encoder saw.
        seed: of the folds.
    Raises:
        ShapeError: readings of other points.
    Source: REFERENCE A11.

    >>> unseen = torch.linspace(-1, 1, 40, dtype=torch.float64)
    >>> seen = 0.5 * unseen + 0.1 * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(20)
    >>> found = regress_readings(seen, unseen, torch.ones(40, dtype=torch.bool))
    >>> round(found.overall, 1), found.score(seen - 1, unseen).mean() > 8
    (0.5, tensor(True))
    """
    if seen.shape != never.shape or (unseen is not None and unseen.shape != seen.shape):
        raise ShapeError(
            f"readings have shape {tuple(seen.shape)} and the points that nobody saw {tuple(never.shape)}. Expected the"
            " same points. Pass readings of all of them."
        )
    points = len(seen)
    none = seen.new_full((points,), torch.nan)
    if int(never.sum()) < FEWEST_REFERENCES:
        given = 0.0 if unseen is None else 1.0
        apart = seen[never] if unseen is None else seen - unseen
        known = apart[~apart.isnan()]
        deviation = float(known.std()) if len(known) > 1 else 0.0
        return Regression(
            slope=torch.full_like(seen, given),
            centre=torch.full_like(seen, float(known.mean())),
            spread=torch.full_like(seen, deviation or torch.nan),
            overall=given,
            correlation=float("nan"),
        )
    slope, centre, spread = none.clone(), none.clone(), none.clone()
    fold = folds_of(points, seed)
    for number in range(_FOLDS):
        inside = fold == number
        line = _line(seen, unseen, never & ~inside)
        slope[inside], centre[inside], spread[inside] = line[:3]
    overall, _, _, correlation = _line(seen, unseen, never)
    return Regression(slope, centre, spread, overall, correlation)


def _line(seen: Tensor, unseen: Tensor | None, rows: Tensor) -> tuple[float, float, float, float]:
    """Least squares of one reading on the other: slope, centre, deviation of what is left (NaN where there is none),
    correlation."""
    y = seen[rows]
    if unseen is None:
        spread = float(y.std())
        return 0.0, float(y.mean()), spread if spread > 0 else float("nan"), float("nan")
    x = unseen[rows]
    across, along = x - x.mean(), y - y.mean()
    whole = float(across.square().sum())
    slope = float((across * along).sum()) / whole if whole > 0 else 0.0
    left = float((along - slope * across).square().sum())
    size = whole * float(along.square().sum())
    correlation = float((across * along).sum()) / size**0.5 if size > 0 else float("nan")
    spread = (left / (len(y) - 2)) ** 0.5
    return slope, float(y.mean() - slope * x.mean()), spread if spread > 0 else float("nan"), correlation
