"""What can be wrong with a valuation's settings, table or target, found before any learner is fitted."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from memloc.data import TableEncoder
from memloc.errors import DataError, SpecError, warn

if TYPE_CHECKING:
    from memloc.valuation._estimator import TwoDOOB

_FEW = 20  # different whole numbers written as floats: more may be amounts
_WIDE = 2**28  # cells of a sparse table that are held as numbers at most


def check_settings(valuer: TwoDOOB) -> None:
    """Raise SpecError for settings that do not go, or not together."""
    if not isinstance(valuer.n_estimators, (int, np.integer)) or valuer.n_estimators < 1:
        raise SpecError(
            f"n_estimators is {valuer.n_estimators!r}. Expected a whole number of at least 1. Pass n_estimators=1000."
        )
    if not callable(valuer.utility) and valuer.utility not in ("accuracy", "squared_error"):
        raise SpecError(
            f"there is no utility {valuer.utility!r}. Expected 'accuracy', 'squared_error' or a function of true and"
            " predicted targets. Pass utility='accuracy'."
        )
    if valuer.utility == "squared_error" and valuer.estimator is not None and not is_regressor(valuer.estimator):
        raise SpecError(
            "the utility is 'squared_error' and the estimator is no regressor. Expected one that predicts numbers."
            " Pass utility='accuracy', or a regressor."
        )
    if valuer.estimator is not None and not (is_classifier(valuer.estimator) or is_regressor(valuer.estimator)):
        raise SpecError(
            f"the estimator is a {type(valuer.estimator).__name__}, neither a classifier nor a regressor. Expected"
            " one of both. Pass estimator=LogisticRegression(), for instance, or None for a decision tree."
        )
    share = valuer.max_samples
    if share is not None and (
        isinstance(share, (bool, np.bool_))
        or not isinstance(share, numbers.Real)
        or not (share >= 1 if isinstance(share, numbers.Integral) else 0 < share <= 1)
    ):
        raise SpecError(
            f"max_samples is {share!r}. Expected a share above 0 and at most 1, or a whole number of rows. Pass"
            " max_samples=None (all of them), 0.1 or 10000."
        )
    for name, least in (("distance_weight", "0"), ("tol", "0.02"), ("n_jobs", "1")):
        given = getattr(valuer, name)
        if given is not None and (isinstance(given, (bool, np.bool_)) or not isinstance(given, numbers.Real)):
            raise SpecError(f"{name} is {given!r}. Expected a number. Pass {name}={least}.")
    if not np.isfinite(valuer.distance_weight):
        raise SpecError(
            f"distance_weight is {valuer.distance_weight}. Expected a number. Pass distance_weight=0"
            " (--distance-weight 0)."
        )
    if valuer.tol is not None and not valuer.tol > 0:
        raise SpecError(f"tol is {valuer.tol}. Expected a number above 0. Pass tol=0.02, or None.")
    if valuer.n_jobs == 0:
        raise SpecError("n_jobs is 0. Expected a number of threads, or -1 for all cores. Pass n_jobs=1.")
    if valuer.utility == "accuracy" and valuer.regresses:
        raise SpecError(
            "the estimator is a regressor and the utility is 'accuracy'. Expected a utility for numbers. Pass"
            " utility='squared_error'."
        )
    if valuer.distance_weight and valuer.regresses:
        raise SpecError(
            f"distance_weight is {valuer.distance_weight} for a regression. Expected 0: distances are to the mean of"
            " a row's class. Pass distance_weight=0 (--distance-weight 0)."
        )


def check_columns(valuer: TwoDOOB, groups: int) -> None:
    """Raise SpecError for a share or number of columns that cannot be drawn from so many groups."""
    share, what = valuer.max_features, "columns" if valuer.groups is None else "groups of columns"
    if isinstance(share, str):
        if share != "sqrt":
            raise SpecError(
                f"max_features is {share!r}. Expected a share, a number or 'sqrt'. Pass max_features=0.5"
                " (--max-features 0.5)."
            )
    elif isinstance(share, (int, np.integer)) and not isinstance(share, bool):
        if not 1 <= share <= groups:
            raise SpecError(
                f"max_features is {share} and there are {groups} {what}. Expected 1 to {groups}. Pass"
                f" max_features={groups} (--max-features {groups}) or fewer."
            )
    elif not isinstance(share, (float, np.floating)) or not 0 < share <= 1:
        raise SpecError(
            f"max_features is {share}. Expected a share above 0 and at most 1, or a whole number. Pass"
            " max_features=0.5 (--max-features 0.5)."
        )


def checked_numbers(y: NDArray[Any]) -> NDArray[np.float64]:
    """A target of numbers.

    Raises:
        DataError: text, NaN, infinity, or one number throughout.
    """
    try:
        target = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise DataError(
            f"the target holds text, such as {y[0]!r}. Expected numbers. Pass utility='accuracy' (--task"
            " classification)."
        ) from problem
    if not np.isfinite(target).all():
        raise DataError("the target holds NaN or infinity. Expected numbers. Drop those rows.")
    if (target == target[0]).all():
        raise DataError(
            f"the target is {target[0]:g} in every row. Expected numbers that differ, since a cell's value is"
            " how it helps to predict them. Pass another target."
        )
    return target


def checked_classes(y: NDArray[Any]) -> NDArray[Any]:
    """The classes of a target, sorted.

    Raises:
        DataError: missing labels, numbers that are none, labels of several kinds, or one class.
    """
    try:
        check_classification_targets(y)
    except ValueError as problem:
        raise DataError(
            f"the target holds numbers that are no labels ({problem}). Expected classes. Pass"
            " utility='squared_error' (--task regression), or whole numbers."
        ) from problem
    classes: NDArray[Any] = unique_labels(y)
    if y.dtype.kind == "f" and len(classes) > _FEW:
        raise DataError(
            f"the target has {len(classes)} different numbers, all whole, as floats. Expected classes, or numbers to"
            " predict. Say which: utility='squared_error' (--task regression), or pass them as whole numbers (int) for"
            " classes."
        )
    if len(classes) < 2:
        raise DataError(
            f"the target has one class, {classes.tolist()[0]!r}. Expected at least two, since a cell's value"
            " is how it helps to tell classes apart. Pass another target, or utility='squared_error' for numbers."
        )
    return classes


def check_range(table: NDArray[np.float64], names: NDArray[Any] | None, narrow: bool) -> None:
    """Raise DataError where trees, which hold float32, would see infinity."""
    if narrow and (np.abs(table) > np.finfo(np.float32).max).any():
        column = int(np.argwhere(np.abs(table) > np.finfo(np.float32).max)[0, 1])
        where = f"column {column}" if names is None or len(names) != table.shape[1] else f"column {names[column]!r}"
        raise DataError(
            f"{where} holds numbers beyond 3.4e38, infinity to a tree. Expected smaller ones. Rescale the column."
        )


def say_what_surprises(
    table: NDArray[np.float64], y: NDArray[Any] | None, encoder: TableEncoder | None, names: NDArray[Any] | None
) -> None:
    """Warn of classes with one row, of constant columns, and of numbers that were filled in; `y` is None for
    regression."""
    labels, sizes = np.unique([] if y is None else y, return_counts=True)
    said = [
        f"the class {label!r} has one row. No learner that leaves it out has seen its class, so its values are 0"
        " whatever it holds. Remove the row or merge the class."
        for label in labels[sizes == 1].tolist()
    ]
    same = (table == table[0]).all(axis=0)
    if encoder is None:
        constant = np.flatnonzero(same)
    else:
        constant = np.array(
            [place for place in np.unique(encoder.source) if same[encoder.source == place].all()], dtype=np.int64
        )
        said += encoder.notices
        if encoder.filled:
            filled = "; ".join(f"{name} ({count})" for name, count in encoder.filled.items())
            said.append(f"missing numbers are replaced by the column's median, beside a column that says so: {filled}.")
    if len(constant):
        first = int(constant[0]) if names is None else names[constant[0]]
        which = (
            f"column {first!r} is constant. It tells"
            if len(constant) == 1
            else f"{len(constant)} columns are constant, such as {first!r}. They tell"
        )
        said.append(f"{which} no rows apart, so such cells are worth what the rest of their row is. Drop them.")
    for text in said:
        warn(text)


def as_target(y: Any, X: Any = None) -> Any:
    """A target of any library as an array of one axis, or as it is where scikit-learn says what is wrong with it.

    Args:
        X: the table, whose index is compared.
    Raises:
        DataError: several targets a row, or missing ones.
    """
    if isinstance(y, pd.Series) and isinstance(X, pd.DataFrame) and len(y) == len(X) and not y.index.equals(X.index):
        warn("X and y have different indexes, and are matched by the order of their rows. Align them if that is wrong.")
    found: Any = y if isinstance(y, (pd.Series, pd.DataFrame, list, tuple)) or y is None else np.asarray(y)
    shape = np.shape(found)
    if len(shape) > 1 and shape[1] > 1:
        raise DataError(
            f"there are {shape[1]} targets a row (y has shape {shape}). Expected one, since a value is of one target."
            " Fit one TwoDOOB for each column of y."
        )
    if found is None or len(shape) != 1:
        return found
    missing = int(np.asarray(pd.isna(pd.Series(found))).sum())
    if missing:
        raise DataError(
            f"the target is missing (NaN) in {missing} rows. Expected a label in every row. Drop those rows."
        )
    values = np.asarray(found)
    if values.dtype == object and all(isinstance(one, (bool, np.bool_)) for one in values):
        return values.astype(bool)
    if values.dtype == object and len({isinstance(one, str) for one in values.tolist()}) > 1:
        raise DataError(
            "the target mixes text with other values. Expected labels of one kind. Turn them all into text."
        )
    return found


def dense(table: Any) -> NDArray[np.float64]:
    """A table that may be sparse as an array.

    Raises:
        DataError: it would not fit in memory, as the values of its cells would not.
    """
    if not hasattr(table, "toarray"):
        return np.asarray(table)
    rows, columns = table.shape
    if rows * columns > _WIDE:
        raise DataError(
            f"the sparse table has {rows} x {columns} cells, and each gets a value. Expected at most {_WIDE} cells."
            " Pass fewer columns, such as those that most rows have."
        )
    return np.asarray(table.toarray(), dtype=np.float64)


def checked_weights(
    valuer: TwoDOOB, sample_weight: Any, target: NDArray[Any], classes: NDArray[Any] | None
) -> NDArray[np.float64] | None:
    """Weights of rows in the fit, those of their classes among them; None for one each.

    Args:
        target: class codes or numbers. classes: the labels of the codes.
    Raises:
        SpecError: weights that are none, or that the learner does not take.
    """
    from sklearn.utils import compute_class_weight
    from sklearn.utils.validation import _check_sample_weight, has_fit_parameter

    if sample_weight is None and valuer.class_weight is None:
        return None
    if valuer.estimator is not None and not has_fit_parameter(valuer.estimator, "sample_weight"):
        raise SpecError(
            f"weights are given and {type(valuer.estimator).__name__} takes none. Expected an estimator whose fit has"
            " sample_weight. Leave sample_weight and class_weight out."
        )
    rows = np.empty((len(target), 0))
    try:
        weights = np.ones(len(target)) if sample_weight is None else _check_sample_weight(sample_weight, rows)
    except (TypeError, ValueError) as problem:
        raise SpecError(
            f"sample_weight is none ({problem}). Expected a finite number for each of {len(target)} rows. Correct it."
        ) from problem
    if sample_weight is not None and ((weights < 0).any() or not (weights > 0).any()):
        raise SpecError("sample_weight holds numbers below 0, or no other than 0. Expected weights. Correct them.")
    if valuer.class_weight is not None:
        if classes is None:
            raise SpecError("class_weight is given for a regression. Expected none. Leave class_weight out.")
        if isinstance(valuer.class_weight, dict):
            wrong = [label for label in valuer.class_weight if label not in set(classes.tolist())]
            if wrong:
                raise SpecError(
                    f"class_weight names {wrong[0]!r}, which is no class. Expected labels of the target. Correct it."
                )
            if not all(np.isfinite(weight) and weight >= 0 for weight in valuer.class_weight.values()):
                raise SpecError("class_weight holds numbers below 0, or none. Expected weights. Correct them.")
        elif valuer.class_weight != "balanced":
            raise SpecError(
                f"class_weight is {valuer.class_weight!r}. Expected a dictionary by label, or 'balanced'. Pass"
                " class_weight='balanced'."
            )
        order = np.argsort(classes)
        by_class = compute_class_weight(valuer.class_weight, classes=classes[order], y=classes[target])
        weights = weights * by_class[np.argsort(order)][target]
    return np.asarray(weights, dtype=np.float64)
