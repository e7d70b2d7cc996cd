"""Rows below a table's header that are another one: the names again, questions in words, or ids of an import."""

from __future__ import annotations

import pandas as pd

from memloc.data._cells import BLANKS, as_numbers

_MOST = 3  # such rows
_NUMBERS = 0.9  # of the cells below them that are numbers, in columns that tell them
_TELLING = 2  # columns, at least
_LOOKED = 200  # rows below that are looked at


def second_headers(frame: pd.DataFrame) -> int:
    """How many rows at the top of a table of text are another header.

    Such a row repeats the names in half of the columns, or holds objects of an import, or words in each of two or more
    columns that hold numbers below.

    >>> second_headers(pd.DataFrame({"q1": ["How old?", "31", "40"], "q2": ["How tall?", "180", "175"]}))
    1
    """
    found = 0
    while found < min(_MOST, len(frame) - 2) and _is_header(frame.iloc[found], frame.iloc[found + 1 :]):
        found += 1
    if found:
        return found
    # questions in words, and below them the ids of an import
    return 2 if len(frame) > 3 and _is_header(frame.iloc[1], frame.iloc[2:], named=True) else 0


def _is_header(row: pd.Series, below: pd.DataFrame, *, named: bool = False) -> bool:
    cells = [one.strip() for one in row.tolist() if isinstance(one, str) and one.strip()]
    if len(cells) < _TELLING:
        return False
    names = [str(name) for name in row.index]
    again = sum(str(one).strip() == name for one, name in zip(row.tolist(), names, strict=True))
    imported = sum(cell.startswith('{"ImportId"') for cell in cells)
    if max(again, imported) >= max(len(names) / 2, _TELLING):
        return True
    if named or any(cell.lower() in BLANKS or not pd.isna(as_numbers([cell]).values[0]) for cell in cells):
        return False
    telling = 0
    for place, one in enumerate(row.tolist()):
        part = below.iloc[:_LOOKED, place].dropna()
        if isinstance(one, str) and one.strip() and len(part) and part.map(lambda each: isinstance(each, str)).all():
            numbers = as_numbers([each.strip() for each in part if each.strip().lower() not in BLANKS]).values
            telling += len(numbers) > 0 and float((~pd.isna(numbers)).mean()) >= _NUMBERS
    return telling >= max(_TELLING, len(cells) / 2)
