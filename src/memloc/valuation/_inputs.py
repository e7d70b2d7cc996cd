"""What a fit begins with: a table and a target checked and turned into numbers, its columns grouped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import get_tags
from sklearn.utils.validation import column_or_1d, validate_data

from memloc.data import (
    ColumnReading,
    TableEncoder,
    TableSpec,
    as_pandas,
    check_names,
    needs_encoding,
    read_columns,
    refuse_missing,
    refuse_text,
)
from memloc.errors import DataError, SpecError
from memloc.valuation._checks import (
    as_target,
    check_columns,
    check_range,
    check_settings,
    checked_classes,
    checked_numbers,
    dense,
    say_what_surprises,
)

if TYPE_CHECKING:
    from memloc.valuation._estimator import TwoDOOB


def takes_missing(valuer: TwoDOOB) -> bool:
    """Whether learners take NaN."""
    return valuer.estimator is None or bool(get_tags(valuer.estimator).input_tags.allow_nan)


def checked_inputs(
    valuer: TwoDOOB, X: Any, y: Any
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[np.int64] | None]:
    """The table as numbers, the target as codes or numbers, and the place of each code's label in `classes_`."""
    check_settings(valuer)
    X = as_pandas(X)
    check_names(X)
    refuse_text(X)
    if hasattr(X, "shape") and len(X.shape) == 2 and X.shape[0] < 2:
        found = "is 1 sample (row)" if X.shape[0] else "are 0 samples (rows)"
        raise DataError(f"there {found}. Expected at least two rows. Pass more.")
    y = as_target(y, X)
    readings = _readings(valuer, X)
    valuer._encoder = TableEncoder(valuer.columns).fit(X, readings) if needs_encoding(X, readings) else None
    if valuer._encoder is None:
        refuse_missing(X, takes_nan=takes_missing(valuer) and not valuer.distance_weight)
        finite: Any = "allow-nan" if takes_missing(valuer) else True
        table, y = validate_data(
            valuer, X, y, dtype=np.float64, ensure_min_samples=2, multi_output=True, accept_sparse=True,
            ensure_all_finite=finite,
        )  # fmt: skip
        table = dense(table)
        refuse_missing(table, takes_nan=takes_missing(valuer) and not valuer.distance_weight)
    else:
        validate_data(valuer, X, y, skip_check_array=True)
        table = valuer._encoder.transform(X)
    check_range(table, getattr(valuer, "feature_names_in_", None), valuer.estimator is None)
    y = column_or_1d(y, warn=True)
    if len(y) != len(table):
        raise DataError(f"there are {len(table)} rows and {len(y)} targets. Expected one target per row. Check y.")
    names = getattr(valuer, "feature_names_in_", None)
    if valuer.regresses:
        target = checked_numbers(y)
        say_what_surprises(table, None, valuer._encoder, names)
        return table, target, None
    valuer.classes_ = checked_classes(y)
    say_what_surprises(table, y, valuer._encoder, names)
    return table, *_codes(table, y)


def _readings(valuer: TwoDOOB, X: Any) -> Sequence[ColumnReading] | None:
    """How the columns of a data frame are read; None of anything else."""
    if not isinstance(X, pd.DataFrame):
        return None
    return (
        read_columns(X, valuer.columns)
        if valuer.columns is None or isinstance(valuer.columns, TableSpec)
        else valuer.columns
    )


def grouped(valuer: TwoDOOB, columns: int) -> tuple[tuple[NDArray[np.int64], ...], NDArray[np.int64]]:
    """The fitted columns of each group, and the group of each column the user gave."""
    given = valuer.n_features_in_
    if valuer.groups is None:
        names = np.arange(given)
    else:
        names = np.asarray(valuer.groups)
        if names.dtype == object and len({type(each) for each in names.ravel().tolist()}) > 1:
            raise SpecError(
                "groups mixes text with other values, or holds None. Expected names or numbers of one kind. Correct"
                " them."
            )
        if names.shape != (given,):
            raise SpecError(
                f"groups has shape {names.shape} and the table {given} columns. Expected one group per column. Pass"
                f" {given} of them."
            )
    _, group = np.unique(names, return_inverse=True)
    if valuer._encoder is None:
        number, of_column = int(group.max()) + 1, group
    else:  # of the columns that are left out, none has a group
        used, of_column = np.unique(group[valuer._encoder.source], return_inverse=True)
        number = len(used)
        group = np.where(np.isin(group, used), np.searchsorted(used, group), -1)
        gone = np.isin(np.arange(given), valuer._encoder.source, invert=True)
        group[gone] = -1
    check_columns(valuer, number)
    return tuple(np.flatnonzero(of_column == one) for one in range(number)), group


def _codes(table: NDArray[np.float64], y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class codes, and the place of each code's label among the sorted labels.

    Codes follow the classes' own rows, sorted, so neither the names of the labels nor the order of the rows matters for
    ties: by size, then by the sorted rows. Only classes with the very same rows may swap.
    """
    labels, inverse = np.unique(y, return_inverse=True)
    keys = []
    for label in range(len(labels)):
        rows = table[inverse == label]
        keys.append((len(rows), rows[np.lexsort(rows.T[::-1])].tobytes()))
    order = np.array(sorted(range(len(labels)), key=lambda label: keys[label]), dtype=np.int64)
    code = np.empty(len(labels), dtype=np.int64)
    code[order] = np.arange(len(labels))
    return code[inverse], order
