"""A coreset to one HTML file: how training went, what was dropped, and which labels are suspected to be wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from memloc.report._charts import series_chart
from memloc.report._page import page, write_page
from memloc.results import TABLES, conform, is_there, read_record, read_table

_SUSPECTED = 120  # rows of the table
_SERIES = {
    "clean_fraction": "right among selected",
    "test_accuracy": "test accuracy",
    "accuracy_kept": "accuracy of kept",
    "accuracy_dropped": "accuracy of dropped",
    "noisy_memorized": "memorized of wrong",
}


def write_coreset_report(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the report of a folder that `memloc coreset` filled.

    Raises:
        DataNotFoundError, ResultsError: no coreset there. OutputError: the file cannot be written.
    """
    return write_page(
        path or Path(folder) / "report.html", lambda: render_coreset(summarize_coreset(folder)), folder=folder
    )


def summarize_coreset(folder: str | Path) -> dict[str, Any]:
    """What the report shows, as plain numbers, text and lists; NaN is None."""
    folder = Path(folder)
    record = read_record(folder, "coreset.json", "coreset", f"memloc coreset DATA --out {folder}")
    picks, labels, epochs = (_read(folder, name) for name in ("coreset", "labels", "epochs"))
    assert picks is not None, "every run has picks"
    pictures = _pictures(folder)
    names: list[str] = record.get("class_names") or []
    name = Path(str(record.get("data") or "the data")).name
    return {
        "title": (
            f"Which points of {name} to train on"
            if record["by"] == "gradient"
            else f"Which images stand for all of {name}"
        ),
        "answer": record["answer"],
        "warnings": record["warnings"],
        "record": record,
        "counts": {
            "points": record["points"],
            "selected": len(picks),
            **({} if labels is None else {"suspected labels": int(labels["suspected"].sum())}),
        },
        "series": _series(epochs),
        "epochs": [] if epochs is None else _lines(epochs),
        "epoch_columns": [] if epochs is None else [c for c in epochs if c != "learning_rate"],
        "suspected": [] if labels is None else _suspected(labels, names, pictures),
        "classes": [] if labels is None else _classes(labels, names),
        "first": [] if labels is not None else _first(picks, pictures),
        "agreement": [_plain(line) for line in record["agreement"]],
        "tooltips": {
            column.name: column.tooltip for name in ("labels", "epochs", "coreset") for column in TABLES[name]
        },
    }


def render_coreset(summary: dict[str, Any]) -> str:
    """The report's HTML, from what `summarize_coreset` found."""
    from markupsafe import Markup

    left_out = ("answer", "warnings", "agreement", "class_names")
    return page(
        "coreset.html",
        "tables.js",
        **{key: value for key, value in summary.items() if key not in ("record", "series")},
        by=summary["record"]["by"],
        chart=(
            Markup(series_chart(summary["series"], "shares by epoch, listed in the table below"))
            if summary["series"]
            else ""
        ),
        record_json=json.dumps(
            {key: value for key, value in summary["record"].items() if key not in left_out}, indent=1
        ),
    )


def _read(folder: Path, name: str) -> pd.DataFrame | None:
    path = folder / f"{name}.parquet"
    return conform(name, read_table(path)) if is_there(path) else None


def _pictures(folder: Path) -> dict[int, str]:
    if not is_there(folder / "thumbnails.parquet"):
        return {}
    table = read_table(folder / "thumbnails.parquet")
    return {int(point): base64.b64encode(png).decode() for point, png in zip(table["point"], table["png"], strict=True)}


def _series(epochs: pd.DataFrame | None) -> dict[str, list[tuple[float, float | None]]]:
    if epochs is None or len(epochs) < 2:
        return {}
    return {
        title: [(float(epoch), _number(value)) for epoch, value in zip(epochs["epoch"], epochs[name], strict=True)]
        for name, title in _SERIES.items()
        if name in epochs and epochs[name].notna().any()
    }


def _lines(epochs: pd.DataFrame) -> list[dict[str, Any]]:
    return [_plain(line) for line in epochs.to_dict("records")]


def _suspected(labels: pd.DataFrame, names: list[str], pictures: dict[int, str]) -> list[dict[str, Any]]:
    """Suspected points, least likely label first."""
    chosen = labels[labels["suspected"] == 1].sort_values("p_label", kind="stable").head(_SUSPECTED)
    return [
        {
            "point": int(row["point"]),
            "name": row["name"],
            "label": _class(row["label"], names),
            "predicted": _class(row["predicted"], names),
            "p_label": _number(row["p_label"]),
            "n_kept": int(row["n_kept"]),
            "picture": pictures.get(int(row["point"])),
            "truth": _class(row["true_label"], names) if "true_label" in labels else None,
        }
        for row in chosen.to_dict("records")
    ]


def _classes(labels: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    found = []
    for number, rows in labels.groupby("label"):
        suspected = rows[rows["suspected"] == 1]
        others = suspected["predicted"].value_counts()
        known = rows[rows["true_label"] >= 0] if "true_label" in rows else rows
        wrong = (known["label"] != known["true_label"]).mean() if "true_label" in rows and len(known) else None
        found.append(
            {
                "name": _class(number, names),
                "points": len(rows),
                "kept": float(rows["kept"].mean()),
                "suspected": float(rows["suspected"].mean()),
                "taken_for": _class(others.index[0], names) if len(others) else "",
                "wrong": None if wrong is None else float(wrong),
            }
        )
    return found


def _first(picks: pd.DataFrame, pictures: dict[int, str]) -> list[dict[str, Any]]:
    return [
        {
            "point": int(row["point"]),
            "rank": int(row["rank"]),
            "weight": _number(row["weight"]),
            "gain": _number(row["gain"]),
            "picture": pictures.get(int(row["point"])),
        }
        for row in picks.sort_values(["rank", "class"]).head(60).to_dict("records")
    ]


def _class(number: Any, names: list[str]) -> str:
    return names[int(number)] if 0 <= int(number) < len(names) else str(int(number))


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    return {str(key): value if isinstance(value, str) else _number(value) for key, value in line.items()}
