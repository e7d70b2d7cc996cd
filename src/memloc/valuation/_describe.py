"""What a valuation says, in words and short lists: the part of its record that the report and the command show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data import Table
from memloc.progress import Report, silent
from memloc.valuation._answer import answer
from memloc.valuation._baseline import class_z_scores
from memloc.valuation._findings import table_findings
from memloc.valuation._labels import MODEL, LabelIssues, label_issues
from memloc.valuation._outliers import odd_cells
from memloc.valuation._suspects import shown, suspects_table
from memloc.valuation._value import Valuation

_WORST = 100  # cells and rows listed
_CONTENTS = 300  # rows whose cells are kept for the report


def looked_through(valuation: Valuation, table: Table, report: Report = silent) -> Valuation:
    """A valuation of a table with its suspects, the findings about the table, and the record described.

    Args:
        table: what was valued.
    """
    record, rows = valuation.record, valuation.rows
    regression = bool(record["regression"])
    labels = table.y.to_numpy()
    kinds = [reading.kind for reading in table.valued]
    report("looking for odd cells", 0, 3)
    found = table_findings(
        table.X, labels, table.valued, table.rows, regression=regression, seed=int(record["spec"]["seed"])
    )
    report("looking for odd cells", 1, 3)
    odd = odd_cells(_without(table.X, found.placeholders), labels, kinds, regression=regression)
    issues = None
    if not regression and valuation.votes is not None and valuation.classes is not None:
        issues = label_issues(valuation.votes, labels, valuation.classes)
    report("looking for odd cells", 2, 3)
    shape = table.X.shape
    values, errors = (valuation.cells[name].to_numpy(dtype=np.float64).reshape(shape) for name in ("value", "stderr"))
    contents = table.raw[list(table.X.columns)]
    suspects = suspects_table(
        values, errors, rows["value"].to_numpy(dtype=np.float64), odd, kinds, record["columns"], contents,
        record["labels"], issues=issues, conflicts=found.conflicts, regression=regression,
        spellings=found.spellings,
        class_names=[] if valuation.classes is None else [str(name) for name in valuation.classes],
    )  # fmt: skip
    suspects = _numbered(suspects, table.rows)
    checks = found.table
    if issues is not None:
        rows = rows.assign(
            label_wrong=issues.score,
            suggested=[str(valuation.classes[place]) for place in issues.suggested],  # type: ignore[index]
        )
        if not issues.told:
            said = _overlap(issues)
            line = pd.DataFrame([{"check": "class overlap", "text": said, "evidence": issues.rate}])
            checks = pd.concat([checks, line.reindex(columns=checks.columns)], ignore_index=True)
            checks = checks.astype({"row": "Int64", "other_row": "Int64", "evidence": np.float64})
    ids = table.ids
    record = {
        **record,
        "label_issues": None if issues is None else _summary(issues),
        "reading": {"columns": shown_readings(table), "rows_left_out": table.left_out},
        "warnings": list(dict.fromkeys([*record.pop("notices", []), *record["warnings"]])),
        "row_numbers": table.rows.tolist(),
        "ids": None if ids is None else {"column": str(ids.name), "values": ids.tolist()},
    }
    report("looking for odd cells", 3, 3)
    result = replace(valuation, rows=rows, suspects=suspects, checks=checks, record=record)
    whole = table.raw.copy()
    whole.insert(0, f"{table.y.name} (target)", table.y.to_numpy())
    found_in = replace(result, record={**record, "row_columns": list(map(str, whole.columns))})
    return describe(found_in, table.X, contents, kinds, whole=whole)


def shown_readings(table: Table) -> list[dict[str, str]]:
    """How each column was read, as the report and the plan show it."""
    return [{"column": str(one.name), "kind": one.kind, "text": one.text} for one in table.columns]


def _without(X: pd.DataFrame, placeholders: list[tuple[int, float]]) -> pd.DataFrame:
    """A table whose cells are missing where they hold what stands for that, which a check says once for all."""
    found = X.copy(deep=False)
    for place, value in placeholders:
        column = found.iloc[:, place]
        if pd.api.types.is_datetime64_any_dtype(column):
            stands = column.notna() & (column.to_numpy().astype("datetime64[D]") == np.datetime64(int(value), "D"))
        else:
            stands = column == value
        found.isetitem(place, column.mask(stands))
    return found


def _summary(issues: LabelIssues) -> dict[str, Any]:
    flagged = int((np.nan_to_num(issues.score) > 0.5).sum())
    return {
        "model": MODEL,
        "expected": round(issues.number, 1),
        "low": issues.low,
        "high": issues.high,
        "told": issues.told,
        "useful": issues.useful,
        "likely_wrong": flagged,
        "read_from": issues.rows,
        "rate": round(issues.rate, 4),
    }


def _overlap(issues: LabelIssues) -> str:
    return (
        f"of the {issues.rows} rows that learners predict most surely {issues.rate:.1%} have another label, and of the"
        " others many more: where classes overlap, wrong labels cannot be told from hard rows"
    )


def _numbered(suspects: pd.DataFrame, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """Suspects with the numbers of rows in the file instead of their places."""
    if not len(suspects):
        return suspects.drop(columns="other").astype({"row": "int64", "score": "float64", "value": "float64"})
    places = suspects["row"].to_numpy(dtype=np.int64)
    other = suspects["other"].fillna(0).to_numpy(dtype=np.int64)
    text = [
        one.replace("{other}", str(numbers[place])) if kind == "duplicate" else one
        for one, place, kind in zip(suspects["text"], other, suspects["kind"], strict=True)
    ]
    return suspects.assign(row=numbers[places], text=text).drop(columns="other")


def describe(
    valuation: Valuation,
    X: pd.DataFrame,
    contents: pd.DataFrame | None = None,
    kinds: Iterable[str] | None = None,
    *,
    whole: pd.DataFrame | None = None,
) -> Valuation:
    """A valuation whose record also holds the answer in sentences, the worst cells and rows with their contents, and
    the columns.

    Args:
        X: the table. contents: its cells as the user has them. kinds: of its columns; numbers by default.
        whole: rows as the user has them, with target and columns that are not valued.
    """
    record, rows = valuation.record, valuation.rows
    contents = X if contents is None else contents
    shape = (len(rows), len(record["columns"]))
    values, errors, draws = (
        valuation.cells[name].to_numpy(dtype=np.float64).reshape(shape) for name in ("value", "stderr", "n_draws")
    )
    contrast = values - rows["value"].to_numpy()[:, None]
    z = z_scores(X, np.asarray(record["labels"]), kinds, regression=bool(record["regression"]))
    numbers = rows["row"].tolist()

    def cells(places: list[tuple[int, int]]) -> list[dict[str, Any]]:
        return [
            {
                "row": numbers[row],
                "column": record["columns"][column],
                "content": shown(contents.iat[row, column]),
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
    lowest = np.lexsort((-rows["n_draws"].to_numpy(), rows["value"].to_numpy()))[:_WORST].tolist()
    worst_rows = [
        {
            "row": numbers[row],
            "value": float(rows["value"].iloc[row]),
            "stderr": float(rows["stderr"].iloc[row]),
            "n_draws": int(rows["n_draws"].iloc[row]),
            "label": record["labels"][row],
            "name": names[row] if names else None,
        }
        for row in lowest
    ]
    known = ~np.isnan(values).all(axis=0)
    quantiles = np.full((5, shape[1]), np.nan)
    quantiles[:, known] = np.nanquantile(values[:, known], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    columns = [
        {
            "column": name,
            "value": record["column_values"][name],
            "stderr": record["column_stderr"][name],
            "quantiles": quantiles[:, number].tolist(),
        }
        for number, name in enumerate(record["columns"])
    ]
    record = {
        **record,
        "worst_cells": worst_cells,
        "least_added": least_added,
        "worst_rows": worst_rows,
        "by_column": columns,
    }
    if record.get("image_shape") is None:
        record["row_contents"] = _contents(
            valuation, contents if whole is None else whole, [int(one["row"]) for one in (*worst_rows, *worst_cells)]
        )
    result = replace(valuation, record=record)
    return replace(result, record={**record, "answer": answer(result)})


def _contents(valuation: Valuation, contents: pd.DataFrame, others: list[int]) -> dict[str, list[str]]:
    """The cells of the rows that are listed first, by the row's number."""
    suspects = [] if valuation.suspects is None else valuation.suspects["row"].tolist()
    checks = [] if valuation.checks is None else valuation.checks[["row", "other_row"]].stack().dropna().tolist()
    wanted = dict.fromkeys([*suspects[:_CONTENTS], *others[: _CONTENTS // 3], *checks[: _CONTENTS // 3]])
    place = {number: place for place, number in enumerate(valuation.rows["row"].tolist())}
    return {str(row): [shown(cell) for cell in contents.iloc[place[row]].tolist()] for row in wanted}


def z_scores(
    X: pd.DataFrame, y: NDArray[Any], kinds: Iterable[str] | None = None, *, regression: bool
) -> NDArray[np.float64]:
    """Class-conditional z-scores of a table; NaN for columns of other kinds than numbers, and for missing cells."""
    kinds = ["number"] * X.shape[1] if kinds is None else list(kinds)
    numbers = np.full(X.shape, np.nan)
    for place, kind in enumerate(kinds):
        if kind in ("number", "duration"):
            numbers[:, place] = X.iloc[:, place].to_numpy(dtype=np.float64, na_value=np.nan)
    return class_z_scores(numbers, None if regression else y)


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
