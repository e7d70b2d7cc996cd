"""Open labelled tables by what a user types, their columns read and rows without a target left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data._cells import BLANKS, as_dates, as_numbers
from memloc.data._column_flags import raise_problems, resolved, unmatched
from memloc.data._column_notices import notices_of
from memloc.data._column_types import different_texts, finite, is_number, typed_date
from memloc.data._columns import ASKED, ColumnReading, column_values, read_columns, writes_decimal_commas
from memloc.data._second_headers import second_headers
from memloc.data._table_files import RawTable, read_raw
from memloc.data._table_spec import TableSpec
from memloc.errors import DataError, SpecError, nearest

_TWO = 2
_MOST = 0.9  # of the different texts of a target that are numbers, beyond which it is one of numbers
_CLASSES = frozenset({"none", "-", "--", "---", ".", "..", "unknown", "nil", "missing"})  # that may well be meant
_DATES = "the target {} holds dates. Expected classes, or numbers. Turn it into some, such as days."
_FEW, _MANY = 20, 100  # different whole numbers: up to so many are classes, beyond so many amounts
_SHARE = 5  # rows a class, on average, below which whole numbers are amounts


@dataclass(frozen=True)
class Table:
    """A labelled table, read.

    Attributes:
        X: the columns that are valued, as numbers, dates or text; its index is the row in the file, from 0.
        y: the target: classes, or numbers. raw: every column but the target as the file has it, of the same rows.
        columns: how each column was read. notices: what is to be said of them. ids: what names the rows, if anything.
        left_out: rows without a target.
    """

    X: pd.DataFrame = field(repr=False)
    y: pd.Series = field(repr=False)
    raw: pd.DataFrame = field(repr=False)
    columns: tuple[ColumnReading, ...]
    notices: tuple[str, ...]
    left_out: int = 0

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the rows in the file, from 0."""
        return self.X.index.to_numpy(dtype=np.int64)

    @property
    def valued(self) -> tuple[ColumnReading, ...]:
        """How the columns of X were read."""
        return tuple(column for column in self.columns if column.valued)

    @property
    def ids(self) -> pd.Series | None:
        """The first column that was named as an id, else of ids whose cells all differ, as text."""
        for column in self.columns:
            if column.kind == "id" and column.text == ASKED:
                return self.raw[column.name].astype(object).where(self.raw[column.name].notna(), "").map(str)
        for column in self.columns:
            if column.kind == "id":
                found = self.raw[column.name]
                if found.notna().all() and found.is_unique and not str(column.name).startswith("Unnamed: "):
                    return found.map(str)
        return None


def open_table(path: str | Path, target: str, spec: TableSpec | None = None) -> tuple[pd.DataFrame, pd.Series]:
    """The columns of a table that can be valued, and its target; `read_table_file` says how each was read.

    Raises:
        DataNotFoundError: no such file. DataError: no table, no such column, nothing to value. SpecError: the spec does
            not fit the table.
    """
    table = read_table_file(path, target, spec)
    return table.X, table.y


def read_table_file(path: str | Path, target: str, spec: TableSpec | None = None) -> Table:
    """A labelled table from a file, its columns read: separated text, JSON lines, Excel, parquet or Arrow, also packed.

    Args:
        target: the column to predict; rows without it are left out. spec: how columns are read.
    Raises:
        As `open_table`.
    """
    return read_table(read_raw(path, target), target, spec, name=Path(path).name)


def read_table(
    given: RawTable | pd.DataFrame, target: str, spec: TableSpec | None = None, *, name: str = "the table"
) -> Table:
    """A labelled table from a data frame, its columns read.

    >>> table = read_table(pd.DataFrame({"age": ["31", "?", "40"], "kind": ["a", "b", None]}), "kind")
    >>> table.X.age.tolist(), table.y.tolist(), table.left_out
    ([31.0, nan], ['a', 'b'], 1)
    """
    spec = spec or TableSpec()
    raw = given if isinstance(given, RawTable) else RawTable(given)
    frame = raw.frame
    names = {str(column): column for column in frame.columns}
    heads = second_headers(frame)
    frame = frame.iloc[heads:]
    others = frame.drop(columns=names[target]) if target in names else frame
    keeps = target in spec.categorical
    spec = replace(spec, categorical=tuple(one for one in spec.categorical if one != target))
    _, problems = resolved(others, spec, target if target in names else None)
    if problems and target in names:
        raise_problems(problems, others)
    if target not in names:
        if problems:
            raise_problems([f"--target {target}: there is no such column. {nearest(target, names)}", *problems], frame)
        raise DataError(
            f"{name} has no column {target!r}. {nearest(target, names)} Expected the column to predict. Pass --target"
            " NAME."
        )
    y, said = read_target(
        frame[names[target]].reset_index(drop=True), target, spec, keeps=keeps, comma=writes_decimal_commas(others)
    )
    kept = np.flatnonzero(y.notna().to_numpy())
    left_out = len(y) - len(kept)
    if not len(kept):
        raise DataError(f"the target {target!r} is missing in every row. Expected a label. Pass another --target.")
    cells = others.reset_index(drop=True).iloc[kept]
    cells.index = cells.index + heads  # as in the file
    if not cells.shape[1]:
        raise DataError(f"{name} has no column beside {target!r}. Expected at least one to value. Pass another table.")
    columns = read_columns(cells, spec)
    typed = {column.name: column_values(cells[column.name], column) for column in columns if column.valued}
    if not typed:
        read = "; ".join(f"{column.name}: {column.kind}" for column in columns[:8])
        raise DataError(
            f"{name} has no column to value beside {target!r} ({read}). Expected numbers, categories or dates. Name"
            " columns with --categorical or --numeric."
        )
    missing = [f"{left_out} of {len(y)} rows have no target and are left out."] if left_out else []
    y = y.iloc[kept]
    y.index = cells.index
    if heads:
        missing.append(f"{heads} row{'' if heads == 1 else 's'} below the header, which are another one, are left out.")
    if is_number(y) and bool((y % 1 == 0).all()) and float(y.abs().max()) < 2**53:
        y = y.astype(np.int64)
        if y.nunique() > _FEW:
            said.append(
                f"the target has {y.nunique()} different whole numbers, and is predicted as a number where --task"
                " does not say otherwise."
            )
    idle = unmatched(frame, spec)
    if idle:
        said.append(f"no cell holds {', '.join(map(repr, idle))}, given as --na.")
    notices = (*raw.notices, *missing, *said, *notices_of(columns))
    return Table(pd.DataFrame(typed, index=cells.index), y, cells, tuple(columns), notices, left_out)


def read_target(
    column: pd.Series, name: str, spec: TableSpec | None = None, *, keeps: bool = False, comma: bool = False
) -> tuple[pd.Series, list[str]]:
    """A target as numbers or as names of classes, missing where it is; and what to say of it.

    Args:
        keeps: whether names that may stand for missing ones are classes. comma: whether the file writes decimal commas.

    >>> read_target(pd.Series(["1.0", "", "2"]), "kind")[0].tolist()
    [1.0, nan, 2.0]
    """
    missing = spec.missing if spec else frozenset()
    if typed_date(column) is not None:
        raise DataError(_DATES.format(repr(name)))
    if pd.api.types.is_bool_dtype(column) and not column.isna().any():
        return column, []
    if is_number(column) and not pd.api.types.is_bool_dtype(column):
        found = finite(column, missing)
        infinite = int((column.notna() & found.isna()).sum())
        return found, [f"the target is infinite, or stands for none, in {infinite} rows."] if infinite else []
    texts, codes = different_texts(column, missing)
    counts = np.bincount(codes, minlength=len(texts) + 1)[: len(texts)]
    blank = np.array([text.lower() in BLANKS for text in texts], dtype=bool)
    held = [text for text, is_blank in zip(texts, blank, strict=True) if not is_blank]
    if not held:
        return pd.Series(np.full(len(column), np.nan), index=column.index, name=name), []
    parsed = as_numbers(held, comma=comma)
    numbers = np.isfinite(parsed.values)
    if parsed.units and not keeps and numbers.mean() >= _MOST:
        raise DataError(
            f"the target {name!r} holds several units ({' and '.join(parsed.units)}), whose numbers cannot be compared."
            f" Expected one. Bring them to one form, or pass --categorical {name} if they are names of classes."
        )
    coded = any(re.fullmatch(r"0\d+", text) for text in held)
    if numbers.all() and not coded and not keeps:
        values = np.full(len(texts) + 1, np.nan)
        values[np.flatnonzero(~blank)] = parsed.values
        words = [f"the target is read as numbers ({', '.join(parsed.words)})."] if parsed.words else []
        return pd.Series(values[codes], index=column.index, name=name), words
    if not np.isnat(as_dates(held).values).any():
        raise DataError(_DATES.format(repr(name)))
    said = []
    if coded and numbers.all():
        said.append("the target's digits begin with 0, as in 01, and so are names of classes.")
    if numbers.mean() >= 1 / 2 and not numbers.all():
        odd = next(text for text, is_number_ in zip(held, numbers, strict=True) if not is_number_)
        said.append(f"the target holds numbers and text such as {odd!r}, and so names of classes.")
    gone = np.array([text.lower() in BLANKS - _CLASSES for text in texts], dtype=bool)
    if keeps or (~gone).sum() < _TWO or counts[gone].sum() > counts[~gone].sum():
        gone[:] = False
    if gone.any():
        listed = ", ".join(f"{texts[place]!r} ({counts[place]})" for place in np.flatnonzero(gone))
        said.append(f"taken for a missing target: {listed}. If it is a class: --categorical {name}")
    said += [
        f"the target's class {texts[place]!r} ({counts[place]} rows) may stand for a missing one: --na {texts[place]!r}"
        " leaves it out."
        for place in np.flatnonzero(blank & ~gone)
    ]
    different = int((~gone).sum())
    if different > max(_FEW, int(counts[~gone].sum()) // _TWO):
        others = [text for text, is_number_ in zip(held, numbers, strict=True) if not is_number_]
        cure = "Pass another --target, or correct its cells."
        if numbers.mean() >= _MOST:
            listed = ", ".join(map(repr, others[:3]))
            cure = f"All but {listed} are numbers: if these are missing ones, pass --na {others[0]!r}."
        raise DataError(
            f"the target {name!r} holds {different} different texts in {int(counts[~gone].sum())} rows, such as"
            f" {(others or held)[0]!r}. Expected classes, or numbers. {cure}"
        )
    if different > _FEW and different * _SHARE > counts[~gone].sum():
        said.append(f"the target has {different} classes in {int(counts[~gone].sum())} rows: few rows a class.")
    plain = Counter(text.casefold() for place, text in enumerate(texts) if not gone[place])
    twice = [text for text in texts if plain[text.casefold()] > 1]
    if twice:
        said.append(f"classes of the target that differ in case alone: {', '.join(map(repr, twice[:6]))}.")
    names = np.array([*(None if gone[place] else text for place, text in enumerate(texts)), None], dtype=object)
    return pd.Series(names[codes], index=column.index, name=name), said


def is_regression(y: pd.Series | NDArray[Any], task: str) -> bool:
    """Whether a target is to be predicted as a number: as `task` says, or by its values.

    Raises:
        SpecError: it holds whole numbers of which it cannot be told.
    """
    values = pd.Series(y)
    if task != "auto":
        return task == "regression"
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    whole = number and bool((values % 1 == 0).all())
    different = values.nunique() if whole else 0
    if different > _MANY or (different > _FEW and different * _SHARE > len(values)):
        return True
    if different > _FEW:
        raise SpecError(
            f"the target has {different} different whole numbers in {len(values)} rows. Expected classes, or"
            " numbers to predict. Say which: --task regression or --task classification"
        )
    return bool(number and not whole)


def table_fingerprint(X: pd.DataFrame, y: Any) -> str:
    """A hash of a table's contents and target."""
    content = pd.util.hash_pandas_object(X.assign(**{"\0target": np.asarray(y)}), index=False).to_numpy()
    return hashlib.blake2b(content.tobytes() + repr(list(X.columns)).encode(), digest_size=8).hexdigest()
