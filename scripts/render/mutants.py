"""docs/mutants.md, from what `make mutants` found and the explanations of what survived."""

from __future__ import annotations

from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib


def key(one: dict[str, Any]) -> tuple[str, str]:
    """A mutant by its room and what it changes, wherever that stands."""
    return one["room"], "\n".join(line.rstrip() for line in one["diff"].strip().splitlines())


def page(record: dict[str, Any], explained: str) -> str:
    """The page, as text.

    Args:
        record: benchmarks/mutants.json. explained: docs/mutants_explained.toml.
    """
    stored = tomllib.loads(explained).get("mutant", [])
    why = {key(one): one["why"] for one in stored}
    lines = [
        "# Do the tests notice faults", "",
        f"Measured by `make mutants` with {record['tool']}, {record['date']}, seed {record['seed']}. A fault is written to a copy of the library and the tests of its room "
        "run until one fails. Sampled: places drawn at random where the tool changes an operator, a number or a keyword, one mutant of each; messages and annotations are "
        "left out. Planted: mistakes that somebody could make, in `tests/faults.toml`.", "",
        "| room | sampled | killed | share | planted | killed |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    rooms = list(dict.fromkeys(one["room"] for one in record["mutants"]))
    for room in [*rooms, "all"]:
        mine = [one for one in record["mutants"] if room in (one["room"], "all")]
        kinds = [[one for one in mine if (one["operator"] == "planted") == plant] for plant in (False, True)]
        counts = [(len(kind), sum(one["result"] != "survived" for one in kind)) for kind in kinds]
        share = f"{counts[0][1] / counts[0][0]:.0%}" if counts[0][0] else ""
        lines.append(f"| {room} | {counts[0][0]} | {counts[0][1]} | {share} | {counts[1][0]} | {counts[1][1]} |")
    timeouts = sum(one["result"] == "timeout" for one in record["mutants"])
    lines += [
        "",
        f"A mutant that ran past the time limit counts as killed: {timeouts}.",
        "",
        "## Those that survived",
        "",
    ]
    for one in record["mutants"]:
        if one["result"] == "survived":
            lines += [
                f"`{one['file']}`, line {one['line']}{': ' + one['what'] if one['what'] else ''}",
                "",
                "```diff",
                one["diff"],
                "```",
                "",
                why.get(key(one), "**unexplained**"),
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"
