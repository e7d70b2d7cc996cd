"""Every file that is rendered, and from what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memloc.errors import ResultsError
from memloc.results import read_json

from . import (
    coresets,
    coverage,
    demo,
    evidence,
    findings,
    mutants,
    objectives,
    readings,
    reliability,
    schema,
    settings,
    valuation,
)
from ._page import fill
from ._table import RefusedError, Table

Content = tuple[dict[str, Table], dict[str, str | None]]
Read = Callable[[str], dict[str, Any]]

# by page: its tables and figures, from what `read` finds in benchmarks/
PAGES: dict[str, Callable[[Read], Content]] = {
    "docs/coresets.md": coresets.content,
    "docs/demo.md": demo.content,
    "docs/findings.md": findings.content,
    "docs/objectives.md": objectives.content,
    "docs/readings.md": readings.content,
    "docs/coverage.md": coverage.content,
    "docs/reliability.md": reliability.content,
    "docs/valuation.md": valuation.content,
}
EVIDENCE = "src/memloc/report/evidence.json"
SCHEMA = "docs/tables.md"
SETTINGS = "docs/settings.md"
MUTANTS = "docs/mutants.md"


@dataclass(frozen=True)
class Rendering:
    """What a file would hold.

    Attributes:
        now: what it holds. text: what it would hold; `now`, if it is refused.
        kept: what the figures lack, one line each. refused: why.
    """

    target: str
    now: str
    text: str
    kept: list[str] = field(default_factory=list)
    refused: str | None = None


def renderings(root: Path) -> Iterator[Rendering]:
    """Every file that is rendered, of the repository at `root`; nothing is written."""

    def read(name: str) -> dict[str, Any]:
        path = root / "benchmarks" / name
        return read_json(path) if path.is_file() else {}

    def one(target: str, make: Callable[[str], tuple[str, list[str]]]) -> Rendering:
        path = root / target
        now = path.read_text() if path.is_file() else ""
        try:
            return Rendering(target, now, *make(now))
        except (RefusedError, ResultsError) as reason:
            return Rendering(target, now, now, refused=str(reason))

    yield one(SCHEMA, lambda now: (schema.page(), []))
    yield one(SETTINGS, lambda now: (settings.page(), []))
    explained = root / "docs/mutants_explained.toml"
    faults = read("mutants.json")
    gone = ["every table: benchmarks/mutants.json"]
    yield one(MUTANTS, lambda now: (mutants.page(faults, explained.read_text()), []) if faults else (now, gone))
    for target, content in PAGES.items():
        yield one(target, lambda now, content=content: fill(now, *content(read)))
    yield one(
        EVIDENCE, lambda now: evidence.page(now, *map(read, ("findings.json", "reliability.json", "readings.json")))
    )
