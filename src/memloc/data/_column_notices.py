"""What is said of how columns were read: a sentence for each topic, however many columns it is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

MOST_CATEGORIES = 50
"""Of one column: the others, the rarest, are taken together."""
_NAMED = 8  # columns of a notice


class Noticed(Protocol):
    """A reading of a column: its name, and what is to be said of it by topic."""

    @property
    def name(self) -> Any:
        """Of the column."""

    @property
    def notice(self) -> Mapping[str, str]:
        """What is to be said, by topic."""


def notices_of(readings: Iterable[Noticed]) -> list[str]:
    """A sentence for each topic that there is something to say of, with the columns it is of."""
    topics: dict[str, list[str]] = {}
    for reading in readings:
        for topic, words in reading.notice.items():
            topics.setdefault(topic, []).append(f"{reading.name}{f' ({words})' if words else ''}")
    return [_SAID[topic].format(_listed(named)) for topic, named in sorted(topics.items(), key=_order)]


def _listed(named: list[str]) -> str:
    more = len(named) - _NAMED
    return "; ".join(named) if more <= 1 else f"{'; '.join(named[:_NAMED])}; and {more} more"


def _order(topic: tuple[str, Any]) -> int:
    return list(_SAID).index(topic[0])


_SAID = {
    "forms": "read as numbers: {}.",
    "odd": "cells that are no number or date, in columns of those, are missing: {}. With --categorical they are names.",
    "dates": "dates are read as days, month and weekday, and the hour where there are times: {}.",
    "durations": "times are read as numbers: {}.",
    "mixed": "hold numbers beside other text, and are taken as text: {}. With --numeric other text is missing.",
    "blanks": "names that may stand for missing cells are kept as names: {}. Otherwise: --na NAME.",
    "counts": "hold each number from 1 on once, in another order than the rows: {}. If that is an id: --id COLUMN.",
    "units": "numbers that cannot be compared, and so no numbers here: {}. Bring them to one form.",
    "codes": "digits that begin with 0 are taken as names, not numbers: {}. Otherwise: --numeric COLUMN.",
    "rare": f"categories beyond the {MOST_CATEGORIES} most frequent are taken together: {{}}.",
    "ids": "left out, since they name rows: {}. Otherwise: --categorical COLUMN, or --numeric COLUMN.",
    "text": "left out as free text: {}. Otherwise: --text hash.",
    "hashed": "free text is read as counts of its words: {}.",
    "constant": "left out, since every cell is the same or missing: {}.",
    "nested": "left out, since their cells hold several values: {}.",
}
