"""SSLMem, LayerMem, Δ and the membership effect, by hand and against least squares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memloc.errors import NonFiniteError, ShapeError
from memloc.metrics import (
    delta_layermem,
    layermem,
    mean_interval,
    membership_effect,
    relative_alignment,
    run_weights,
    sslmem,
    sslmem_pairwise,
    sslmem_range,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sslmem_by_hand():
    f, g = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 1.0, 0.0])
    assert sslmem(f, g).tolist() == pytest.approx([0.5, -1 / 3, 0.0])
    assert sslmem(f, g, normalize=False).tolist() == [2.0, -1.0, 0.0]


def test_pairwise_is_a_mean_of_ratios_and_not_a_ratio_of_means():
    f, g = torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 4.0]])
    assert float(sslmem_pairwise(f, g)) == pytest.approx(0.25)
    assert float(sslmem(f.mean(1), g.mean(1))) == pytest.approx(1 / 6)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=20))
def test_swapping_f_and_g_negates_the_score(pairs):
    f, g = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    assert torch.equal(sslmem(f, g), -sslmem(g, f))
    assert torch.equal(sslmem(f, f), torch.zeros_like(f))
    assert bool((sslmem(f, g).abs() <= 1).all())


def test_range_scaling_spans_one():
    scaled = sslmem_range(torch.tensor([0.2, -0.6, 1.0]))
    assert float(scaled.max() - scaled.min()) == pytest.approx(1.0)


def test_delta_sums_back_to_layermem():
    scores = torch.rand(6, 40, dtype=torch.float64, generator=generator())
    values = layermem(scores)
    delta = delta_layermem(values, [None, 0, 1, 2, 3, 4])
    assert float(values[0] + delta[1:].sum()) == pytest.approx(float(values[-1]), abs=1e-14)


def least_squares(align, seen):
    """The two-way model, with a dummy for every encoder and every point."""
    varying = seen.any(0) & ~seen.all(0)
    align, seen = align[:, varying], seen[:, varying]
    logs = len(align) > 2
    relative = np.log(align) if logs else relative_alignment(torch.tensor(align), torch.tensor(seen)).numpy()
    encoders, points = relative.shape
    rows, response = [], []
    for encoder in range(encoders):
        for point in range(points):
            row = np.zeros(encoders + points + 1)
            row[encoder] = row[encoders + point] = 1
            row[-1] = -float(seen[encoder, point])
            rows.append(row)
            response.append(relative[encoder, point])
    slope = float(np.linalg.lstsq(np.array(rows), np.array(response), rcond=None)[0][-1])
    return np.tanh(slope / 2) if logs else slope


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), st.integers(6, 25), st.integers(0, 1000))
def test_membership_effect_is_the_two_way_least_squares(encoders, points, seed):
    random = np.random.default_rng(seed)
    align = random.uniform(0.2, 1.0, (encoders, points))
    seen = random.random((encoders, points)) < 0.5
    seen[0, 0], seen[1:, 0] = True, False
    seen[1, 1], seen[0, 1] = True, False
    found = membership_effect(torch.tensor(align), torch.tensor(seen), repeats=50)
    expected = least_squares(align, seen)
    assert found.value == pytest.approx(expected, abs=1e-9) or np.isnan(found.value)


def test_for_a_pair_it_is_the_half_difference():
    align = torch.rand(2, 30, dtype=torch.float64, generator=generator(1)) + 0.1
    seen = torch.zeros(2, 30, dtype=torch.bool)
    seen[0, :12] = True
    seen[1, 12:22] = True
    seen[:, 22:26] = True  # shared points, and four that nobody saw, do not enter
    score = sslmem(align[0], align[1])
    half = (score[:12].mean() - score[12:22].mean()) / 2
    found = membership_effect(align, seen)
    assert found.value == pytest.approx(float(half), abs=1e-12)
    assert found.n_points == 22
    assert found.low < found.value < found.high
    assert not found.runs_resampled


def test_bias_between_encoders_cancels():
    align = torch.rand(2, 400, dtype=torch.float64, generator=generator(2)) + 0.5
    align[1] = align[1] * 1.5  # g aligns everything worse, for no reason of membership
    seen = torch.zeros(2, 400, dtype=torch.bool)
    seen[0, :200] = True
    seen[1, 200:] = True
    published = float(sslmem(align[0], align[1])[:200].mean())
    found = membership_effect(align, seen)
    assert published > 0.15
    assert found.low < 0 < found.high


def test_a_planted_effect_is_found_with_its_interval():
    seen = torch.rand(8, 300, generator=generator(3)) < 0.5
    align = 0.6 + 0.05 * torch.randn(8, 300, dtype=torch.float64, generator=generator(4)) - 0.06 * seen.double()
    found = membership_effect(align, seen)
    assert found.low < 0.06 / (0.6 + 0.54) * 1.0 < found.high
    assert found.se == pytest.approx((found.high - found.low) / 3.92, rel=0.5)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(60):
        random = generator(100 + seed)
        seen = torch.zeros(2, 60, dtype=torch.bool)
        seen[0, :30], seen[1, 30:] = True, True
        align = 1 + 0.1 * torch.randn(2, 60, dtype=torch.float64, generator=random)
        found = membership_effect(align, seen, repeats=300, seed=seed)
        hits += found.low <= 0 <= found.high
    assert 50 <= hits <= 60


def test_runs_are_resampled_with_three_a_side():
    seen = torch.zeros(6, 40, dtype=torch.bool)
    seen[:3, :20], seen[3:, 20:] = True, True
    random = generator(5)
    align = (
        1
        + 0.01 * torch.randn(6, 40, dtype=torch.float64, generator=random)
        + 0.2 * torch.rand(6, 1, generator=random) * seen
    )
    with_runs = membership_effect(align, seen)
    without = membership_effect(align[[0, 3]], seen[[0, 3]])
    assert with_runs.runs_resampled
    assert not without.runs_resampled
    assert with_runs.high - with_runs.low > without.high - without.low


def test_point_ids_do_not_matter():
    seen = torch.rand(4, 50, generator=generator(6)) < 0.5
    align = torch.rand(4, 50, dtype=torch.float64, generator=generator(7))
    order = torch.randperm(50, generator=generator(8))
    assert membership_effect(align, seen).value == pytest.approx(
        membership_effect(align[:, order], seen[:, order]).value, abs=1e-12
    )


def test_nothing_to_compare_is_nan():
    assert np.isnan(membership_effect(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)).value)


def test_messages(unchecked):
    with pytest.raises(ShapeError, match="one alignment per point"):
        sslmem(torch.ones(2), torch.ones(3))
    with pytest.raises(NonFiniteError, match="NaN or Inf"):
        membership_effect(torch.full((2, 2), torch.nan), torch.eye(2).bool())


def test_mean_interval_of_many_points_resamples_blocks():
    values = torch.randn(30_000, dtype=torch.float64, generator=generator())
    mean, se, low, high = mean_interval(values)
    assert (high - low) == pytest.approx(2 * 1.96 * se, rel=0.1)
    assert low < mean < high


def test_the_error_by_hand():
    """Residuals of ±.05 at four points, over the memberships' square sum of 2: each adds ±.025, two of a kind 2 / 1 as
    much, so sqrt(4 x 2 x .025^2)."""
    one = torch.tensor([0.25, 0.35, 0.55, 0.65], dtype=torch.float64)
    seen = torch.tensor([[True, True, False, False], [False, False, True, True]])
    found = membership_effect(torch.stack([one, 1 - one]), seen)
    assert found.value == pytest.approx(0.3, abs=1e-12)
    assert found.se == pytest.approx(0.005**0.5, abs=1e-12)


def test_every_resample_has_points_of_either_side():
    seen = torch.tensor([[True] * 3 + [False] * 3, [False] * 3 + [True] * 3])
    align = torch.rand(2, 6, dtype=torch.float64, generator=generator(9)) + 0.5
    assert not membership_effect(align, seen).draws.isnan().any()


def test_paired_runs_are_drawn_together():
    seen = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    together, apart = (run_weights(seen, 50, paired=paired) for paired in (True, False))
    assert torch.equal(together[:, :3], together[:, 3:])
    assert not torch.equal(apart[:, :3], apart[:, 3:])
    for weights in (together, apart):
        assert weights.shape == (50, 6)
        assert (weights[:, :3].sum(dim=1) == 3).all()
        assert (weights[:, 3:].sum(dim=1) == 3).all()


def test_a_thousand_samples_and_other_runs_by_another_seed():
    seen = torch.tensor([[True, False]] * 3 + [[False, True]] * 3)
    assert membership_effect(torch.rand(6, 2, dtype=torch.float64, generator=generator(10)), seen).draws.shape == (
        1000,
    )
    assert run_weights(seen).shape == (1000, 6)
    assert torch.equal(run_weights(seen, 50, 1), run_weights(seen, 50, 1))
    assert not torch.equal(run_weights(seen, 50, 1), run_weights(seen, 50, 2))
