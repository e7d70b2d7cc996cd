"""Resampling: seeded bootstrap weights that several figures share, and intervals from them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from memloc.streams import Stream, generator

Z95 = 1.959963984540054  # of a two-sided 95 % interval
BLOCKS = 1_000  # resampled units at most: beyond it points are resampled in random blocks of equal size


def bootstrap_weights(
    points: int,
    repeats: int = 1000,
    seed: int = 0,
    *,
    strata: Tensor | None = None,
    stream: Stream = Stream.BOOTSTRAP,
) -> Float[Tensor, "repeat point"]:
    """How often each point is drawn in each bootstrap sample; the same arguments give the same samples.

    Args:
        points: number of points. repeats: number of samples.
        strata: a group per point, shape (point,); groups keep their sizes.
        stream: of what is drawn; samples of two streams have nothing in common.

    >>> weights = bootstrap_weights(5, 100)
    >>> weights.shape, bool((weights.sum(dim=1) == 5).all())
    (torch.Size([100, 5]), True)
    """
    groups = np.zeros(points, dtype=np.int64) if strata is None else strata.cpu().numpy().astype(np.int64)
    return _weights(points, repeats, seed, groups.tobytes(), stream)


def bootstrap_sums(
    values: Float[Tensor, "point column"],
    *,
    repeats: int = 1000,
    seed: int = 0,
    strata: Tensor | None = None,
    only: int | None = None,
    stream: Stream = Stream.BOOTSTRAP,
) -> tuple[Float[Tensor, "repeat column"], Float[Tensor, " repeat"]]:
    """Sums of columns over resampled points, and how many points each sample holds.

    Up to 1 000 points are resampled one by one. Beyond it they are dealt at random into 1 000 blocks (within strata)
    and the blocks are resampled, so that neither time nor memory grows with the points.

    Args:
        values: float64, one row per point.
        strata: a group per point; groups keep their share.
        only: the number of the one sample to take. stream: as in `bootstrap_weights`.

    >>> sums, sizes = bootstrap_sums(torch.ones(5000, 1, dtype=torch.float64), repeats=10)
    >>> bool((sums[:, 0] == sizes).all()), sums.shape
    (True, torch.Size([10, 1]))
    """
    block, of_block = _blocks(len(values), seed, strata, stream)
    blocks = len(of_block)
    columns = torch.zeros(blocks, values.shape[1], dtype=torch.float64).index_add_(0, block, values.double())
    weights = bootstrap_weights(blocks, repeats, seed, strata=of_block, stream=stream)
    weights = weights if only is None else weights[only : only + 1]
    return weights @ columns, weights @ torch.bincount(block, minlength=blocks).double()


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


def standard_error(draws: Float[Tensor, " repeat"]) -> float:
    """The bootstrap's standard error: the standard deviation of its draws; NaN if there are none.

    >>> standard_error(torch.tensor([1.0, 3.0, 2.0]))
    1.0
    """
    draws = draws[~draws.isnan()]
    return float(draws.std()) if len(draws) else float("nan")


@lru_cache(maxsize=8)
def _weights(points: int, repeats: int, seed: int, groups: bytes, stream: Stream) -> Tensor:
    random = generator(stream, seed, points)
    group_of = np.frombuffer(groups, dtype=np.int64)
    weights = np.zeros((repeats, points))
    for group in np.unique(group_of):
        member = np.flatnonzero(group_of == group)
        weights[:, member] = random.multinomial(len(member), np.full(len(member), 1 / len(member)), size=repeats)
    return torch.from_numpy(weights)


def _blocks(
    points: int, seed: int, strata: Tensor | None, stream: Stream
) -> tuple[Int[Tensor, " point"], Int[Tensor, " block"]]:
    """The block of each point, and the stratum of each block."""
    group_of = np.zeros(points, dtype=np.int64) if strata is None else strata.cpu().numpy().astype(np.int64)
    if points <= BLOCKS:
        return torch.arange(points), torch.from_numpy(group_of.copy())
    random = generator(Stream.BOOTSTRAP_BLOCKS, seed, points, stream)
    block = np.zeros(points, dtype=np.int64)
    of_block: list[int] = []
    for group in np.unique(group_of):
        member = random.permutation(np.flatnonzero(group_of == group))
        count = min(len(member), max(2, round(BLOCKS * len(member) / points)))
        block[member] = len(of_block) + np.arange(len(member)) % count
        of_block += [group] * count
    return torch.from_numpy(block), torch.tensor(of_block)
