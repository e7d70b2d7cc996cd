"""Repair the cells that hurt most, and measure on rows kept out what that gains."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import TableEncoder, TableSpec, needs_encoding
from memloc.errors import SpecError, warn
from memloc.progress import Report, silent
from memloc.streams import Stream, generator
from memloc.valuation._estimator import TwoDOOB

How = Literal["median", "model"]
FOLDS = 5
REPAIRS: tuple[How, ...] = ("median", "model")


class Gain(NamedTuple):
    """Score on rows kept out, of a forest trained on the table as it is, repaired, and with as many random cells
    repaired.

    Each has one figure per fold.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    random: NDArray[np.float64]


def check_share(share: float) -> None:
    """Raise SpecError unless the share lies between 0 and 1."""
    if not 0 < share < 1:
        raise SpecError(
            f"the share of cells to repair is {share}. Expected a number between 0 and 1. Pass --repair-share 0.05."
        )


def lowest_cells(values: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """The given share of cells with the lowest values, as a mask; cells without a value are left alone.

    >>> lowest_cells(np.array([[0.9, 0.1], [np.nan, 0.5]]), 0.25).tolist()
    [[False, True], [False, False]]
    """
    check_share(share)
    order = np.argsort(np.where(np.isnan(values), np.inf, values), axis=None, kind="stable")
    mask = np.zeros(values.size, dtype=bool)
    mask[order[: max(round(share * values.size), 1)]] = True
    return mask.reshape(values.shape) & ~np.isnan(values)


def check_repair(X: pd.DataFrame, how: str, y: NDArray[Any] | None = None, *, regression: bool = False) -> None:
    """Raise SpecError for a way of repairing that does not exist, or not for this table; with a target, for too few
    rows to measure it."""
    if y is not None and regression and len(y) < 2 * FOLDS:
        raise SpecError(
            f"there are {len(y)} rows, so what a repair gains cannot be measured on rows kept out. Expected at least"
            f" {2 * FOLDS}. Leave --repair out."
        )
    if y is not None and not regression and int(np.unique(y, return_counts=True)[1].min()) < FOLDS:
        raise SpecError(
            f"a class has fewer than {FOLDS} rows, so what a repair gains cannot be measured on rows kept out. Expected"
            f" at least {FOLDS} of each. Leave --repair out, or merge small classes."
        )
    if how not in REPAIRS:
        raise SpecError(f"there is no repair {how!r}. Expected one of {', '.join(REPAIRS)}. Pass --repair median.")
    if how == "model" and not all(pd.api.types.is_numeric_dtype(X[name]) for name in X.columns):
        raise SpecError("repair 'model' needs columns of numbers. Expected no categories. Pass --repair median.")


def repair(X: pd.DataFrame, cells: NDArray[np.bool_], how: How = "median") -> pd.DataFrame:
    """A copy of a table with the cells of a mask replaced.

    Args:
        X: numbers or categories. cells: which to replace, shape (row, column).
        how: "median" (the most frequent value of a category) of the column's other cells, or "model": predicted from
            the row's other columns by a forest (scikit-learn's IterativeImputer; columns of numbers only).
    A column of which every cell would be replaced is left as it is, with a warning.

    Raises:
        SpecError: an unknown way, or categories with "model".

    >>> repair(pd.DataFrame({"a": [1.0, 2.0, 90.0]}), np.array([[False], [False], [True]])).a.tolist()
    [1.0, 2.0, 1.5]
    """
    check_repair(X, how)
    if how == "model":
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        holes = X.astype(np.float64).mask(cells)
        forest = RandomForestRegressor(50, min_samples_leaf=3, random_state=0)
        imputer = IterativeImputer(forest, max_iter=3, random_state=0, keep_empty_features=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # three rounds are what is meant
            filled = imputer.fit_transform(holes)
        return pd.DataFrame(filled, columns=X.columns, index=X.index)
    repaired = X.copy()
    for number, name in enumerate(X.columns):
        others = X[name][~cells[:, number]].dropna()
        if cells[:, number].any() and not len(others):
            warn(
                f"no cell of column {name!r} is left to repair the others from, so the column is left as it is. Repair"
                " a smaller share.",
            )
        elif cells[:, number].any():
            usual = others.median() if pd.api.types.is_numeric_dtype(X[name]) else others.mode().iloc[0]
            column = repaired[name].astype(np.float64) if isinstance(usual, float) else repaired[name].copy()
            column[cells[:, number]] = usual
            repaired[name] = column
    return repaired


def repair_gain(
    X: pd.DataFrame,
    y: NDArray[Any],
    valuer: TwoDOOB,
    *,
    share: float = 0.05,
    how: How = "median",
    folds: int = FOLDS,
    seed: int = 0,
    report: Report = silent,
) -> Gain:
    """What repairing the lowest cells gains on rows that neither the values nor the forest have seen.

    In each fold the cells of the other folds are valued, the lowest repaired, and a random forest trained on the
    result; it is
    scored (accuracy, or R^2) on the fold as it is. Which categories there are, and the medians that stand for missing
    numbers while cells are valued, are those of the whole table.
    """
    from sklearn.base import clone
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.model_selection import KFold, StratifiedKFold

    regression = valuer.regresses
    kind = RandomForestRegressor if regression else RandomForestClassifier
    splitter = (KFold if regression else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    scores: list[list[float]] = [[], [], []]
    readings = valuer.columns
    plain = not needs_encoding(X, None if readings is None or isinstance(readings, TableSpec) else readings)
    numbers, columns = X.to_numpy() if plain else None, np.arange(X.shape[1])
    if numbers is None:
        encoder = TableEncoder(readings).fit(X)
        numbers, columns = encoder.transform(X), encoder.source
    first = np.array([np.flatnonzero(columns == column)[0] for column in range(X.shape[1])])
    valuer = clone(valuer).set_params(groups=columns, columns=None)
    for number, (train, test) in enumerate(splitter.split(X, y)):
        report("measuring what the repair gains", number, folds)
        part = X.iloc[train].reset_index(drop=True)
        values = clone(valuer).fit(numbers[train], y[train]).cell_values_[:, first]
        lowest = lowest_cells(values, share)
        anywhere = generator(Stream.RANDOM_CELLS, seed, number).permutation(lowest.ravel()).reshape(lowest.shape)
        for found, cells in zip(scores, (np.zeros_like(lowest), lowest, anywhere), strict=True):
            table = repair(part, cells, how) if cells.any() else part
            encoded, held = _encoded(table, X.iloc[test], readings)
            found.append(float(kind(200, random_state=seed).fit(encoded, y[train]).score(held, y[test])))
    report("measuring what the repair gains", folds, folds)
    return Gain(*(np.array(found) for found in scores))


def _encoded(train: pd.DataFrame, test: pd.DataFrame, readings: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    encoder = TableEncoder(readings).fit(pd.concat([train, test]))
    return encoder.transform(train), encoder.transform(test)
