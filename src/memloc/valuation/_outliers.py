"""Cells that do not fit: far from what their class and the row's other cells lead one to expect.

Columns of numbers are brought to one scale within each class (median and MAD, after asinh where they are skewed),
categories are one-hot; the inverse of their correlation then gives every cell's expectation from all others at once,
linear in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import MOST_CATEGORIES

_NORMAL = 1.4826  # MADs to a standard deviation
_FEWEST = 20  # rows below which nothing is said
_FEWEST_OF_CLASS = 10  # rows of a class below which all rows' median stands for its own
_FEW = 12  # different numbers of a column up to which they are steps
_CLIP = 3.0  # deviations beyond which a cell tells its neighbours no more
_RIDGE = 0.05  # of the correlations, towards none
_AT_ONCE = 1 << 14  # rows that are predicted at once
_WIDEST = 3000  # columns of numbers beyond which cells are compared within their class alone
_TAILS = np.array([1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 30.0])  # degrees of freedom of Student's t
_SHRUNK = 200  # rows by which a column's tails are drawn towards the table's
_ODD = 0.5  # cells of the table that are as odd by chance, below which one far out is hidden from its row's others
_YES = {1.0: "yes", 0.0: "no"}  # of booleans; categories are text
_OTHER = "(other)"


@dataclass(frozen=True)
class OddTarget:
    """How little numbers to predict fit their rows: as `OddCells` has it of cells, of shape (row,)."""

    by_chance: NDArray[np.float64] = field(repr=False)
    deviation: NDArray[np.float64] = field(repr=False)
    _likely: Any = field(repr=False)

    def expected(self, row: int) -> str:
        """What the row's cells lead one to expect."""
        return str(self._likely(row))


@dataclass(frozen=True)
class OddCells:
    """How little cells fit.

    Attributes:
        by_chance: how many cells of the column would be as odd without errors, shape (row, column); NaN where that is
            not known, as of missing cells. deviation: of cells of numbers, by how many deviations from what is
            expected, signed. expected: what is, as text, "" where nothing is known; shape (row, column). target: how
            little the numbers to predict fit, where the target is of numbers.
    """

    by_chance: NDArray[np.float64] = field(repr=False)
    deviation: NDArray[np.float64] = field(repr=False)
    _likely: Sequence[Any] = field(repr=False)
    target: OddTarget | None = field(repr=False, default=None)

    def expected(self, row: int, column: int) -> str:
        """What a cell would be expected to hold."""
        likely = self._likely[column]
        return "" if likely is None else likely(row)


@dataclass(frozen=True)
class _Scale:
    """A column on a scale of its own: asinh of it where it is skewed, less its class's median, over its MAD."""

    unit: float  # of asinh; 0 for none
    middle: NDArray[np.float64]  # of each row's class
    spread: NDArray[np.float64]
    told: NDArray[np.bool_]  # cells that differ from what more than half of the column holds, all where none is
    step: float  # between the column's numbers where those are few, in deviations: what is no further off is not odd

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = np.arcsinh(values / self.unit) if self.unit else values
        return np.where(self.told, (moved - self.middle) / self.spread, 0.0)

    def back(self, row: int, deviations: float) -> float:
        moved = self.middle[row] + self.spread[row] * deviations
        return float(np.sinh(moved) * self.unit if self.unit else moved)


def odd_cells(X: pd.DataFrame, y: NDArray[Any], kinds: Sequence[str], *, regression: bool) -> OddCells:
    """How little each cell fits its class and its row; of numbers to predict also how little these do.

    Of a number to predict and the cell of its row that fits least, the one that fits less, where that is odd beyond
    chance, says nothing of the other.

    Args:
        X: table: numbers, dates or names. kinds: of each column, as ColumnReading has them. y: target.

    >>> rng = np.random.default_rng(0)
    >>> a = rng.normal(size=200)
    >>> X = pd.DataFrame({"a": a, "twice": 2 * a + 0.01 * rng.normal(size=200)})
    >>> X.loc[7, "twice"] = -X.loc[7, "twice"]
    >>> found = odd_cells(X, np.arange(200) % 2, ["number", "number"], regression=False)
    >>> int(np.nanargmin(found.by_chance[:, 1])), bool(found.by_chance[7, 1] < 0.1)
    (7, True)
    """
    if not regression:
        return _odd(X, pd.factorize(pd.Series(y))[0], kinds)
    nobody = np.zeros(len(X), dtype=np.int64)
    target = pd.Series(np.asarray(y, dtype=np.float64), index=X.index)
    kinds = [*kinds, "number"]
    table = pd.concat([X, target], axis=1)
    table.columns = pd.RangeIndex(table.shape[1])
    first = _odd(table, nobody, kinds)
    if len(X) < _FEWEST:
        return OddCells(first.by_chance[:, :-1], first.deviation[:, :-1], first._likely[:-1])
    chance = np.nan_to_num(first.by_chance, nan=np.inf)
    cell, own = chance[:, :-1].min(axis=1, initial=np.inf), chance[:, -1]
    far = np.nan_to_num(np.abs(first.deviation))
    mine = np.where(own == cell, far[:, -1] > far[:, :-1].max(axis=1, initial=0.0), own < cell) & (own < 1.0)
    by_chance = first.by_chance.copy()
    by_chance[mine, :-1] = np.maximum(by_chance[mine, :-1], 1.0 * len(X))
    by_chance[~mine & (cell < 1.0), -1] = 1.0 * len(X)
    odd = OddTarget(by_chance[:, -1], first.deviation[:, -1], first._likely[-1])
    return OddCells(by_chance[:, :-1], first.deviation[:, :-1], first._likely[:-1], odd)


def _odd(X: pd.DataFrame, classes: NDArray[np.int64], kinds: Sequence[str]) -> OddCells:
    """`odd_cells` for given classes."""
    rows, columns = X.shape
    by_chance, deviation = np.full((rows, columns), np.nan), np.full((rows, columns), np.nan)
    likely: list[Any] = [None] * columns
    if rows < _FEWEST:
        return OddCells(by_chance, deviation, likely)
    blocks: list[NDArray[Any]] = []  # columns of numbers, shape (row, number)
    scales: dict[int, _Scale] = {}
    names: dict[int, tuple[list[str], NDArray[np.int64], NDArray[np.float32]]] = {}
    for place, kind in enumerate(kinds):
        column = X.iloc[:, place]
        if kind in ("number", "duration", "date"):
            values = _numbers(column, kind)
            scale = _scale(values, classes)
            scales[place] = scale
            blocks.append(np.nan_to_num(scale.forward(values))[:, None])
        elif kind in ("category", "boolean"):
            levels, codes = _levels(column)
            shares = _shares(codes, len(levels), classes)
            names[place] = levels, codes, shares
            blocks.append(((codes[:, None] == np.arange(len(levels))) - shares).astype(np.float32))
        else:
            blocks.append(np.empty((rows, 0)))
    widths = [block.shape[1] for block in blocks]
    ends = np.cumsum(widths)
    table = np.concatenate(blocks, axis=1, dtype=np.float32)
    blocks.clear()
    numbers = {place: (int(ends[place] - 1), scale) for place, scale in scales.items()}
    actual = {place: _actual(X.iloc[:, place], kinds[place], scale) for place, scale in scales.items()}
    predicted = _foretold(table.copy(), widths)
    far, chance, middles = _fit(actual, predicted, numbers)
    if _hide_far(table, actual, chance, numbers, predicted):
        predicted = _foretold(table, widths)
        far, chance, middles = _fit(actual, predicted, numbers)
    for place, (start, scale) in numbers.items():
        deviation[:, place], by_chance[:, place] = far[place], chance[place]
        likely[place] = _likely_number(scale, predicted[:, start] + middles[place], X.iloc[:, place], kinds[place])
    for place, (levels, codes, shares) in names.items():
        part = slice(int(ends[place]) - len(levels), int(ends[place]))
        chances = shares + predicted[:, part]
        by_chance[:, place] = np.where(X.iloc[:, place].isna(), np.nan, _unlikely(chances, codes))
        likely[place] = _likely_name(levels, chances, codes)
    return OddCells(by_chance, deviation, likely)


def _actual(column: pd.Series, kind: str, scale: _Scale) -> NDArray[np.float64]:
    """A column on its scale, missing where it is."""
    values = _numbers(column, kind)
    return np.where(np.isnan(values), np.nan, scale.forward(values))


def _fit(
    actual: dict[int, NDArray[np.float64]], predicted: NDArray[np.float32], numbers: dict[int, tuple[int, _Scale]]
) -> tuple[dict[int, NDArray[Any]], dict[int, NDArray[np.float64]], dict[int, float]]:
    """Of columns of numbers: deviations from what is predicted, how many would lie as far out by chance, and the median
    of what is left."""
    residuals, middles = {}, {}
    for place, (start, scale) in numbers.items():
        left = actual[place] - predicted[:, start]
        middles[place], spread = _robust(left[scale.told & ~np.isnan(left)])
        residuals[place] = (left - middles[place]) / max(spread, scale.step)
    chance = _tails(residuals, {place: scale.told for place, (_, scale) in numbers.items()})
    return residuals, chance, middles


def _hide_far(
    table: NDArray[np.float32],
    actual: dict[int, NDArray[np.float64]],
    chance: dict[int, NDArray[np.float64]],
    numbers: dict[int, tuple[int, _Scale]],
    predicted: NDArray[np.float32],
) -> bool:
    """Put what is predicted in the place of numbers that are odd beyond chance and far from all of their class, so that
    they do not make their rows' other cells odd; whether there are any."""
    hidden = False
    for place, (start, _) in numbers.items():
        odd = np.nan_to_num(chance[place], nan=np.inf) * len(numbers) < _ODD
        rows = np.flatnonzero(odd & (np.abs(np.nan_to_num(actual[place])) > _CLIP))
        table[rows, start] = predicted[rows, start]
        hidden = hidden or len(rows) > 0
    return hidden


def _numbers(column: pd.Series, kind: str) -> NDArray[np.float64]:
    """A column as float64; dates as days."""
    if kind == "date":
        return np.asarray((column - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1), dtype=np.float64)
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _scale(values: NDArray[np.float64], classes: NDArray[np.int64]) -> _Scale:
    known = values[~np.isnan(values)]
    usual, count = (pd.Series(known).mode().iloc[0], 0) if len(known) else (0.0, 0)
    count = int((known == usual).sum())
    told = (values != usual) & ~np.isnan(values) if count > len(known) / 2 else ~np.isnan(values)
    if told.sum() < _FEWEST_OF_CLASS:
        told = ~np.isnan(values)
    part = values[told]
    unit = _unit(part) if len(part) else 0.0
    moved = np.arcsinh(values / unit) if unit else values
    different = np.unique(moved[told])
    step = float(np.diff(different).max()) if 1 < len(different) <= _FEW else 0.0
    middle, spread = (np.full(len(values), one) for one in _robust(moved[told]))
    for label in np.unique(classes):
        of_class = classes == label
        if (of_class & told).sum() >= _FEWEST_OF_CLASS:
            middle[of_class], spread[of_class] = _robust(moved[of_class & told])
    spread = np.maximum(spread, step)
    return _Scale(unit, middle, spread, told, step / float(np.median(spread)))


def _unit(part: NDArray[np.float64]) -> float:
    """The unit of asinh that makes a skewed column less so; 0 where none does."""
    unit = float(np.median(np.abs(part))) or float(np.abs(part).mean())
    if not unit:
        return 0.0
    return unit if _skew(np.arcsinh(part / unit)) < _skew(part) - 0.1 else 0.0


def _skew(part: NDArray[np.float64]) -> float:
    low, middle, high = np.quantile(part, (0.1, 0.5, 0.9))
    return abs(float(np.log(max(high - middle, 1e-12) / max(middle - low, 1e-12))))


def _robust(part: NDArray[Any]) -> tuple[float, float]:
    """Median, and MAD as a standard deviation; from quartiles, or the mean distance, where that is 0."""
    if not len(part):
        return 0.0, 1.0
    middle = float(np.median(part))
    away = np.abs(part - middle)
    spread = _NORMAL * float(np.median(away))
    if spread <= 1e-9 * (abs(middle) + 1e-300):
        spread = float(np.subtract(*np.quantile(part, (0.75, 0.25)))) / 1.349
    if spread <= 1e-9 * (abs(middle) + 1e-300):
        spread = 1.2533 * float(away.mean())
    return middle, spread if spread > 0 else 1.0


def _levels(column: pd.Series) -> tuple[list[str], NDArray[np.int64]]:
    """Names of categories, the rarest as one, and which each cell is; missing cells are one of their own."""
    texts = column.astype(object).where(column.notna(), "(missing)").map(lambda one: _YES.get(one, str(one)))
    often = texts.value_counts(sort=True).index[:MOST_CATEGORIES]
    kept = texts.where(texts.isin(often), _OTHER)
    codes, names = pd.factorize(kept)
    return [str(name) for name in names], codes.astype(np.int64)


def _shares(codes: NDArray[np.int64], levels: int, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """How often each category occurs in the row's class, one more of each counted, shape (row, level)."""
    counts = np.ones((int(classes.max()) + 1, levels)) / levels
    np.add.at(counts, (classes, codes), 1.0)
    return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)[classes]


def _foretold(table: NDArray[np.float32], widths: Sequence[int]) -> NDArray[np.float32]:
    """What each column of a block is expected to be from the other blocks, shape (row, number); in place of the
    table."""
    np.clip(table, -_CLIP, _CLIP, out=table)
    mean, spread = table.mean(axis=0, dtype=np.float64), table.std(axis=0, dtype=np.float64)
    if table.shape[1] > _WIDEST:
        table[:] = mean
        return table
    spread[spread == 0] = 1.0
    table -= mean.astype(np.float32)
    table /= spread.astype(np.float32)
    correlation = (table.T @ table).astype(np.float64) / len(table) * (1 - _RIDGE)
    np.fill_diagonal(correlation, 1.0)
    inverse = np.linalg.inv(correlation)
    own = []  # of each block, what brings its weighted cells back to cells
    start = 0
    for width in widths:
        own.append(np.linalg.inv(inverse[start : start + width, start : start + width]))
        start += width
    for first in range(0, len(table), _AT_ONCE):
        part = table[first : first + _AT_ONCE].astype(np.float64)
        weighted, start = part @ inverse, 0
        for width, back in zip(widths, own, strict=True):
            block = slice(start, start + width)
            part[:, block] -= weighted[:, block] @ back.T
            start += width
        table[first : first + _AT_ONCE] = part * spread + mean
    return table


def _tails(residuals: dict[int, NDArray[Any]], told: dict[int, NDArray[np.bool_]]) -> dict[int, NDArray[np.float64]]:
    """How many cells of a column would lie as far out, by Student's t with its tails, or those of the table's columns
    where these are heavier; a column of few rows is drawn towards them."""
    from scipy.stats import t

    ratios: dict[int, float] = {}
    for place, residual in residuals.items():
        far = np.abs(residual[told[place] & ~np.isnan(residual)])
        if len(far) >= _FEWEST and np.median(far) > 0:
            ratios[place] = float(np.quantile(far, 0.9) / np.median(far))
    if not ratios:
        return {place: np.full(len(residual), np.nan) for place, residual in residuals.items()}
    usual = float(np.median(list(ratios.values())))
    likely = t.ppf(0.95, _TAILS) / t.ppf(0.75, _TAILS)
    found = {}
    for place, residual in residuals.items():
        rows = int(told[place].sum())
        own = (rows * ratios.get(place, usual) + _SHRUNK * usual) / (rows + _SHRUNK)
        freedom = float(np.interp(max(own, usual), likely[::-1], _TAILS[::-1]))
        chance = 2 * t.sf(np.abs(residual) * t.ppf(0.75, freedom) * _NORMAL, freedom)
        found[place] = np.where(told[place], rows * chance, np.nan)
    return found


def _unlikely(chances: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many cells of a column would hold as unlikely a category, if categories came with these chances."""
    rows = len(codes)
    chances = np.clip(chances, 0.5 / rows, 1.0)
    order = np.sort(chances.ravel())
    total = np.cumsum(order)
    own = chances[np.arange(rows), codes]
    return total[np.searchsorted(order, own, side="right") - 1]


def _likely_number(scale: _Scale, predicted: NDArray[Any], column: pd.Series, kind: str) -> Any:
    whole = kind == "number" and bool((column.dropna() % 1 == 0).all())

    def text(row: int) -> str:
        value = scale.back(row, float(predicted[row]))
        if kind == "date":
            return str((pd.Timestamp("1970-01-01") + pd.Timedelta(days=round(value))).date())
        return f"{value:.0f}" if whole and abs(value) < 1e15 else f"{value:.4g}"

    return text


def _likely_name(levels: list[str], chances: NDArray[Any], codes: NDArray[np.int64]) -> Any:
    def text(row: int) -> str:
        best = int(chances[row].argmax())
        return "" if best == codes[row] or levels[best] in (_OTHER, "(missing)") else levels[best]

    return text
