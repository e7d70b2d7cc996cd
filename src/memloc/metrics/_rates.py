"""The auditor's figures: true-positive rates at fixed false-positive rates, LiRA, and a lower bound of epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memloc.errors import ShapeError, SpecError
from memloc.streams import Stream, generator

FPRS = (0.001, 0.01, 0.05, 0.1)
_OWN_VARIANCE = 16  # encoders from which a point's own variance is told well enough


class Rate(NamedTuple):
    """A true-positive rate with its 95 % interval; NaN where it is not known."""

    value: float
    low: float
    high: float


def tpr_at_fpr(
    positive: Float[Tensor, " point"],
    negative: Float[Tensor, " other"],
    fprs: Sequence[float] = FPRS,
    *,
    points: tuple[Int[Tensor, " point"], Int[Tensor, " other"]] | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> list[Rate]:
    """Share of positives above the threshold that a given share of negatives exceeds.

    The interval counts the positives (Jeffreys) and that the threshold is estimated from the negatives, too: in every
    draw the share of negatives between any two neighbours is drawn anew (Dirichlet). Where several scores belong to a
    point, points are weighed instead.

    Args:
        points: the point of each score, where points have several.
    Returns:
        A rate for each of `fprs`, NaN where there are fewer negatives (points) than 1 / rate.
    Source: Carlini et al., Membership Inference Attacks From First Principles, S&P 2022.

    >>> tpr_at_fpr(torch.arange(50.0) + 60, torch.arange(100.0), [0.1])[0].value
    0.4
    """
    if any(not 0 < fpr < 1 for fpr in fprs):
        raise SpecError(
            f"false-positive rates are {list(fprs)}. Expected numbers between 0 and 1. Pass fprs=(0.01, 0.1)."
        )
    random = generator(Stream.RATES, seed, len(positive), len(negative))
    if points is None:
        positive, negative = positive[~positive.isnan()].double(), negative[~negative.isnan()].double()
        enough = len(negative)
    else:
        enough = len(points[1].unique())
    unknown = Rate(float("nan"), float("nan"), float("nan"))
    if not len(positive) or not len(negative):
        return [unknown for _ in fprs]
    ordered = negative.sort(descending=True).values
    above = torch.searchsorted(positive.sort().values, ordered, right=True)
    counts = np.concatenate([[0], len(positive) - above.numpy()]).astype(float)  # positives above the j-th negative
    known = [fpr for fpr in fprs if enough * fpr >= 1 - 1e-9]
    draws = (
        np.stack([_draws_of_points(counts, len(positive), len(negative), fpr, random, repeats) for fpr in known])
        if points is None and known
        else _draws_of_cells(positive, negative, points, known, random, repeats)
    )
    ends = dict(zip(known, np.quantile(draws, [0.025, 0.975], axis=1).T, strict=True))
    found = []
    for fpr in fprs:
        value = float(counts[1 + min(math.floor(fpr * len(negative) + 1e-9), len(negative) - 1)]) / len(positive)
        low, high = ends.get(fpr, (math.nan, math.nan))
        found.append(Rate(value, min(float(low), value), max(float(high), value)) if fpr in ends else unknown)
    return found


def _draws_of_points(
    counts: np.ndarray, positives: int, size: int, fpr: float, random: np.random.Generator, repeats: int
) -> np.ndarray:
    """Rates of points: the threshold lies in a gap between negatives, whose shares are drawn."""
    first = min(size + 1, max(40, int(4 * fpr * size) + 40))  # gaps that the threshold may lie in
    weights = random.standard_gamma(1.0, (repeats, first))
    rest = random.standard_gamma(size + 1 - first, repeats) if first < size + 1 else 0.0
    cumulated = weights.cumsum(axis=1)
    cumulated /= (cumulated[:, -1] + rest)[:, None]
    place = (cumulated < fpr).sum(axis=1).clip(max=first - 1)  # whole gaps above the threshold
    rows = np.arange(repeats)
    before = np.where(place > 0, cumulated[rows, place - 1], 0.0)
    part = ((fpr - before) / np.maximum(cumulated[rows, place] - before, 1e-300)).clip(0, 1)
    lower = counts[np.minimum(place, size)]
    upper = counts[np.minimum(place + 1, size)]
    found = lower + part * (upper - lower)
    return random.beta(found + 0.5, positives - found + 0.5)


def _draws_of_cells(
    positive: Tensor,
    negative: Tensor,
    points: Any,
    fprs: Sequence[float],
    random: np.random.Generator,
    repeats: int,
) -> np.ndarray:
    """Rates of scores of which several belong to a point: points are weighed."""
    if not fprs:
        return np.empty((0, repeats))
    place = torch.cat(list(points)).unique(return_inverse=True)[1].numpy()
    orders = [np.argsort(-scores.numpy(), kind="stable") for scores in (positive, negative)]
    of_positive, of_negative = place[: len(positive)][orders[0]], place[len(positive) :][orders[1]]
    mine, theirs = positive.numpy()[orders[0]], negative.numpy()[orders[1]]
    reached = np.searchsorted(-mine, -theirs, side="left")  # positives above each negative
    found = np.empty((len(fprs), repeats))
    for repeat in range(repeats):
        weight = random.standard_exponential(place.max() + 1)
        cumulated, of_mine = weight[of_negative].cumsum(), np.concatenate([[0.0], weight[of_positive].cumsum()])
        at = np.searchsorted(cumulated, np.array(fprs) * cumulated[-1], side="right").clip(max=len(theirs) - 1)
        found[:, repeat] = of_mine[reached[at]] / of_mine[-1]
    return found


def lira(logs: Float[Tensor, "encoder point"], seen: Bool[Tensor, "encoder point"]) -> Float[Tensor, "encoder point"]:
    """LiRA: log likelihood ratio of every cell's reading under encoders trained on the point against those that were
    not, both Gaussian and without the encoder itself.

    Variances are shared by points below 16 encoders, where a point's own cannot be told. Where nobody else saw a point,
    the mean of the others is moved by the average difference. A cell's own side has one encoder less, so cells that saw
    a point are to be compared with such of points that nobody saw (with memberships by chance), not with the others.

    Args:
        logs: log readings net of encoder. seen: which encoder was trained on which point.
    Source: Carlini et al., S&P 2022, Algorithm 1 (the online attack; global variance where encoders are few).

    >>> logs = torch.tensor([[0.0, 1.0], [0.1, 0.0], [1.0, 0.1], [1.1, 1.1]], dtype=torch.float64)
    >>> seen = torch.tensor([[True, False], [True, True], [False, True], [False, False]])
    >>> ((lira(logs, seen) > 0) == seen).all()
    tensor(True)
    """
    if logs.shape != seen.shape or logs.ndim != 2:
        raise ShapeError(
            f"readings have shape {tuple(logs.shape)} and membership {tuple(seen.shape)}. Expected both as (encoder,"
            " point). Pass one row per encoder."
        )
    logs = logs.double()
    inside, outside = (_without_itself(logs, side) for side in (seen, ~seen))
    shift = (torch.where(seen, logs, 0).sum() / seen.sum() - torch.where(seen, 0, logs).sum() / (~seen).sum()).item()
    mean_in = torch.where(inside.number > 0, inside.mean, outside.mean + shift)
    mean_out = torch.where(outside.number > 0, outside.mean, inside.mean - shift)
    own = len(logs) >= _OWN_VARIANCE
    ratio = torch.zeros_like(logs)
    for sign, mean, side, group in ((1, mean_in, inside, seen), (-1, mean_out, outside, ~seen)):
        told = group & (side.number > 0)
        shared = (logs - mean)[told if told.any() else group].square().mean().clamp_min(1e-12)
        variance = torch.where(side.number >= 4, side.variance, shared).clamp_min(shared / 100) if own else shared
        ratio += sign * (-0.5 * (logs - mean).square() / variance - 0.5 * torch.as_tensor(variance).log())
    return ratio


class _Others(NamedTuple):
    number: Tensor
    mean: Tensor
    variance: Tensor


def _without_itself(logs: Tensor, side: Tensor) -> _Others:
    """Count, mean and variance of a side's readings of each point, without the cell itself: (encoder, point)."""
    weight = side.double()
    count = weight.sum(dim=0) - weight
    total = (weight * logs).sum(dim=0) - weight * logs
    square = (weight * logs.square()).sum(dim=0) - weight * logs.square()
    mean = total / count.clamp_min(1)
    return _Others(count, mean, (square - count * mean.square()).clamp_min(0) / (count - 1).clamp_min(1))


def epsilon_lower_bound(
    right: int, guesses: int, *, delta: float = 0.0, points: int | None = None, level: float = 0.95
) -> float:
    """The largest ε that a training is shown not to satisfy, from guesses of which points fair coins put into it.

    A training that is ε-DP allows `right` or more right guesses with a chance of at most that of as many heads of coins
    of bias e^ε / (1 + e^ε); with δ > 0 their chance grows by 2 · points · δ times the steepest such tail's mean slope.
    Every ε for which the chance lies below 1 − level is excluded.

    Args:
        right: right guesses. guesses: how many were made, fixed before looking.
        delta: of an (ε, δ) guarantee. points: audit points, whose coins were fair; `guesses` by default.
    Returns:
        The bound, 0 where nothing is excluded.
    Raises:
        SpecError: more right guesses than guesses, or numbers out of range.
    Source: Steinke, Nasr and Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023, Theorem 5.2.

    >>> epsilon_lower_bound(50, 100)
    0.0
    >>> round(epsilon_lower_bound(100, 100), 2)
    3.49
    """
    from scipy.optimize import brentq

    points = guesses if points is None else points
    if not 0 <= right <= guesses or guesses > points or not 0 <= delta < 1 or not 0 < level < 1:
        raise SpecError(
            f"{right} of {guesses} guesses about {points} points are right, with delta {delta} and level {level}."
            " Expected right <= guesses <= points, delta from 0 and level between 0 and 1. Count them again."
        )
    if not guesses:
        return 0.0

    def chance(epsilon: float) -> float:
        return _chance(right, guesses, points, epsilon, delta)

    allowed = 1 - level
    if chance(0.0) >= allowed:
        return 0.0
    return float(brentq(lambda epsilon: chance(epsilon) - allowed, 0.0, 60.0)) if chance(60.0) > allowed else 60.0


def _chance(right: int, guesses: int, points: int, epsilon: float, delta: float) -> float:
    """The most likely that `right` or more guesses are right under (ε, δ)-DP (their Theorem 5.2)."""
    from scipy.stats import binom

    share = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, share))
    if delta == 0:
        return tail
    # the largest mean of the probabilities of v - i, ..., v - 1 over i = 1 ... v
    below = binom.pmf(np.arange(right - 1, -1, -1), guesses, share).cumsum()
    steepest = float((below / np.arange(1, right + 1)).max()) if right else 0.0
    return min(tail + 2 * points * delta * steepest, 1.0)
