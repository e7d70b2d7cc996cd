"""Uncertainty of figures over points, and over training runs where there are enough, from what each cell adds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from memloc.metrics._bootstrap import bootstrap_sums
from memloc.streams import Stream, generator


class Spread(NamedTuple):
    """How a figure varies: draws around 0, shape (repeat,), their standard error and degrees of freedom."""

    draws: Float[Tensor, " repeat"]
    se: float
    freedom: float


def two_way_spread(
    influence: Float[Tensor, "encoder point"],
    *,
    clusters: Int[Tensor, " encoder"] | None = None,
    repeats: int = 1000,
    seed: int = 0,
    strata: Int[Tensor, " point"] | None = None,
) -> Spread:
    """How a figure varies over points, and over further training runs.

    What cells add to the figure's error is summed over points, whose sums are resampled, and over runs. What sums of
    runs vary by beyond what their cells explain is the runs' own: it is added with normal weights. Few runs tell their
    own variance badly, so draws have tails of Student's t with degrees of freedom after Satterthwaite. Draws of equal
    seeds and numbers of points and runs belong together, so that differences of figures pair up.

    Args:
        influence: what every cell adds to the figure's error.
        clusters: the training run of each encoder, of which the draws speak too; of points alone by default.
        strata: a group per point; groups keep their sizes.
    Source: two-way clustering (Cameron, Gelbach and Miller, J. Bus. Econ. Stat. 2011); the corrections for few runs
        were chosen by coverage (docs/coverage.md).

    >>> spread = two_way_spread(torch.randn(1, 400, dtype=torch.float64) / 400)
    >>> spread.draws.shape, 0.04 < spread.se < 0.06
    (torch.Size([1000]), True)
    """
    points = influence.shape[1]
    if points < 2:
        return Spread(torch.full((repeats,), torch.nan, dtype=torch.float64), float("nan"), float("nan"))
    by_point = influence.double().sum(dim=0)
    centred, freedom = _within(by_point, strata)
    over_points = float(centred.square().sum())
    sums, _ = bootstrap_sums(by_point[:, None], repeats=repeats, seed=seed, strata=strata)
    draws = sums[:, 0] - by_point.sum()
    size = float(draws.square().mean())
    draws *= math.sqrt(over_points / size) if size > 0 else 0.0
    variance, doubt = over_points, over_points**2 / freedom
    if clusters is not None:
        runs = int(clusters.max()) + 1
        cells = torch.zeros(runs, points, dtype=torch.float64).index_add_(0, clusters, influence.double())
        by_run, share = cells.sum(dim=1), runs / (runs - 1)
        beyond = float(by_run.square().sum()) - float(cells.square().sum()) / share**1.5
        own = max(share**4 * beyond, 0.0)
        if own > 0:
            weights = generator(Stream.RUN_BOOTSTRAP, seed, runs, repeats).standard_normal((repeats, runs))
            whole = float(by_run.square().sum())
            draws = draws + torch.from_numpy(weights) @ by_run * math.sqrt(own / whole)
            variance += own
            doubt += share**4 * whole * own / (runs - 1)
    freedom = variance**2 / doubt if doubt > 0 else float(points - 1)
    return Spread(draws * _tails(freedom, repeats, seed), math.sqrt(variance), freedom)


def _within(by_point: Tensor, strata: Tensor | None) -> tuple[Tensor, float]:
    """What points add net of their group's mean, widened for its size, and Welch's degrees of freedom of the sum."""
    group = torch.zeros(len(by_point), dtype=torch.int64) if strata is None else strata
    count = torch.bincount(group).double()
    total = torch.zeros(len(count), dtype=torch.float64).index_add_(0, group, by_point)
    centred = by_point - (total / count.clamp_min(1))[group]
    centred = centred * (count / (count - 1).clamp_min(1)).sqrt()[group]
    parts = torch.zeros(len(count), dtype=torch.float64).index_add_(0, group, centred.square())
    doubt = float((parts.square() / (count - 1).clamp_min(1)).sum())
    return centred, float(parts.sum()) ** 2 / doubt if doubt > 0 else float(len(by_point) - 1)


def _tails(freedom: float, repeats: int, seed: int) -> Tensor:
    """Factors that turn normal draws into Student's t, the same quantile of the factor in every figure's draw."""
    from scipy.stats import chi2

    place = generator(Stream.TAILS, seed, repeats).random(repeats)
    return torch.from_numpy(np.sqrt(freedom / chi2.ppf(1 - place, freedom)))


def simultaneous_bounds(
    values: Float[Tensor, " figure"], draws: Float[Tensor, "figure repeat"], *, level: float = 0.95
) -> tuple[Float[Tensor, " figure"], Float[Tensor, " figure"]]:
    """Bounds that hold for all figures at once, by the largest standardized deviation of their joint draws (max-t).

    Args:
        values: the figures, NaN where unknown. draws: joint draws around them; NaN where there are none.
    Returns:
        Lower and upper bounds, NaN where unknown.
    Source: Westfall and Young, Resampling-Based Multiple Testing, 1993; REFERENCE A12.

    >>> draws = torch.randn(3, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> low, high = simultaneous_bounds(torch.zeros(3, dtype=torch.float64), draws)
    >>> (high > 2.2).all() and (high < 2.6).all()
    tensor(True)
    """
    low, high = values.double().clone(), values.double().clone()
    spread = draws.std(dim=1)
    known = ~values.isnan() & ~draws.isnan().any(dim=1)
    low[~known] = high[~known] = torch.nan
    varying = known & (spread > 0)
    if varying.any():
        apart = draws[varying] - draws[varying].mean(dim=1, keepdim=True)
        largest = (apart / spread[varying, None]).abs().amax(dim=0)
        reach = torch.quantile(largest, level) * spread[varying]
        low[varying] -= reach
        high[varying] += reach
    return low, high
