"""Columns by their types: numbers, dates and durations as NumPy's, and any cell as text."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def is_number(column: pd.Series) -> bool:
    """Whether a column's type is one of real numbers, or its cells are Python's decimals and numbers."""
    kind = column.dtype
    if isinstance(kind, pd.ArrowDtype) and str(kind.pyarrow_dtype).startswith("decimal"):
        return True
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return not pd.api.types.is_complex_dtype(column)
    if kind != np.dtype(object):
        return False
    known = column.dropna()
    return len(known) > 0 and all(
        isinstance(one, (int, float, decimal.Decimal, np.number)) and not isinstance(one, bool) for one in known
    )


def finite(column: pd.Series, missing: frozenset[str]) -> pd.Series:
    """A column of numbers as float64; infinite ones, and those that stand for missing ones, are NaN."""
    objects = column.astype(object)
    values = objects.where(objects.notna(), np.nan).astype(np.float64)
    values = values.where(np.isfinite(values), np.nan)
    if missing:
        away = pd.to_numeric(pd.Series(sorted(missing), dtype=object), errors="coerce").dropna()
        values = values.where(~values.isin(away.tolist()), np.nan)
    return values


def typed_date(column: pd.Series) -> pd.Series | None:
    """A column of a type of dates as datetime64 without a zone; None of any other."""
    kind = column.dtype
    if isinstance(kind, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    elif isinstance(kind, pd.ArrowDtype) and str(kind.pyarrow_dtype).startswith(("timestamp", "date")):
        column = pd.to_datetime(column.astype(object), utc=True)
    elif kind == np.dtype(object):
        known = column.dropna()
        if not len(known) or not all(isinstance(one, (datetime.date, np.datetime64)) for one in known):
            return None
        column = pd.to_datetime(column, utc=True, errors="coerce")
    if not pd.api.types.is_datetime64_any_dtype(column):
        return None
    return column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column


def typed_duration(column: pd.Series) -> pd.Series | None:
    """A column of a type of durations as seconds, of times of day as hours; None of any other."""
    kind = column.dtype
    objects = column.astype(object) if isinstance(kind, pd.ArrowDtype) or kind == np.dtype(object) else None
    if isinstance(kind, pd.ArrowDtype) and str(kind.pyarrow_dtype).startswith("duration"):
        column = pd.to_timedelta(objects)
    elif objects is not None:
        known = objects.dropna()
        if len(known) and all(isinstance(one, datetime.time) for one in known):
            hours = objects.map(
                lambda one: one.hour + one.minute / 60 + one.second / 3600 + one.microsecond / 3.6e9, na_action="ignore"
            )
            return hours.astype(np.float64)
        if not len(known) or not all(isinstance(one, (datetime.timedelta, np.timedelta64)) for one in known):
            return None
        column = pd.to_timedelta(objects)
    return column.dt.total_seconds() if pd.api.types.is_timedelta64_dtype(column) else None


def different_texts(column: pd.Series, missing: frozenset[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts of a column, without spaces around them, and which of them each cell holds; the number of
    texts where it is missing."""
    objects = column.astype(object)
    try:
        codes, different = pd.factorize(objects)
    except TypeError:  # of cells that are lists or the like
        codes, different = pd.factorize(objects.map(str, na_action="ignore"))
    texts = [_as_text(one).strip() for one in different]
    away = {plain_number(text) for text in missing} - {None}
    number: dict[str, int] = {}
    place = np.empty(len(texts) + 1, dtype=np.int64)
    for code, text in enumerate(texts):
        gone = not text or text in missing or (bool(away) and plain_number(text) in away)
        place[code] = -1 if gone else number.setdefault(text, len(number))
    place[-1] = -1  # of cells that are missing, whose code is -1
    found = place[codes]
    return list(number), np.where(found < 0, len(number), found)


def plain_number(text: str) -> float | None:
    """A plain number; None of other text."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if np.isfinite(found) else None


def _as_text(one: Any) -> str:
    """A cell as text; whole numbers alike whether a blank beside them made them floats or not."""
    if isinstance(one, (float, np.floating)):
        number = float(one)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else str(number)
    return str(one)
