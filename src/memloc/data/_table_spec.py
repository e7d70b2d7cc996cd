"""How the columns of a table are read, where a user says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from memloc.settings import check_limits, documented, setting

TEXTS = ("leave-out", "hash", "category")


@documented
@dataclass(frozen=True)
class TableSpec:
    """How a table's columns are read where their contents do not say, or say otherwise."""

    drop: tuple[str, ...] = setting(
        (), "Tables: columns to leave out, between commas; may be repeated.", text_type=list[str]
    )
    only: tuple[str, ...] = setting((), "Tables: the columns to value, and no others.", text_type=list[str])
    id: tuple[str, ...] = setting((), "Tables: columns that name a row: shown, not valued.", text_type=list[str])
    categorical: tuple[str, ...] = setting((), "Tables: columns to take as categories.", text_type=list[str])
    numeric: tuple[str, ...] = setting(
        (), "Tables: columns to take as numbers; other text in them is missing.", text_type=list[str]
    )
    na: tuple[str, ...] = setting(
        (), "Tables: what stands for a missing value, such as -200,unknown; may be repeated.", text_type=list[str]
    )
    text: str = setting(
        "leave-out",
        "Tables: free text is left out, hashed (hash: counts of its words in 16 columns), or a category.",
        choices=TEXTS,
    )

    @property
    def missing(self) -> frozenset[str]:
        """What stands for a missing value: each of `na`, and the parts between its commas."""
        return frozenset(part.strip() for text in self.na for part in (text, *text.split(",")))

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            if each.name != "text":
                names: Iterable[object] = (given,) if isinstance(given, str) else given or ()
                object.__setattr__(self, each.name, tuple(str(name) for name in names))
        check_limits(self)
