"""Findings about one column: numbers that stand for none, cut off numbers, names written in several ways."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

TARGET = "(target)"
RARE = 3
"""Rows of a rare category or class, fewer."""
_SAME = 0.995  # share of one value in an almost constant column
_ALIKE = 0.85  # of difflib's ratio between names that may be one
_LONG = 5  # letters of such names, at least
_GAP = 4.0  # of the spread of the rest, by which a 0 stands apart
_MOST = 100  # pairs of names
_NAMES, _FEW = 0.5, 10  # of a column's categories that are rare, share and number beyond which it holds names
_DATES = np.array(["1900-01-01", "1970-01-01", "1899-12-30", "9999-12-31", "2099-12-31", "1901-01-01"])
_SELDOM, _OFTENER = 0.05, 5  # share of the rows with a misspelt name, at most, and how many times rarer it is
_CUT_SHARE, _CUT_ROWS = 0.01, 20  # of the rows that hold the largest number, at least, where it is cut off
_CUT_TIMES = 5.0  # as many as hold each of the next numbers
_NEXT = 10  # of those
_MANY = 50  # different numbers of a column that is measured


class Finding(NamedTuple):
    """What was found in a column; `evidence` is between 0 and 1, or a count; `placeholder` a number, of a date its
    days, that seems to stand for a missing cell; `spelling` a rare name and the frequent one that it may be."""

    check: str
    text: str
    evidence: float
    placeholder: float | None = None
    spelling: tuple[str, str] | None = None


def column_findings(column: pd.Series, kind: str, name: str) -> Iterator[Finding]:
    """Findings about a column of a kind that a `ColumnReading` has.

    >>> column = pd.Series([*np.arange(50.0), -200.0, -200.0])
    >>> [(one.check, one.placeholder) for one in column_findings(column, "number", "level")]
    [('sentinel', -200.0)]
    """
    missing = float(column.isna().mean())
    if missing > 1 / 2:
        yield Finding("mostly missing", f"{missing:.0%} of the cells of {name} are missing", missing)
    counts = column.dropna().value_counts()
    if len(counts) and counts.iloc[0] >= _SAME * len(column):
        share = counts.iloc[0] / len(column)
        text = f"{share:.2%} of the cells of {name} are {counts.index[0]}"
        yield Finding("almost constant", text, float(share))
        return
    if kind in ("number", "duration"):
        for value, count in _sentinels(column.dropna().to_numpy(dtype=np.float64)):
            text = (
                f"{name} is {value:g} in {count} rows, apart from all others: if it stands for a missing value,"
                f" pass --na {value:g}"
            )
            yield Finding("sentinel", text, float(count), value)
    elif kind == "date":
        days = column.dropna().to_numpy().astype("datetime64[D]")
        for value, count in _sentinels(days.astype(np.float64), _DATES.astype("datetime64[D]").astype(np.float64)):
            day = np.datetime64(int(value), "D")
            text = f"{name} is {day} in {count} rows, apart from all others: does it stand for none?"
            yield Finding("sentinel", text, float(count), value)
    elif kind == "category":
        names = counts.rename(index=str)
        for one, other, share in alike(names):
            text = f"{one!r} and {other!r} of {name} may be one"
            few = names[other] < _SELDOM * len(column) and names[one] > _OFTENER * names[other]
            yield Finding("near-duplicate categories", text, share, spelling=(other, one) if few else None)
        rare = names[names < RARE]
        if 0 < len(rare) <= max(_NAMES * len(names), _FEW):
            listed = ", ".join(repr(each) for each in rare.index[:5])
            text = f"{len(rare)} categories of {name} have 1 or 2 rows: {listed}"
            yield Finding("rare categories", text, float(len(rare)))


def target_findings(target: pd.Series) -> Iterator[Finding]:
    """Findings about numbers to predict: some that stand for none, and an end where they are cut off.

    >>> target = pd.Series([*np.random.default_rng(0).normal(size=900), *[3.0] * 100]).clip(upper=3.0)
    >>> [one.check for one in target_findings(target)]
    ['capped']
    """
    values = target.to_numpy(dtype=np.float64)
    for value, count in _sentinels(values):
        text = (
            f"the target is {value:g} in {count} rows, apart from all others: if it stands for a missing one, pass"
            f" --na {value:g}, which leaves these rows out"
        )
        yield Finding("sentinel", text, float(count), value)
    different, counts = np.unique(values, return_counts=True)
    if len(different) < _MANY:
        return
    for end, beside, what, beyond in ((-1, slice(-_NEXT - 1, -1), "largest", "above"), (0, slice(1, _NEXT + 1), "least",
                                                                                      "below")):  # fmt: skip
        value, count = float(different[end]), int(counts[end])
        often = count >= max(_CUT_SHARE * len(values), _CUT_ROWS, _CUT_TIMES * float(counts[beside].max()))
        if often and value != 0:  # many targets hold none of something
            text = (
                f"the target is {value:g}, its {what} number, in {count} rows, and the next ones in few: numbers"
                f" {beyond} it may have been cut off, and cannot be learned"
            )
            yield Finding("capped", text, float(count))


def _sentinels(values: NDArray[np.float64], codes: NDArray[np.float64] | None = None) -> Iterator[tuple[float, int]]:
    """The least and the largest number where it is repeated and stands apart from the others.

    Args:
        codes: numbers that may stand for none; by how they look by default.
    """
    different, counts = np.unique(values, return_counts=True)
    if len(different) < 5:
        return
    for end, rest in ((0, different[1:]), (-1, different[:-1])):
        value, count = float(different[end]), int(counts[end])
        inner = values[values != value]
        gap = abs(value - float(rest[0] if end == 0 else rest[-1]))
        spread = float(np.subtract(*np.quantile(inner, (0.75, 0.25)))) / 1.349
        code = value in codes if codes is not None else bool(re.fullmatch(r"-9+|99+|-1|-?\d+00|0", f"{value:g}"))
        negative = value < 0 <= float(inner.min())  # one negative number in a column of none
        apart = gap > (_GAP if value == 0 else 1) * spread > 0
        if code and count > 1 and (apart or negative):
            yield value, count


def alike(counts: pd.Series) -> list[tuple[str, str, float]]:
    """Pairs of names that may be one, with how alike they are: but for case, spaces and signs the same, or a rare one
    nearly like another."""
    names = [str(name) for name in counts.index][:1000]
    plain: dict[str, str] = {}
    found: list[tuple[str, str, float]] = []
    for name in names:
        bare = re.sub(r"[\W_]+", "", name.casefold())
        if not bare:
            continue
        if bare in plain:
            found.append((plain[bare], name, 1.0))
        else:
            plain[bare] = name
    total = int(counts.sum())
    by_name = dict(zip(names, counts.tolist(), strict=False))
    rare = [bare for bare, name in plain.items() if len(bare) >= _LONG and by_name[name] < 0.05 * total]
    for bare in rare[:200]:
        others = [each for each in plain if each != bare and by_name[plain[each]] > 5 * by_name[plain[bare]]]
        if re.search(r"\d", bare):
            continue
        close = difflib.get_close_matches(bare, others, 1, _ALIKE)
        if close:
            share = difflib.SequenceMatcher(None, bare, close[0]).ratio()
            found.append((plain[close[0]], plain[bare], share))
    return found[:_MOST]
