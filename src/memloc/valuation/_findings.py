"""Findings about a table that no value shows: leaks, order, duplicates, and what single columns hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import ColumnReading
from memloc.valuation._column_findings import RARE, TARGET, alike, column_findings, target_findings

CHECKS = (
    "leak",
    "order",
    "duplicate rows",
    "conflicting rows",
    "near-duplicate rows",
    "sentinel",
    "capped",
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
_ALIKE_LISTED = 20  # duplicates and conflicts; how many there are stands in the evidence of each
_PAIRED = 100  # columns beyond which rows that differ in one of them are not looked for


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        table: of checks. conflicts: pairs of rows with the same cells and other labels. placeholders: columns' places,
            with a number, of a date its days, that seems to stand for a missing cell. spellings: columns' places, with
            a rare name, a frequent one that it may be, and how alike they are.
    """

    table: pd.DataFrame
    conflicts: list[tuple[int, int]]
    placeholders: list[tuple[int, float]]
    spellings: list[tuple[int, str, str, float]]


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
        words = f"R² {score:.3f}" if regression else f"{score:.1%} of the rows right"
        text = f"{name} alone predicts the target ({words}): does it hold the answer?"
        found.append(("leak", name, None, None, text, score))
    gain = _by_order(labels, regression=regression, seed=seed)
    if gain is not None:
        text = (
            f"the row's number alone predicts the target ({gain:.0%} of what could be gained): rows are sorted by it,"
            " or it changes over time. Split by time in that case, else shuffle; leave out columns that count rows."
        )
        found.append(("order", None, None, None, text, gain))
    same, conflicts = _duplicates(table, labels)
    for row, other in same[:_ALIKE_LISTED]:
        text = f"the same label as row {numbers[other]}, and the same cells in the columns that are valued"
        found.append(("duplicate rows", None, numbers[row], numbers[other], text, float(len(same))))
    for row, other in [] if regression else conflicts[:_ALIKE_LISTED]:
        text = (
            f"the same cells as row {numbers[other]} in the columns that are valued, labelled {labels[row]} here and"
            f" {labels[other]} there"
        )
        found.append(("conflicting rows", None, numbers[row], numbers[other], text, float(len(conflicts))))
    for row, other, name in _near(table, labels, regression=regression):
        text = f"the same cells as row {numbers[other]} but for {name}, and another label"
        found.append(("near-duplicate rows", name, numbers[row], numbers[other], text, 1 - 1 / table.shape[1]))
    placeholders: list[tuple[int, float]] = []
    spellings: list[tuple[int, str, str, float]] = []
    for place, reading in enumerate(readings):
        for one in column_findings(table.iloc[:, place], reading.kind, str(reading.name)):
            found.append((one.check, reading.name, None, None, one.text, one.evidence))
            placeholders += [] if one.placeholder is None else [(place, one.placeholder)]
            spellings += [] if one.spelling is None else [(place, *one.spelling, one.evidence)]
    if regression:
        for one in target_findings(labels):
            found.append((one.check, TARGET, None, None, one.text, one.evidence))
    else:
        sizes = labels.value_counts()
        small = sizes[sizes < RARE].head(_LISTED)
        for label, size in zip(small.index, small.tolist(), strict=True):
            found.append(("rare classes", None, None, None, f"the class {label} has {size} rows", size))
        written = alike(labels[labels.notna()].map(str).value_counts())
        for name, like, share in [] if pd.api.types.is_numeric_dtype(labels) else written:
            text = f"the classes {name!r} and {like!r} may be one"
            found.append(("near-duplicate categories", TARGET, None, None, text, share))
    columns = ["check", "column", "row", "other_row", "text", "evidence"]
    rank = {check: place for place, check in enumerate(CHECKS)}
    listed = sorted(found, key=lambda one: rank[one[0]])
    frame = pd.DataFrame(listed, columns=columns).astype({"evidence": np.float64})
    for name in ("row", "other_row"):
        frame[name] = frame[name].astype("Int64")
    return Findings(frame, [] if regression else conflicts[:_LISTED], placeholders, spellings)


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
