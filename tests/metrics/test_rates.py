"""Rates at fixed false alarms, LiRA, the bound of epsilon, simultaneous bounds, components: by hand and by simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

from memloc.errors import SpecError
from memloc.metrics import (
    epsilon_lower_bound,
    lira,
    simultaneous_bounds,
    tpr_at_fpr,
    two_way_spread,
    variance_components,
)


def slow_rate(positive, negative, fpr):
    """Positives above the lowest threshold that no more than that share of negatives exceeds."""
    for threshold in sorted([*negative, -np.inf]):
        if np.mean(np.array(negative) > threshold) <= fpr + 1e-12:
            return np.mean(np.array(positive) > threshold)
    raise AssertionError


@pytest.mark.parametrize("seed", range(5))
def test_rates_by_thresholds(seed):
    random = np.random.default_rng(seed)
    positive, negative = random.normal(1, 1, 37), random.normal(0, 1, 53).round(1)  # with ties
    fprs = (0.02, 0.05, 0.1, 0.5)
    for fpr, rate in zip(fprs, tpr_at_fpr(torch.tensor(positive), torch.tensor(negative), fprs), strict=True):
        assert rate.value == pytest.approx(slow_rate(positive, negative, fpr))
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_a_rate_needs_as_many_negatives_as_its_inverse():
    positive, negative = torch.randn(50), torch.randn(99)
    rare, fine = tpr_at_fpr(positive, negative, (0.01, 0.02))
    assert math.isnan(rare.value)
    assert math.isnan(rare.low)
    assert not math.isnan(fine.value)
    assert not math.isnan(tpr_at_fpr(positive, torch.randn(100), (0.01,))[0].value)
    assert math.isnan(tpr_at_fpr(torch.full((3,), torch.nan), negative)[3].value)
    with pytest.raises(SpecError, match="between 0 and 1"):
        tpr_at_fpr(positive, negative, (0.0,))


def test_cells_of_ten_points_tell_no_rate_of_one_in_a_hundred():
    points = torch.arange(10).repeat_interleave(20)
    found = tpr_at_fpr(torch.randn(200), torch.randn(200), (0.01, 0.1), points=(points, points))
    assert math.isnan(found[0].value)
    assert not math.isnan(found[1].value)


@pytest.mark.parametrize(("trained", "unseen", "apart"), [(60, 150, 1.5), (150, 400, 2.5)])
def test_rates_cover_the_truth(trained, unseen, apart):
    """100 samples, truth known: 95 % intervals that count the threshold."""
    random, hits = np.random.default_rng(0), np.zeros(3)
    fprs = (0.01, 0.05, 0.1)
    for seed in range(100):
        sample = torch.tensor(random.normal(apart, 1, trained)), torch.tensor(random.normal(0, 1, unseen))
        for place, (fpr, rate) in enumerate(zip(fprs, tpr_at_fpr(*sample, fprs, seed=seed), strict=True)):
            hits[place] += rate.low <= norm.sf(norm.isf(fpr) - apart) <= rate.high
    assert (hits >= 90).all()


def test_rates_of_cells_cover_the_truth():
    """Four cells a point, which share half of their variance."""
    random, hits = np.random.default_rng(1), 0
    points = torch.arange(100).repeat_interleave(2)
    for seed in range(60):
        level = random.normal(0, 0.7, (100, 1))
        positive, negative = (level + random.normal(mean, 0.7, (100, 2)) for mean in (1.5, 0))
        sides = torch.tensor(positive.flatten()), torch.tensor(negative.flatten())
        rate = tpr_at_fpr(*sides, (0.1,), points=(points, points), seed=seed)[0]
        truth = norm.sf((norm.isf(0.1) * 0.98**0.5 - 1.5) / 0.98**0.5)
        hits += rate.low <= truth <= rate.high
    assert hits >= 52


def test_lira_by_a_loop():
    random = np.random.default_rng(2)
    logs, seen = (
        random.normal(size=(6, 20)),
        np.stack([random.permutation([True] * 3 + [False] * 3) for _ in range(20)], 1),
    )
    found = lira(torch.tensor(logs), torch.tensor(seen)).numpy()
    means = {}
    for encoder in range(6):
        for point in range(20):
            for side in (True, False):
                others = [other for other in range(6) if other != encoder and seen[other, point] == side]
                means[encoder, point, side] = np.mean([logs[other, point] for other in others])
    spread = {
        side: np.mean(
            [(logs[cell] - means[(*cell, side)]) ** 2 for cell in np.ndindex(seen.shape) if seen[cell] == side]
        )
        for side in (True, False)
    }
    for cell in np.ndindex(seen.shape):
        ratio = [norm.logpdf(logs[cell], means[(*cell, side)], spread[side] ** 0.5) for side in (True, False)]
        assert found[cell] == pytest.approx(ratio[0] - ratio[1], abs=1e-9)


def test_lira_finds_cells_and_where_nobody_else_saw_a_point():
    random = np.random.default_rng(3)
    for encoders, each in ((4, 1), (16, 8)):
        seen = np.stack([random.permutation([True] * each + [False] * (encoders - each)) for _ in range(60)], 1)
        logs = random.normal(size=(1, 60)) + 0.3 * random.normal(size=seen.shape) - 1.0 * seen
        found = lira(torch.tensor(logs), torch.tensor(seen)).numpy()
        assert np.isfinite(found).all()
        assert (found[seen][:, None] > found[~seen]).mean() > 0.85


@pytest.mark.parametrize(("right", "guesses"), [(60, 60), (40, 50), (90, 100), (30, 50), (0, 0)])
def test_the_bound_of_epsilon_solves_the_binomial(right, guesses):
    found = epsilon_lower_bound(right, guesses)
    if found:
        share = math.exp(found) / (1 + math.exp(found))
        assert binom.sf(right - 1, guesses, share) == pytest.approx(0.05, abs=1e-6)
    else:
        assert guesses == 0 or binom.sf(right - 1, guesses, 0.5) >= 0.05


def test_delta_widens_the_bound():
    bounds = [epsilon_lower_bound(48, 50, delta=delta, points=100) for delta in (0.0, 1e-5, 1e-3, 0.01)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2] > bounds[3]
    # by hand at the found epsilon: tail + 2 m delta max over i of P[v > W >= v - i] / i
    epsilon, share = bounds[2], math.exp(bounds[2]) / (1 + math.exp(bounds[2]))
    tail = binom.sf(47, 50, share)
    steepest = max((binom.cdf(47, 50, share) - binom.cdf(47 - i, 50, share)) / i for i in range(1, 49))
    assert epsilon > 0
    assert tail + 2 * 100 * 1e-3 * steepest == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_the_bound_holds_for_randomized_response(epsilon):
    """200 trainings of known epsilon: each coin is read off right with chance e^ε / (1 + e^ε), the worst that ε-DP
    allows; the bound may exceed ε in one of twenty."""
    random = np.random.default_rng(4)
    right = random.binomial(60, 1 / (1 + math.exp(-epsilon)), 200)
    bounds = [epsilon_lower_bound(int(each), 60) for each in right]
    assert np.mean([bound <= epsilon for bound in bounds]) >= 0.93
    if epsilon == 2.0:
        assert np.median(bounds) > 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"right": 5, "guesses": 4}, {"right": 1, "guesses": 4, "points": 3}, {"right": 1, "guesses": 4, "delta": 1.0}],
)
def test_guesses_that_cannot_be(wrong):
    with pytest.raises(SpecError, match="Count them again"):
        epsilon_lower_bound(**wrong)


def test_simultaneous_bounds_of_many_figures():
    """50 correlated figures without an effect, 200 times: some bound lies above 0 in about one of forty."""
    random, alarms, alone = np.random.default_rng(5), 0, 0
    for _ in range(200):
        common = random.normal(size=(1, 1001))
        draws = 0.5 * common + random.normal(size=(50, 1001))
        values, around = torch.tensor(draws[:, 0]), torch.tensor(draws[:, 1:])
        low, high = simultaneous_bounds(values, around)
        alarms += bool((low > 0).any())
        alone += bool((values - 1.96 * around.std(dim=1) > 0).any())
        assert (low <= values).all()
        assert (values <= high).all()
    assert alarms <= 12
    assert alone > 80, "each by its own interval"


def test_simultaneous_bounds_of_what_is_unknown_or_constant():
    draws = torch.stack([torch.randn(100), torch.full((100,), torch.nan), torch.zeros(100)]).double()
    low, high = simultaneous_bounds(torch.tensor([1.0, 2.0, 3.0]), draws)
    assert low[0] < 1 < high[0]
    assert low[1].isnan()
    assert (low[2], high[2]) == (3, 3)


def test_few_runs_have_wide_tails():
    """Runs that vary alone, four of them: Student's t of about three degrees, and draws whose ends say so."""
    own = torch.tensor([1.0, -0.4, -0.8, 0.2], dtype=torch.float64)[:, None].expand(4, 50) / 200
    spread = two_way_spread(own, clusters=torch.arange(4), repeats=4000)
    assert spread.freedom < 5
    ends = torch.quantile(spread.draws, torch.tensor([0.025, 0.975], dtype=torch.float64))
    assert float(ends[1] - ends[0]) / 2 > 2.4 * spread.se
    assert two_way_spread(own).se < 1e-12


def halves(point, run, noise, *, points=300, seed=0, splits=6):
    random = np.random.default_rng(seed)
    own = random.normal(size=points) * point**0.5
    return torch.tensor(own + random.normal(size=(splits, 2, points)) * (run + noise) ** 0.5)


@pytest.mark.parametrize(("point", "run", "says"), [(1.0, 0.0, "point"), (0.0, 1.0, "run"), (0.0, 0.0, None)])
def test_components_tell_points_from_runs_and_both_from_noise(point, run, says):
    """30 times each: what there is is found, what there is not seldom."""
    found = [
        variance_components(halves(point, run, 0.5, seed=seed), halves(0, 0, 0.5, seed=1000 + seed), 1.0, repeats=200)
        for seed in range(30)
    ]
    for name in ("point", "run"):
        told = sum(getattr(each, f"{name}_low") > 0 for each in found)
        assert told == 30 if says == name else told <= 4
    if says == "point":
        assert np.mean([each.share for each in found]) > 0.9
