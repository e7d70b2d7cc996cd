"""Trees that are grown without `fit` are those that `fit` grows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from memloc.valuation import TwoDOOB, _trees


def table(rows=150, columns=7, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, columns)).astype(np.float32)
    X[:, 0] = np.round(X[:, 0])  # ties
    return X, np.bincount(generator.integers(0, rows, rows), minlength=rows)


def test_the_installed_scikit_learn_is_spared_its_checks():
    assert _trees.builds_directly()


@pytest.mark.parametrize("classes", [0, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_node_for_node_what_fit_grows(classes, seed):
    X, counts = table(seed=seed)
    y = np.arange(len(X)) % classes if classes else X[:, 1] ** 2
    kind = DecisionTreeClassifier if classes else DecisionTreeRegressor
    theirs = kind(max_features="sqrt", random_state=seed).fit(X, y, sample_weight=counts)
    ours = _trees.grow(X, y, counts, classes=classes, seed=seed)
    assert _trees.same_tree(ours, theirs)
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert not _trees.same_tree(ours, kind(max_features="sqrt", random_state=seed + 1).fit(X, y, sample_weight=counts))


def test_a_bag_without_a_class():
    X, counts = table()
    y = np.arange(len(X)) % 3
    counts[y == 1] = 0
    theirs = DecisionTreeClassifier(max_features="sqrt", random_state=0).fit(X, y, sample_weight=counts)
    assert _trees.same_tree(_trees.grow(X, y, counts, classes=3, seed=0), theirs)


@pytest.mark.parametrize("broken", ["missing", "other trees"])
def test_another_scikit_learn_is_asked_to_fit(monkeypatch, broken):
    def built(seen, target, counts, classes, seed):
        if broken == "missing":
            raise TypeError("the builder takes other arguments")
        return _trees._fitted(seen, target, counts, classes, seed + 1)

    X, _ = table()
    y = np.arange(len(X)) % 2
    expected = TwoDOOB(20, random_state=0).fit(X, y).cell_values_
    _trees.builds_directly.cache_clear()
    try:
        monkeypatch.setattr(_trees, "_built", built)
        assert not _trees.builds_directly()
        assert np.array_equal(TwoDOOB(20, random_state=0).fit(X, y).cell_values_, expected, equal_nan=True)
    finally:
        monkeypatch.undo()
        _trees.builds_directly.cache_clear()
