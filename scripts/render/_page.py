"""One page: prose that is edited in place, with tables and single figures between markers.

`<!-- table: NAME -->` and `<!-- end -->`, each on a line of its own, hold a table; `<!-- figure: NAME -->` and
`<!-- end -->` within a line hold one figure. Everything else is prose, which rendering does not touch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ._table import RefusedError, Table, carry, refuse_fewer, rows_of

_TABLE = re.compile(r"^<!-- table: (.+?) -->\n(.*?)^<!-- end -->$", re.S | re.M)
_FIGURE = re.compile(r"<!-- figure: ([^\n>]+?) -->([^\n<]*)<!-- end -->")
_OPENS, _ENDS = re.compile(r"<!-- (?:table|figure): "), re.compile(r"<!-- end -->")


def fill(
    page: str, tables: Mapping[str, Table], figures: Mapping[str, str | None] | None = None
) -> tuple[str, list[str]]:
    """The page with what the figures say between its markers, and a line on each row, cell or figure that was kept.

    Args:
        tables: by name; a table of the page that is not among them is kept whole.
        figures: by name; None where it is missing.

    Raises:
        RefusedError: a table would lose rows, has no place in the page, or the markers do not pair.
    """
    known, kept = figures or {}, []
    matched = [*_TABLE.finditer(page), *_FIGURE.finditer(page)]
    nested = any(_OPENS.search(match[2]) for match in _TABLE.finditer(page))
    if nested or len(_OPENS.findall(page)) != len(matched) or len(_ENDS.findall(page)) != len(matched):
        raise RefusedError(
            "its markers do not pair. Expected <!-- table: NAME --> or <!-- figure: NAME -->, "
            "each with its <!-- end -->. Look at: git diff docs"
        )
    names = [match[1] for match in _TABLE.finditer(page)]
    homeless = [name for name in tables if names.count(name) != 1]
    if homeless:
        raise RefusedError(
            f"table {homeless[0]} stands in it {names.count(homeless[0])} times. Expected once. "
            f"Add where it belongs: <!-- table: {homeless[0]} --> and <!-- end -->, each on a line of its own."
        )

    def table_of(match: re.Match[str]) -> str:
        name, body = match[1], match[2]
        if name not in tables:
            kept.extend(f"table {name}: row {row[0]}" for row in rows_of(body))
            return match[0]
        try:
            text, lines = carry(body, tables[name])
            refuse_fewer(body, text)
        except RefusedError as reason:
            raise RefusedError(f"table {name}: {reason}") from None
        kept.extend(f"table {name}: {line}" for line in lines)
        return f"<!-- table: {name} -->\n{text}<!-- end -->"

    def figure_of(match: re.Match[str]) -> str:
        name, text = match[1], known.get(match[1])
        if text is None:
            kept.append(f"figure {name}: {match[2]}")
            return match[0]
        return f"<!-- figure: {name} -->{text}<!-- end -->"

    return _FIGURE.sub(figure_of, _TABLE.sub(table_of, page)), kept
