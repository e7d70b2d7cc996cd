"""Grow scikit-learn's decision trees without repeating, for each of a thousand trees, the checks that the whole table
has passed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.valuation._draws import generator_of

_ANY_DEPTH = np.iinfo(np.int32).max


def grow(
    seen: NDArray[np.float32],
    target: NDArray[Any],
    counts: NDArray[Any],
    *,
    classes: int,
    seed: int,
    holed: NDArray[np.bool_] | None = None,
) -> Any:
    """A fitted DecisionTreeClassifier (or Regressor, for 0 classes) that tries the square root of its columns at each
    split.

    The tree is the one that `fit` makes, node for node; where this version of scikit-learn does not take the calls that
    `fit` itself makes, `fit` is called.

    Args:
        seen: shape (row, feature). target: codes 0 to classes - 1, all of them, or numbers, shape (row,).
        counts: weight of each row; 0 leaves it out. seed: of the tree. holed: which features hold NaN, if any does.

    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]], dtype=np.float32)
    >>> tree = grow(X, np.array([0, 0, 1, 1]), np.array([1, 1, 1, 1]), classes=2, seed=0)
    >>> tree.predict(X).tolist(), tree.get_depth()
    ([0, 0, 1, 1], 1)
    """
    make = _built if builds_directly() else _fitted
    return make(seen, target, counts, classes, seed, holed)


@cache
def builds_directly() -> bool:
    """Whether this version of scikit-learn grows the same tree from the builder's calls as from `fit`: tried once, on
    small tables."""
    generator = np.random.RandomState(0)
    seen, counts = generator.normal(size=(60, 5)).astype(np.float32), generator.poisson(1.0, 60)
    missing = np.where(generator.uniform(size=seen.shape) < 0.1, np.nan, seen).astype(np.float32)
    some, numbers = np.arange(60) % 3, seen[:, 0] + generator.normal(size=60)
    for table, target, classes in ((seen, some, 3), (seen, numbers, 0), (missing, some, 3), (missing, numbers, 0)):
        holed: NDArray[Any] = np.asarray(np.isnan(table).any(axis=0))
        try:
            ours, theirs = (
                make(table, target, counts, classes, 7, holed if holed.any() else None) for make in (_built, _fitted)
            )
        except (AttributeError, ImportError, TypeError, ValueError):
            return False
        if not same_tree(ours, theirs):
            return False
    return True


def same_tree(one: Any, other: Any) -> bool:
    """Whether two fitted trees agree in every node and in what scikit-learn says of them."""
    if vars(one).keys() != vars(other).keys():
        return False
    nodes = ("children_left", "children_right", "feature", "threshold", "impurity", "weighted_n_node_samples", "value")
    pairs = [(getattr(one.tree_, name), getattr(other.tree_, name)) for name in nodes]
    pairs += [(value, vars(other)[name]) for name, value in vars(one).items() if name != "tree_"]
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def _new(classes: int, seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return (DecisionTreeClassifier if classes else DecisionTreeRegressor)(max_features="sqrt", random_state=seed)


def _fitted(
    seen: NDArray[Any], target: NDArray[Any], counts: NDArray[Any], classes: int, seed: int, holed: NDArray[Any] | None
) -> Any:
    from sklearn import config_context

    with config_context(assume_finite=holed is None, skip_parameter_validation=True):
        return _new(classes, seed).fit(seen, target, sample_weight=counts, check_input=holed is not None)


def _built(
    seen: NDArray[Any], target: NDArray[Any], counts: NDArray[Any], classes: int, seed: int, holed: NDArray[Any] | None
) -> Any:
    """What `fit` does once its checks have passed."""
    from sklearn.tree._criterion import MSE, Gini
    from sklearn.tree._splitter import BestSplitter
    from sklearn.tree._tree import DepthFirstTreeBuilder, Tree

    tree, (rows, features) = _new(classes, seed), seen.shape
    widths = np.array([classes or 1], dtype=np.intp)
    tree.n_features_in_, tree.n_outputs_, tree.max_features_ = features, 1, max(int(np.sqrt(features)), 1)
    criterion = Gini(1, widths) if classes else MSE(1, rows)
    splitter = BestSplitter(criterion, tree.max_features_, 1, 0.0, generator_of(seed), None)
    tree.tree_ = Tree(features, widths, 1)
    weight, mask = counts.astype(np.float64), None if holed is None else holed.astype(np.uint8)
    numbers = np.ascontiguousarray(target, dtype=np.float64)[:, None]
    DepthFirstTreeBuilder(splitter, 2, 1, 0.0, _ANY_DEPTH, 0.0).build(tree.tree_, seen, numbers, weight, mask)
    if classes:
        tree.classes_, tree.n_classes_ = np.arange(classes), widths[0]
    return tree
