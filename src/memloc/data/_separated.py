"""Separated text: which sign separates fields, where the header is, and whether every line has as many."""

from __future__ import annotations

import csv
import io
import re

from memloc.errors import DataError

_SEPARATORS = (",", ";", "\t", "|")
SPACES = r"\s+"  # where fields are separated by any number of spaces
_LOOKED_AT = 60  # lines that say which sign separates fields
TOP = 12  # lines above the header, at most
_SHARE = 0.9  # of those lines that must agree
_LONG = 100_000  # characters of a line that is looked at


def cut_to_header(text: str, target: str) -> tuple[str, str, int]:
    """Text from its header on, the sign between its fields, and how many lines stood above."""
    lines, places = _first_lines(text)
    found: list[tuple[int, int, int, float]] = []
    for order, between in enumerate(_SEPARATORS):
        rows, starts = _rows(lines, between)
        top = header_of(rows[: TOP + 1], target)
        if top is not None:
            wide = len(rows[top])
            alike = sum(len(row) == wide for row in rows[top:]) / len(rows[top:])
            found.append((wide, -order, starts[top], alike))
    spaced = _by_spaces(lines, target)
    if found and not (spaced and max(found)[3] < _SHARE):
        _, order, top, _ = max(found)
        cut = text[places[top] :]
        return re.sub(r"^#\s*(?=[^\s,;|])", "", cut), _SEPARATORS[-order], top
    if spaced:
        return text, SPACES, 0
    return text, max(_SEPARATORS, key=(lines or [""])[0].count), 0


def _rows(lines: list[str], between: str) -> tuple[list[list[str]], list[int]]:
    """The rows that some lines hold, of which one may take several, and the line that each begins in."""
    reader = csv.reader([f"{line}\n" for line in lines if len(line) < _LONG], delimiter=between, skipinitialspace=True)
    rows: list[list[str]] = []
    starts: list[int] = []
    while True:
        start = reader.line_num
        try:
            rows.append(next(reader))
        except (StopIteration, csv.Error):
            return rows, starts
        starts.append(start)


def _first_lines(text: str) -> tuple[list[str], list[int]]:
    """Some lines, and where each begins."""
    lines: list[str] = []
    places = [0]
    while len(lines) < _LOOKED_AT and places[-1] < len(text):
        end = text.find("\n", places[-1])
        end = len(text) if end < 0 else end + 1
        lines.append(text[places[-1] : end].rstrip("\r\n"))
        places.append(end)
    return lines, places


def _by_spaces(lines: list[str], target: str) -> bool:
    """Whether fields are separated by spaces."""
    try:
        rows = [next(csv.reader([" ".join(line.split())], delimiter=" "), []) for line in lines if line.strip()]
    except csv.Error:
        return False
    if not rows or target not in rows[0] or len(rows[0]) < 2:
        return False
    return sum(len(row) == len(rows[0]) for row in rows) >= _SHARE * len(rows)


def header_of(rows: list[list[str]], target: str) -> int | None:
    """Which of the first rows names the target among others, the rows above it being shorter; None where none does."""
    for place, row in enumerate(rows):
        names = [cell.strip() for cell in row]
        if len(names) > 1 and (target in names or names[0].lstrip("# ") == target):
            shorter = all(sum(cell.strip() != "" for cell in above) < len(row) for above in rows[:place])
            return place if shorter else None
    return None


def header_lines(text: str, between: str) -> int:
    """How many lines the header takes: more than one where a name holds a line break."""
    if between == SPACES:
        return 1
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    next(lines, None)
    return lines.line_num


def check_fields(text: str, between: str, name: str) -> bool:
    """Raise DataError for a line with more or fewer fields than the header, which would shift or empty its columns;
    empty ones at its end aside. Whether every line has one field more than the header, as where row names have none."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    try:
        wanted = len(next(lines, []))
        unnamed_first = None
        for fields in lines:
            if not fields:
                continue
            if unnamed_first is None:
                unnamed_first = len(fields) == wanted + 1 and fields[-1] != ""
            expected = wanted + unnamed_first
            if len(fields) != expected and (len(fields) < expected or any(fields[expected:])):
                raise DataError(
                    f"line {lines.line_num} of {name} has {len(fields)} fields and the header {wanted}."
                    f" Expected as many in every line. Correct it, or put text that holds {between!r} between"
                    " quotation marks."
                )
    except csv.Error as problem:
        raise DataError(
            f"line {lines.line_num} of {name} cannot be read ({problem}). Expected fields separated by"
            f" {between!r}. Correct it."
        ) from problem
    return bool(unnamed_first)
