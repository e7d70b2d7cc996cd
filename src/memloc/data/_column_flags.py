"""Which columns a TableSpec names, and what is wrong with the names, all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from memloc.data._column_types import different_texts, plain_number
from memloc.data._table_spec import TableSpec
from memloc.errors import SpecError, nearest


def resolved(table: pd.DataFrame, spec: TableSpec, target: str | None = None) -> tuple[dict[Any, str], list[str]]:
    """What a spec says of each column it names, and what is wrong with it; the target is no column of the table."""
    names = {str(name): name for name in table.columns}
    problems: list[str] = []
    said: dict[Any, str] = {}
    by_flag: dict[str, list[Any]] = {flag: [] for flag in ("drop", "only", "id", "categorical", "numeric")}
    for flag, listed in by_flag.items():
        for given in getattr(spec, flag):
            parts = [given] if given in names else [part.strip() for part in given.split(",") if part.strip()]
            for part in parts:
                if part == target and part not in names:
                    problems.append(f"--{flag} {part}: that is the target, which is read as it is. Leave it out.")
                elif part in names:
                    listed.append(names[part])
                else:
                    problems.append(f"--{flag} {part}: there is no such column. {nearest(part, names)}")
    for flag, kind in (("drop", "dropped"), ("id", "id"), ("categorical", "category"), ("numeric", "number")):
        for name in by_flag[flag]:
            if said.setdefault(name, kind) != kind:
                problems.append(f"--{flag} {name}: another flag names the column, too. Name it once.")
    if by_flag["only"]:
        for name in table.columns:
            if name not in by_flag["only"] and said.get(name) != "id":
                said[name] = "dropped"
            elif said.get(name) == "dropped":
                problems.append(f"--drop {name}: --only keeps it. Name it once.")
    return said, problems


def unmatched(table: pd.DataFrame, spec: TableSpec) -> list[str]:
    """What a spec says stands for a missing value, and no cell holds."""
    wanted = spec.missing
    held: set[str] = set()
    numbers: set[float] = set()
    for place in range(table.shape[1]) if wanted else ():
        texts, _ = different_texts(table.iloc[:, place], frozenset())
        held |= wanted & set(texts)
        numbers |= {number for text in texts if (number := plain_number(text)) is not None}
    found = {part for part in wanted if part in held or plain_number(part) in numbers}
    return [
        part.strip()
        for given in spec.na
        for part in ([] if given.strip() in found else given.split(","))
        if part.strip() and part.strip() not in found
    ]


def raise_problems(problems: Sequence[str], table: pd.DataFrame) -> None:
    """Raise SpecError with all that is wrong with the names of columns."""
    names = list(map(str, table.columns))
    what = "this is wrong" if len(problems) == 1 else f"these {len(problems)} are wrong"
    raise SpecError(
        f"of the names of columns {what}. {' '.join(problem.strip() for problem in problems)} Expected columns of the"
        f" table, each in one flag. There are: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
    )
