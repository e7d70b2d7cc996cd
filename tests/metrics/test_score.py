"""Scores free of encoder effects: by hand, against a slow loop, in simulations with a known truth."""

import numpy as np
import pytest
import torch

from memloc.metrics import auroc, folds_of, log_reading, membership_effect, regress_readings, sslmem


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def by_loop(seen, unseen, never, seed):
    """Fold by fold, with numpy's least squares."""
    fold, score = folds_of(len(seen), seed).numpy(), np.full(len(seen), np.nan)
    y, x, held = seen.numpy(), np.zeros(len(seen)) if unseen is None else unseen.numpy(), never.numpy()
    for number in range(5):
        rows = held & (fold != number)
        columns = [np.ones(rows.sum())] if unseen is None else [np.ones(rows.sum()), x[rows]]
        line, left, *_ = np.linalg.lstsq(np.stack(columns, 1), y[rows], rcond=None)
        spread = np.sqrt(left[0] / (rows.sum() - len(columns)))
        inside = fold == number
        score[inside] = (line[0] + (line[1] * x[inside] if unseen is not None else 0) - y[inside]) / spread
    return score


@pytest.mark.parametrize("alone", [False, True])
def test_the_slow_loop_finds_the_same(alone):
    x, noise = normal(120), normal(120, seed=1)
    seen, never = 0.7 * x + 0.3 * noise - 2, torch.arange(120) < 70
    unseen = None if alone else x
    found = regress_readings(seen, unseen, never, seed=3)
    assert found.score(seen, unseen).numpy() == pytest.approx(by_loop(seen, unseen, never, 3), rel=1e-9)
    assert found.overall == (0 if alone else pytest.approx(np.polyfit(x[:70], seen[:70], 1)[0]))
    expected = np.corrcoef(x[:70], seen[:70])[0, 1]
    assert np.isnan(found.correlation) if alone else found.correlation == pytest.approx(expected)


def test_a_points_own_reading_has_no_part_in_its_scale():
    seen, unseen, never = normal(100), normal(100, seed=1), torch.ones(100, dtype=torch.bool)
    before = regress_readings(seen, unseen, never)
    changed = seen.clone()
    changed[17] = 50.0
    after = regress_readings(changed, unseen, never)
    same = folds_of(100) == folds_of(100)[17]
    assert torch.equal(before.spread[same], after.spread[same])
    assert not torch.equal(before.spread[~same], after.spread[~same])


def test_few_points_that_nobody_saw_give_the_published_difference():
    seen, unseen, never = normal(60), normal(60, seed=1), torch.arange(60) < 19
    found = regress_readings(seen, unseen, never)
    apart = seen - unseen
    assert found.overall == 1.0
    assert found.score(seen, unseen).numpy() == pytest.approx(((apart.mean() - apart) / apart.std()).numpy())
    order = found.score(seen, unseen).argsort()
    assert torch.equal(order, sslmem(seen.exp(), unseen.exp()).argsort())
    alone = regress_readings(seen, None, never).score(seen, None)
    assert alone.numpy() == pytest.approx(((seen[:19].mean() - seen) / seen[:19].std()).numpy())
    assert regress_readings(seen, None, torch.zeros(60, dtype=torch.bool)).score(seen, None).isnan().all()


def test_constant_readings_have_no_score_and_no_slope():
    flat, never = torch.zeros(50, dtype=torch.float64), torch.ones(50, dtype=torch.bool)
    assert regress_readings(flat, None, never).score(flat, None).isnan().all()
    found = regress_readings(normal(50), flat, never)
    assert found.overall == 0.0
    assert not found.score(normal(50), flat).isnan().any()


def test_the_score_of_a_point_that_nobody_saw_is_standard():
    scores = []
    for seed in range(40):
        unseen = normal(80, seed=seed)
        seen = 0.5 * unseen + normal(80, seed=1000 + seed)
        scores.append(regress_readings(seen, unseen, torch.ones(80, dtype=torch.bool)).score(seen, unseen))
    scores = torch.cat(scores)
    assert abs(float(scores.mean())) < 0.05
    assert float(scores.std()) == pytest.approx(1.02, abs=0.05)


def ensemble(seed, *, encoder, encoders=4, candidates=200, never=300, point=0.3, interaction=0.09, effect=0.1):
    """Log readings, membership, and which points nobody saw."""
    random = np.random.default_rng(seed)
    seen = np.stack([random.permutation(encoders) < encoders // 2 for _ in range(candidates)], axis=1)
    seen = np.concatenate([seen, np.zeros((encoders, never), dtype=bool)], axis=1)
    logs = random.normal(0, point, candidates + never) + random.normal(0, interaction, seen.shape)
    logs = logs - effect * random.gamma(1.0, 1.0, candidates + never) * seen
    return logs + encoder * random.normal(size=(encoders, 1)), seen


def score_of(logs, seen):
    """As an ensemble's points are scored: points that nobody saw take candidates' memberships."""
    random = np.random.default_rng(0)
    held = ~seen.any(axis=0)
    side = seen.copy()
    side[:, held] = seen[:, random.choice(np.flatnonzero(~held), held.sum())]
    logs = logs - logs[:, held].mean(axis=1, keepdims=True)
    f, g = (torch.from_numpy((logs * each).sum(axis=0) / each.sum(axis=0)) for each in (side, ~side))
    return regress_readings(f, g, torch.from_numpy(held)).score(f, g)[~torch.from_numpy(held)]


def test_the_score_is_free_of_what_encoders_differ_in():
    found, before = [], []
    for seed in range(20):
        (logs, seen), (free, _) = (ensemble(seed, encoder=size) for size in (0.15, 0.0))
        truth = score_of(free, seen)
        found.append(np.corrcoef(score_of(logs, seen), truth)[0, 1])
        known = seen.any(axis=0)
        align, side = np.exp(logs)[:, known], seen[:, known]
        old = sslmem(*(torch.from_numpy((align * each).sum(axis=0) / each.sum(axis=0)) for each in (side, ~side)))
        before.append(np.corrcoef(old, truth)[0, 1])
    assert np.mean(found) >= 0.95
    assert np.mean(before) < 0.88


@pytest.mark.parametrize("correlation", [0.2, 0.5, 0.8, 0.99])
def test_the_regressed_score_separates_no_worse_than_either_alone(correlation):
    lead = []
    for seed in range(30):
        x, noise = normal(600, seed=seed), normal(600, seed=500 + seed)
        seen = correlation * x + (1 - correlation**2) ** 0.5 * noise
        trained = torch.arange(600) < 300
        seen = torch.where(trained, seen - 0.8 * (1 - correlation**2) ** 0.5, seen)
        score = regress_readings(seen, x, ~trained).score(seen, x)
        values = [auroc(each[trained], each[~trained]).value for each in (score, x - seen, -seen)]
        lead.append(values[0] - max(values[1:]))
    assert np.mean(lead) > -0.005


def bias(encoders, fraction, repeats):
    """Mean and standard error of the estimated effect less the true one, points with unbalanced memberships among
    them."""
    found = []
    for seed in range(repeats):
        random = np.random.default_rng([seed, encoders, int(100 * fraction)])
        seen = random.random((encoders, 60)) < fraction
        logs = random.normal(0, 0.3, 60) + random.normal(0, 0.15, (encoders, 1)) + random.normal(0, 0.1, seen.shape)
        align = torch.from_numpy(np.exp(logs - 0.1 * seen))
        found.append(membership_effect(align, torch.from_numpy(seen), repeats=2).value - np.tanh(0.05))
    return np.mean(found), np.std(found, ddof=1) / repeats**0.5


@pytest.mark.parametrize("encoders", [4, 8])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_the_effect_is_unbiased_at_any_fraction(encoders, fraction):
    mean, error = bias(encoders, fraction, 60)
    assert abs(mean) <= 3 * error
    assert error < 0.002


@pytest.mark.slow
@pytest.mark.parametrize("encoders", [4, 8])
@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_the_effect_is_unbiased_in_many_repeats(encoders, fraction):
    mean, error = bias(encoders, fraction, 2000)
    assert abs(mean) <= 2 * error


def test_zero_readings_have_a_logarithm():
    logs = log_reading(torch.tensor([[0.0, 2.0], [1e-9, 1.0]], dtype=torch.float64))
    assert logs[0, 0] == logs[1, 0] == pytest.approx(np.log(2e-7))
    assert log_reading(torch.zeros(2, 2)).isfinite().all()
