"""docs/objectives.md, from objectives.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._figures import at, shown
from ._table import ABSENT, Table

_PRIVACY = {"untrained": "untrained", None: "none", 20.0: "20", 8.0: "8"}
_COLUMNS = {
    "unitmem": "mean UnitMem",
    "unitmem_external": "of unseen images, equal numbers",
    "unitmem_equal": "of trained ones, equal numbers",
    "fully_connected": "fully-connected",
    "calibrated": "calibrated LayerMem, output",
    "auroc": "AUROC, output",
}


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """Tables and figures of the page."""
    found = read("objectives.json")
    tables = {}
    if at(found, "learn", "rows"):
        tables["learn"] = learn(found["learn"])
    if found.get("privacy"):
        tables["privacy"] = privacy(found["privacy"])
    seeds = {row["seed"] for row in found.get("privacy") or []}
    return tables, {
        **{name: shown(at(found, "learn", name), "d") for name in ("neighbours", "test", "images")},
        "privacy epochs": shown(at(found, "settings", "privacy", "epochs"), "d"),
        "privacy seeds": str(len(seeds)) if seeds else None,
    }


def learn(found: dict[str, Any]) -> Table:
    """Accuracy of nearest neighbours before and after training; of raw pixels there is only one."""
    rows: list[list[str | None]] = []
    for name, row in found["rows"].items():
        length = f"{row.get('epochs', found['epochs'])}, {row.get('batch', 256)}" if "before" in row else ABSENT
        accuracy = [shown(row.get(when), ".3f") for when in ("before", "after")]
        rows.append([name, row.get("encoder", ABSENT), length, *accuracy])
    return Table(["what", "encoder", "epochs, batch", "untrained", "trained"], rows)


def privacy(found: list[dict[str, Any]]) -> Table:
    """Means over seeds ± their standard errors, by ε."""
    rows: list[list[str | None]] = []
    seeds = {row["seed"] for row in found}
    for epsilon, name in _PRIVACY.items():
        chosen = [row for row in found if row["epsilon"] == epsilon]
        whole = {row["seed"] for row in chosen} == seeds  # the page says of how many seeds
        if chosen:
            rows.append([name, *(_with_error([row.get(key) for row in chosen]) if whole else None for key in _COLUMNS)])
    return Table(["ε", *_COLUMNS.values()], rows)


def _with_error(values: list[float | None]) -> str | None:
    if None in values:
        return None
    numbers = np.array(values)
    error = numbers.std(ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else float("nan")
    return f"{numbers.mean():.3f} ± {error:.3f}"
