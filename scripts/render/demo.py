"""docs/demo.md, from demo_truth.json and demo_frontier.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._figures import interval, listed, shown
from ._table import Table

_NAMES = {
    "trained against unseen: f's candidates": "trained_auroc",
    "both roles of f and g": "both_auroc",
    "planted against other": "planted_auroc",
}
_DESIGNS = {
    "audit's own AUROC": "audits_own_auroc",
    "trained against unseen": "trained",
    "planted against other": "planted",
}


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """Tables of the page."""
    found, others = read("demo_truth.json"), read("demo_frontier.json")
    tables = {}
    if found.get("seeds"):
        tables |= {"truth": truth(found), "layers": layers(found["seeds"])}
    if others.get("designs"):
        tables["designs"] = designs(others["designs"])
    return tables, {}


def truth(found: dict[str, Any]) -> Table:
    """AUROC of what is known, by seed and over all that are pooled."""
    seeds = found["seeds"]
    rows: list[list[str | None]] = []
    for seed, row in seeds.items():
        seconds, reliability = shown(row.get("seconds"), ".0f"), shown(row.get("reliability_views"))
        rows.append(
            [seed, seconds, *(interval(row.get(name)) for name in _NAMES.values()), *_named([row]), reliability]
        )
    pooled = [seeds.get(seed, {}) for seed in found.get("pooled_seeds") or []]
    means: list[str | None] = []
    for name in ("trained_auroc", "both_auroc"):
        known = [row[name][0] for row in pooled if row.get(name)]
        means.append(f"mean {sum(known) / len(known):.2f}" if known and len(known) == len(pooled) else None)
    all_of = interval(found.get("pooled_planted_auroc_score"))
    text = None if all_of is None else f"pooled, {found['planted']} against {found['others']}: {all_of}"
    rows.append(["all", "", *means, text, *_named(pooled), ""])
    return Table(
        ["seed", "seconds", *_NAMES, "planted named", "others named", "decoys named", "reliability over views"], rows
    )


def _named(rows: list[dict[str, Any]]) -> list[str | None]:
    """How many planted, other and held-out points are named, of how many."""
    found: list[str | None] = []
    for name, of in (("planted_named", "planted"), ("others_named", None), ("decoys_named", "decoys")):
        known = [row for row in rows if row.get(name) is not None]
        if not known or len(known) != len(rows):
            found.append(None)
        else:
            total = "" if of is None else f" of {sum(row[of] for row in known)}"
            found.append(f"{sum(row[name] for row in known)}{total}")
    return found


def layers(seeds: dict[str, Any]) -> Table:
    """Calibrated LayerMem by layer and seed."""
    names = dict.fromkeys(layer for row in seeds.values() for layer in row.get("calibrated", {}))
    rows: list[list[str | None]] = [
        [name, *(interval(row.get("calibrated", {}).get(name), 3) for row in seeds.values())] for name in names
    ]
    return Table(["layer", *(f"seed {seed}" for seed in seeds)], rows)


def designs(found: dict[str, Any]) -> Table:
    """What other designs of the demo find, every seed in its place."""
    rows: list[list[str | None]] = []
    for name, row in found.items():
        figures = [
            listed(row[key], ".2f", ", ") if len(row.get(key) or []) == len(row["seeds"]) else None
            for key in _DESIGNS.values()
        ]
        rows.append([name, ", ".join(map(str, row["design"])), ", ".join(map(str, row["seeds"])), *figures])
    shape = "encoders, images of each, planted, repeats, batch, never seen"
    return Table(["design", shape, "seeds", *_DESIGNS], rows)
