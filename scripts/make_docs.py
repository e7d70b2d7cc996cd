"""Write docs/tables.md from the result schema: python scripts/make_docs.py"""

from __future__ import annotations

from pathlib import Path

from memloc.results import SCHEMA_VERSION, TABLES

TARGET = Path(__file__).parents[1] / "docs/tables.md"


def page() -> str:
    """The page, as text."""
    lines = [
        "# Result tables",
        "",
        f"Schema version {SCHEMA_VERSION}. Written from `memloc.results.TABLES` by `make docs`; `?` marks columns that may be absent or empty; others hold NaN where a figure cannot be computed. These are the tables of an audit, a valuation and a coreset; `units.parquet` of an intervention and the tables of `memloc compare` name the columns that their commands' records speak of.",
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
    return "\n".join(lines)


if __name__ == "__main__":
    TARGET.write_text(page())
    print(TARGET)
