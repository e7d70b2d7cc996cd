"""Greedy picks: facility location by exact or sampled gains, and centrality by a sort."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memloc.coreset._coverage import Coverage, DeviceCoverage
from memloc.coreset._distances import Distances

Step = Callable[[float], None]
"""Called with the share of the work that is done."""


@dataclass(frozen=True)
class Picks:
    """Picks of one group: points in pick order, what each added, which pick serves each point, how far it is,
    evaluations made."""

    points: NDArray[np.int64]
    gains: NDArray[np.float64]
    owner: NDArray[np.int64]
    near: NDArray[np.float64]
    evaluations: int


def exact_greedy(distances: Distances, budget: int, progress: Step) -> Picks:
    """The greedy picks: every gain is kept up to date by what it lost, so that the next pick is always the largest.

    Lazy evaluation (Minoux 1978) makes the same picks for eight times the gains (docs/decisions/0011).
    """
    coverage, found = _coverage(distances, by_candidate=False), []
    gains = distances.first_gains()
    while True:
        point = int(gains.argmax())  # the first of equals
        found.append(float(gains[point]))
        served, before = coverage.serve(point)
        progress(len(found) / budget)
        if len(found) == budget:
            return _done(coverage, found)
        gains = coverage.updated(gains, served, before)


def naive_greedy(distances: Distances, budget: int, progress: Step) -> Picks:
    """The greedy picks, evaluating every candidate before each."""
    coverage, left, found = _coverage(distances, by_candidate=True), np.arange(distances.n), []
    for _ in range(budget):
        gains = coverage.gains(left)
        best = int(gains.argmax())
        found.append(float(gains[best]))
        coverage.serve(int(left[best]))
        progress(len(found) / budget)
        left = np.delete(left, best)
        coverage.shorten()
    return _done(coverage, found)


def stochastic_greedy(
    distances: Distances, budget: int, epsilon: float, rng: np.random.Generator, progress: Step
) -> Picks:
    """Greedy over a random sample of candidates a pick, n / k x ln(1 / epsilon) of them (Mirzasoleiman et al. 2015)."""
    coverage, left, found = _coverage(distances, by_candidate=True), np.arange(distances.n), []
    sample = min(math.ceil(distances.n / budget * math.log(1 / epsilon)), distances.n)
    for draws in rng.random((budget, sample)):
        places = (draws * len(left)).astype(np.int64)
        candidates = left[places]
        gains = coverage.gains(candidates)
        equals = np.flatnonzero(gains == gains.max())
        best = equals[candidates[equals].argmin()]
        found.append(float(gains[best]))
        coverage.serve(int(candidates[best]))
        progress(len(found) / budget)
        left[places[best]] = left[-1]
        left = left[:-1]
        coverage.shorten()
    return _done(coverage, found)


def most_central(distances: Distances, budget: int, progress: Step) -> Picks:
    """The points of largest total similarity, which is what the published code picks (REFERENCE C2)."""
    coverage, totals = _coverage(distances, by_candidate=True), distances.first_gains()
    picks = np.argsort(-totals, kind="stable")[:budget]
    coverage.serve_all(picks, progress)
    return _done(coverage, totals[picks].tolist())


def _coverage(distances: Distances, *, by_candidate: bool) -> Coverage | DeviceCoverage:
    if distances.device.type == "cpu":
        return Coverage(distances, by_candidate=by_candidate)
    return DeviceCoverage(distances)


def _done(coverage: Coverage | DeviceCoverage, gains: list[float]) -> Picks:
    """The picks with what they added; a pick serves itself."""
    picks, owner, step = np.array(coverage.picks), coverage.owner, coverage.distances.step
    owner[picks] = picks
    return Picks(picks, np.array(gains) * step, owner, coverage.near.astype(np.float64) * step, coverage.evaluations)
