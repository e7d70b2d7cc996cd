"""Whether two rankings or two sets of points agree, and how reliable a point's score is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memloc.errors import ShapeError
from memloc.metrics._bootstrap import bootstrap_weights, percentile_interval
from memloc.streams import Stream, generator

_RUN_SPLITS = 32  # random halvings of the encoders that reliability over runs averages


def overlap_at_k(first: Float[Tensor, " point"], second: Float[Tensor, " point"], k: int) -> float:
    """Share of the k highest points of one score that are among the k highest of the other (LocMem Table 3).

    >>> overlap_at_k(torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([4.0, 1.0, 3.0, 2.0]), 2)
    0.5
    """
    _same_length(first, second)
    if not 1 <= k <= len(first):
        raise ShapeError(
            f"k is {k} for {len(first)} points. Expected 1 to {len(first)}. Pass k={min(max(k, 1), len(first))}."
        )
    highest = [set(torch.sort(score, descending=True, stable=True).indices[:k].tolist()) for score in (first, second)]
    return len(highest[0] & highest[1]) / k


def kendall_tau(first: Float[Tensor, " point"], second: Float[Tensor, " point"]) -> tuple[float, float]:
    """Kendall's tau-b between two scores, and its two-sided p-value.

    >>> kendall_tau(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0]))[0]
    0.33333333333333337
    """
    from scipy.stats import kendalltau

    _same_length(first, second)
    found = kendalltau(first.numpy(), second.numpy())
    return float(found.statistic), float(found.pvalue)


def t_test(first: Float[Tensor, " point"], second: Float[Tensor, " other"]) -> tuple[float, float]:
    """Welch's t statistic for a difference of means, and its two-sided p-value.

    >>> statistic, p_value = t_test(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([7.0, 8.0, 9.5]))
    >>> statistic < 0 and p_value < 0.01
    True
    """
    from scipy.stats import ttest_ind

    found = ttest_ind(first.numpy(), second.numpy(), equal_var=False)
    return float(found.statistic), float(found.pvalue)


def spearman_brown(correlation: float, factor: float = 2.0) -> float:
    """Reliability of a measurement `factor` times as long as the one whose two parts correlate so; at least -1.

    >>> round(spearman_brown(0.5), 4)
    0.6667
    """
    scale = 1 + (factor - 1) * correlation
    return correlation if correlation != correlation else max(factor * correlation / max(scale, 1e-12), -1.0)


def reliability(first: Float[Tensor, " point"], second: Float[Tensor, " point"], factor: float = 2.0) -> float:
    """Reliability of a score whose halves were measured apart: their correlation over points, by Spearman-Brown.

    >>> round(reliability(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])), 4)
    0.6667
    """
    return spearman_brown(_correlation(first, second), factor)


class RunHalves(NamedTuple):
    """Reliability of a point's score over training runs, and how many halvings it averages."""

    value: float
    splits: int


def run_reliability(
    align: Float[Tensor, "encoder point"],
    target: Bool[Tensor, "encoder point"],
    reference: Bool[Tensor, "encoder point"],
    *,
    paired: bool = False,
    seed: int = 0,
    score: Callable[[Tensor], Tensor] | None = None,
) -> RunHalves:
    """Would other training runs rank the points alike: scores from disjoint halves of the encoders, Spearman-Brown.

    Args:
        align: alignment of every point by every encoder.
        target, reference: which encoders stand for f and which for g at each point.
        paired: whether f's and g's runs were trained in pairs (the first of either side together), which then stay
            together.
        score: the points' score by some of the encoders, bool (encoder,); SSLMem' by default.
    Returns:
        The mean over random halvings; NaN with fewer than two encoders a side.
    Source: REFERENCE A10.

    >>> align = torch.rand(2, 50)
    >>> f, g = (torch.tensor([[side], [not side]]).expand(2, 50) for side in (True, False))
    >>> run_reliability(align, f, g).value
    nan
    """
    sides = _sides(target, reference)
    found = []
    for half, other in run_halves(target, reference, paired=paired, seed=seed):
        one, two = (_score(align, target, reference, used) if score is None else score(used) for used in (half, other))
        both = ~(one.isnan() | two.isnan())
        if int(both.sum()) >= 8:
            found.append(_correlation(one[both], two[both]))
    if not found:
        return RunHalves(float("nan"), 0)
    smallest = min(len(members) for members in sides)
    return RunHalves(spearman_brown(float(np.mean(found)), smallest / (smallest // 2)), len(found))


def _sides(target: Tensor, reference: Tensor) -> list[np.ndarray]:
    """The encoders of each side; those of a subset ensemble, each with a training set of its own, as one."""
    _, side = torch.stack([target, reference], 1).flatten(1).unique(dim=0, return_inverse=True)
    sides = [np.flatnonzero(side.numpy() == number) for number in range(int(side.max()) + 1)]
    return [np.arange(len(target))] if len(sides) == len(target) else sides


def run_halves(
    target: Bool[Tensor, "encoder point"],
    reference: Bool[Tensor, "encoder point"],
    *,
    paired: bool = False,
    seed: int = 0,
) -> Iterator[tuple[Bool[Tensor, " encoder"], Bool[Tensor, " encoder"]]]:
    """Random halves of the encoders that share none, halves of each side; arguments as in `run_reliability`.

    >>> one, two = next(run_halves(torch.eye(4).bool(), ~torch.eye(4).bool()))
    >>> int(one.sum()), bool((one & two).any())
    (2, False)
    """
    encoders, sides = len(target), _sides(target, reference)
    random = generator(Stream.RUN_HALVES, seed, encoders)
    for _ in range(_RUN_SPLITS):
        half = torch.zeros(encoders, dtype=torch.bool)
        other = torch.zeros(encoders, dtype=torch.bool)
        shuffled = random.permutation(len(sides[0]))
        for members in sides:
            order = shuffled if paired else random.permutation(len(members))
            size = len(members) // 2
            half[members[order[:size]]] = True
            other[members[order[size : 2 * size]]] = True
        yield half, other


class Components(NamedTuple):
    """Variance of what one encoder memorized of single points: of the point, and of the training run.

    Attributes:
        point, run: the two. point_low, run_low, run_high: ends of their 95 % intervals. A run surely below 0 says that
            trained points are read with less noise than others, and that the share is not to be trusted.
        share: point / (point + run), with its interval share_low, share_high; NaN where neither is above 0.
    """

    point: float
    point_low: float
    run: float
    run_low: float
    run_high: float
    share: float
    share_low: float
    share_high: float


def variance_components(
    halves: Float[Tensor, "split half point"],
    placebo: Float[Tensor, "split half other"],
    encoders: float,
    *,
    repeats: int = 400,
    seed: int = 0,
) -> Components:
    """What belongs to a point, to the training run, or is noise, with points that nobody saw as the measure of noise.

    Scores of two halves of the encoders share what belongs to the point; what they do not share is of the runs, and
    noise. Points that nobody saw, scored as if some encoders had, have the noise alone, and what readings of a point
    have in common for other reasons.

    Args:
        halves: scores of trained points by disjoint halves of the encoders. placebo: of points that nobody saw.
        encoders: how many of a half's encoders saw a point, on average.
        repeats, seed: of the bootstrap over points.
    Source: REFERENCE A12.

    >>> point = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> noise = torch.randn(4, 2, 800, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    >>> found = variance_components(point + noise[..., :400], noise[..., 400:], 1.0)
    >>> found.point_low > 0.5, found.run_low < 0
    (True, True)
    """
    draws = []
    for number, group in enumerate((halves, placebo)):
        weights = bootstrap_weights(
            group.shape[2], repeats, seed, stream=Stream.COMPONENTS if number else Stream.BOOTSTRAP
        )
        weights = torch.cat([torch.ones(1, group.shape[2], dtype=torch.float64), weights])
        draws.append(_moments(group, weights))
    (total, shared), (noise, common) = draws
    point = shared - common
    run = encoders * ((total - shared) - (noise - common))
    whole = point.clamp_min(0) + run.clamp_min(0)
    share = torch.where(whole > 0, point.clamp_min(0) / whole.clamp_min(1e-300), torch.nan)
    point_ends, run_ends, ends = (percentile_interval(each[1:]) for each in (point, run, share))
    return Components(float(point[0]), point_ends[0], float(run[0]), *run_ends, float(share[0]), *ends)


def _moments(halves: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of a half's scores and covariance of the two halves', by weights of points: (repeat,), over splits."""
    totals, shares = [], []
    for one, two in halves.double():
        known = ~(one.isnan() | two.isnan())
        weight = weights[:, known]
        size = weight.sum(dim=1)
        first, second = one[known], two[known]
        means = [(weight @ side) / size for side in (first, second)]
        squares = [weight @ (side * side) / size - mean**2 for side, mean in zip((first, second), means, strict=True)]
        correct = size / (size - 1)
        totals.append(correct * (squares[0] + squares[1]) / 2)
        shares.append(correct * (weight @ (first * second) / size - means[0] * means[1]))
    return torch.stack(totals).mean(dim=0), torch.stack(shares).mean(dim=0)


def _score(align: Tensor, target: Tensor, reference: Tensor, used: Tensor) -> Tensor:
    """SSLMem' of every point from the encoders used; NaN where a side is empty."""
    f, g = target & used[:, None], reference & used[:, None]
    align_f = (align * f).sum(dim=0) / f.sum(dim=0)
    align_g = (align * g).sum(dim=0) / g.sum(dim=0)
    return (align_g - align_f) / (align_g + align_f)


def _correlation(first: Tensor, second: Tensor) -> float:
    _same_length(first, second)
    both = ~(first.isnan() | second.isnan())
    if int(both.sum()) < 3:
        return float("nan")
    first, second = first[both].double(), second[both].double()
    first, second = first - first.mean(), second - second.mean()
    scale = float((first.square().sum() * second.square().sum()).sqrt())
    return float((first * second).sum()) / scale if scale > 0 else float("nan")


def _same_length(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ShapeError(
            f"the two scores have shapes {tuple(first.shape)} and {tuple(second.shape)}. Expected the same points in"
            " the same order. Join them by point id first."
        )
