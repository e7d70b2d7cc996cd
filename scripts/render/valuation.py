"""docs/valuation.md, from valuation_quality.json, suspects.json and valuation.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._figures import at
from ._table import Table

Rows = list[dict[str, Any]]
FLAGGED = 50  # rows, where the figures do not say how many
_SHARES = (0.0, 0.1, 0.2, 0.3)  # of rows or cells, of which "Repairing and removing" has a column each


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """Tables and figures of the page."""
    found = read("valuation_quality.json")
    settings = found.get("settings") or {}
    makers: dict[str, Callable[[Rows], dict[str, Table]]] = {
        "outliers": lambda rows: {"outliers": by_score(rows), "detection": detection(rows, settings.get("inspected"))},
        "baselines": lambda rows: {"baselines": by_score(rows)},
        "mislabels": lambda rows: {"mislabels": plain(["data"], rows)},
        "cleaning": lambda rows: {"cleaning": cleaning(rows)},
        "learners": lambda rows: {"learners": plain(["data", "learner"], rows)},
        "convergence": lambda rows: {"convergence": convergence(rows)},
        "backdoor": lambda rows: {"backdoor": backdoor(rows, settings.get("flagged") or FLAGGED)},
    }
    tables: dict[str, Table] = {}
    for part, make in makers.items():
        if found.get(part):
            tables |= make(found[part])
    listed = read("suspects.json")
    for part, make in (("cells", injected), ("categories", injected), ("labels", flipped), ("agreement", agreement)):
        if listed.get(part):
            tables[part] = make(listed[part])
    public = read("public_tables.json").get("tables")
    if public:
        tables["public"] = public_tables(public)
    against = read("valuation.json").get("pydvl")
    if against:
        tables["pydvl"] = beside_pydvl(against)
    number, seeds = at(settings, "learners"), at(settings, "seeds")
    return tables, {"trees": number and str(number), "seeds": seeds and str(tuple(seeds))}


def injected(rows: Rows) -> Table:
    """Precision of each score's first cells and its average precision, by data and kind of error."""
    scores = [key for key in rows[0] if key not in ("data", "how", "share")]
    lines: list[list[str | None]] = [
        [row["data"], row["how"], f"{row['share']:.0%}"]
        + [f"{row[score][0]:.2f} / {row[score][1]:.2f}" if score in row else None for score in scores]
        for row in rows
    ]
    return Table(["data", "cells", "share", *scores], lines, keys=3)


def flipped(rows: Rows) -> Table:
    """How many labels are said to be wrong, how many are, and average precisions."""

    def number(row: dict[str, Any], key: str, digits: int = 2) -> str | None:
        value = row.get(key)
        return None if value is None or value != value else f"{value:.{digits}f}"

    lines: list[list[str | None]] = [
        [
            row["data"],
            f"{row['flipped']:.0%}",
            number(row, "true", 0),
            f"{row['expected']:.0f} ({row['low']:.0f} to {row['high']:.0f})",
            number(row, "within"),
            number(row, "told"),
            f"{row['flagged']:.1%}",
            number(row, "right of flagged"),
            number(row, "chance of flagged"),
            number(row, "ap", 3),
            number(row, "ap over seeds", 3),
            number(row, "ap of cleanlab, self_confidence", 3),
            number(row, "ap of cleanlab, normalized_margin", 3),
        ]
        for row in rows
    ]
    header = ["data", "flipped", "wrong", "said", "within", "told", "flagged", "right", "their chance", "AP", "± seeds"]
    return Table([*header, "cleanlab, confidence", "cleanlab, margin"], lines, keys=2)


def agreement(rows: Rows) -> Table:
    """Rows that values call more likely wrong than right beside those that a coreset suspects."""
    numbers = ("true", "value", "coreset", "both", "wrong of coreset alone")
    shares = ("wrong of value", "wrong of coreset", "wrong of both")
    lines: list[list[str | None]] = [
        [row["data"], *(f"{row[key]:.0f}" for key in numbers), *(f"{row[key]:.2f}" for key in shares)] for row in rows
    ]
    header = ["data", "wrong", "by value", "by coreset", "by both", "wrong by coreset alone"]
    return Table([*header, "wrong of value's", "of coreset's", "of both's"], lines, keys=1)


def public_tables(found: dict[str, dict[str, Any]]) -> Table:
    """How every public table is read at defaults, or why not."""
    lines: list[list[str | None]] = []
    for name, one in found.items():
        if "refused" in one:
            lines.append([name, one["source"], "–", one["refused"].partition(". ")[0].replace("|", "/"), "–", "–", "–"])
            continue
        kinds = ", ".join(f"{count} {kind}" for kind, count in one["columns"].items())
        task = "R²" if one["regression"] else "accuracy"
        figures = [str(one["notices"]), f"{task} {one['score']:.2f}", str(one["suspects"])]
        lines.append([name, one["source"], str(one["rows"]), kinds, *figures])
    return Table(
        ["table", "shipped by", "rows", "columns, as read", "notices", "trees", "suspects above ½"], lines, keys=1
    )


def beside_pydvl(found: dict[str, dict[str, Any]]) -> Table:
    """Processor time and memory of row values beside pyDVL's."""
    lines: list[list[str | None]] = [
        [name, str(one["learners"]), f"{one['ratio']:.2f}", f"{one['memory_mb']:.1f}", f"{one['their_memory_mb']:.1f}"]
        for name, one in found.items()
    ]
    return Table(["data", "trees", "time, of pyDVL's", "memory, MB", "pyDVL's, MB"], lines, keys=1)


def cell(row: dict[str, Any] | None, place: int = 0, digits: int = 2) -> str | None:
    """Mean ± standard error."""
    if row is None:
        return None
    found = [row[key] if not isinstance(row[key], list) else row[key][place] for key in ("mean", "se")]
    return None if None in found else " ± ".join(f"{value:.{digits}f}" for value in found)


def by_score(rows: Rows) -> Table:
    """One line per data set and share, one column per score."""
    scores = [score for score in dict.fromkeys(row["score"] for row in rows) if score != "curve"]
    known = {(row["data"], row["share"], row["score"]): row for row in rows}
    lines: list[list[str | None]] = []
    for name, share in dict.fromkeys((row["data"], row["share"]) for row in rows):
        pairs = [[cell(known.get((name, share, score)), place) for place in (0, 1)] for score in scores]
        lines.append([name, f"{share:.0%}", *(f"{one} / {two}" if one and two else None for one, two in pairs)])
    return Table(["data", "outlier cells", *scores], lines, keys=2)


def detection(rows: Rows, inspected: list[float] | None) -> Table:
    """Share of the outlier cells among the lowest-valued ones, by how many are inspected."""
    inspected = inspected or []
    header = ["data", "outlier cells", *(f"{part:.0%} inspected" for part in inspected)]
    chosen = [row for row in rows if row["score"] == "curve"]
    lines: list[list[str | None]] = [
        [row["data"], f"{row['share']:.0%}", *(cell(row, place) for place in range(len(inspected)))] for row in chosen
    ]
    return Table(header, lines, keys=2)


def cleaning(rows: Rows) -> Table:
    """A forest's score by what was done, to how many rows or cells."""
    known = {(row["data"], row["what"], row["share"]): row for row in rows}
    lines: list[list[str | None]] = [
        [name, what, *(cell(known.get((name, what, share)), 0, 3) for share in _SHARES)]
        for name, what in dict.fromkeys((row["data"], row["what"]) for row in rows)
    ]
    return Table(["data", "what", *(f"{share:.0%}".replace("%", " %") for share in _SHARES)], lines, keys=2)


def plain(keys: list[str], rows: Rows) -> Table:
    """One line per row, with its two figures."""
    lines: list[list[str | None]] = [[*(row[key] for key in keys), cell(row), cell(row, 1)] for row in rows]
    return Table([*keys, "AUCPR", "AUROC"], lines, keys=len(keys))


def convergence(rows: Rows) -> Table:
    """Agreement of two seeds by the number of learners."""
    return Table(["learners", "Spearman"], [[str(row["learners"]), f"{row['spearman']:.2f}"] for row in rows])


def backdoor(rows: Rows, flagged: int) -> Table:
    """How well the trigger is found, by the share of columns that a learner sees."""
    header = [
        "share of columns",
        "cells of the poisoned rows: AUCPR (base .06)",
        "AUROC",
        "mean map of the poisoned rows: AUCPR",
        "AUROC",
        f"poisoned among the {flagged} most uneven rows",
        "their map: AUCPR",
    ]
    return Table(header, [[row["fraction"], *(cell(row, place) for place in range(6))] for row in rows])
