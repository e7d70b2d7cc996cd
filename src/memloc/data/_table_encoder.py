"""Tables as users have them, with categories, dates and missing values, as numbers; and which column each number is
of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data._column_notices import MOST_CATEGORIES, notices_of
from memloc.data._column_types import is_number
from memloc.data._columns import ColumnReading, column_values, parts_of_dates, read_columns
from memloc.data._table_spec import TableSpec
from memloc.errors import DataError, SpecError

_MISSING = "(missing)"
_WORDS = 16  # columns that free text is hashed into
Columns = TableSpec | Sequence[ColumnReading] | None


def check_names(X: Any) -> None:
    """Raise DataError where two columns have one name, or names are of several kinds."""
    if isinstance(X, pd.DataFrame) and len({isinstance(name, str) for name in X.columns}) > 1:
        odd = next(name for name in X.columns if not isinstance(name, str))
        raise DataError(
            f"the table has columns named by text and one named {odd!r}. Expected names of one kind. Use:"
            " X.columns = X.columns.astype(str)"
        )
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


def refuse_missing(X: Any, *, takes_nan: bool = False) -> None:
    """Raise DataError where numbers are NaN (unless learners take it) or infinite, naming the first column."""
    values = np.asarray(X) if not hasattr(X, "tocsr") else np.empty(0)
    if values.dtype == object:
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            return  # scikit-learn says what it is
    if values.ndim != 2 or values.dtype.kind != "f":
        return
    wrong = np.isinf(values) if takes_nan else ~np.isfinite(values)
    if not wrong.any():
        return
    row, column = np.argwhere(wrong)[0]
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


def as_pandas(X: Any) -> Any:
    """A data frame of another library (polars, Arrow, modin, ...), a structured array, a dictionary of columns or
    a list of rows as a data frame of pandas; masked cells as NaN; anything else as it is.

    >>> import pyarrow
    >>> as_pandas(pyarrow.table({"a": [1, 2]})).a.tolist(), as_pandas([[1.0]])
    ([1, 2], [[1.0]])
    """
    if hasattr(X, "tocsr"):
        return X
    if isinstance(X, np.ma.MaskedArray):
        return np.ma.filled(X.astype(np.float64), np.nan) if X.dtype.kind in "iufb" else X
    if isinstance(X, dict) or (isinstance(X, list) and X and all(isinstance(row, dict) for row in X)):
        return pd.DataFrame(X)
    if isinstance(X, np.ndarray) and X.dtype.names is not None:
        return pd.DataFrame.from_records(X)
    if isinstance(X, (pd.DataFrame, np.ndarray, list, tuple)):
        return X
    import narwhals

    found = narwhals.from_native(X, pass_through=True)
    if isinstance(found, narwhals.LazyFrame):
        raise DataError("the table is a lazy frame, which holds no rows yet. Expected a data frame. Pass X.collect().")
    return found.to_pandas() if isinstance(found, narwhals.DataFrame) else X


def needs_encoding(X: Any, readings: Sequence[ColumnReading] | None = None) -> bool:
    """Whether a table is a DataFrame with anything but complete columns of numbers, all of them valued.

    Args:
        readings: how its columns are read, where that is known.
    """
    if not isinstance(X, pd.DataFrame):
        return False
    readings = read_columns(X) if readings is None else readings
    return any(
        reading.kind not in ("number", "boolean") or "missing" in reading.how for reading in readings
    ) or not all(_is_plain(X.iloc[:, place]) for place in range(X.shape[1]))


def _is_plain(column: pd.Series) -> bool:
    """Whether a column is one that NumPy holds, of finite numbers."""
    return (
        is_number(column)
        and isinstance(column.dtype, np.dtype)
        and column.dtype.kind in "iufb"
        and bool(np.isfinite(column.to_numpy(dtype=np.float64)).all())
    )


class TableEncoder:
    """A DataFrame as numbers: categories one-hot, dates as days, month and weekday, missing numbers the median beside a
    column that says so.

    Args:
        columns: how columns are read: a spec, or readings made before; by their contents without.
    Attributes:
        source: which of the user's columns each number is of, shape (encoded column,). numbers: names of
            the columns of numbers. filled: missing numbers by column. left_out: names of columns that are not valued.
        notices: what is to be said of how columns were read.

    >>> frame = pd.DataFrame({"size": [1.0, None, 3.0], "colour": ["red", "blue", None]})
    >>> encoder = TableEncoder().fit(frame)
    >>> encoder.transform(frame).tolist(), encoder.source.tolist()
    ([[1.0, 0.0, 0.0, 0.0, 1.0], [2.0, 1.0, 0.0, 1.0, 0.0], [3.0, 0.0, 1.0, 0.0, 0.0]], [0, 0, 1, 1, 1])
    """

    source: NDArray[np.int64]
    numbers: list[Any]
    filled: dict[Any, int]
    left_out: list[Any]
    notices: list[str]

    def __init__(self, columns: Columns = None) -> None:
        self._given = columns if columns is None or isinstance(columns, TableSpec) else list(columns)

    def fit(self, X: pd.DataFrame, readings: Sequence[ColumnReading] | None = None) -> TableEncoder:
        """Learn categories and medians.

        Args:
            readings: what `read_columns` says of X, where that was asked already.
        Raises:
            SpecError, DataError: the spec does not fit the table, or no column can be valued.
        """
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

        readings = self._readings(X) if readings is None else readings
        self._columns = [{"name": one.name, "kind": one.kind, "how": dict(one.how)} for one in readings]
        self.left_out = [one.name for one in readings if not one.valued]
        self.notices = notices_of(readings) if not isinstance(self._given, list) else []
        self._given = None
        if len(self.left_out) == len(readings):
            read = ", ".join(f"{one.name}: {one.kind}" for one in readings[:8])
            raise DataError(
                f"the table has {len(readings)} feature(s), none of which can be valued ({read})."
                " Expected numbers, categories or dates. Pass another table, or name columns in a TableSpec"
                " (--categorical, --numeric)."
            )
        categories = {one.name for one in readings if one.kind == "category"}
        self.numbers = [one.name for one in readings if one.valued and one.kind in ("number", "boolean", "duration")]
        self._names = list(X.columns)
        plain, self._places = self._plain(X)
        holed = set(plain.columns[plain.isna().any()])
        complete: list[int] = []
        parts: list[tuple[str, Any, list[int]]] = []
        for place, of in enumerate(self._places):
            name = plain.columns[place]
            if self._names[of] in categories:
                often = {"max_categories": MOST_CATEGORIES + 1, "handle_unknown": "infrequent_if_exist"}
                many = plain[name].nunique() > MOST_CATEGORIES
                usual = often if many else {"handle_unknown": "ignore"}
                parts.append((f"column {place}", OneHotEncoder(sparse_output=False, **usual), [place]))
            elif name in holed:
                parts.append((f"column {place}", SimpleImputer(strategy="median", add_indicator=True), [place]))
            else:
                complete.append(place)
        parts = [("complete", FunctionTransformer(), complete), *parts] if complete else parts
        missing = _missing(plain, self._places)
        self._complete = [name for place, name in enumerate(self._names) if missing.get(place) is False]
        self.filled = {
            self._names[of]: int(plain.iloc[:, place].isna().sum())
            for place, of in enumerate(self._places)
            if plain.columns[place] in holed
        }
        self._transformer = ColumnTransformer(parts, sparse_threshold=0).fit(plain)
        slices = [self._transformer.output_indices_[part] for part, _, _ in parts]
        self.source = np.concatenate(
            [np.resize([self._places[place] for place in places], one.stop - one.start)
             for one, (_, _, places) in zip(slices, parts, strict=True)]
        )  # fmt: skip
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
        plain, places = self._plain(X)
        numbers, complete = set(self.numbers), set(self._complete)
        for place, is_missing in _missing(plain, places).items():
            name = self._names[place]
            if name in complete and is_missing:
                what = ("number", "finite numbers") if name in numbers else ("category", "one in every row")
                raise DataError(
                    f"column {name!r} misses a {what[0]}, and none was missing in the fit. Expected {what[1]}. Drop or"
                    " fill those rows."
                )
        return np.asarray(self._transformer.transform(plain), dtype=np.float64)

    def _readings(self, X: pd.DataFrame) -> list[ColumnReading]:
        if not isinstance(self._given, list):
            return read_columns(X, self._given)
        if [one.name for one in self._given] != list(X.columns):
            raise SpecError(
                "the readings of columns are of another table. Expected one for each of its columns, in order. Pass"
                " columns=None, or a TableSpec."
            )
        return self._given

    def _kinds(self) -> list[dict[str, Any]]:
        """How each column is read; of an encoder that memloc 0.1 stored, as numbers or categories."""
        if hasattr(self, "_columns"):
            return self._columns
        numbers = set(self.numbers)
        return [{"name": name, "kind": "number" if name in numbers else "category", "how": {}} for name in self._names]

    def _plain(self, X: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
        """Numbers as float64 with NaN, everything else as text; and which column each is of."""
        found: dict[str, Any] = {}  # by names of our own: scikit-learn takes whole numbers for places
        places = []
        for place, one in enumerate(self._kinds()):
            reading = ColumnReading(one["name"], one["kind"], "", one["how"])
            if not reading.valued:
                continue
            values = column_values(X.iloc[:, place], reading)
            if one["kind"] == "date":
                columns = {f"column {place} {part}": numbers for part, numbers in parts_of_dates(values)}
            elif one["kind"] == "text":
                columns = {f"column {place} {word}": count for word, count in enumerate(_hashed(values))}
            elif one["kind"] == "category":
                columns = {f"column {place}": values.fillna(_MISSING).to_numpy(dtype=object)}
            else:
                columns = {f"column {place}": values.to_numpy(dtype=np.float64)}
            found |= columns
            places += [place] * len(columns)
        return pd.DataFrame(found), places


def _missing(plain: pd.DataFrame, places: list[int]) -> dict[int, bool]:
    """Whether a cell of each column is missing, by the column's place."""
    found: dict[int, bool] = {}
    for name, place in zip(plain.columns, places, strict=True):
        column = plain[name]
        gone = column.isna() if pd.api.types.is_numeric_dtype(column) else column == _MISSING
        found[place] = found.get(place, False) or bool(gone.any())
    return found


def _hashed(texts: pd.Series) -> NDArray[np.float64]:
    """Counts of the words of texts in a few columns that a hash chooses, shape (column, row)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(n_features=_WORDS, alternate_sign=False, norm=None)
    return np.asarray(hashing.transform(texts.fillna("").astype(str)).toarray().T, dtype=np.float64)
