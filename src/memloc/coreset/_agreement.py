"""How other scores of the same points agree with what a coreset drops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from memloc.errors import DataError
from memloc.metrics import auroc, kendall_tau
from memloc.results import conform, ranking_column, read_json, read_table


def scores_of(folder: str | Path) -> pd.DataFrame:
    """Scores of points in an audit's or a valuation's folder, higher where a point is more suspicious.

    Returns:
        One row a point, indexed by its name: "memorization score" (where it is known), "SSLMem" and "units driven
        (UnitMem)", or "2D-OOB row value, negated".
    Raises:
        DataError: neither is there.
    """
    folder = Path(folder)
    if (folder / "points.parquet").is_file():
        points = conform("points", read_table(folder / "points.parquet")).set_index("name")
        score = {"memorization score": points["score"]} if ranking_column(points) == "score" else {}
        return pd.DataFrame(
            {**score, "SSLMem": points["sslmem"], "units driven (UnitMem)": points["n_units"].astype(float)}
        )
    if (folder / "rows.parquet").is_file():
        rows = conform("rows", read_table(folder / "rows.parquet"))
        record = read_json(folder / "value.json")
        names = (record.get("ids") or {}).get("values") or record.get("names")
        index = pd.Index([str(row) for row in rows["row"]] if names is None else names, name="name")
        return pd.DataFrame({"2D-OOB row value, negated": -rows["value"].to_numpy()}, index=index)
    raise DataError(
        f"{str(folder)!r} holds no scores of points. Expected the folder of an audit (points.parquet) or of memloc"
        " value (rows.parquet). Pass one."
    )


def check_names(names: Iterable[str], scores: pd.DataFrame) -> None:
    """Raise DataError unless two points or more are in both by name, each once."""
    known = pd.Index(list(names))
    both = known.intersection(scores.index)
    if len(both) < 2 or known.has_duplicates or scores.index.has_duplicates:
        raise DataError(
            f"{len(both)} of {len(known)} points are in both tables by name. Expected scores of the same points, each"
            " named once. Pass scores of the same data."
        )


def agreement(labels: pd.DataFrame, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """For each score: how well it tells dropped from kept points, and wrong from right labels where these are known.

    Args:
        labels: the "labels" table of a coreset. scores: one column a score, indexed by the points' names; higher is
            more suspicious.
    Returns:
        One dictionary a score: points in both, `dropped`, the chance that a dropped point scores above a kept one, with
            its 95 % interval;
        `wrong`, the same of wrongly labelled points; and Kendall's τ with 1 - p_label.

    >>> labels = pd.DataFrame({"name": list("abcd"), "kept": [1, 1, 0, 0], "p_label": [0.9, 0.8, 0.1, 0.2]})
    >>> agreement(labels, pd.DataFrame({"odd": [0.0, 1.0, 3.0, 2.0]}, index=list("abcd")))[0]["dropped"]
    1.0
    """
    check_names(labels["name"], scores)
    both = labels.set_index("name").join(scores, how="inner")
    found = []
    for name in scores.columns:
        known = both[both[name].notna()]
        value = torch.from_numpy(known[name].to_numpy(dtype="float64", copy=True))
        kept = torch.from_numpy(known["kept"].to_numpy() == 1)
        dropped = auroc(value[~kept], value[kept])
        line = {
            "score": name,
            "points": len(known),
            "dropped": dropped.value,
            "dropped_low": dropped.low,
            "dropped_high": dropped.high,
            "tau": kendall_tau(value, torch.from_numpy(1 - known["p_label"].to_numpy()))[0],
        }
        if "true_label" in known:
            told = torch.from_numpy((known["true_label"] >= 0).to_numpy(copy=True))
            wrong = torch.from_numpy((known["true_label"] != known["label"]).to_numpy(copy=True))
            of_wrong = auroc(value[wrong & told], value[~wrong & told])
            line |= {"wrong": of_wrong.value, "wrong_low": of_wrong.low, "wrong_high": of_wrong.high}
        found.append(line)
    return found
