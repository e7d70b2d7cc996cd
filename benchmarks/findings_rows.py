"""Rows of findings.json: what is measured again takes its place, what is not stays as it is committed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

Row = dict[str, Any]


def rejoined(
    committed: list[Row], measured: Iterable[tuple[Row, Collection[str]]], runs: Collection[str]
) -> tuple[list[Row], list[str]]:
    """The committed rows with those that were measured again, and a line on each that was not.

    Args:
        measured: rows, each with the runs that its part looked for and did not find.
        runs: what the committed rows stand on. A row that would stand on fewer of them is not taken.

    >>> old = [{"finding": "a", "ours": "1", "command": "x"}, {"finding": "b", "ours": "2", "command": "y"}]
    >>> rows, kept = rejoined(old, [({"finding": "b", "ours": "3", "command": "y"}, {"run-9"})], ["run-0"])
    >>> [row["ours"] for row in rows], kept
    (['1', '3'], ['a (not measured here, see x)'])
    """
    rows, kept, seen = list(committed), [], set()
    before: str | None = None
    for row, lacking in measured:
        finding = row["finding"]
        seen.add(finding)
        place = next((at for at, each in enumerate(rows) if each["finding"] == finding), None)
        fewer = sorted(set(lacking) & set(runs))
        if place is None:
            follows = next((at + 1 for at, each in enumerate(rows) if each["finding"] == before), len(rows))
            rows.insert(follows, row)
        elif fewer:
            kept.append(f"{finding} (it stands on {', '.join(fewer)}, too, which {_are(fewer)} not here)")
        else:
            rows[place] = row
        before = finding
    others = [row for row in committed if row["finding"] not in seen]
    kept += [f"{row['finding']} (not measured here, see {row['command']})" for row in others]
    return rows, kept


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
