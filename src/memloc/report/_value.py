"""Values of a table to one HTML file: suspects, findings, heat map, cells, rows, columns, and maps of images."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.report._charts import box_chart
from memloc.report._page import page, write_page
from memloc.results import TABLES, conform, read_record, read_table

_ROWS, _COLUMNS = 60, 60  # of the heat map
_MAP_SHARE = 0.05  # of a class's rows that a map is the mean of
_MAP_ROWS = 5  # at least
_UNEVEN = 100  # rows listed
_MAP_PIXELS = 168
_SUSPECTS = 300  # of the list that is shown
_REACH = 0.95  # of the cells of a heat map that lie within its colours


def write_value_report(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the report of a folder that `memloc value` filled.

    Raises:
        DataNotFoundError, ResultsError: no values there. OutputError: the file cannot be written.
    """
    return write_page(
        path or Path(folder) / "report.html", lambda: render_values(summarize_values(folder)), folder=folder
    )


def summarize_values(folder: str | Path) -> dict[str, Any]:
    """What the report shows, as plain numbers, text and lists; NaN is None."""
    folder = Path(folder)
    record = read_record(folder, "value.json", "values", f"memloc value TABLE --target COLUMN --out {folder}")
    cells, rows = (conform(name, read_table(folder / f"{name}.parquet")) for name in ("cells", "rows"))
    columns: list[str] = record["columns"]
    grid = cells["value"].to_numpy(dtype=np.float64).reshape(len(rows), len(columns))
    of_rows = rows["value"].to_numpy(dtype=np.float64)
    shown = np.argsort(np.where(np.isnan(of_rows), np.inf, of_rows), kind="stable")[:_ROWS]
    wide = np.array(
        [record["column_values"][name] if record["column_values"][name] is not None else np.inf for name in columns]
    )
    picked = np.sort(np.argsort(wide, kind="stable")[:_COLUMNS])
    looked = "reading" in record  # a table's odd cells were looked for
    suspects, checks = (_rows_of(folder, name) if looked else [] for name in ("suspects", "checks"))
    return {
        "title": f"What helps and hurts in {Path(str(record.get('data') or 'the table')).name}",
        "answer": record["answer"],
        "warnings": record["warnings"],
        "record": record,
        "counts": {"rows": len(rows), "columns": len(columns), "learners": record["learners"]},
        "heat": _heat(record, grid, shown, picked, "value"),
        "suspects": suspects[:_SUSPECTS],
        "n_suspects": len(suspects),
        "checks": checks,
        "readings": (record.get("reading") or {}).get("columns", []),
        "left_out": (record.get("reading") or {}).get("rows_left_out", 0),
        "id_column": (record.get("ids") or {}).get("column"),
        "ids": _ids(record, rows["row"].tolist()),
        "row_cells": {"columns": record.get("row_columns") or columns, "rows": record.get("row_contents") or {}},
        "all_rows": _all_rows(record, grid, of_rows, picked),
        "contrast": _heat(record, grid - of_rows[:, None], shown, picked, "value less row value"),
        "worst_cells": record["worst_cells"],
        "worst_rows": record["worst_rows"],
        "least_added": record["least_added"],
        "uneven_rows": _uneven_rows(record, of_rows),
        "by_column": [record["by_column"][number] for number in picked],
        "maps": _maps(record, grid - of_rows[:, None], of_rows) if record.get("unevenness") else [],
        "tooltips": {column.name: column.tooltip for column in TABLES["cells"]},
    }


def _rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a table, missing cells None."""
    table = conform(name, read_table(folder / f"{name}.parquet")).astype(object)
    return table.where(table.notna(), None).to_dict("records")


def _ids(record: dict[str, Any], numbers: list[int]) -> dict[int, str]:
    """The user's id of each row, by its number, where there is one."""
    ids = record.get("ids")
    return {} if not ids else dict(zip(numbers, ids["values"], strict=True))


def _heat(
    record: dict[str, Any], grid: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64], what: str
) -> dict[str, Any]:
    middle = _median(grid) if what == "value" else 0.0
    return {
        "what": what,
        "rows": [(record.get("row_numbers") or range(len(grid)))[row] for row in rows.tolist()],
        "columns": [record["columns"][number] for number in columns],
        "labels": [record["labels"][row] for row in rows],
        "values": [[_number(value) for value in grid[row, columns]] for row in rows],
        "middle": _number(middle),
    }


def _all_rows(
    record: dict[str, Any], grid: NDArray[np.float64], of_rows: NDArray[np.float64], columns: NDArray[np.int64]
) -> dict[str, Any]:
    """Every row in the order of its value, in at most as many groups as the heat map has lines; a group's cells are
    averaged."""
    order = np.argsort(np.where(np.isnan(of_rows), np.inf, of_rows), kind="stable")
    parts = np.array_split(order, min(_ROWS, len(order)))
    means = np.stack([_mean(grid[part][:, columns]) for part in parts])
    ends = np.cumsum([len(part) for part in parts])
    return {
        "what": "mean value",
        "rows": [f"{end - len(part) + 1} to {end}" for part, end in zip(parts, ends.tolist(), strict=True)],
        "columns": [record["columns"][number] for number in columns],
        "labels": ["" for _ in parts],
        "values": [[_number(value) for value in line] for line in means],
        "middle": _number(_median(grid)),
    }


def render_values(summary: dict[str, Any]) -> str:
    """The report's HTML, from what `summarize_values` found."""
    from markupsafe import Markup

    record = summary["record"]
    kept = (
        "spec",
        "regression",
        "learners",
        "oob_score",
        "data",
        "target",
        "timings",
        "fingerprint",
        "image_shape",
        "block",
        "repair",
    )
    return page(
        "value.html",
        "tables.js",
        row_cells_json=Markup(json.dumps(summary["row_cells"]).replace("<", "\\u003c")),
        **{key: value for key, value in summary.items() if key not in ("record", "row_cells")},
        heat_map=Markup(heat_map(summary["heat"])),
        all_rows_map=Markup(heat_map(summary["all_rows"])),
        contrast_map=Markup(heat_map(summary["contrast"])),
        columns_chart=Markup(
            box_chart(summary["by_column"], "values of the cells of each column, listed in the table below")
        ),
        map_groups=[
            (
                group["title"],
                [(one["title"], Markup(pixel_map(one["values"], one["reach"], one["title"]))) for one in group["maps"]],
            )
            for group in summary["maps"]
        ],
        record_json=json.dumps({key: record.get(key) for key in kept}, indent=1),
    )


def heat_map(heat: dict[str, Any]) -> str:
    """Rows by columns as coloured squares: orange below the middle, blue above, gray where there is no value."""
    side, left, top, right = 16, 110, 112, 64
    known = [value for row in heat["values"] for value in row if value is not None]
    middle = heat["middle"] or 0.0
    away = [abs(value - middle) for value in known]
    reach = float(np.quantile(away, _REACH)) if away else 1.0
    reach = reach or max(away, default=1.0) or 1.0
    width, height = left + side * len(heat["columns"]) + right, top + side * len(heat["rows"]) + 6
    label = (
        f"{heat['what']} of the cells of {len(heat['rows'])} rows and {len(heat['columns'])} columns; the worst cells"
        " are in the table below"
    )
    parts = [
        f'<svg class="heat" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{label}">'
    ]
    for place, name in enumerate(heat["columns"]):
        parts.append(
            f'<text class="tick" transform="translate({left + side * place + 11},{top - 6})'
            f' rotate(-60)">{escape(_short(name, 16))}</text>'
        )
    for line, (row, text, values) in enumerate(zip(heat["rows"], heat["labels"], heat["values"], strict=True)):
        parts.append(
            f'<text class="tick" x="{left - 6}" y="{top + side * line + 12}"'
            f' text-anchor="end">{row}{" · " if text else ""}{escape(_short(text, 10))}</text>'
        )
        for place, value in enumerate(values):
            tip = escape(f"row {row}, {heat['columns'][place]}: " + ("no learner" if value is None else f"{value:.3f}"))
            parts.append(
                f'<rect x="{left + side * place}" y="{top + side * line}" width="{side - 1}" height="{side - 1}" '
                f'fill="{_colour(None if value is None else (value - middle) / reach)}"><title>{tip}</title></rect>'
            )
    return "".join([*parts, "</svg>"])


def pixel_map(values: list[list[float | None]], reach: float, label: str) -> str:
    """A picture of pixels: orange below 0, blue above, by `reach`."""
    from PIL import Image

    pixels = [[_mixed(None if value is None else value / (reach or 1.0)) for value in line] for line in values]
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, dtype=np.uint8)).save(file, "PNG")
    content, height = base64.b64encode(file.getvalue()).decode(), round(_MAP_PIXELS * len(values) / len(values[0]))
    return (
        f'<img class="map" src="data:image/png;base64,{content}" width="{_MAP_PIXELS}" height="{height}"'
        f' alt="{escape(label)}">'
    )


def _uneven_rows(record: dict[str, Any], of_rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Rows of images that depend most on which pixels are seen, most first; none for tables."""
    known = [(row, one) for row, one in enumerate(record.get("unevenness") or []) if one is not None]
    first = sorted(known, key=lambda pair: -pair[1])[:_UNEVEN]
    names = record.get("names") or [None] * len(of_rows)
    return [
        {
            "row": row,
            "name": names[row],
            "label": record["labels"][row],
            "value": _number(of_rows[row]),
            "unevenness": one,
        }
        for row, one in first
    ]


def _maps(
    record: dict[str, Any], contrast: NDArray[np.float64], rows: NDArray[np.float64]
) -> list[dict[str, list[dict[str, Any]] | str]]:
    """Mean cell contrast over all rows, over those that depend most on which pixels are seen, and over those of lowest
    value; of all and of each class."""
    labels = np.array(record["labels"])
    members = [("rows", np.arange(len(labels)))] + [
        (f"rows of {name}", np.flatnonzero(labels == name)) for name in sorted(set(record["labels"]))
    ]
    uneven = np.array([np.nan if one is None else one for one in record["unevenness"]], dtype=np.float64)
    parts = [
        ("Every row", [(f"all {len(member)} {name}", member) for name, member in members]),
        ("Rows that depend most on which pixels are seen", _first(members, -uneven, "most uneven")),
        ("Rows of lowest value", _first(members, rows, "lowest")),
    ]
    return [
        {"title": title, "maps": _with_reach([_map(record, contrast, *one) for one in chosen])}
        for title, chosen in parts
    ]


def _first(
    members: list[tuple[str, NDArray[np.int64]]], score: NDArray[np.float64], what: str
) -> list[tuple[str, NDArray[np.int64]]]:
    """A share of each member's rows, those of lowest score."""
    found = []
    for name, member in members:
        first = member[np.argsort(score[member], kind="stable")[: max(round(_MAP_SHARE * len(member)), _MAP_ROWS)]]
        found.append((f"{len(first)} {what} {name}", first))
    return found


def _map(record: dict[str, Any], contrast: NDArray[np.float64], title: str, rows: NDArray[np.int64]) -> dict[str, Any]:
    channels, height, width = record["image_shape"]
    picture = _mean(contrast[rows].reshape(len(rows) * channels, height, width))
    return {"title": title, "values": [[_number(value) for value in line] for line in picture]}


def _with_reach(maps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Maps that share a scale."""
    reach = max(
        (abs(value) for one in maps for line in one["values"] for value in line if value is not None), default=1.0
    )
    return [{**one, "reach": reach} for one in maps]


def _median(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _mean(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(stack)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, stack, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _number(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 4)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _colour(share: float | None) -> str:
    red, green, blue = _mixed(share)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _mixed(share: float | None) -> tuple[int, int, int]:
    """Orange at -1 through near-white at 0 to blue at 1; gray for None."""
    if share is None:
        return 140, 149, 159
    amount = min(abs(share), 1.0) ** 0.7
    end = (0, 114, 178) if share > 0 else (213, 94, 0)
    red, green, blue = (round(244 + (part - 244) * amount) for part in end)
    return red, green, blue
