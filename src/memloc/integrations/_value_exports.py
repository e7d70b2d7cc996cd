"""What a valuation found, as tables that other tools open: values, suspects, label issues, the table cleaned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from memloc.data import read_raw
from memloc.errors import DataError, SpecError
from memloc.results import digest_of
from memloc.valuation import Valuation

VALUE_TABLES = ("suspects", "checks", "cells", "rows", "labels", "cleaned")
"""What can be exported of a valuation's folder."""
_WRONG = 0.5  # chance above which a label is called an issue


def value_export(
    folder: str | Path, table: str = "suspects", *, above: float = 0.5
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of a folder that `memloc value` wrote, and of `cleaned` the log of every change (else empty).

    Args:
        table: suspects, checks, cells, rows; labels: in cleanlab's convention, `is_label_issue`, `label_score` (0 to 1,
            lower is worse), `given_label`, `predicted_label`; cleaned: the table as it was given, where cells that are
            suspected with a score above `above` are left empty, as are numbers to predict, and labels so suspected are
            replaced by the suggested ones.
    Raises:
        SpecError: another table. DataError: images, or the table's file is gone or has changed.
    """
    if table not in VALUE_TABLES:
        from memloc.errors import nearest

        raise SpecError(f"there is no table {table!r}. {nearest(table, VALUE_TABLES)} Pass --table suspects.")
    found = Valuation.load(folder)
    nothing = pd.DataFrame()
    if table == "labels":
        return _labels(found), nothing
    if table == "cleaned":
        return _cleaned(found, above)
    chosen: pd.DataFrame | None = getattr(found, table)
    if chosen is None:
        raise DataError(
            f"{str(folder)!r} has no {table}, since it values images or was written by memloc 0.1. Expected a table's"
            " values. Export rows or cells, or run memloc value again."
        )
    return _with_ids(chosen, found.record), nothing


def _with_ids(table: pd.DataFrame, record: dict[str, Any]) -> pd.DataFrame:
    """A table with the user's ids beside the rows' numbers, where there are ids."""
    ids = record.get("ids")
    if not ids or "row" not in table:
        return table
    name = dict(zip(record["row_numbers"], ids["values"], strict=True))
    place = list(table.columns).index("row") + 1
    column = ids["column"] if ids["column"] not in table else f"{ids['column']} (id)"
    result = table.copy()
    result.insert(place, column, [name.get(row) for row in table["row"]])
    return result


def _labels(found: Valuation) -> pd.DataFrame:
    if "label_wrong" not in found.rows:
        raise DataError(
            "the valuation has no chances of wrong labels, since it is of numbers, of images, or was written by memloc"
            " 0.1. Expected classes. Export rows instead."
        )
    given = pd.Series(found.record["labels"], index=found.rows.index)
    wrong = found.rows["label_wrong"]
    issue = (wrong > _WRONG).fillna(False)
    table = pd.DataFrame(
        {
            "row": found.rows["row"],
            "is_label_issue": issue,
            "label_score": 1 - wrong,
            "given_label": given,
            "predicted_label": found.rows["suggested"].where(wrong > _WRONG, given),
        }
    )
    return _with_ids(table.sort_values("label_score", kind="stable", ignore_index=True), found.record)


def _cleaned(found: Valuation, above: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    record = found.record
    if found.suspects is None or record.get("target") is None:
        raise DataError("images are valued here. Expected a table, to clean it. Export rows or cells instead.")
    path = Path(record["data"])
    if record.get("file_digest") and (not path.is_file() or digest_of(path) != record["file_digest"]):
        raise DataError(
            f"{str(path)!r} is gone or has changed since it was valued. Expected the same file, to clean it. Put it"
            " back, or run memloc value again."
        )
    table = read_raw(path, record["target"]).frame.reset_index(drop=True)
    names = {str(name): place for place, name in enumerate(table.columns)}
    labels = {str(one).strip(): one for one in table.iloc[:, names[record["target"]]].dropna().unique()}
    cells: dict[str, list[Any]] = {}
    changes = []
    for one in found.suspects[found.suspects["score"] > above].to_dict("records"):
        if one["kind"] not in ("outlier", "category", "label"):
            continue
        is_label = one["kind"] == "label"
        column = record["target"] if is_label else one["column"]
        held = cells.setdefault(column, table.iloc[:, names[column]].astype(object).tolist())
        better = labels.get(one["suggested"]) if is_label and not record["regression"] else None
        after = "" if better is None else one["suggested"]
        before, held[one["row"]] = held[one["row"]], better
        changes.append(
            {"row": one["row"], "column": column, "before": str(before), "after": after,
             "kind": one["kind"], "score": one["score"], "text": one["text"]}
        )  # fmt: skip
    for column, held in cells.items():
        table.isetitem(names[column], pd.Series(held, dtype=object).convert_dtypes())
    columns = ["row", "column", "before", "after", "kind", "score", "text"]
    log = pd.DataFrame(changes, columns=columns).sort_values(["row", "column"], kind="stable", ignore_index=True)
    return table, _with_ids(log, record)
