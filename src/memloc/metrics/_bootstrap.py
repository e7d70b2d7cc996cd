"""Resampling: seeded bootstrap weights that several figures can share, and intervals from them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Z95 = 1.959963984540054
_LARGEST = 20_000  # points; above it exact multinomial counts cost more than they are worth


def bootstrap_weights(
    points: int, repeats: int = 1000, seed: int = 0, *, strata: Tensor | None = None
) -> Float[Tensor, "repeat point"]:
    """How often each point is drawn in each bootstrap sample; the same arguments give the same samples.

    Beyond 20 000 points the counts are Poisson(1), their limit, in at most 200 repeats.

    Args:
        points: number of points. repeats: number of samples.
        strata: a group per point, shape (point,); groups keep their sizes.

    >>> weights = bootstrap_weights(5, 100)
    >>> weights.shape, bool((weights.sum(dim=1) == 5).all())
    (torch.Size([100, 5]), True)
    """
    generator = np.random.default_rng([seed, points])
    repeats = repeats if points <= _LARGEST else min(repeats, 200)
    weights = np.zeros((repeats, points))
    groups = np.zeros(points, dtype=np.int64) if strata is None else strata.cpu().numpy()
    for group in np.unique(groups):
        member = np.flatnonzero(groups == group)
        if points <= _LARGEST:
            weights[:, member] = generator.multinomial(len(member), np.full(len(member), 1 / len(member)), size=repeats)
        else:
            weights[:, member] = generator.poisson(1.0, size=(repeats, len(member)))
    return torch.from_numpy(weights)


def percentile_interval(draws: Float[Tensor, " repeat"], level: float = 0.95) -> tuple[float, float]:
    """The central interval of bootstrap draws; NaN if there are none.

    >>> percentile_interval(torch.arange(101.0), 0.9)
    (5.0, 95.0)
    """
    draws = draws[~draws.isnan()]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = torch.quantile(draws, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype))
    return float(low), float(high)
