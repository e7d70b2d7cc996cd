"""Fit a weak learner on its draw and say how useful its predictions are for the rows it did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from memloc.data import fit_classes
from memloc.errors import SpecError
from memloc.valuation._draws import Draw, draw, draw_groups
from memloc.valuation._trees import grow

Utility = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class Task:
    """What every learner of a fit has in common.

    Attributes:
        columns: one row per column, shape (column, row): float32 for trees, float64 for other learners.
        target: class codes or numbers, shape (row,). classes: the labels of the codes; None for regression. places:
            where those are among the sorted labels, which is what learners predict.
        of_group: the columns of each group. drawn: groups that a learner gets.
        estimator: what to clone; None for a decision tree.
        utility: "accuracy", "squared_error" or a function of true and predicted targets.
        distance: weight of the distance term. scaled: columns as z-scores for it, else None.
        weighted: whether the learner takes sample weights; else rows are repeated.
        weights: of each row in the fit; None for one each. size: rows that a learner is fitted on.
    """

    columns: NDArray[Any]
    target: NDArray[Any]
    classes: NDArray[Any] | None
    places: NDArray[np.int64] | None
    of_group: tuple[NDArray[np.int64], ...]
    drawn: int
    estimator: Any
    utility: str | Utility
    distance: float
    scaled: NDArray[np.float64] | None
    weighted: bool
    weights: NDArray[np.float64] | None = None
    size: int | None = None

    def draw(self, seed: int) -> Draw:
        """The rows and groups of the learner with this seed."""
        return draw(seed, rows=len(self.target), groups=len(self.of_group), drawn=self.drawn, size=self.size)

    def draw_groups(self, seed: int) -> NDArray[np.int64]:
        """The groups of the learner with this seed."""
        return draw_groups(int(seed), groups=len(self.of_group), drawn=self.drawn)

    def weigh(self, counts: NDArray[np.int64]) -> NDArray[Any]:
        """What rows that were drawn so often weigh in a fit."""
        return counts if self.weights is None else counts * self.weights

    @cached_property
    def holed(self) -> NDArray[np.bool_] | None:
        """Which columns hold NaN; None where none does."""
        found = np.isnan(self.columns).any(axis=1)
        return found if found.any() else None

    @cached_property
    def _alone(self) -> bool:
        """Whether every group is the column of its number."""
        number = len(self.of_group)
        return number == len(self.columns) and np.array_equal(np.concatenate(self.of_group), np.arange(number))

    def features(self, one: Draw) -> NDArray[np.int64]:
        """The columns of the drawn groups, ascending."""
        if self._alone:
            return one.groups
        return np.sort(np.concatenate([self.of_group[group] for group in one.groups]))


@dataclass(frozen=True)
class Outcome:
    """One learner and what it did out of bag; shapes (row,) but for groups."""

    learner: Any
    groups: NDArray[np.int64]
    out_of_bag: NDArray[np.bool_]
    utility: NDArray[np.float64]  # 0 in bag
    predicted: NDArray[Any]  # class codes or numbers; meaningless in bag


def run_learner(task: Task, seed: int) -> Outcome:
    """Fit the learner of a seed and predict the rows it did not see."""
    one = task.draw(seed)
    features = task.features(one)
    seen = task.columns[features].T  # (row, feature), the columns of it contiguous
    outside = one.counts == 0
    learner, predicted = (_tree if task.estimator is None else _any)(task, one, seen, outside)
    utility = _utility(task, predicted, outside)
    if task.distance:
        assert task.scaled is not None, "a distance term has scaled columns"
        utility = utility + task.distance * _closeness(task.scaled[features], task.target, one.counts)
    return Outcome(learner, one.groups, outside, np.where(outside, utility, 0.0), predicted)


def _tree(task: Task, one: Draw, seen: NDArray[Any], outside: NDArray[np.bool_]) -> tuple[Any, NDArray[Any]]:
    """A decision tree."""
    classes = 0 if task.classes is None else len(task.classes)
    holed = None if task.holed is None else task.holed[task.features(one)]
    tree = grow(seen, task.target, task.weigh(one.counts), classes=classes, seed=one.seed, holed=holed)
    rows = np.flatnonzero(outside)
    leaf = tree.tree_.apply(seen[rows])
    values = tree.tree_.value[:, 0]
    predicted = np.zeros(len(task.target), dtype=task.target.dtype)
    predicted[rows] = values[leaf, 0] if task.places is None else values.argmax(axis=1)[leaf]
    if task.places is not None:
        tree.classes_ = task.places
    return tree, predicted


def _any(task: Task, one: Draw, seen: NDArray[Any], outside: NDArray[np.bool_]) -> tuple[Any, NDArray[Any]]:
    """Any scikit-learn estimator, on weighted or repeated rows; a bag of one class is predicted as that class."""
    from sklearn.base import clone
    from sklearn.dummy import DummyClassifier

    learner = clone(task.estimator)
    seeds = {
        name: one.seed for name in learner.get_params() if name == "random_state" or name.endswith("__random_state")
    }
    learner.set_params(**seeds)
    seen, rows = np.ascontiguousarray(seen), np.flatnonzero(one.counts)
    target = task.target if task.places is None else task.places[task.target]
    if task.places is not None and len(np.unique(target[rows])) == 1:
        learner = DummyClassifier(strategy="most_frequent")
    chosen, named = one.counts, {}
    if task.weighted:
        named = {"sample_weight": task.weigh(one.counts)[rows].astype(np.float64)}
    else:
        rows = np.repeat(rows, chosen[rows])
    if task.places is None:
        learner.fit(seen[rows], target[rows], **named)
    else:
        learner = fit_classes(learner, seen[rows], target[rows], **named)
    predicted = np.zeros(len(target), dtype=target.dtype)
    if outside.any():
        found = learner.predict(seen[outside])
        predicted[outside] = found if task.places is None else np.argsort(task.places)[found.astype(np.int64)]
    return learner, predicted


def _utility(task: Task, predicted: NDArray[Any], outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    if task.utility == "accuracy":
        return (predicted == task.target).astype(np.float64)
    if task.utility == "squared_error":
        return -((predicted - task.target) ** 2)
    assert callable(task.utility), "utilities were checked"
    rows = np.flatnonzero(outside)
    true, guess = task.target[rows], predicted[rows]
    if task.classes is not None:
        true, guess = task.classes[true], task.classes[guess]
    found = np.zeros(len(outside))
    if len(rows):
        values = np.asarray(task.utility(true, guess), dtype=np.float64)
        if values.shape != rows.shape or not np.isfinite(values).all():
            alike = values.shape == rows.shape
            what = "numbers that are not finite" if alike else f"shape {values.shape} for {len(rows)} rows"
            raise SpecError(
                f"the utility returned {what}."
                " Expected one finite number per row. Compare the targets one by one, such as: lambda true, guess:"
                " (true == guess) * 1.0"
            )
        found[rows] = values
    return found


def _closeness(scaled: NDArray[np.float64], target: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """D of REFERENCE B1: negative distance to the mean of the row's class in the bag, scaled to [-1, 0] by the bag's
    range."""
    classes = int(target.max()) + 1
    weight = np.zeros((classes, len(target)))
    weight[target, np.arange(len(target))] = counts
    sizes = weight.sum(axis=1)
    means = scaled @ weight.T / np.maximum(sizes, 1)
    distance = np.sqrt(((scaled - means[:, target]) ** 2).sum(axis=0))
    distance[sizes[target] == 0] = np.inf  # a class that is not in the bag is as far as can be
    inside = distance[counts > 0]
    low, high = inside.min(), inside.max()
    return -np.clip((distance - low) / (high - low if high > low else 1.0), 0.0, 1.0)


def same_task(one: Task, two: Task) -> bool:
    """Whether learners of both tasks may be mixed."""
    return (
        (one.drawn, one.utility, one.distance, joblib.hash(one.estimator))
        == (two.drawn, two.utility, two.distance, joblib.hash(two.estimator))
        and one.size == two.size
        and np.array_equal(one.columns, two.columns, equal_nan=True)
        and np.array_equal(one.target, two.target)
        and _alike(one.weights, two.weights)
        and len(one.of_group) == len(two.of_group)
        and all(np.array_equal(*pair) for pair in zip(one.of_group, two.of_group, strict=True))
    )


def _alike(one: NDArray[np.float64] | None, two: NDArray[np.float64] | None) -> bool:
    return one is two if one is None or two is None else np.array_equal(one, two)


def standardized(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns with mean 0 and deviation 1, shape (column, row); constant ones are 0."""
    spread = table.std(axis=0)
    return ((table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).T
