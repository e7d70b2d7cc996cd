"""Tables to one HTML file that works without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from memloc.report._charts import layer_chart, roc_chart, scatter, series_chart, unit_chart
from memloc.report._page import page, write_page
from memloc.report._summary import summarize
from memloc.report._words import scale_of
from memloc.results import HEAD_KINDS, Audit

_SERIES: dict[str, list[tuple[str, str, str, str | None, str | None]]] = {
    "calibrated": [("calibrated", "membership effect", "layermem_calibrated", "calibrated_low", "calibrated_high")],
    "published": [
        ("candidate", "candidates", "layermem", "low", "high"),
        ("shared", "shared", "layermem_shared", "shared_low", "shared_high"),
        ("independent", "independent", "layermem_independent", "independent_low", "independent_high"),
        ("external", "external", "layermem_external", "external_low", "external_high"),
    ],
    "gap": [("calibrated", "alignment gap", "alignment_gap", "gap_low", "gap_high")],
    "own": [("calibrated", "candidates above external", "layermem_own", "own_low", "own_high")],
}


def write_report(
    audit: Audit | str | Path, path: str | Path | None = None, *, summary: dict[str, Any] | None = None
) -> Path:
    """Write the report of an audit.

    Args:
        audit: an Audit, or the folder it was saved to.
        path: the HTML file; `report.html` in the audit's folder by default.
        summary: what `summarize` found of it, where that is known already.
    Returns:
        The path written.
    Raises:
        DataNotFoundError, ResultsError: no finished audit there. OutputError: the file cannot be written.
    """
    folder = None if isinstance(audit, Audit) else str(audit)
    place = path or ("report.html" if folder is None else Path(folder) / "report.html")

    def page() -> str:
        found = audit if isinstance(audit, Audit) else Audit.load(audit)
        return render(summarize(found, folder))

    return write_page(place, page if summary is None else lambda: render(summary), folder=folder)


def render(summary: dict[str, Any]) -> str:
    """The report's HTML, from what `summarize` found."""
    from markupsafe import Markup

    layers = summary["layers"]
    behind = [row for row in layers if row["kind"] in HEAD_KINDS]
    charts = {}
    for name, lines in _SERIES.items():
        inside = [row for row in layers if row not in behind]
        charts[name] = Markup(layer_chart(inside, lines, f"{lines[0][1]} by depth, values in the table below"))
        label = f"{lines[0][1]} at the head and by the training loss, values in the table below"
        charts[f"{name}_behind"] = Markup(layer_chart(behind, lines, label, joined=False))
    charts["roc"] = Markup(
        roc_chart(summary["roc"], "trained points found by false alarms, values in the table beside it")
    )
    charts["units"] = Markup(unit_chart(summary["units"], "UnitMem per layer, values in the table below"))
    series = (summary["series"] or {}).get("lines", {})
    charts |= {
        f"series_{name}": Markup(series_chart(series.get(name, {}), f"{name} by epoch, one line per layer"))
        for name in ("figure", "unitmem", "control")
    }
    scatters = [
        Markup(scatter(layer, found["scatter"])) for layer, found in summary["units"].items() if found["scatter"]
    ]
    figures = ("layermem_calibrated", "calibrated_low", "calibrated_high", "alignment_gap", "gap_low", "gap_high")
    unit = scale_of(row.get(name) for row in layers for name in figures)
    named = ("layers", "points", "layer_points", "point_units", "band", "leading", "score_name")
    shown = {key: summary[key] for key in named}
    shown["units"] = {layer: found["top"] for layer, found in summary["units"].items()}
    data = json.dumps(shown, separators=(",", ":")).replace("<", "\\u003c")
    return page(
        "report.html",
        "report.js",
        **summary,
        charts=charts,
        scatters=scatters,
        unit=unit[0],
        factor=unit[1],
        data=Markup(data),
        record_json=json.dumps(summary["record"], indent=1),
    )


def write_any_report(folder: str | Path, path: str | Path | None = None) -> Path:
    """Write the report of whatever finished work a folder holds: an audit, a table's values or a coreset."""
    from memloc.report._coreset import write_coreset_report
    from memloc.report._value import write_value_report

    writers = {"value.json": write_value_report, "coreset.json": write_coreset_report}
    write = next((writer for name, writer in writers.items() if (Path(folder) / name).is_file()), write_report)
    return write(folder, path)
