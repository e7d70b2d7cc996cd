"""Tables as users have them, with categories and missing values, as numbers; and which column each number is of."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.errors import DataError

_MISSING = "(missing)"
_FEW_CATEGORIES = 50


def check_names(X: Any) -> None:
    """Raise DataError where two columns have one name."""
    if isinstance(X, pd.DataFrame) and X.columns.duplicated().any():
        name = X.columns[X.columns.duplicated()][0]
        raise DataError(f"the table has two columns named {name!r}. Expected different names. Rename or drop one.")


def refuse_text(X: Any) -> None:
    """Raise DataError for a DataFrame without columns, and for an array or list that holds text, naming the first
    column."""
    if isinstance(X, pd.DataFrame):
        if not X.shape[1]:
            raise DataError(
                f"the table has 0 feature(s) (shape={X.shape}) while a minimum of 1 is required. Expected columns to"
                " value. Pass another table."
            )
        return
    values = np.asarray(X) if not hasattr(X, "tocsr") else np.empty(0)
    if values.ndim != 2 or values.dtype.kind not in "OUS":
        return
    text = np.frompyfunc(lambda each: isinstance(each, (str, bytes)) and not _parses(each), 1, 1)(values).astype(bool)
    if text.any():
        row, column = np.argwhere(text)[0]
        raise DataError(
            f"column {column} holds text, first {str(values[row, column])!r} in row {row}. Expected numbers. Pass a"
            " pandas DataFrame, whose columns of text are taken as categories."
        )


def _parses(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def refuse_missing(X: Any) -> None:
    """Raise DataError where numbers are NaN or infinite, naming the first column."""
    values = np.asarray(X) if not hasattr(X, "tocsr") else np.empty(0)
    if values.dtype == object:
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            return  # scikit-learn says what it is
    if values.ndim != 2 or values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row, column = np.argwhere(~np.isfinite(values))[0]
    name = X.columns[column] if isinstance(X, pd.DataFrame) else int(column)
    kind = "NaN" if np.isnan(values[row, column]) else "inf"
    frame = isinstance(X, pd.DataFrame) or kind == "inf"
    step = (
        "Drop or correct those rows"
        if frame
        else (
            "Pass a pandas DataFrame to have missing numbers replaced by the column's median and marked, or drop those"
            " rows"
        )
    )
    raise DataError(
        f"column {name!r} holds {kind}, first in row {row}. Expected finite numbers (no NaN or inf). {step}."
    )


def needs_encoding(X: Any) -> bool:
    """Whether a table is a DataFrame with anything but complete columns of numbers."""
    return isinstance(X, pd.DataFrame) and (
        any(isinstance(kind, pd.ArrowDtype) for kind in X.dtypes)
        or not all(_is_number(X.iloc[:, place]) for place in range(X.shape[1]))
        or bool(X.isna().to_numpy().any())
    )


def number_columns(X: pd.DataFrame) -> list[Any]:
    """Names of the columns that hold numbers; the others are categories.

    Raises:
        DataError: text among numbers, infinity, dates, or a column without values; the column is named.
    """
    return [name for name in X.columns if _becomes_number(plain_column(X[name]))]


def plain_column(column: pd.Series) -> pd.Series:
    """A column without Arrow's types, and a duration as its seconds.

    >>> plain_column(pd.Series(pd.to_timedelta(["1min", None]))).tolist()
    [60.0, nan]
    """
    if isinstance(column.dtype, pd.ArrowDtype):
        arrow, objects = str(column.dtype.pyarrow_dtype), column.astype(object)
        if arrow.startswith("duration"):
            column = pd.to_timedelta(objects)
        elif arrow.startswith(("timestamp", "date")):
            column = pd.to_datetime(objects, utc=True)
        elif arrow.startswith("decimal"):
            column = objects.where(objects.notna(), np.nan).astype(np.float64)
        elif not pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            column = objects
    known = column.dropna() if column.dtype == object else ()
    if len(known) and all(isinstance(each, datetime.timedelta) for each in known):
        column = pd.to_timedelta(column)
    return column.dt.total_seconds() if pd.api.types.is_timedelta64_dtype(column) else column


def _plain_columns(X: pd.DataFrame) -> pd.DataFrame:
    columns = [plain_column(X.iloc[:, place]) for place in range(X.shape[1])]
    if all(column.dtype == kind for column, kind in zip(columns, X.dtypes, strict=True)):
        return X
    return pd.concat(columns, axis=1)


class TableEncoder:
    """A DataFrame as numbers: categories one-hot, missing numbers the median beside a column that says so.

    Attributes:
        source: which of the user's columns each number is of, shape (encoded column,). numbers: names of
            the columns of numbers. filled: missing numbers by column.

    >>> frame = pd.DataFrame({"size": [1.0, None, 3.0], "colour": ["red", "blue", None]})
    >>> encoder = TableEncoder().fit(frame)
    >>> encoder.transform(frame).tolist(), encoder.source.tolist()
    ([[1.0, 0.0, 0.0, 0.0, 1.0], [2.0, 1.0, 0.0, 1.0, 0.0], [3.0, 0.0, 1.0, 0.0, 0.0]], [0, 0, 1, 1, 1])
    """

    source: NDArray[np.int64]
    numbers: list[Any]
    filled: dict[Any, int]

    def fit(self, X: pd.DataFrame) -> TableEncoder:
        """Learn categories and medians.

        Raises:
            DataError: text among numbers, infinity, dates, or a column without values; the column is named.
        """
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

        X = _plain_columns(X)
        self.numbers = number_columns(X)
        numbers, holed = set(self.numbers), set(X.columns[X.isna().any()])
        self._names, self._complete = list(X.columns), [name for name in X.columns if name not in holed]
        complete = [place for place, name in enumerate(X.columns) if name in numbers and name not in holed]
        parts: list[tuple[str, Any, list[int]]] = [("complete", FunctionTransformer(), complete)] if complete else []
        for place, name in enumerate(X.columns):
            if name not in numbers:
                _check_categories(X[name])
                parts.append(
                    (f"column {len(parts)}", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [place])
                )
            elif name in holed:
                parts.append((f"column {len(parts)}", SimpleImputer(strategy="median", add_indicator=True), [place]))
        self.filled = {name: int(X[name].isna().sum()) for name in self.numbers if name in holed}
        self._transformer = ColumnTransformer(parts, sparse_threshold=0).fit(self._plain(X))
        source = [
            np.resize(
                places,
                self._transformer.output_indices_[part].stop - self._transformer.output_indices_[part].start,
            )
            for part, _, places in parts
        ]
        self.source = np.concatenate(source)
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """The table as float64, shape (row, encoded column).

        Raises:
            DataError: no DataFrame of the same columns, or a value that is missing where none was in `fit`.
        """
        if not isinstance(X, pd.DataFrame) or list(X.columns) != self._names:
            raise DataError(
                f"the table is not a DataFrame with the columns {', '.join(map(str, self._names[:8]))}. Expected those"
                " of the fit. Pass one."
            )
        X = _plain_columns(X)
        numbers = set(self.numbers)
        for name in self._complete:
            if (pd.to_numeric(X[name], errors="coerce") if name in numbers else X[name]).isna().any():
                what = ("number", "finite numbers") if name in numbers else ("category", "one in every row")
                raise DataError(
                    f"column {name!r} misses a {what[0]}, and none was missing in the fit. Expected {what[1]}. Drop or"
                    " fill those rows."
                )
        return np.asarray(self._transformer.transform(self._plain(X)), dtype=np.float64)

    def _plain(self, X: pd.DataFrame) -> pd.DataFrame:
        """Numbers as float64 with NaN, everything else as text."""
        numbers = set(self.numbers)
        return pd.DataFrame(
            {
                f"column {place}": (
                    pd.to_numeric(X[name]).astype(np.float64)
                    if name in numbers
                    else X[name].astype(object).map(str, na_action="ignore").where(X[name].notna(), _MISSING)
                )
                for place, name in enumerate(X.columns)
            }
        )  # names of our own: scikit-learn takes whole numbers for places


def _check_categories(column: pd.Series) -> None:
    """Raise DataError for a column of names rather than categories, which would make a column of every value."""
    count = column.nunique()
    if count > max(_FEW_CATEGORIES, len(column) // 10):
        raise DataError(
            f"column {column.name!r} holds {count} different texts in {len(column)} rows. Expected categories, at most"
            f" {max(_FEW_CATEGORIES, len(column) // 10)}. Drop names, ids and dates, or merge rare categories."
        )


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column))


def _becomes_number(column: pd.Series) -> bool:
    """Whether a column is one of numbers; raises DataError where that cannot be told or used."""
    name, known = column.name, column.dropna()
    if not len(known):
        raise DataError(f"column {name!r} has no values. Expected at least one. Drop the column.")
    if pd.api.types.is_datetime64_any_dtype(column):
        raise DataError(
            f"column {name!r} holds {column.dtype}. Expected numbers or categories. Turn dates into numbers first, such"
            " as days."
        )
    if _is_number(column):
        if not np.isfinite(known.to_numpy(dtype=np.float64)).all():
            raise DataError(
                f"column {name!r} holds inf. Expected finite numbers or missing values. Drop or correct those rows."
            )
        return True
    if pd.api.types.is_complex_dtype(column):
        raise DataError(
            f"column {name!r} holds complex numbers. Expected real ones or categories. Split it into two columns."
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        return False
    odd = next((value for value in known if not pd.api.types.is_scalar(value)), None)
    if odd is not None:
        what = "list" if isinstance(odd, (list, tuple, np.ndarray)) else type(odd).__name__
        raise DataError(
            f"column {name!r} holds a {what} in a cell. Expected numbers or categories. Turn it into"
            " columns, or drop it."
        )
    parsed = pd.to_numeric(known, errors="coerce").notna()
    if parsed.all():
        if not np.isfinite(pd.to_numeric(known).to_numpy(dtype=np.float64)).all():
            raise DataError(
                f"column {name!r} holds inf. Expected finite numbers or missing values. Drop or correct those rows."
            )
        return True
    if parsed.mean() >= 0.5:
        first = int(np.flatnonzero(~parsed.to_numpy())[0])
        row = int(np.flatnonzero(column.notna().to_numpy())[first])
        raise DataError(
            f"column {name!r} holds text among numbers, such as {known.iloc[first]!r} in row {row}. Expected numbers"
            " alone, or categories. Correct it, or say that it is a category (a dtype 'category', which parquet"
            " keeps)."
        )
    return False
