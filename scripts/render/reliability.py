"""docs/reliability.md, from reliability.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._figures import at, shown
from ._table import Table

_HEADER = ["views", "sampling", "estimator", "reliability, output", "conv4_2", "planted AUROC, output", "conv4_2"]


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """A table per set of runs, and the machine."""
    found = read("reliability.json")
    tables = {name: table(rows) for name, rows in found.items() if isinstance(rows, list) and rows}
    return tables, {"machine": at(found, "versions", "machine"), "torch": at(found, "versions", "torch")}


def table(found: list[dict[str, Any]]) -> Table:
    """Reliability and planted AUROC, at the output and at conv4_2."""
    known = {(row["views"], row["sampling"], row["estimator"], row["layer"]): row for row in found}
    rows: list[list[str | None]] = []
    for views in sorted({row["views"] for row in found}):
        for sampling in ("independent", "sobol"):
            for estimator in ("ratio", "pairwise"):
                output, late = (known.get((views, sampling, estimator, layer), {}) for layer in ("output", "conv4_2"))
                if output or late:
                    figures = [shown(row.get("reliability")) for row in (output, late)]
                    figures += [shown(row.get("planted_auroc"), ".3f") for row in (output, late)]
                    rows.append([str(views), sampling, estimator, *figures])
    return Table(_HEADER, rows, keys=3)
