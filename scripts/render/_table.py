"""One table: new figures meet the committed rows, and none of these is lost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ABSENT = "–"  # a cell that has no figure and never had one
_SHOWN = 12  # rows that a message names


class RefusedError(Exception):
    """A table or page that cannot be written without losing what is committed."""


@dataclass(frozen=True)
class Table:
    """What the figures say: a cell is None where its figure is missing.

    Attributes:
        keys: how many of the first columns tell a row from the others.
    """

    header: list[str]
    rows: list[list[str | None]]
    keys: int = 1


def carry(committed: str, table: Table) -> tuple[str, list[str]]:
    """The table as Markdown, with what is committed where a figure is missing, and a line on each such row or cell.

    Rows are matched by their first columns, columns by their names. What is kept stands after what it stood after.
    To drop a row for good, delete it from the page.

    Raises:
        RefusedError: committed rows cannot be matched, so that the table would have fewer of them.

    >>> committed = "| layer | seed 0 |\\n|---|---|\\n| conv1 | 0.1 |\\n| conv2 | 0.2 |\\n"
    >>> text, kept = carry(committed, Table(["layer", "seed 0"], [["conv2", "0.3"]]))
    >>> print(text, end="")
    | layer | seed 0 |
    |---|---|
    | conv1 | 0.1 |
    | conv2 | 0.3 |
    >>> kept
    ['row conv1']
    """
    header, rows, spaced = _parsed(committed)
    if not header:
        return _written(table.header, [[_text(cell) for cell in row] for row in table.rows], spaced=False), []
    old, new = _by_key(header, rows, table.keys), _by_key(table.header, table.rows, table.keys)
    if header[: table.keys] != table.header[: table.keys]:
        raise RefusedError(
            f"its rows are told apart by {', '.join(header[: table.keys])} in the page and by "
            f"{', '.join(table.header[: table.keys])} in the figures, so that these would be lost: {_named(old)}. "
            "Expected the same columns. Rename them in the page first."
        )
    columns = _joined(_labels(header), _labels(table.header))
    known = set(_labels(table.header))
    kept = [f"row {_name(key)}" for key in old if key not in new]
    kept += [f"column {name}" for name, count in _labels(header) if (name, count) not in known]
    merged = []
    for key in _joined(list(old), list(new)):
        cells = []
        for column in columns:
            before, now = old.get(key, {}).get(column), new.get(key, {}).get(column)
            if now is None and before not in (None, ABSENT) and key in new and column in known:
                kept.append(f"cell {_name(key)}, {column[0]}")
            cells.append(_text(before if now is None else now))
        merged.append(cells)
    return _written([name for name, _ in columns], merged, spaced=spaced), kept


def refuse_fewer(committed: str, text: str) -> None:
    """Raise if a table has fewer rows than the committed one, however it was made.

    Raises:
        RefusedError: it has, with the rows that are gone.
    """
    before, after = rows_of(committed), rows_of(text)
    if len(after) < len(before):
        gone = _named([row[:1] for row in before if row not in after])
        raise RefusedError(
            f"it would have {len(after)} rows instead of {len(before)}. Gone or changed: {gone}. "
            "Expected no fewer. Measure them again, or delete them from the page."
        )


def rows_of(text: str) -> list[list[str]]:
    """The rows of a table in Markdown, without its header."""
    return _parsed(text)[1]


def _parsed(text: str) -> tuple[list[str], list[list[str]], bool]:
    """Header, rows, and whether the line below the header is written with spaces; all empty of an empty text."""
    lines = text.splitlines()
    if not lines:
        return [], [], False
    strange = next((line for line in lines if not (line.startswith("|") and line.endswith("|"))), None)
    if strange is not None or len(lines) < 2 or not re.fullmatch(r"[|\-: ]+", lines[1]):
        raise RefusedError(
            f"what stands between its markers is no table: {(strange or lines[0])[:80]!r}. Expected a table alone. "
            "Move prose out of the markers."
        )
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    header, rows = cells[0], cells[2:]
    uneven = [row for row in rows if len(row) != len(header)]
    if uneven:
        raise RefusedError(
            f"row {uneven[0][0]!r} has {len(uneven[0])} cells. Expected {len(header)}, as the header has."
        )
    return header, rows, lines[1].startswith("| ")


def _labels(header: list[str]) -> list[tuple[str, int]]:
    """Names of columns with how often they came before, since two may be called alike."""
    return [(name, header[:place].count(name)) for place, name in enumerate(header)]


def _by_key(header: list[str], rows: list, keys: int) -> dict[tuple, dict]:
    """Cells by column, of each row by its first columns."""
    found = {tuple(row[:keys]): dict(zip(_labels(header), row, strict=True)) for row in rows}
    if len(found) < len(rows):
        names = [tuple(row[:keys]) for row in rows]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        raise RefusedError(
            f"rows cannot be told apart, so that some would be lost: {_named(twice)}. Expected each once."
        )
    return found


def _joined(old: list, new: list) -> list:
    """The new order, and in it each that is only in the old one after what it stood after."""
    joined = list(new)
    for place, item in enumerate(old):
        if item not in joined:
            joined.insert(joined.index(old[place - 1]) + 1 if place else 0, item)
    return joined


def _text(cell: str | None) -> str:
    return ABSENT if cell is None else cell


def _name(key: Iterable[str]) -> str:
    return ", ".join(map(str, key))


def _named(keys: Iterable[Iterable[str]]) -> str:
    names = [_name(key) for key in keys]
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


def _written(header: list[str], rows: list[list[str]], *, spaced: bool) -> str:
    rule = "| " + " | ".join(["---"] * len(header)) + " |" if spaced else "|---" * len(header) + "|"
    lines = [_line(header), rule, *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
