"""docs/coresets.md, from coresets.json and coreset_speed.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._figures import at, interval, listed, mean, shown
from ._table import Table

_MEANS = {
    "best epoch": "best_test_accuracy",
    "right among selected": "clean_fraction",
    "wrong labels memorized": "noisy_memorized",
    "suspected that are wrong": "suspected_wrong",
}
_SPEED = (("seconds", ".2f"), ("ratio", ".1f"), ("added_mb", ".0f"), ("cost_over_exact", ".2f"))


def content(read: Callable[[str], dict[str, Any]]) -> tuple[dict[str, Table], dict[str, str | None]]:
    """Tables and figures of the page."""
    found, speed = read("coresets.json"), read("coreset_speed.json")
    tables = {}
    if found.get("clean"):
        tables["clean"] = clean(found["clean"])
    for part in ("training", "early"):
        if found.get(part):
            tables[part] = trained(found[part])
    for kind, arms in (found.get("cifar") or {}).items():
        tables[f"cifar {kind}"] = trained(arms)
    if at(found, "joins", "scores", "lines"):
        tables["scores"] = scores(found["joins"]["scores"]["lines"])
    if at(found, "joins", "labelling"):
        tables["labelling"] = labelling(found["joins"]["labelling"])
    if speed.get("methods"):
        tables["speed"] = Table(
            ["method", "seconds", "× bound", "added MB", "k-medoids cost / exact"],
            [[name, *(shown(line.get(key), form) for key, form in _SPEED)] for name, line in speed["methods"].items()],
        )
    return tables, {
        f"cifar {key}": shown(at(found, "settings", "cifar", key), ",") for key in ("points", "test", "epochs")
    }


def clean(seeds: Mapping[str, Mapping[str, float]]) -> Table:
    """Clean fraction by selection and seed."""
    names = dict.fromkeys(name for one in seeds.values() for name in one)
    rows: list[list[str | None]] = [[name, *(shown(one.get(name), ".3f") for one in seeds.values())] for name in names]
    return Table(["selection", *(f"seed {seed}" for seed in seeds)], rows)


def trained(arms: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    """Test accuracy by seed, and the means of what the last epoch shows; missing where a seed is."""
    seeds = sorted({seed for arm in arms.values() for seed in arm}, key=int)
    rows: list[list[str | None]] = []
    for name, arm in arms.items():
        whole = [arm[seed] for seed in seeds] if all(seed in arm for seed in seeds) else []
        accuracy = listed([one.get("test_accuracy") for one in whole], ".3f", " / ")
        rows.append([name, accuracy, *(shown(mean(one.get(key) for one in whole), ".3f") for key in _MEANS.values())])
    return Table(["trained on", "test accuracy by seed", *_MEANS], rows)


def scores(lines: list[dict[str, Any]]) -> Table:
    """How other scores agree with what is dropped and with what is wrong."""
    header = ["score", "points", "dropped above kept", "wrong above right", "τ with 1 − chance of the label"]
    rows: list[list[str | None]] = []
    for line in lines:
        figures = [
            shown(line.get("points"), "d"),
            _between(line, "dropped"),
            _between(line, "wrong"),
            shown(line.get("tau")),
        ]
        rows.append([line["score"], *figures])
    return Table(header, rows)


def labelling(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Table:
    """Accuracy of what knows the chosen labels alone, by budget; missing where a seed is that others have."""
    budgets = dict.fromkeys(budget for row in found.values() for budget in row)
    columns = [(budget, what) for budget in budgets for what in ("probe", "nearest")]
    seeds = {seed for row in found.values() for one in row.values() for seed in one}
    rows: list[list[str | None]] = []
    for name, row in found.items():
        whole = {budget: list(one.values()) if seeds <= set(one) else [] for budget, one in row.items()}
        rows.append([name, *(_spread([one[what] for one in whole.get(budget, [])]) for budget, what in columns)])
    return Table(["chosen by", *(f"{budget} labels, {what}" for budget, what in columns)], rows)


def _between(line: Mapping[str, float | None], name: str) -> str | None:
    return interval([line.get(name), line.get(f"{name}_low"), line.get(f"{name}_high")])


def _spread(values: list[float]) -> str | None:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else None
