"""What a valuation says, in words and short lists: the part of its record that the report and the command show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.valuation._value import Valuation

_WORST = 100  # cells and rows listed
_HALF = 0.5  # accuracy of the vote below which rows that are predicted wrong are no news
_FALSE = 0.05  # share of false discoveries among the rows that are called wrong


def describe(valuation: Valuation, X: pd.DataFrame, z: NDArray[np.float64]) -> Valuation:
    """A valuation whose record also holds the answer in sentences, the worst cells and rows with their contents, and
    the columns.

    Args:
        X: the table. z: class-conditional z-scores, shape (row, column), NaN where a column has none.
    """
    record, rows = valuation.record, valuation.rows
    shape = (len(rows), len(record["columns"]))
    values, errors, draws = (
        valuation.cells[name].to_numpy(dtype=np.float64).reshape(shape) for name in ("value", "stderr", "n_draws")
    )
    contrast = values - rows["value"].to_numpy()[:, None]

    def cells(places: list[tuple[int, int]]) -> list[dict[str, Any]]:
        return [
            {
                "row": row,
                "column": record["columns"][column],
                "content": _content(X.iat[row, column]),
                "label": record["labels"][row],
                "value": values[row, column],
                "stderr": errors[row, column],
                "contrast": contrast[row, column],
                "z": z[row, column],
            }
            for row, column in places
        ]

    if record.get("image_shape") is not None:
        uneven = unevenness(contrast, errors)
        record = {**record, "unevenness": [None if np.isnan(one) else round(one, 4) for one in uneven.tolist()]}
    groups = np.asarray(record.get("groups") or np.arange(shape[1]))
    worst_cells, least_added = (cells(_lowest(score, draws, groups)) for score in (values, contrast))
    names = record.get("names")
    lowest = rows.sort_values(["value", "n_draws"], ascending=[True, False], kind="stable").head(_WORST)
    worst_rows = [
        {
            **row,
            "row": int(row["row"]),
            "label": record["labels"][int(row["row"])],
            "name": names[int(row["row"])] if names else None,
        }
        for row in lowest.to_dict("records")
    ]
    known = ~np.isnan(values).all(axis=0)
    quantiles = np.full((5, shape[1]), np.nan)
    quantiles[:, known] = np.nanquantile(values[:, known], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    columns = [
        {"column": name, "value": record["column_values"][name], "quantiles": quantiles[:, number].tolist()}
        for number, name in enumerate(record["columns"])
    ]
    record = {
        **record,
        "worst_cells": worst_cells,
        "least_added": least_added,
        "worst_rows": worst_rows,
        "by_column": columns,
    }
    return replace(valuation, record={**record, "answer": _answer(record, rows)})


def unevenness(contrast: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much a row's value depends on which cells a learner is given: root mean square of contrast over standard
    error, shape (row,).

    About 1 where only the draw of learners differs; far more where few cells decide, as a trigger's do. NaN for a row
    without values.

    Args:
        contrast: cell value less row value, shape (row, column). errors: standard errors of the cells.

    >>> unevenness(np.array([[0.1, -0.1], [0.8, np.nan]]), np.full((2, 2), 0.1)).round(3).tolist()
    [1.0, 8.0]
    """
    ratio = (contrast / errors) ** 2
    return np.sqrt(_mean_known(ratio))


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _lowest(score: NDArray[np.float64], draws: NDArray[np.float64], groups: NDArray[Any]) -> list[tuple[int, int]]:
    """Row and column of the lowest cells, one for each group of columns; of equal ones those with more learners
    first."""
    _, first = np.unique(groups, return_index=True)
    part, weight = score[:, first], draws[:, first]
    order = np.lexsort((-weight.ravel(), np.where(np.isnan(part), np.inf, part).ravel()))[:_WORST]
    places = [np.unravel_index(place, part.shape) for place in order if not np.isnan(part.ravel()[place])]
    return [(int(row), int(first[column])) for row, column in places]


def surely_wrong(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows that learners predict wrong more often than not: binomial test against one half, Benjamini-Hochberg q <
    .05."""
    from scipy.stats import binom, false_discovery_control

    count = rows["n_draws"].to_numpy()
    right = np.rint(np.nan_to_num(rows["value"].to_numpy(dtype=np.float64)) * count)
    return np.asarray(false_discovery_control(np.where(count > 0, binom.cdf(right, count, 0.5), 1.0)) < _FALSE)


def _content(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _answer(record: dict[str, Any], rows: pd.DataFrame) -> list[str]:
    """Three sentences: which rows to check, which columns and cells, what next."""
    known = {name: value for name, value in record["column_values"].items() if not np.isnan(value)}
    columns = sorted(known.items(), key=lambda item: item[1])
    if not columns:
        return ["No learner left a row out, so neither rows nor cells have a value: pass more --learners."]
    oob = record["oob_score"]
    if record["regression"]:
        first = (
            f"Learners that did not see a row explain {oob:.0%} of the target's variance; the rows they miss by most"
            " are listed below."
        )
    else:
        exact = set(np.unique(rows["value"].dropna() * rows["n_draws"] % 1).round(6)) <= {0.0, 1.0}
        first = f"Learners that did not see a row predict {oob:.1%} of the rows right by vote."
        if exact and oob < _HALF:
            first += " That is too seldom to say anything of single labels: pass another --learner or more columns."
        elif exact:  # a distance term makes other values
            alone = ~pd.Series(record["labels"]).duplicated(keep=False).to_numpy()  # wrong whatever the label is
            first += (
                f" {int((surely_wrong(rows) & ~alone).sum())} of {len(rows)} rows are predicted wrong more often than"
                " right (at most 5 % of those by chance): check their labels first."
            )
    second = (
        f"Columns help most from {columns[-1][0]} ({columns[-1][1]:.3f}) and least from {columns[0][0]}"
        f" ({columns[0][1]:.3f}); the standard error of a row's value is {float(np.nanmean(rows['stderr'])):.3f} on"
        " average."
    )
    gain = record.get("repair")
    if gain is None and record.get("unevenness") is not None:
        scores = np.array([np.nan if one is None else one for one in record["unevenness"]], dtype=np.float64)
        first_rows = np.argsort(np.where(np.isnan(scores), -np.inf, scores), kind="stable")[::-1][:3]
        listed = ", ".join(f"{row} ({scores[row]:.1f})" for row in first_rows.tolist())
        third = (
            f"Rows {listed} depend most on which pixels a learner is given (unevenness; {np.nanmedian(scores):.1f} in"
            " the median row): where few pixels decide, look for a trigger or another shortcut."
        )
        return [first, second, third]
    if gain is None:
        third = (
            "The lowest cells are listed beside their plain z-score: an outlier is not yet a cell that hurts, nor the"
            " reverse. See what repairing them gains with --repair median."
        )
        return [first, second, third]
    before, after, random = (np.array(gain[name]) for name in ("before", "after", "random"))
    text = _difference(after - before), _difference(random - before)
    third = (
        f"Repairing the lowest {gain['share']:.0%} of cells ({gain['how']}) changed a forest's score on rows kept out"
        f" by {text[0]}, from {before.mean():.3f}; repairing as many random cells by {text[1]}."
    )
    return [first, second, third]


def _difference(folds: NDArray[np.float64]) -> str:
    """Mean difference over folds with its 95 % interval (Student's t)."""
    from scipy.stats import t

    reach = t.ppf(0.975, len(folds) - 1) * folds.std(ddof=1) / np.sqrt(len(folds))
    return f"{folds.mean():+.3f} (95 % interval {folds.mean() - reach:+.3f} to {folds.mean() + reach:+.3f})"
