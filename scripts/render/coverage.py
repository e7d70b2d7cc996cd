"""docs/coverage.md, from coverage.json and null_audits.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._figures import interval
from ._table import Table

_COUNTS = (("named", "candidates"), ("decoys_named", "decoys"))
_KINDS = {
    "coverage": ("effect", "delta", "AUROC", "own", "gap", "TPR at 1 %", "TPR at 5 %", "TPR at 10 %", "member share"),
    "alarms": ("any layer", "any, each by its own interval", "differ", "bound above"),
    "names": ("false share", "any falsely", "decoys named", "named of memorized"),
}


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """A table of coverages, one of false alarms, one of names."""
    measured, tables = read("coverage.json"), {}
    for name, figures in _KINDS.items():
        rows: list[list[str | None]] = [
            [case, figure, interval(found[figure], 3), str(found["repeats"])]
            for case, found in measured.items()
            for figure in figures
            if figure in found
        ]
        if rows:
            tables[name] = Table(["simulation", "figure", "share, with its 95 % interval", "repeats"], rows, keys=2)
    audits = read("null_audits.json")
    if audits:
        told = [
            [name, f"{row['shows']} of {row['audits']}", *(f"{row[of]} of {row[whole]}" for of, whole in _COUNTS)]
            for name, row in audits.items()
        ]
        tables["null"] = Table(["audits", "a layer is said to memorize in", "points named", "decoys named"], told)
    return tables, {}
