"""AUROC, excess fraction, p- and q-values, and the agreement of rankings."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from memloc.errors import ShapeError
from memloc.metrics import (
    auroc,
    bootstrap_sums,
    bootstrap_weights,
    empirical_p_values,
    excess_fraction,
    kendall_tau,
    overlap_at_k,
    q_values,
    reliability,
    run_reliability,
    spearman_brown,
    t_test,
)


def normal(count, shift=0.0, seed=0):
    return torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift


def test_auroc_is_the_mann_whitney_statistic():
    a, b = normal(80, 0.5, 1).round(decimals=1), normal(120, 0, 2).round(decimals=1)  # rounded: with ties
    expected = mannwhitneyu(a.numpy(), b.numpy()).statistic / (80 * 120)
    found = auroc(a, b)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert 0 < found.low < found.value < found.high < 1


def test_auroc_interval_covers_chance():
    hits = sum(
        found.low <= 0.5 <= found.high
        for found in (auroc(normal(40, seed=seed), normal(60, seed=seed + 1000)) for seed in range(200))
    )
    assert 180 <= hits <= 200


def test_auroc_without_overlap_still_has_a_bound():
    found = auroc(torch.tensor([5.0, 6.0, 7.0]), torch.tensor([1.0, 2.0]))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.6


def test_excess_fraction_bounds_the_planted_share():
    planted = torch.cat([normal(300, 8, 1), normal(700, 0, 2)])
    value, low = excess_fraction(planted, normal(1000, 0, 3))
    assert value == pytest.approx(0.3, abs=0.05)
    assert 0.15 < low < 0.3
    assert excess_fraction(normal(500, 0, 4), normal(500, 0, 5))[1] == 0.0


def test_p_and_q_values():
    p = empirical_p_values(torch.tensor([10.0, 0.5, -1.0]), torch.tensor([0.0, 1.0, 2.0]))
    assert p.tolist() == [0.25, 0.75, 1.0]
    assert q_values(torch.tensor([0.02, 0.04, float("nan")], dtype=torch.float64))[:2].tolist() == [0.04, 0.04]


def test_rankings(unchecked):
    a = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert overlap_at_k(a, -a, 2) == 0.0
    assert kendall_tau(a, -a)[0] == pytest.approx(-1.0)
    statistic, p_value = t_test(normal(50, 1, 1), normal(50, 0, 2))
    assert statistic > 0
    assert p_value < 0.01
    with pytest.raises(ShapeError, match="Expected 1 to 5"):
        overlap_at_k(a, a, 6)
    with pytest.raises(ShapeError, match="same points"):
        overlap_at_k(a, a[:4], 2)


def test_reliability_recovers_the_reliability_of_the_whole():
    truth = normal(4000, seed=1)
    halves = [truth + normal(4000, seed=seed) for seed in (2, 3)]  # each half: reliability 1/2; both: 2/3
    assert reliability(*halves) == pytest.approx(2 / 3, abs=0.03)
    assert spearman_brown(-0.9) == -1.0


def test_run_reliability_finds_what_runs_agree_on():
    target = torch.zeros(8, 1, dtype=torch.bool).expand(8, 300).clone()
    target[:4] = True
    points = 0.1 * normal(300, seed=1)
    align = 1 + 0.1 * torch.stack([normal(300, seed=10 + run) for run in range(8)])
    align[:4] -= points  # every run of f memorizes the same points
    agreeing = run_reliability(align, target, ~target)
    assert agreeing.value == pytest.approx(
        0.01 / (0.01 + 0.01 / 2), abs=0.12
    )  # signal over signal and noise of the mean score
    align[:4] += points
    assert abs(run_reliability(align, target, ~target).value) < 0.25
    assert np.isnan(run_reliability(align[[0, 4]], target[[0, 4]], ~target[[0, 4]]).value)


def test_bootstrap_weights_are_shared_and_stratified():
    one, two = bootstrap_weights(10, 20, seed=3), bootstrap_weights(10, 20, seed=3)
    assert torch.equal(one, two)
    strata = torch.tensor([0] * 4 + [1] * 6)
    weights = bootstrap_weights(10, 20, strata=strata)
    assert weights[:, :4].sum(1).unique().tolist() == [4.0]


def test_run_reliability_keeps_paired_runs_together():
    """Paired runs share a disturbance per run; splitting twins would turn it against itself."""
    target = torch.zeros(8, 1, dtype=torch.bool).expand(8, 400).clone()
    target[:4] = True
    points = 0.1 * normal(400, seed=1)
    disturbance = 0.3 * torch.stack([normal(400, seed=20 + run) for run in range(4)]).repeat(2, 1)
    align = 2 + disturbance + 0.05 * torch.stack([normal(400, seed=10 + run) for run in range(8)])
    align[:4] -= points
    together = run_reliability(align, target, ~target, paired=True).value
    apart = run_reliability(align, target, ~target).value
    assert together > 0.6
    assert apart < together - 0.3


def test_the_excess_bound_by_hand():
    """Apart altogether: 1 less sqrt(ln(2 / .05) / 2n) of either sample, 200 and 50 points."""
    value, low = excess_fraction(torch.arange(200.0) + 1000, torch.arange(50.0))
    assert value == 1.0
    assert low == pytest.approx(1 - 0.0960323 - 0.1920645, abs=1e-6)


def test_an_external_score_that_is_equal_reaches_the_point():
    assert empirical_p_values(torch.tensor([1.0]), torch.tensor([0.0, 1.0, 2.0])).tolist() == [3 / 4]


def test_the_first_of_equal_scores_are_the_highest():
    assert overlap_at_k(torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([3.0, 2.0, 1.0, 0.0]), 2) == 1.0


def test_blocks_of_points_keep_the_shares_of_strata():
    strata = (torch.arange(5000) % 10 < 3).long()
    counted = torch.nn.functional.one_hot(strata, 2).double()
    sums, sizes = bootstrap_sums(counted, repeats=20, strata=strata)
    assert sums.unique(dim=0).tolist() == [[3500.0, 1500.0]]
    assert sizes.unique().tolist() == [5000.0]
