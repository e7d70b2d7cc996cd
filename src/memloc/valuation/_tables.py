"""Tables as users have them, with categories and missing values, as numbers; and which column each number is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.errors import DataError

_MISSING = "(missing)"


def check_names(X: Any) -> None:
    """Raise DataError where two columns have one name."""
    if isinstance(X, pd.DataFrame) and X.columns.duplicated().any():
        name = X.columns[X.columns.duplicated()][0]
        raise DataError(f"the table has two columns named {name!r}. Expected different names. Rename or drop one.")


def refuse_missing(X: Any) -> None:
    """Raise DataError where numbers are NaN or infinite, naming the first column."""
    values = np.asarray(X) if not hasattr(X, "tocsr") else np.empty(0)
    if values.ndim != 2 or values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row, column = np.argwhere(~np.isfinite(values))[0]
    name = X.columns[column] if isinstance(X, pd.DataFrame) else int(column)
    kind = "NaN" if np.isnan(values[row, column]) else "inf"
    raise DataError(
        f"column {name!r} holds {kind}, first in row {row}. Expected finite numbers (no NaN or inf). Pass a pandas DataFrame to have missing "
        "numbers replaced by the column's median and marked, or drop those rows."
    )


def needs_encoding(X: Any) -> bool:
    """Whether a table is a DataFrame with anything but complete columns of numbers."""
    return isinstance(X, pd.DataFrame) and any(not _is_number(X[name]) or X[name].isna().any() for name in X.columns)


class TableEncoder:
    """A DataFrame as numbers: categories one-hot, missing numbers the median beside a column that says so.

    Attributes:
        source: which of the user's columns each number is of, shape (encoded column,). numbers: names of the columns of numbers.

    >>> frame = pd.DataFrame({"size": [1.0, None, 3.0], "colour": ["red", "blue", None]})
    >>> encoder = TableEncoder().fit(frame)
    >>> encoder.transform(frame).tolist(), encoder.source.tolist()
    ([[1.0, 0.0, 0.0, 0.0, 1.0], [2.0, 1.0, 0.0, 1.0, 0.0], [3.0, 0.0, 1.0, 0.0, 0.0]], [0, 0, 1, 1, 1])
    """

    source: NDArray[np.int64]
    numbers: list[str]

    def fit(self, X: pd.DataFrame) -> TableEncoder:
        """Learn categories and medians.

        Raises:
            DataError: text among numbers, infinity, dates, or a column without values; the column is named.
        """
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

        self.numbers = [name for name in X.columns if _becomes_number(X[name])]
        parts: list[tuple[str, Any, list[str]]] = []
        part: Any
        for name in X.columns:
            if name not in self.numbers:
                part = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
            elif X[name].isna().any():
                part = SimpleImputer(strategy="median", add_indicator=True)
            else:
                part = FunctionTransformer()
            parts.append((f"column {len(parts)}", part, [name]))
        self._transformer = ColumnTransformer(parts, sparse_threshold=0).fit(self._plain(X))
        slices = [self._transformer.output_indices_[name] for name, _, _ in parts]
        self.source = np.concatenate([np.full(one.stop - one.start, number) for number, one in enumerate(slices)])
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """The table as float64, shape (row, encoded column)."""
        return np.asarray(self._transformer.transform(self._plain(X)), dtype=np.float64)

    def _plain(self, X: pd.DataFrame) -> pd.DataFrame:
        """Numbers as float64 with NaN, everything else as text."""
        return pd.DataFrame(
            {
                name: pd.to_numeric(X[name]).astype(np.float64)
                if name in self.numbers
                else X[name].astype(object).map(str, na_action="ignore").where(X[name].notna(), _MISSING)
                for name in X.columns
            }
        )


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column))


def _becomes_number(column: pd.Series) -> bool:
    """Whether a column is one of numbers; raises DataError where that cannot be told or used."""
    name, known = column.name, column.dropna()
    if not len(known):
        raise DataError(f"column {name!r} has no values. Expected at least one. Drop the column.")
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise DataError(
            f"column {name!r} holds {column.dtype}. Expected numbers or categories. Turn dates into numbers first, such as days."
        )
    if _is_number(column):
        if not np.isfinite(known.to_numpy(dtype=np.float64)).all():
            raise DataError(
                f"column {name!r} holds inf. Expected finite numbers or missing values. Drop or correct those rows."
            )
        return True
    if isinstance(column.dtype, pd.CategoricalDtype):
        return False
    parsed = pd.to_numeric(known, errors="coerce").notna()
    if parsed.all():
        return True
    if parsed.mean() >= 0.5:
        row = known.index[~parsed][0]
        raise DataError(
            f"column {name!r} holds text among numbers, such as {known[row]!r} in row {row}. Expected numbers alone, or categories. Correct it, "
            f"or say that it is a category: X[{name!r}] = X[{name!r}].astype('category')"
        )
    return False
