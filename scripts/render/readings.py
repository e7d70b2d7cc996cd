"""docs/readings.md, from readings.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._figures import at, interval, shown
from ._table import Table

_HEADER = ["run", "row", "cells", "difference", "f alone", "regressed", "independents", "slope"]


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """A row per run and reading."""
    rows: list[list[str | None]] = []
    for run, readings in read("readings.json").items():
        for name, found in readings.items():
            kinds = ("difference", "alone", "regressed", "independents", "slope")
            rows.append(
                [run, name, interval(found.get("cells"), 3), *(shown(found.get(kind), ".3f") for kind in kinds)]
            )
    return ({"readings": Table(_HEADER, rows, keys=2)} if rows else {}), {}


def told(measured: dict[str, Any]) -> str | None:
    """What the head adds, in the report's words; None where it is not measured."""
    found = [
        tuple(at(readings, row, "cells") for row in ("head", "output"))
        for name, readings in measured.items()
        if name.startswith("k")
    ]
    if not found or any(cells is None for pair in found for cells in pair):
        return None
    head, output = (", ".join(f"{pair[place][0]:.2f}" for pair in found) for place in (0, 1))
    return (
        "docs/readings.md, small encoders. Encoders that saw a point against others, AUROC by draw of images: at the head"
        f" {head}, at the output {output}."
    )
