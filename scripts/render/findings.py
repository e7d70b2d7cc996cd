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
    large = read("paper_scale.json")
    if large:
        tables["paper scale"] = paper_scale(large)
    return tables, {}


def findings(rows: list[dict[str, str | None]]) -> Table:
    """Published findings beside ours."""
    header = ["finding", "published", "ours, 95 % interval", "verdict", "command"]
    lines: list[list[str | None]] = []
    for row in rows:
        verdict = f"**{row['verdict']}**" if row.get("verdict") else None
        lines.append([row["finding"], row.get("published"), row.get("ours"), verdict, row.get("command")])
    return Table(header, lines)


def paper_scale(stages: dict[str, dict[str, Any]]) -> Table:
    """Calibrated LayerMem of the first and the last layer at the papers' scale, by stage, with a verdict."""
    header = [
        "stage",
        "first layer",
        "last layer",
        "uncalibrated, last",
        "rises with depth",
        "seconds",
        "card",
        "command",
    ]
    rows: list[list[str | None]] = []
    for name, stage in stages.items():
        measured = [each for each in stage.get("layers") or [] if each.get("layermem_calibrated") is not None]
        if not measured:
            continue
        ends = [
            [each[key] for key in ("layermem_calibrated", "calibrated_low", "calibrated_high")]
            for each in (measured[0], measured[-1])
        ]
        (_, _, first_high), (_, last_low, last_high) = ends
        apart = last_low > first_high
        verdict = "**holds**" if apart else "**does not hold**" if last_high < ends[0][1] else "**underpowered**"
        rows.append(
            [
                name,
                *(interval(end, 5) for end in ends),
                f"{measured[-1]['layermem']:.4f}",
                verdict,
                f"{stage['seconds']:.0f}",
                stage["device"],
                f"`{stage['command']}`",
            ]
        )
    return Table(header, rows)


def layers(runs: dict[str, dict[str, list[float]]]) -> Table:
    """Calibrated LayerMem with its interval, by layer and run."""
    names = dict.fromkeys(layer for row in runs.values() for layer in row)
    rows: list[list[str | None]] = [[name, *(interval(row.get(name), 4) for row in runs.values())] for name in names]
    return Table(["layer", *runs], rows)
