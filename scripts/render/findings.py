"""docs/findings.md, from findings.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._figures import interval
from ._table import Table


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """Tables of the page."""
    found = read("findings.json")
    tables = {}
    if found.get("rows"):
        tables["findings"] = findings(found["rows"])
    if found.get("layers"):
        tables["layers"] = layers(found["layers"])
    return tables, {}


def findings(rows: list[dict[str, str | None]]) -> Table:
    """Published findings beside ours."""
    header = ["finding", "published", "ours, 95 % interval", "verdict", "command"]
    lines: list[list[str | None]] = []
    for row in rows:
        verdict = f"**{row['verdict']}**" if row.get("verdict") else None
        lines.append([row["finding"], row.get("published"), row.get("ours"), verdict, row.get("command")])
    return Table(header, lines)


def layers(runs: dict[str, dict[str, list[float]]]) -> Table:
    """Calibrated LayerMem with its interval, by layer and run."""
    names = dict.fromkeys(layer for row in runs.values() for layer in row)
    rows: list[list[str | None]] = [[name, *(interval(row.get(name), 4) for row in runs.values())] for name in names]
    return Table(["layer", *runs], rows)
