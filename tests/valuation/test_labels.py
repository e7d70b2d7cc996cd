"""How many labels are wrong, and which: the interval covers, chances are calibrated, and clean tables stay silent."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from memloc.valuation import TwoDOOB, label_issues

CLASSES = np.arange(3)


def drawn(seed, *, rate, hard, rows=600, flips=None):
    """Votes and labels of rows: some of one class beyond doubt, some hard; a share of the labels replaced.

    Votes foretell a row by how likely its classes are, blurred; the row's own label has no part in them.
    """
    generator = np.random.default_rng(seed)
    sure = generator.random(rows) >= hard
    main = generator.integers(0, 3, rows)
    chance = np.full((rows, 3), 0.0)
    chance[np.arange(rows), main] = np.where(sure, 1.0, generator.uniform(0.4, 0.8, rows))
    rest = (1 - chance[np.arange(rows), main]) / 2
    for other in (1, 2):
        chance[np.arange(rows), (main + other) % 3] = rest
    true = (generator.random(rows)[:, None] > chance.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    wrong = generator.random(rows) < rate
    labels = np.where(wrong, (true + generator.integers(1, 3, rows)) % 3, true)
    noisy = (1 - rate) * chance + rate / 2 * (1 - chance)
    votes = np.stack([generator.dirichlet(30 * each + 0.3) for each in noisy])
    return votes, labels, wrong


@pytest.mark.parametrize(("rate", "hard"), [(0.05, 0.0), (0.05, 0.2), (0.15, 0.0), (0.15, 0.2), (0.02, 0.1)])
def test_the_interval_covers_the_number_of_wrong_labels(rate, hard):
    covered = []
    for seed in range(60):
        votes, labels, wrong = drawn(seed, rate=rate, hard=hard)
        found = label_issues(votes, labels, CLASSES)
        covered.append(found.low <= wrong.sum() <= found.high)
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("hard", [0.0, 0.3, 1.0])
def test_clean_labels_stay_silent(hard):
    for seed in range(30):
        votes, labels, _ = drawn(seed, rate=0.0, hard=hard)
        found = label_issues(votes, labels, CLASSES)
        assert found.low <= 1
        flagged = np.nan_to_num(found.chance) > 0.5
        assert not found.told or flagged.mean() <= 0.05


def test_chances_are_calibrated():
    chances, wrong = [], []
    for seed in range(20):
        votes, labels, mistakes = drawn(seed, rate=0.1, hard=0.1, rows=1000)
        chances.append(label_issues(votes, labels, CLASSES).chance)
        wrong.append(mistakes)
    chance, mistake = np.concatenate(chances), np.concatenate(wrong)
    flagged = chance > 0.5
    assert flagged.sum() > 1000
    assert mistake[flagged].mean() - 0.2 <= chance[flagged].mean() <= mistake[flagged].mean() + 0.05  # rather cautious
    assert chance[~flagged].mean() == pytest.approx(mistake[~flagged].mean(), abs=0.03)


def test_classes_that_are_wrong_at_several_rates_are_not_told():
    votes, labels, _ = drawn(0, rate=0.0, hard=0.0, rows=900)
    generator = np.random.default_rng(1)
    of_one = (labels == 0) & (generator.random(900) < 0.3)
    found = label_issues(votes, np.where(of_one, 1, labels), CLASSES)
    assert not found.told
    assert found.low == 0


def test_flipped_digits_are_found_and_corrected():
    X, y = load_digits(return_X_y=True)
    flipped = np.random.default_rng(0).permutation(len(y))[:180]
    given = y.copy()
    given[flipped] = (y[flipped] + 3) % 10
    fitted = TwoDOOB(200, random_state=0).fit(X, given)
    assert fitted.vote_shares_.shape == (1797, 10)
    assert np.nansum(fitted.vote_shares_, axis=1) == pytest.approx(np.ones(1797))
    found = label_issues(fitted.vote_shares_, given, fitted.classes_)
    assert found.told
    assert found.low <= 180 <= found.high
    called = np.flatnonzero(found.chance > 0.5)
    assert np.isin(called, flipped).mean() > 0.9
    assert np.isin(flipped, called).mean() > 0.8
    assert (found.suggested[flipped] == y[flipped]).mean() > 0.9


def test_the_names_and_order_of_classes_do_not_matter():
    votes, labels, _ = drawn(3, rate=0.1, hard=0.1)
    one = label_issues(votes, labels, CLASSES)
    names = np.array(["c", "a", "b"])[labels]
    two = label_issues(votes[:, [1, 2, 0]], names, np.array(["a", "b", "c"]))
    assert one.chance == pytest.approx(two.chance)
    assert (np.array(["c", "a", "b"])[one.suggested] == np.array(["a", "b", "c"])[two.suggested]).all()


def test_rows_that_every_learner_saw_have_no_chance():
    votes, labels, _ = drawn(0, rate=0.05, hard=0.0, rows=100)
    votes[7] = np.nan
    found = label_issues(votes, labels, CLASSES)
    assert np.isnan(found.chance[7])
    assert not np.isnan(np.delete(found.chance, 7)).any()
    nothing = label_issues(np.full((5, 2), np.nan), np.array([0, 1, 0, 1, 0]), np.arange(2))
    assert not nothing.told
    assert nothing.low == 0


@pytest.mark.parametrize("seed", range(3))
def test_overlapping_classes_are_not_taken_for_wrong_labels(seed):
    """Nobody changed a label: whatever the learners make of them, no interval may leave out 0, and few rows be flagged."""
    generator = np.random.default_rng(seed)
    for rows in (300, 500):
        for columns, noise in ((2, 0.6), (3, 1.2), (4, 1.2)):
            X = generator.normal(size=(rows, columns)).round(3)
            y = (X[:, 0] + 0.5 * X[:, -1] * (columns > 2) + noise * generator.normal(size=rows) > 0).astype(int)
            fitted = TwoDOOB(150, random_state=seed).fit(X, y)
            found = label_issues(fitted.vote_shares_, y, fitted.classes_)
            assert found.low == 0
            assert (np.nan_to_num(found.score) > 0.5).mean() <= 0.05


def test_a_rare_class_that_nothing_tells_is_not_called_wrong():
    generator = np.random.default_rng(0)
    y = np.where(generator.random(400) < 0.065, "fraud", "ok")
    fitted = TwoDOOB(150, random_state=0).fit(generator.normal(size=(400, 4)), y)
    found = label_issues(fitted.vote_shares_, y, fitted.classes_)
    assert not found.useful
    assert not (np.nan_to_num(found.score) > 0.5).any()
