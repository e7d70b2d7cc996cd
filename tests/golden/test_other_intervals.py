"""The bootstrap itself, means of a sample, and the errors and intervals of valuations and probes."""

from math import sqrt

import numpy as np
import pytest
import torch
from tests.golden.slow import Z95, ends, wilson

from memloc.metrics import bootstrap_sums, bootstrap_weights, mean_interval, percentile_interval, standard_error
from memloc.probe import paired_difference, scored
from memloc.probe import wilson as probe_interval
from memloc.valuation import TwoDOOB


def normal(count, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=count))


def test_bootstrap_weights_are_multinomial():
    """As many points as there are, each with mean 1, variance 1 - 1/n and covariance -1/n with every other."""
    weights = bootstrap_weights(5, 20_000, seed=3).numpy()
    assert (weights.sum(axis=1) == 5).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(5), abs=0.03)
    assert np.cov(weights.T) == pytest.approx(np.eye(5) - 1 / 5, abs=0.04)


def test_bootstrap_weights_keep_the_size_of_every_stratum():
    strata = torch.tensor([2, 0, 2, 2, 0, 2])
    weights = bootstrap_weights(6, 20_000, seed=3, strata=strata).numpy()
    for group, size in ((0, 2), (2, 4)):
        own = weights[:, strata.numpy() == group]
        assert (own.sum(axis=1) == size).all()
        assert np.cov(own.T) == pytest.approx(np.eye(size) - 1 / size, abs=0.04)


def test_bootstrap_weights_follow_from_their_seed():
    assert torch.equal(bootstrap_weights(7, 50, seed=1), bootstrap_weights(7, 50, seed=1))
    assert torch.equal(bootstrap_weights(7, 50, seed=1), bootstrap_weights(7, 80, seed=1)[:50])
    assert not torch.equal(bootstrap_weights(7, 50, seed=1), bootstrap_weights(7, 50, seed=2))


def test_draws_are_summed_up_by_their_spread_and_central_share():
    draws = torch.from_numpy(np.random.default_rng(0).normal(size=1000))
    assert percentile_interval(draws) == pytest.approx(ends(draws.numpy()), abs=1e-12)
    assert standard_error(draws) == pytest.approx(draws.numpy().std(ddof=1), abs=1e-12)
    with_gap = torch.cat([draws, torch.tensor([float("nan")])])
    assert percentile_interval(with_gap) == percentile_interval(draws)
    assert standard_error(with_gap) == standard_error(draws)


def test_a_mean_has_the_sample_error_and_the_bootstrap_interval():
    values = np.random.default_rng(1).exponential(size=30)
    draws = [np.repeat(values, drawn).mean() for drawn in bootstrap_weights(30, 1000, 4).numpy().astype(int)]
    expected = (values.mean(), values.std(ddof=1) / sqrt(30), *ends(np.array(draws)))
    with_gap = torch.from_numpy(np.insert(values, 3, np.nan))
    assert mean_interval(with_gap, seed=4) == pytest.approx(expected, abs=1e-12)
    assert mean_interval(values=torch.tensor([2.0, float("nan")]))[0] == 2
    assert np.isnan(mean_interval(values=torch.tensor([2.0, float("nan")]))[1:]).all()
    assert np.isnan(mean_interval(torch.empty(0))).all()


@pytest.mark.parametrize("points", [1000, 1500, 4500])
def test_sums_of_many_points_spread_as_theory_says(points):
    """Beyond 1 000 points blocks are resampled: the mean still has variance s^2 / n, within 4 errors of an estimate."""
    values = 10 + (normal(points) ** 2).sort().values  # in no order that blocks may keep, and far from 0
    sums, sizes = bootstrap_sums(values[:, None], repeats=2000, seed=1)
    means = (sums[:, 0] / sizes).numpy()
    error = float(values.std(correction=0)) / sqrt(points)
    assert means.mean() == pytest.approx(float(values.mean()), abs=4 * error / sqrt(2000))
    assert means.std() == pytest.approx(error, rel=0.12)


@pytest.mark.parametrize("points", [600, 3000])
def test_sums_of_strata_spread_as_theory_says(points):
    """A difference between strata adds nothing to the spread; what a stratum adds keeps its share."""
    strata = (torch.arange(points) % 3 == 0).long()
    values = normal(points) * (1 + strata) + 100 * strata
    columns = torch.stack([values, strata.double()], dim=1)
    sums, sizes = bootstrap_sums(columns, repeats=2000, seed=1, strata=strata)
    assert (sums[:, 1] / sizes).numpy() == pytest.approx(np.full(2000, 1 / 3), abs=2e-3)
    variance = sum(
        float(values[strata == group].var(correction=0)) * share**2 / (share * points)
        for group, share in ((0, 2 / 3), (1, 1 / 3))
    )
    if points > 1000:
        sums = sums - 100 * sums[:, 1:]  # blocks of a stratum differ by a point
    assert (sums[:, 0] / sizes).numpy().std() == pytest.approx(sqrt(variance), rel=0.1)


def test_one_sample_alone_is_that_of_all():
    values = normal(1500)[:, None]
    sums, sizes = bootstrap_sums(values, repeats=20, seed=2)
    for row in (0, 13):
        one, size = bootstrap_sums(values, repeats=20, seed=2, only=row)
        assert (one.item(), size.item()) == pytest.approx((sums[row].item(), sizes[row].item()), abs=1e-12)


def table(regression, rows=14, columns=4, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, columns))
    noisy = X[:, 0] + 0.5 * random.normal(size=rows)
    return X, noisy if regression else np.where(noisy > 0, "up", "down")


def utilities(fitted, X, y, regression):
    """Of every learner in turn: rows it did not see, its columns, and how useful it was to every row."""
    for learner, samples, columns in zip(
        fitted.estimators_, fitted.estimators_samples_, fitted.estimators_features_, strict=True
    ):
        guess = learner.predict(X[:, columns])
        useful = -((guess - y) ** 2) if regression else (fitted.classes_[guess.astype(int)] == y).astype(float)
        yield np.setdiff1d(np.arange(len(X)), samples), columns, useful


def collected(fitted, X, y, regression):
    """The utilities behind every row and every cell."""
    of_row = [[] for _ in X]
    of_cell = [[[] for _ in range(X.shape[1])] for _ in X]
    for outside, columns, useful in utilities(fitted, X, y, regression):
        for row in outside:
            of_row[row].append(useful[row])
            for column in columns:
                of_cell[row][column].append(useful[row])
    return of_row, of_cell


def agresti_coull(values):
    """Standard error of a share with two more successes and two more failures."""
    share = (sum(values) + 2) / (len(values) + 4)
    return sqrt(share * (1 - share) / (len(values) + 4))


@pytest.mark.parametrize("learners", [6, 40])
def test_accuracy_values_have_agresti_and_coulls_error(learners):
    X, y = table(regression=False)
    fitted = TwoDOOB(learners, random_state=1).fit(X, y)
    of_row, of_cell = collected(fitted, X, y, regression=False)
    expected = [[agresti_coull(cell) if cell else np.nan for cell in row] for row in of_cell]
    assert fitted.cell_stderr_ == pytest.approx(np.array(expected), abs=1e-9, nan_ok=True)
    expected = [agresti_coull(row) if row else np.inf for row in of_row]
    assert fitted.row_stderr_ == pytest.approx(np.array(expected), abs=1e-9)
    if learners == 6:
        assert any(cell.count(1.0) == len(cell) > 0 for row in of_cell for cell in row)  # 3 of 3 is not certainty
        assert any(not cell for row in of_cell for cell in row)


@pytest.mark.parametrize("learners", [9, 40])
def test_regression_values_borrow_four_utilities_of_their_rows_spread(learners):
    """Four more of the same mean, that vary as the row's do; below four, at least as the median row's do."""
    X, y = table(regression=True)
    fitted = TwoDOOB(learners, utility="squared_error", random_state=1).fit(X, y)
    of_row, of_cell = collected(fitted, X, y, regression=True)
    spreads = [np.var(row) if row else np.nan for row in of_row]
    usual = np.nanmedian(spreads)
    assert usual > 0
    assert (min(map(len, of_row)) < 4) == (learners == 9)
    borrowed = [
        usual if not row else max(spread, usual) if len(row) < 4 else spread
        for row, spread in zip(of_row, spreads, strict=True)
    ]

    def error(values, prior):
        squares = sum((value - np.mean(values)) ** 2 for value in values) + 4 * prior
        return sqrt(squares / (len(values) + 3) / len(values))

    expected = [
        [error(cell, prior) if cell else np.nan for cell in row] for row, prior in zip(of_cell, borrowed, strict=True)
    ]
    assert fitted.cell_stderr_ == pytest.approx(np.array(expected), rel=1e-6, nan_ok=True)
    expected = [error(row, prior) if row else np.inf for row, prior in zip(of_row, borrowed, strict=True)]
    assert fitted.row_stderr_ == pytest.approx(np.array(expected), rel=1e-6)


@pytest.mark.parametrize("regression", [False, True])
def test_errors_are_as_large_as_values_of_other_learners_spread(regression):
    X, y = table(regression, rows=12, columns=3)
    utility = "squared_error" if regression else "accuracy"
    fits = [TwoDOOB(40, utility=utility, random_state=seed).fit(X, y) for seed in range(30)]
    for values, errors in (("row_values_", "row_stderr_"), ("cell_values_", "cell_stderr_")):
        seen = np.var([getattr(each, values) for each in fits], axis=0, ddof=1).mean()
        claimed = np.mean([getattr(each, errors) ** 2 for each in fits])
        assert 0.75 < claimed / seen < 1.5


@pytest.mark.parametrize(("right", "count"), [(0, 9), (3, 9), (9, 9), (170, 400)])
def test_an_accuracy_has_wilsons_interval(right, count):
    guess, labels = np.arange(count) < right, np.ones(count, dtype=bool)
    found = scored(guess, labels)
    assert (found.low, found.high) == pytest.approx(wilson(right / count, count), abs=1e-9)
    assert probe_interval(right / count, count) == (found.low, found.high)


def test_positions_of_an_image_count_together():
    """Standard error of a ratio of totals over images: their right positions against their share of all."""
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(12), random.integers(1, 9, 12))
    guess = random.random(len(images)) < random.uniform(0, 1, 12)[images]
    found = scored(guess, np.ones(len(images), dtype=bool), images)
    share = guess.mean()
    excess = [sum(guess[images == image]) - share * sum(images == image) for image in range(12)]
    error = sqrt(12 / 11 * sum(each**2 for each in excess)) / len(images)
    assert (found.low, found.high) == pytest.approx((share - Z95 * error, share + Z95 * error), abs=1e-12)
    assert np.isnan(scored(guess, guess, np.zeros(len(guess))).low)


@pytest.mark.parametrize(("gained", "lost", "same"), [(9, 3, 20), (0, 0, 15), (0, 6, 6), (1, 0, 400)])
def test_a_change_has_agresti_and_mins_paired_interval(gained, lost, same):
    """Half a point more in each of the four cells: (b - c) / n and sqrt(b + c - (b - c)^2 / n) / n."""
    count = gained + lost + same
    before, after = (np.array([first] * gained + [last] * lost + [1] * same) for first, last in ((0, 1), (1, 0)))
    labels = np.ones(count, dtype=int)
    found = paired_difference(scored(after, labels), scored(before, labels))
    b, c, n = gained + 0.5, lost + 0.5, count + 2
    middle, error = (b - c) / n, sqrt(b + c - (b - c) ** 2 / n) / n
    change = (gained - lost) / count
    assert found["change"] == pytest.approx(change, abs=1e-12)
    low, high = min(middle - Z95 * error, change), max(middle + Z95 * error, change)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-12)
    assert np.isnan(paired_difference(scored(np.ones(1), np.ones(1)), scored(np.zeros(1), np.ones(1)))["low"])
