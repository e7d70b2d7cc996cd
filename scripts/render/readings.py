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
    tables = {"readings": Table(_HEADER, rows, keys=2)} if rows else {}
    named = read("names.json")
    if named:
        tables |= {"names": names(named), "components": components(named), "coins": coins(named)}
    return tables, {}


def names(measured: dict[str, Any]) -> Table:
    """Shares of trained points and of decoys that are named, by run."""
    rows: list[list[str | None]] = [
        [
            run,
            f"{found['candidates']}, {found['calibration']}",
            interval(found.get("named")),
            f"{found['decoys']}",
            interval(found.get("decoys_named"), 3),
        ]
        for run, found in measured.items()
    ]
    return Table(["run", "candidates, compared with", "named", "decoys", "of them named"], rows)


def coins(measured: dict[str, Any]) -> Table:
    """Lower bounds of epsilon of pairs."""
    rows: list[list[str | None]] = [
        [
            run,
            told["reading"],
            f"{told['pairs']}",
            f"{told['right']} of {told['guesses']}",
            f"{told['epsilon_low']:.2f}",
        ]
        for run, found in measured.items()
        if (told := found.get("coins"))
    ]
    return Table(["run", "reading", "pairs of points", "guesses right", "ε at least, 95 %"], rows)


def components(measured: dict[str, Any]) -> Table:
    """What belongs to a point, and to the run, by run and row."""
    rows: list[list[str | None]] = [
        [
            run,
            row,
            f"{1000 * part['point']:.2f} (above {1000 * part['point_low']:.2f})",
            f"{1000 * part['run']:.2f} (above {1000 * part['run_low']:.2f})",
        ]
        for run, found in measured.items()
        for row, part in found["components"].items()
    ]
    return Table(["run", "row", "of the point, 10⁻³", "of the training run, 10⁻³"], rows, keys=2)


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
