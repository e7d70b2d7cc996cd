"""Findings about a table that no value shows: leaks, order, duplicates, sentinels, names written in several ways."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import ColumnReading

CHECKS = (
    "leak",
    "order",
    "duplicate rows",
    "conflicting rows",
    "near-duplicate rows",
    "sentinel",
    "near-duplicate categories",
    "rare categories",
    "almost constant",
    "mostly missing",
    "rare classes",
    "class overlap",
)
"""What is looked for."""
_SAMPLE = 20_000  # rows that a column's predicting is measured on
_LEAK = 0.99  # accuracy, or R^2, of a column alone
_GAINED = 0.9  # of what accuracy could gain over the commonest class, that a leak gains at least
_ORDER = 0.5  # of what accuracy could gain over the commonest class, that the row's number gains
_FEWEST = 50  # rows below which neither is measured
_LISTED = 100  # findings of one kind
_PAIRED = 100  # columns beyond which rows that differ in one of them are not looked for
_SAME = 0.995  # share of one value in an almost constant column
_RARE = 3  # rows of a rare category or class, fewer
_ALIKE = 0.85  # of difflib's ratio between names that may be one
_LONG = 5  # letters of such names, at least
_GAP = 4.0  # of the spread of the rest, by which a 0 stands apart
_DATES = np.array(["1900-01-01", "1970-01-01", "1899-12-30", "9999-12-31", "2099-12-31", "1901-01-01"])


@dataclass(frozen=True)
class Findings:
    """What was found: the table of checks, and pairs of rows with the same cells and other labels."""

    table: pd.DataFrame
    conflicts: list[tuple[int, int]]


def table_findings(
    X: pd.DataFrame,
    y: NDArray[Any],
    readings: Sequence[ColumnReading],
    numbers: NDArray[np.int64],
    *,
    regression: bool,
    seed: int = 0,
) -> Findings:
    """Findings about a table.

    Args:
        X: table, read. y: target. readings: how X's columns were read. numbers: what the rows are called.
    Returns:
        One row a finding: check, column, row, other_row, text, evidence (between 0 and 1, or a count).

    >>> X = pd.DataFrame({"a": np.arange(60) % 2 * 1.0, "b": np.random.default_rng(0).normal(size=60)})
    >>> kinds = [ColumnReading(name, "number", "") for name in X]
    >>> found = table_findings(X, np.arange(60) % 2, kinds, np.arange(60), regression=False)
    >>> found.table[["check", "column"]].iloc[0].tolist()
    ['leak', 'a']
    """
    found: list[tuple[str, Any, Any, Any, str, float]] = []
    labels = pd.Series(np.asarray(y)).reset_index(drop=True)
    table = X.reset_index(drop=True)
    for name, score in _alone(table, labels, regression=regression, seed=seed):
        words = "R² of" if regression else "share of rows that"
        text = f"{name} alone predicts the target ({words} {score:.3f}): does it hold the answer?"
        found.append(("leak", name, None, None, text, score))
    gain = _by_order(labels, regression=regression, seed=seed)
    if gain is not None:
        text = (
            f"the row's number alone predicts the target ({gain:.0%} of what could be gained): rows are sorted by it,"
            " or it changes over time. Split by time in that case, else shuffle; leave out columns that count rows."
        )
        found.append(("order", None, None, None, text, gain))
    same, conflicts = _duplicates(table, labels)
    for row, other in same[:_LISTED]:
        text = f"the same label as row {numbers[other]}, and the same cells in the columns that are valued"
        found.append(("duplicate rows", None, numbers[row], numbers[other], text, float(len(same))))
    for row, other in [] if regression else conflicts[:_LISTED]:
        text = (
            f"the same cells as row {numbers[other]} in the columns that are valued, labelled {labels[row]} here and"
            f" {labels[other]} there"
        )
        found.append(("conflicting rows", None, numbers[row], numbers[other], text, float(len(conflicts))))
    for row, other, name in _near(table, labels, regression=regression):
        text = f"the same cells as row {numbers[other]} but for {name}, and another label"
        found.append(("near-duplicate rows", name, numbers[row], numbers[other], text, 1 - 1 / table.shape[1]))
    for place, reading in enumerate(readings):
        findings = _of_column(table.iloc[:, place], reading)
        found += [(check, reading.name, None, None, text, evidence) for check, text, evidence in findings]
    if not regression:
        sizes = labels.value_counts()
        small = sizes[sizes < _RARE].head(_LISTED)
        for label, size in zip(small.index, small.tolist(), strict=True):
            found.append(("rare classes", None, None, None, f"the class {label} has {size} rows", size))
        written = _alike(labels[labels.notna()].map(str).value_counts())
        for name, like, share in [] if pd.api.types.is_numeric_dtype(labels) else written:
            text = f"the classes {name!r} and {like!r} may be one"
            found.append(("near-duplicate categories", "(target)", None, None, text, share))
    columns = ["check", "column", "row", "other_row", "text", "evidence"]
    rank = {check: place for place, check in enumerate(CHECKS)}
    listed = sorted(found, key=lambda one: rank[one[0]])
    frame = pd.DataFrame(listed, columns=columns).astype({"evidence": np.float64})
    for name in ("row", "other_row"):
        frame[name] = frame[name].astype("Int64")
    return Findings(frame, [] if regression else conflicts[:_LISTED])


def _coded(column: pd.Series) -> NDArray[np.float64]:
    """A column as numbers for a tree: categories by how often they occur, then by name, missing cells apart."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return np.nan_to_num(column.to_numpy().astype("datetime64[s]").astype(np.float64), nan=-1.0)
    if pd.api.types.is_numeric_dtype(column):
        return np.nan_to_num(column.to_numpy(dtype=np.float64), nan=-1e300)
    return pd.factorize(column.astype(object).map(str), sort=True)[0].astype(np.float64)


def _alone(table: pd.DataFrame, labels: pd.Series, *, regression: bool, seed: int) -> Iterator[tuple[Any, float]]:
    """Columns that predict the target by themselves, and how well."""
    base = _base(labels, regression=regression)
    if len(table) < _FEWEST or base >= 1:
        return
    for name in table.columns:
        score = _foretells(_coded(table[name]), labels, regression=regression, seed=seed)
        if score >= _LEAK and score - base >= _GAINED * (1 - base):
            yield name, score


def _base(labels: pd.Series, *, regression: bool) -> float:
    return 0.0 if regression else float(labels.value_counts(normalize=True).iloc[0])


def _foretells(values: NDArray[np.float64], labels: pd.Series, *, regression: bool, seed: int) -> float:
    """Accuracy, or R^2, of a small tree on one column, on rows kept out."""
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    rows = np.arange(len(labels))
    if len(rows) > _SAMPLE:
        rows = np.random.RandomState(seed).permutation(len(rows))[:_SAMPLE]
    target = labels.to_numpy()[rows] if regression else pd.factorize(labels)[0][rows]
    tree = (DecisionTreeRegressor if regression else DecisionTreeClassifier)(min_samples_leaf=5, random_state=seed)
    folds = KFold(3, shuffle=True, random_state=seed)
    found = cross_val_predict(tree, values[rows, None].clip(-3e38, 3e38).astype(np.float32), target, cv=folds)
    if not regression:
        return float((found == target).mean())
    spread = ((target - target.mean()) ** 2).sum()
    return float(1 - ((target - found) ** 2).sum() / spread) if spread > 0 else 0.0


def _by_order(labels: pd.Series, *, regression: bool, seed: int) -> float | None:
    """How much of what could be gained over the commonest class, or the mean, the row's number gains; None of
    little."""
    base = _base(labels, regression=regression)
    if len(labels) < _FEWEST or base >= 1:
        return None
    score = _foretells(np.arange(len(labels), dtype=np.float64), labels, regression=regression, seed=seed)
    gain = (score - base) / (1 - base)
    return gain if gain >= _ORDER else None


def _duplicates(table: pd.DataFrame, labels: pd.Series) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows with the cells of an earlier row: with its label, and with another one."""
    hashes = pd.util.hash_pandas_object(table, index=False).to_numpy()
    _, first, inverse, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    same: list[tuple[int, int]] = []
    other: list[tuple[int, int]] = []
    for row in np.flatnonzero((counts[inverse] > 1) & (first[inverse] != np.arange(len(hashes)))).tolist():
        earlier = int(first[inverse[row]])
        (same if labels[row] == labels[earlier] else other).append((row, earlier))
    return same, other


def _near(table: pd.DataFrame, labels: pd.Series, *, regression: bool) -> list[tuple[int, int, Any]]:
    """Rows with the cells of an earlier row but for one, and another label."""
    width = table.shape[1]
    if regression or not 4 <= width <= _PAIRED:
        return []
    hashes = np.stack(
        [pd.util.hash_pandas_object(table.iloc[:, [place]], index=False).to_numpy() for place in range(width)]
    )
    mixed = hashes * (2 * np.arange(1, width + 1, dtype=np.uint64)[:, None] + 1)  # so that equal cells do not cancel
    total = mixed.sum(axis=0, dtype=np.uint64)
    found: list[tuple[int, int, Any]] = []
    for place in range(width):
        rest = total - mixed[place]
        _, first, inverse = np.unique(rest, return_index=True, return_inverse=True)
        earlier = first[inverse]
        differs = (earlier != np.arange(len(rest))) & (hashes[place] != hashes[place][earlier])
        differs &= labels.to_numpy() != labels.to_numpy()[earlier]
        for row in np.flatnonzero(differs)[: _LISTED - len(found)].tolist():
            found.append((row, int(earlier[row]), table.columns[place]))
    return found


def _of_column(column: pd.Series, reading: ColumnReading) -> Iterator[tuple[str, str, float]]:
    """Findings about one column."""
    missing = float(column.isna().mean())
    if missing > 1 / 2:
        yield "mostly missing", f"{missing:.0%} of the cells of {reading.name} are missing", missing
    counts = column.dropna().value_counts()
    if len(counts) and counts.iloc[0] >= _SAME * len(column):
        share = counts.iloc[0] / len(column)
        text = f"{share:.2%} of the cells of {reading.name} are {counts.index[0]}"
        yield "almost constant", text, float(share)
        return
    if reading.kind in ("number", "duration"):
        for value, count in _sentinels(column.dropna().to_numpy(dtype=np.float64)):
            text = (
                f"{reading.name} is {value:g} in {count} rows, apart from all others: if it stands for a missing value,"
                f" pass --na {value:g}"
            )
            yield "sentinel", text, float(count)
    elif reading.kind == "date":
        days = column.dropna().to_numpy().astype("datetime64[D]")
        for value, count in _sentinels(days.astype(np.float64), _DATES.astype("datetime64[D]").astype(np.float64)):
            day = np.datetime64(int(value), "D")
            text = f"{reading.name} is {day} in {count} rows, apart from all others: does it stand for none?"
            yield "sentinel", text, float(count)
    elif reading.kind == "category":
        names = counts.rename(index=str)
        for one, other, share in _alike(names):
            yield "near-duplicate categories", f"{one!r} and {other!r} of {reading.name} may be one", share
        rare = names[names < _RARE]
        if len(rare):
            listed = ", ".join(repr(name) for name in rare.index[:5])
            yield (
                "rare categories",
                f"{len(rare)} categories of {reading.name} have 1 or 2 rows: {listed}",
                float(len(rare)),
            )


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


def _alike(counts: pd.Series) -> list[tuple[str, str, float]]:
    """Pairs of names that may be one: but for case, spaces and signs the same, or a rare one nearly like another."""
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
    return found[:_LISTED]
