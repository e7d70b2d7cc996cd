"""2D-OOB: the value of every cell of a table, from the out-of-bag accuracy of weak learners on random columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_regressor
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from memloc.data import ColumnReading, TableEncoder, TableSpec, as_pandas
from memloc.errors import SpecError
from memloc.progress import Console, silent
from memloc.valuation._checks import checked_weights, dense
from memloc.valuation._draws import drawn_number, drawn_rows, learner_seeds
from memloc.valuation._inputs import checked_inputs, grouped, takes_missing
from memloc.valuation._learners import Outcome, Task, run_learner, same_task, standardized
from memloc.valuation._plan import fit_plan
from memloc.valuation._sums import CellSums

_BLOCK = 16  # learners, at least, that are fitted before they are added up
_BLOCKS = 4  # blocks of each thread: few, since threads that report often wait for each other
_HELD = 1 << 20  # predictions of a block that are held at once
LEARNERS_OF_A_STEP = 50  # learners between looks at the standard error, where `tol` is given
_LARGEST = 2**31 - 1


class TwoDOOB(BaseEstimator):
    """Value of every cell (row x column), row and column of a labelled table for weak learners trained on it.

    A learner is fitted on rows drawn with replacement and a random part of the columns; its utility on the rows it did
    not see
    counts for those rows' cells in those columns. The value of a cell is the mean utility over the learners that used
    its column
    and did not see its row: high, the cell helps; low, it hurts.

    Args:
        n_estimators: weak learners. max_features: columns of each: a share, a number, or "sqrt".
        estimator: weak learner; None for a decision tree that tries the square root of its columns at each split.
        utility: "accuracy" (1 if right), "squared_error" (minus it; regression), or a function of true and predicted
            targets that returns one number per row.
        distance_weight: adds so many times the closeness of the row to its class on the drawn columns, from -1
            (farthest) to 0.
        groups: a group per column; columns of a group are drawn together (pixel blocks, for instance).
        n_jobs: threads. random_state: of the draws and learners, a number or a generator of NumPy; the values do not
            depend on n_jobs.
        warm_start: keep the learners of the last fit and add more, up to n_estimators.
        tol: stop early when the largest standard error of a row value is below it.
        class_weight: weights of classes in the fit of each learner: a dictionary by label, or "balanced".
        max_samples: rows that each learner is fitted on, a number or a share; None for as many as there are.
        columns: how the columns of a data frame are read, a TableSpec; by their contents without.
        verbose: above 0, how many learners are done is written to standard error.

    Attributes:
        cell_values_: shape (row, column), NaN where no learner covered the cell. cell_counts_: learners behind each.
        cell_stderr_: standard error over the draws of learners. cell_contrast_: cell value less the row's.
        row_values_: shape (row,): Data-OOB of the same learners. row_counts_, row_stderr_: likewise.
        column_values_: shape (column,), mean over the learners and rows that used the column. column_stderr_: of it,
            over the draws of learners.
        vote_shares_: of the learners that did not see a row, the share that predicts each class, shape (row, class),
            in the order of `classes_`; classes only.
        oob_score_: accuracy of the vote (or R^2 of the mean) of the learners that did not see a row.
        classes_, feature_names_in_, n_features_in_, estimators_, estimators_samples_, estimators_features_: as in
            scikit-learn's bagging: a learner predicts places in `classes_`.

    Standard errors are those of drawing more learners for this table; they say nothing of other tables.

    Source: Sun, Shen, Kwon, 2D-OOB: Attributing Data Contribution Through Joint Valuation Framework, NeurIPS 2024.

    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> fitted = TwoDOOB(n_estimators=100, random_state=0).fit(X, y)
    >>> fitted.cell_values_.shape, fitted.row_values_.shape, bool(fitted.oob_score_ > 0.9)
    ((178, 13), (178,), True)
    """

    _task: Task
    _encoder: TableEncoder | None
    _sums: CellSums
    _before: tuple[CellSums, int] | None = None  # sums and number of learners that a first fit goes on from

    def __init__(
        self,
        n_estimators: int = 1000,
        *,
        max_features: float | int | str = 0.5,
        estimator: Any = None,
        utility: str | Callable[..., Any] = "accuracy",
        distance_weight: float = 0.0,
        groups: ArrayLike | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        warm_start: bool = False,
        tol: float | None = None,
        class_weight: dict[Any, float] | str | None = None,
        max_samples: int | float | None = None,
        columns: TableSpec | Sequence[ColumnReading] | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.estimator = estimator
        self.utility = utility
        self.distance_weight = distance_weight
        self.groups = groups
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.warm_start = warm_start
        self.tol = tol
        self.class_weight = class_weight
        self.max_samples = max_samples
        self.columns = columns
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """A regressor where the utility or the learner is one, else a classifier."""
        from sklearn.utils import ClassifierTags, RegressorTags

        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse, tags.input_tags.allow_nan = True, takes_missing(self)
        if self.regresses:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags(poor_score=True)
        else:
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags(poor_score=True)
        return tags

    def fit(self, X: ArrayLike | pd.DataFrame, y: ArrayLike, sample_weight: ArrayLike | None = None) -> TwoDOOB:
        """Fit the learners and value every cell.

        Args:
            X: table of shape (row, column), dense or sparse; trees take NaN as it is. A data frame (of pandas, polars
                or Arrow) may hold text, dates and missing values: categories and the parts of a date become columns
                that are drawn together, missing numbers the column's median with a column that says so; ids and free
                text are left out, and their cells have no value. Warnings say what was done.
            y: labels of any kind, or numbers for regression.
            sample_weight: weights of rows in the fit of each learner, shape (row,). They weigh neither the draws nor
                the utility: a row's value is its own.
        Raises:
            SpecError, DataError: settings or a table that cannot be valued, before any learner is fitted.
        """
        kept = dict(vars(self))
        try:
            self._prepare(X, y, sample_weight)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(kept)
            raise
        try:
            self._grow()
        finally:
            if self.estimators_:  # an interrupted fit keeps the learners done
                self._summarize()
        return self

    def _prepare(self, X: Any, y: Any, sample_weight: Any = None) -> None:
        """Check everything, and begin with no learners, or go on from those of the last fit."""
        again = self.warm_start and hasattr(self, "_sums")
        table, target, places = checked_inputs(self, X, y)
        weights = checked_weights(self, sample_weight, target, None if places is None else self.classes_[places])
        of_group, column_group = grouped(self, table.shape[1])
        drawn = drawn_number(self.max_features, len(of_group))
        task = Task(
            columns=np.ascontiguousarray(table.T, dtype=np.float32 if self.estimator is None else np.float64),
            target=target,
            places=places,
            classes=None if places is None else self.classes_[places],
            of_group=of_group,
            drawn=drawn,
            estimator=self.estimator,
            utility=self.utility,
            distance=float(self.distance_weight),
            scaled=standardized(table) if self.distance_weight else None,
            weighted=self.estimator is not None and has_fit_parameter(self.estimator, "sample_weight"),
            weights=weights,
            size=drawn_rows(self.max_samples, len(target)),
        )
        if again and not same_task(self._task, task):
            raise SpecError(
                "warm_start is set and the table or a setting is another than in the last fit. Expected the same, to"
                " add learners. Pass warm_start=False to begin anew."
            )
        if again and len(self.estimators_) > self.n_estimators:
            raise SpecError(
                f"n_estimators is {self.n_estimators} and the last fit has {len(self.estimators_)} learners. Expected"
                " as many or more with warm_start. Pass a larger n_estimators, or warm_start=False."
            )
        self._task, self._column_group = task, column_group
        if not again:
            self._entropy = _entropy(self.random_state)
            empty = CellSums.empty(len(target), len(of_group), 0 if places is None else len(places))
            self._sums, done = self._before or (empty, 0)
            self.estimators_: list[Any] = [None] * done

    def check(self, X: ArrayLike | pd.DataFrame, y: ArrayLike, sample_weight: ArrayLike | None = None) -> None:
        """Raise what `fit` would raise for these settings and this table, without fitting a learner."""
        other = clone(self)
        table, target, places = checked_inputs(other, X, y)
        grouped(other, table.shape[1])
        checked_weights(other, sample_weight, target, None if places is None else other.classes_[places])

    def plan(self, X: ArrayLike | pd.DataFrame, y: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, Any]:
        """What `fit` will take, from a few learners that are fitted and timed: learners, seconds, memory_mb.

        >>> X = np.random.default_rng(0).normal(size=(50, 3))
        >>> TwoDOOB(200).plan(X, X[:, 0] > 0)["learners"]
        200
        """
        return fit_plan(self, X, y, sample_weight)

    def predict(self, X: ArrayLike | pd.DataFrame) -> NDArray[Any]:
        """Labels by the learners' vote, or the mean of their predictions; shape (row,)."""
        votes = self._votes(X)
        return votes if self._task.places is None else self.classes_[votes.argmax(axis=1)]

    def score(self, X: ArrayLike | pd.DataFrame, y: ArrayLike) -> float:
        """Accuracy, or R^2, of `predict`."""
        from sklearn.metrics import accuracy_score, r2_score

        measure = r2_score if self.regresses else accuracy_score
        return float(measure(y, self.predict(X)))

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: row, column, value, stderr, n_draws."""
        check_is_fitted(self)
        rows, columns = self.cell_values_.shape
        names = getattr(self, "feature_names_in_", np.array([f"x{number}" for number in range(columns)], dtype=object))
        return pd.DataFrame(
            {
                "row": np.repeat(np.arange(rows), columns),
                "column": np.tile(names, rows),
                "value": self.cell_values_.ravel(),
                "stderr": self.cell_stderr_.ravel(),
                "n_draws": self.cell_counts_.ravel(),
            }
        )

    @property
    def cell_counts_(self) -> NDArray[np.int32]:
        """Learners behind each cell, shape (row, column)."""
        check_is_fitted(self)
        return self._by_column(self._sums.cell_counts())

    @property
    def cell_stderr_(self) -> NDArray[np.float64]:
        """Standard error of each cell's value, shape (row, column)."""
        check_is_fitted(self)
        return self._by_column(self._sums.cell_error())

    @property
    def cell_contrast_(self) -> NDArray[np.float64]:
        """What its column adds to a row: cell value less row value, shape (row, column)."""
        check_is_fitted(self)
        return self.cell_values_ - self.row_values_[:, None]

    @property
    def column_stderr_(self) -> NDArray[np.float64]:
        """Standard error of each column's value over the draws of learners, shape (column,)."""
        check_is_fitted(self)
        used = np.zeros((len(self.estimators_), len(self._task.of_group)))
        for learner, seed in enumerate(self._seeds()):
            used[learner, self._task.draw_groups(seed)] = 1
        error, group = self._sums.column_error(used), self._column_group
        return np.where(group < 0, np.nan, error[group])

    @property
    def vote_shares_(self) -> NDArray[np.float64]:
        """The share of learners for each class of a row that they did not see, shape (row, class); NaN where all saw
        it."""
        check_is_fitted(self)
        places = self._task.places
        if places is None:
            raise AttributeError("votes are of classes, and the target is of numbers.")
        shares = np.full(self._sums.votes.shape, np.nan)
        seen = self._sums.row[:, 1] > 0
        shares[seen] = self._sums.votes[seen] / self._sums.row[seen, 1, None]
        return shares[:, np.argsort(places)]

    @property
    def estimators_samples_(self) -> list[NDArray[np.int64]]:
        """The rows of each learner, with repeats, regenerated from its seed."""
        check_is_fitted(self)
        draws = (self._task.draw(seed) for seed in self._seeds())
        return [np.repeat(np.arange(len(one.counts)), one.counts) for one in draws]

    @property
    def estimators_features_(self) -> list[NDArray[np.int64]]:
        """The columns of each learner, as it was given them, regenerated from its seed."""
        check_is_fitted(self)
        return [self._task.features(self._task.draw(seed)) for seed in self._seeds()]

    @property
    def regresses(self) -> bool:
        """Whether targets are numbers to predict."""
        return self.utility == "squared_error" or (self.estimator is not None and is_regressor(self.estimator))

    def _seeds(self) -> NDArray[np.int64]:
        return learner_seeds(self._entropy, len(self.estimators_))

    def _grow(self) -> None:
        """Fit learners until there are enough, or the row values are sure enough."""
        seeds = learner_seeds(self._entropy, self.n_estimators)
        step = self.n_estimators if self.tol is None else LEARNERS_OF_A_STEP
        report = Console() if self.verbose else silent
        report("fitting learners", len(self.estimators_), self.n_estimators)
        while len(self.estimators_) < self.n_estimators:
            done = len(self.estimators_)
            if (
                self.tol is not None
                and done >= LEARNERS_OF_A_STEP
                and done % LEARNERS_OF_A_STEP == 0
                and self._sums.row_error().max() < self.tol
            ):
                break
            for outcomes in self._blocks(seeds[done : (done // step + 1) * step]):
                sums = self._sums.copy()
                sums.add(outcomes)
                learners = self.estimators_ + [outcome.learner for outcome in outcomes]
                self.__dict__.update(_sums=sums, estimators_=learners)  # one call, which no interrupt can halve
                report("fitting learners", len(learners), self.n_estimators)

    def _blocks(self, seeds: NDArray[np.int64]) -> Iterator[list[Outcome]]:
        jobs = effective_n_jobs(self.n_jobs)
        size = (
            min(max(len(seeds) // (_BLOCKS * jobs), _BLOCK), max(_HELD // len(self._task.target), _BLOCK))
            if jobs > 1
            else _BLOCK
        )
        blocks = [seeds[start : start + size] for start in range(0, len(seeds), size)]
        if jobs == 1:
            yield from (_run_block(self._task, block) for block in blocks)
            return
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        yield from parallel(delayed(_run_block)(self._task, block) for block in blocks)

    def _summarize(self) -> None:
        """Turn the sums into the fitted attributes."""
        sums, group = self._sums, self._column_group
        self.cell_values_ = self._by_column(sums.cell_values())
        self.row_values_, self.row_stderr_, self.row_counts_ = sums.row_values(), sums.row_error(), sums.row_counts()
        self.column_values_ = np.where(group < 0, np.nan, sums.column_values()[group])
        self.oob_score_ = sums.score(self._task.target)

    def _by_column(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Figures of groups of columns as figures of columns."""
        group = self._column_group
        if np.array_equal(group, np.arange(cells.shape[1])):
            return cells
        found = cells[:, group]
        found[:, group < 0] = np.nan if found.dtype.kind == "f" else 0
        return found

    def _votes(self, X: Any) -> NDArray[Any]:
        """Mean prediction, or the share of votes per class, over the learners: (row,) or (row, class)."""
        check_is_fitted(self)
        X = as_pandas(X)
        if self._encoder is None:
            finite: Any = "allow-nan" if takes_missing(self) else True
            table = dense(
                validate_data(self, X, dtype=np.float64, reset=False, accept_sparse=True, ensure_all_finite=finite)
            )
        else:
            validate_data(self, X, skip_check_array=True, reset=False)
            table = self._encoder.transform(X)
        task = self._task
        table = table.astype(task.columns.dtype)
        shape = (len(table),) if task.places is None else (len(table), len(task.places))
        votes = np.zeros(shape)
        for learner, seed in zip(self.estimators_, self._seeds(), strict=True):
            predicted = learner.predict(table[:, task.features(task.draw(seed))])
            if task.places is None:
                votes += predicted
            else:
                votes[np.arange(len(table)), predicted.astype(np.int64)] += 1
        return votes / len(self.estimators_)


def _entropy(random_state: Any) -> int:
    """The seed of all learners, of a number or a generator."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(_LARGEST))
    return int(check_random_state(random_state).randint(_LARGEST))


def _run_block(task: Task, seeds: NDArray[np.int64]) -> list[Outcome]:
    return [run_learner(task, int(seed)) for seed in seeds]
