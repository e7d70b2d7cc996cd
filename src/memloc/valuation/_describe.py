"""What a valuation says, in words and short lists: the part of its record that the report and the command show."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.valuation._value import Valuation

_WORST = 100  # cells and rows listed
_Z95 = 1.959963984540054
_T95 = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
}  # two-sided 95 %, by number of folds


def describe(valuation: Valuation, X: pd.DataFrame, z: NDArray[np.float64]) -> Valuation:
    """A valuation whose record also holds the answer in sentences, the worst cells and rows with their contents, and the columns.

    Args:
        X: the table. z: class-conditional z-scores, shape (row, column), NaN where a column has none.
    """
    record, rows = valuation.record, valuation.rows
    shape = (len(rows), len(record["columns"]))
    values, errors = (valuation.cells[name].to_numpy(dtype=np.float64).reshape(shape) for name in ("value", "stderr"))
    contrast = values - rows["value"].to_numpy()[:, None]
    order = np.argsort(np.where(np.isnan(values), np.inf, values), axis=None, kind="stable")[:_WORST]
    places = [np.unravel_index(place, shape) for place in order]
    worst_cells = [
        {
            "row": int(row), "column": record["columns"][column], "content": _content(X.iat[int(row), int(column)]), "label": record["labels"][row],
            "value": values[row, column], "stderr": errors[row, column], "contrast": contrast[row, column], "z": z[row, column],
        }
        for row, column in places
    ]  # fmt: skip
    names = record.get("names")
    worst_rows = [
        {
            **row,
            "row": int(row["row"]),
            "label": record["labels"][int(row["row"])],
            "name": names[int(row["row"])] if names else None,
        }
        for row in rows.nsmallest(_WORST, "value").to_dict("records")
    ]
    known = ~np.isnan(values).all(axis=0)
    quantiles = np.full((5, shape[1]), np.nan)
    quantiles[:, known] = np.nanquantile(values[:, known], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    columns = [
        {"column": name, "value": record["column_values"][name], "quantiles": quantiles[:, number].tolist()}
        for number, name in enumerate(record["columns"])
    ]
    record = {**record, "worst_cells": worst_cells, "worst_rows": worst_rows, "by_column": columns}
    return replace(valuation, record={**record, "answer": _answer(record, rows)})


def table_fingerprint(X: pd.DataFrame, y: Any) -> str:
    """A hash of a table's contents and target."""
    content = pd.util.hash_pandas_object(X.assign(**{"\0target": np.asarray(y)}), index=False).to_numpy()
    return hashlib.blake2b(content.tobytes() + repr(list(X.columns)).encode(), digest_size=8).hexdigest()


def _content(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _answer(record: dict[str, Any], rows: pd.DataFrame) -> list[str]:
    """Three sentences: which rows to check, which columns and cells, what next."""
    columns = sorted(record["column_values"].items(), key=lambda item: item[1])
    low, high = rows["value"] - _Z95 * rows["stderr"], rows["value"] + _Z95 * rows["stderr"]
    if record["regression"]:
        first = f"Learners that did not see a row explain {record['oob_score']:.0%} of the target's variance; the rows they miss by most are listed below."
    else:
        wrong = int((high < 0.5).sum())
        first = (
            f"Learners that did not see a row predict {record['oob_score']:.1%} of the rows right by vote. {wrong} of {len(rows)} rows are predicted "
            "wrong more often than not, beyond doubt (95 %): check their labels first."
        )
    sure = float(np.nanmean(high - low))
    second = (
        f"Columns help most from {columns[-1][0]} ({columns[-1][1]:.3f}) and least from {columns[0][0]} ({columns[0][1]:.3f}); a row's value is known "
        f"to {sure / 2:.3f} on average."
    )
    gain = record.get("repair")
    if gain is None:
        return [
            first,
            second,
            "The lowest cells are listed beside their plain z-score: an outlier is not yet a cell that hurts, nor the reverse. See what repairing them gains with --repair median.",
        ]
    before, after, random = (np.array(gain[name]) for name in ("before", "after", "random"))
    text = _difference(after - before), _difference(random - before)
    third = (
        f"Repairing the lowest {gain['share']:.0%} of cells ({gain['how']}) changed a forest's score on rows kept out by {text[0]}, from "
        f"{before.mean():.3f}; repairing as many random cells by {text[1]}."
    )
    return [first, second, third]


def _difference(folds: NDArray[np.float64]) -> str:
    """Mean difference over folds with its 95 % interval (Student's t)."""
    reach = _T95[len(folds)] * folds.std(ddof=1) / np.sqrt(len(folds))
    return f"{folds.mean():+.3f} (95 % interval {folds.mean() - reach:+.3f} to {folds.mean() + reach:+.3f})"
