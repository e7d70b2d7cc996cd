"""docs/tables.md, from the result schema."""

from __future__ import annotations

from memloc.results import SCHEMA_VERSION, TABLES

OTHERS = """## Other files

| file | of | columns |
|---|---|---|
| points.parquet of a run | `memloc train` | point, name, split, label, repeats (copies per epoch), origin (of external points: held-out or given) |
| membership.parquet | `memloc train` | point, and a column per encoder: whether it saw the point |
| series.parquet | `AuditCallback` | those of layers.parquet, and epoch |
| units.parquet | `memloc prune` | layer, unit, unitmem of the units that were silenced |
| units.parquet | `memloc insert` | unit, unitmem_before, unitmem_after, point_before, point_after (the point that drives the unit) of the layer |
| probe.parquet | prune, replace, remove | right_before, right_after: whether each test image was classified rightly |
| between.parquet | `memloc compare` | layer, overlap, overlap_by_chance, kendall with kendall_low, kendall_high and kendall_p, and both audits' calibrated and published figures |
| within.parquet | `memloc compare` | audit (a or b), layer, other (layer), neighbours (one follows the other), and the same agreement |
| splits.parquet | `memloc compare` | audit, layer, split, other (split), candidate_mean, other_mean, Welch's t and p |
| extremes.parquet | `memloc compare` | audit, k, units_most and units_least (units that each of the k most and least memorized points drives), t, p |
| repaired.parquet | `memloc value --repair` | those of the table that was given |
"""


def page() -> str:
    """The page, as text."""
    lines = [
        "# Result tables",
        "",
        f"Schema version {SCHEMA_VERSION}. Written from `memloc.results.TABLES` by `make docs`; `?` marks columns that may be absent or empty; others hold NaN where a figure cannot be computed.",
        "",
    ]
    for name, columns in TABLES.items():
        lines += [f"## {name}.parquet", "", "| column | type | range | meaning |", "|---|---|---|---|"]
        for column in columns:
            low, high = ("" if end is None else f"{end:g}" for end in (column.low, column.high))
            span = f"{low} to {high}" if low or high else ""
            lines.append(
                f"| {column.name}{'?' if column.optional else ''} | {column.kind} | {span} | {column.tooltip} |"
            )
        lines.append("")
    return "\n".join([*lines, OTHERS])
