"""What a table's columns hold: numbers, categories, dates, ids or free text; and each as what learners take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data._cells import (
    BLANKS,
    are_codes,
    are_compact_dates,
    as_dates,
    as_durations,
    as_numbers,
    has_decimal_commas,
    word_count,
)
from memloc.data._column_flags import raise_problems, resolved
from memloc.data._column_notices import MOST_CATEGORIES
from memloc.data._column_types import different_texts, finite, is_number, typed_date, typed_duration
from memloc.data._table_spec import TableSpec
from memloc.errors import SpecError

ASKED = "names rows, as asked"
LEFT_OUT = ("id", "text", "constant", "empty", "dropped")
"""Kinds of columns that are not valued."""
_MOST = 0.9  # of the cells that must be numbers, or dates, for the others to be missing
_UNIQUE = 0.95  # of the cells of an id that differ
_NAMES_ROWS = 0.9  # of the cells with digits that differ, above which they name rows
_SEVERAL = 0.5  # of the cells that differ, above which text names rows rather than kinds
_TALE = 2.5  # words, on average, from which names are free text
_EXACT = 2**53  # whole numbers beyond which floats are not exact
_FEW_TEXTS = 5  # different sentences, up to which they are kinds
_SURE = 20  # rows from which numbers that count on are an id
_BOOLEANS = ({"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"}, {"on", "off"})
_TRUTH = dict.fromkeys(("yes", "y", "true", "t", "on", "1"), 1.0) | dict.fromkeys(
    ("no", "n", "false", "f", "off", "0"), 0.0
)
_ID_NAME = re.compile(
    r"unnamed: ?\d+|index|idx|id|uuid|guid|key|row[_ .-]?(?:id|names?|numbers?|num|nr|no)?|rownames?"
    r"|.*[_ .-](?:id|uuid|guid|idx|index)|(?-i:.*[a-z](?:Id|ID))|id[_ .-].*",
    re.IGNORECASE,
)
_TIME_NAME = re.compile(r"(?:.*[_ ])?(?:years?|yr|month|week|day|hour|time|age)", re.IGNORECASE)
_EXAMPLES = 3
_PROSE = 4.0  # words, on average, from which texts that mostly differ are free text however few they are


@dataclass(frozen=True)
class ColumnReading:
    """How a column is read.

    Attributes:
        name: of the column. kind: number, boolean, category, date, duration, id, text, constant, empty or dropped; the
            last five are not valued. text: what was made of it, in words. how: what reading another table alike takes.
        notice: what is to be said of it, by topic.
    """

    name: Any
    kind: str
    text: str
    how: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notice: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def valued(self) -> bool:
        """Whether its cells are given to learners."""
        return self.kind not in LEFT_OUT or bool(self.how.get("hash"))


def read_columns(table: pd.DataFrame, spec: TableSpec | None = None) -> list[ColumnReading]:
    """How each column of a table is to be read: by its contents, unless the spec says otherwise.

    Raises:
        SpecError: the spec names columns that are not there, or a column twice; all of them in one message.

    >>> table = pd.DataFrame({"no": ["A-1", "A-2", "A-3"] * 1, "price": ["$1,200", "$3", "n/a"], "city": ["Bonn"] * 3})
    >>> [(each.name, each.kind) for each in read_columns(table)]
    [('no', 'category'), ('price', 'number'), ('city', 'constant')]
    """
    spec = spec or TableSpec()
    wanted, problems = resolved(table, spec)
    if problems:
        raise_problems(problems, table)
    comma = writes_decimal_commas(table)
    missing = spec.missing
    found = []
    for place, name in enumerate(table.columns):
        forced = wanted.get(name)
        if forced == "dropped":
            found.append(ColumnReading(name, "dropped", "left out, as asked"))
        elif forced == "id":
            found.append(ColumnReading(name, "id", ASKED))
        else:
            found.append(_read(table.iloc[:, place], name, forced, missing, comma, spec.text))
    return found


def column_values(column: pd.Series, reading: ColumnReading) -> pd.Series:
    """A column as it is read: float64 for numbers, booleans and durations, datetime64 for dates, text for the others.

    >>> column = pd.Series(["1,5", "x", "2"])
    >>> column_values(column, ColumnReading("a", "number", "", {"decimal": True})).tolist()
    [1.5, nan, 2.0]
    """
    how, kind = reading.how, reading.kind
    missing = frozenset(how.get("missing", ()))
    if kind in ("number", "boolean", "duration") and is_number(column):
        return finite(column, missing)
    if kind == "date" and not how.get("compact"):
        given = typed_date(column)
        if given is not None:
            return given
    if kind == "duration":
        given = typed_duration(column)
        if given is not None:
            return given
    texts, codes = different_texts(column, missing)
    return pd.Series(_parsed(texts, kind, how)[codes], index=column.index, name=column.name)


def _parsed(texts: list[str], kind: str, how: Mapping[str, Any]) -> NDArray[Any]:
    """Different texts as values of a kind; the last is of missing cells."""
    if kind in ("number", "date", "duration"):
        texts = ["" if text.lower() in BLANKS else text.strip() for text in texts]
        if kind == "number":
            values = as_numbers(texts, decimal=how.get("decimal"), unit=how.get("unit")).values
            return np.append(np.where(np.isinf(values), np.nan, values), np.nan)
        if kind == "duration":
            return np.append(as_durations(texts, hours=how.get("hours")).values, np.nan)
        if how.get("compact"):
            texts = [f"{text[:4]}-{text[4:6]}-{text[6:]}" for text in texts]
        return np.append(as_dates(texts, days=how.get("days")).values, np.datetime64("NaT"))
    if kind == "boolean":
        return np.array([*(_TRUTH.get(text.strip().lower(), np.nan) for text in texts), np.nan])
    return np.array([*texts, np.nan], dtype=object)


def writes_decimal_commas(table: pd.DataFrame) -> bool:
    """Whether the numbers of a table's columns of text are written with decimal commas."""
    shown = set()
    for place in range(table.shape[1]):
        column = table.iloc[:, place]
        if not is_number(column) and not isinstance(column.dtype, pd.CategoricalDtype):
            some = [text.strip() for text in column.dropna().head(200).tolist() if isinstance(text, str)]
            shown.add(has_decimal_commas(some))
    return True in shown and False not in shown


def _read(
    column: pd.Series, name: Any, forced: str | None, missing: frozenset[str], comma: bool, text: str
) -> ColumnReading:
    """How one column is read."""
    base: dict[str, Any] = {"missing": sorted(missing)} if missing else {}
    typed = None if forced == "category" else _read_typed(column, name, forced, missing, base)
    if typed is not None:
        return typed
    texts, codes = different_texts(column, missing)
    counts = np.bincount(codes, minlength=len(texts) + 1)[: len(texts)]
    if not counts.sum() or (forced is None and all(each.strip().lower() in BLANKS for each in texts)):
        return ColumnReading(name, "empty", "no values; left out", base, {"constant": ""})
    if forced == "category":
        return _category(name, texts, counts, base)
    stripped = [each.strip() for each in texts]
    if forced is None:
        if any({each.lower() for each in stripped} == pair for pair in _BOOLEANS):
            return ColumnReading(name, "boolean", f"{' or '.join(sorted(stripped))}: 0 or 1", base)
        if len(texts) == 1 and counts[0] == len(column):
            return ColumnReading(name, "constant", "one value; left out", base, {"constant": ""})
    number = _read_numbers(name, stripped, counts, forced, comma, base)
    if number is not None and number.kind == "number":
        return _perhaps_id(number, stripped, column_values(column, number), forced)
    if number is not None and number.kind == "date":
        return number
    when = (
        None
        if number is not None and not {"mixed", "units"} & set(number.notice)
        else _read_times(name, stripped, counts, comma, base)
    )
    if when is not None and when.kind in ("date", "duration"):
        return when
    doubt = {**(number.notice if number else {}), **(when.notice if when else {})}
    return _read_text(name, texts, counts, base, doubt, text)


def _read_typed(
    column: pd.Series, name: Any, forced: str | None, missing: frozenset[str], base: dict[str, Any]
) -> ColumnReading | None:
    """How a column is read whose type says what it is; None of text."""
    known = column.dropna()
    if not len(known):
        return ColumnReading(name, "empty", "no values; left out", base, {"constant": ""})
    if isinstance(column.dtype, pd.CategoricalDtype) and forced is None:
        texts, codes = different_texts(column, missing)
        counts = np.bincount(codes, minlength=len(texts) + 1)[: len(texts)]
        if len(texts) == 1 and counts[0] == len(column):
            return ColumnReading(name, "constant", "one value; left out", base, {"constant": ""})
        return _category(name, texts, counts, base)
    if pd.api.types.is_bool_dtype(column) or (
        column.dtype == np.dtype(object) and all(isinstance(one, bool) for one in known)
    ):
        if known.nunique() == 1 and len(known) == len(column):
            return ColumnReading(name, "constant", "one value; left out", base, {"constant": ""})
        return ColumnReading(name, "boolean", "true or false: 1 or 0", base)
    if is_number(column):
        if forced is None and pd.api.types.is_integer_dtype(column) and int(known.abs().max()) >= _EXACT:
            texts, codes = different_texts(column, missing)
            counts = np.bincount(codes, minlength=len(texts) + 1)[: len(texts)]
            return _read_text(name, texts, counts, base, {}, "leave-out")
        values = finite(column, missing)
        infinite = int(np.isinf(known.to_numpy(dtype=np.float64)).sum())
        if values.notna().sum() == 0 or (values.nunique() == 1 and values.notna().all() and not infinite):
            return ColumnReading(name, "constant", "one value; left out", base, {"constant": ""})
        reading = ColumnReading(
            name,
            "number",
            "numbers",
            base,
            {"odd": f"{infinite} infinite"} if infinite else {},
        )
        whole = bool((values.dropna() % 1 == 0).all()) and not pd.api.types.is_float_dtype(column)
        if not whole or forced is not None:
            return reading
        texts = [str(int(one)) for one in values.dropna().unique()]
        return _perhaps_id(reading, texts, values, forced)
    if typed_date(column) is not None:
        if known.nunique() == 1 and len(known) == len(column):
            return ColumnReading(name, "constant", "one value; left out", base, {"constant": ""})
        return ColumnReading(name, "date", "days, month, weekday", base, {"dates": ""})
    if typed_duration(column) is not None:
        return ColumnReading(name, "duration", "seconds", base, {"durations": "seconds"})
    if pd.api.types.is_complex_dtype(column) or any(not pd.api.types.is_scalar(one) for one in known.head(1000)):
        odd = next((one for one in known if not pd.api.types.is_scalar(one)), known.iloc[0])
        what = "lists" if isinstance(odd, (list, tuple, np.ndarray, set)) else f"{type(odd).__name__}"
        return ColumnReading(name, "text", f"{what} in cells; left out", base, {"nested": what})
    kinds = {isinstance(one, str) for one in known} if column.dtype == np.dtype(object) else {True}
    return None if len(kinds) < 2 else _of_several_types(column, name, missing, base)


def _of_several_types(
    column: pd.Series, name: Any, missing: frozenset[str], base: dict[str, Any]
) -> ColumnReading | None:
    """A column of text beside other values: as names, which is said, unless its texts are numbers."""
    texts, codes = different_texts(column, missing)
    if np.isfinite(as_numbers([text for text in texts if text.lower() not in BLANKS]).values).all():
        return None
    counts = np.bincount(codes, minlength=len(texts) + 1)[: len(texts)]
    return _read_text(name, texts, counts, base, {"mixed": "values of several types"}, "leave-out")


def _read_numbers(
    name: Any, texts: list[str], counts: NDArray[np.int64], forced: str | None, comma: bool, base: dict[str, Any]
) -> ColumnReading | None:
    """A column of text as numbers, or compact dates; of kind "" where it could be and is not, None where it is none."""
    blank = np.array([text.lower() in BLANKS for text in texts])
    held = [text for text, is_blank in zip(texts, blank, strict=True) if not is_blank]
    weight = counts[~blank]
    if not held:
        return None
    if forced is None and are_codes(held) and all(re.fullmatch("[0-9a-fA-F]+", text) for text in held):
        return ColumnReading(name, "", "", base, {"codes": ""})
    if forced is None and are_compact_dates(held):
        return ColumnReading(name, "date", "days, month, weekday", {**base, "compact": True}, {"dates": "YYYYMMDD"})
    parsed = as_numbers(held, comma=comma)
    good = np.isfinite(parsed.values)
    if parsed.units and forced is None and weight[good].sum() >= _MOST * weight.sum():
        return ColumnReading(name, "", "", base, {"units": " and ".join(parsed.units[:_EXAMPLES])})
    if forced is not None and not good.any():
        raise SpecError(
            f"--numeric {name}: no cell is a number, such as {held[0]!r}. Expected a column of numbers. Leave it out."
        )
    if forced is None and weight[good].sum() < _MOST * weight.sum():
        mixed = weight[good].sum() >= weight.sum() / 2 and (weight[good].sum() < weight.sum())
        return ColumnReading(name, "", "", base, {"mixed": _odd(held, weight, good)}) if mixed else None
    notice = {}
    if parsed.words:
        notice["forms"] = ", ".join(parsed.words)
    if not good.all():
        notice["odd"] = _odd(held, weight, good)
    return ColumnReading(name, "number", ", ".join(["numbers", *parsed.words]), {**base, **parsed.decided}, notice)


def _odd(texts: list[str], counts: NDArray[Any], good: NDArray[np.bool_]) -> str:
    """How many cells are not of their column's kind, with examples."""
    odd = [repr(text) for text, is_good in zip(texts, good, strict=True) if not is_good]
    return f"{int(counts[~good].sum())} such as {', '.join(odd[:_EXAMPLES])}"


def _read_times(
    name: Any, texts: list[str], counts: NDArray[np.int64], comma: bool, base: dict[str, Any]
) -> ColumnReading | None:
    """A column of text as times or dates."""
    blank = np.array([text.lower() in BLANKS for text in texts])
    held = [text for text, is_blank in zip(texts, blank, strict=True) if not is_blank]
    weight = counts[~blank]
    few = held[:_SURE]
    if np.mean([bool(re.search(r"\d", text)) for text in few]) < 0.5:
        return None
    durations = as_durations(held)
    good = np.isfinite(durations.values)
    if weight[good].sum() >= _MOST * weight.sum():
        notice = {"durations": durations.words[0]} | ({} if good.all() else {"odd": _odd(held, weight, good)})
        return ColumnReading(name, "duration", durations.words[0], {**base, **durations.decided}, notice)
    if np.isnat(as_dates(few, day_first=comma).values).all() and not as_dates(few).units:
        return None
    dates = as_dates(held, day_first=comma)
    if dates.units:
        return ColumnReading(name, "", "", base, {"units": " and ".join(dates.units)})
    good = ~np.isnat(dates.values)
    if weight[good].sum() < _MOST * weight.sum():
        return None
    notice = {"dates": ", ".join(dates.words)} | ({} if good.all() else {"odd": _odd(held, weight, good)})
    return ColumnReading(name, "date", "days, month, weekday", {**base, **dates.decided}, notice)


def _perhaps_id(reading: ColumnReading, texts: Sequence[str], values: pd.Series, forced: str | None) -> ColumnReading:
    """A reading of whole numbers; as an id where they count the rows, or differ in all rows and are called so."""
    rows = len(values)
    if forced is not None or rows < 2 or not all(re.fullmatch(r"[-+]?\d+", text) for text in texts[:1000]):
        return reading
    known = values.dropna().to_numpy()
    shuffled = len(known) == rows >= _SURE and np.array_equal(
        np.sort(known), np.arange(known.min(), known.min() + rows)
    )
    called = bool(_ID_NAME.fullmatch(str(reading.name)))
    if _TIME_NAME.fullmatch(str(reading.name)) and not called:
        return reading  # years in order are a column, too
    if len(texts) < _UNIQUE * max(len(known), 1):
        return reading
    counting = len(known) == rows and rows >= _SURE and bool((np.diff(known) == 1).all())
    if not called and not counting:
        return replace(reading, notice={**reading.notice, "counts": ""}) if shuffled else reading
    words = "counts the rows" if counting else "differs in every row"
    return ColumnReading(reading.name, "id", f"{words}; left out", reading.how, {"ids": ""})


def _read_text(
    name: Any, texts: list[str], counts: NDArray[np.int64], base: dict[str, Any], doubt: Mapping[str, str], text: str
) -> ColumnReading:
    """A column of text as categories, an id, or free text."""
    known, different = int(counts.sum()), len(texts)
    share = different / known
    many = different > max(MOST_CATEGORIES, known // 10)
    called = bool(_ID_NAME.fullmatch(str(name))) and share >= _UNIQUE and different > 1 and known >= _SURE
    words = word_count(texts[:1000])
    prose = words >= _PROSE and share >= _SEVERAL and different > _FEW_TEXTS
    if not called and not prose and (not many or share < _SEVERAL):
        return _category(name, texts, counts, base, doubt)
    digits = float(np.mean([bool(re.search(r"\d", each)) for each in texts[:1000]]))
    if words < _TALE and not set(doubt) - {"codes"} and (called or (digits >= _SEVERAL and share >= _NAMES_ROWS)):
        return ColumnReading(name, "id", f"{different} names in {known} rows; left out", base, {"ids": ""})
    if text == "category":
        return _category(name, texts, counts, base, doubt)
    if text == "hash":
        return ColumnReading(name, "text", "counts of its words", {**base, "hash": True}, {**doubt, "hashed": ""})
    return ColumnReading(name, "text", "free text; left out", base, {**doubt, "text": ""})


def _category(
    name: Any,
    texts: Sequence[str],
    counts: NDArray[np.int64],
    base: dict[str, Any],
    doubt: Mapping[str, str] | None = None,
) -> ColumnReading:
    notice = dict(doubt or {})
    if len(texts) > MOST_CATEGORIES:
        notice["rare"] = f"{len(texts)}"
    blanks = [place for place, text in enumerate(texts) if text.lower() in BLANKS and text.lower() != "none"]
    if blanks:
        notice["blanks"] = ", ".join(f"{texts[place]!r} {int(counts[place])} times" for place in blanks[:_EXAMPLES])
    return ColumnReading(name, "category", f"{len(texts)} categories", base, notice)


def parts_of_dates(dates: pd.Series) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """A column of dates as numbers: days since 1970, month, weekday (0 is Monday), hour of the day; missing where the
    date is.

    >>> {name: part.tolist() for name, part in parts_of_dates(pd.Series(pd.to_datetime(["2020-01-31 12:00"])))}
    {'days': [18292.5], 'month': [1.0], 'weekday': [4.0], 'hour': [12.0]}
    """
    days = (dates - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    yield "days", days.to_numpy(dtype=np.float64)
    yield "month", dates.dt.month.to_numpy(dtype=np.float64, na_value=np.nan)
    yield "weekday", np.where(dates.isna(), np.nan, (np.floor(days) + 3) % 7)
    yield "hour", 24 * (days - np.floor(days)).to_numpy(dtype=np.float64)
