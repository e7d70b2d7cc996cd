"""Do two audits, or two layers of one, name the same points: overlap, Kendall's tau, and tests between splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from memloc.errors import DataError, DataNotFoundError, SpecError
from memloc.metrics import Z95, kendall_tau, overlap_at_k, t_test
from memloc.results import Audit, claimed, leading_row, ranking_column, write_json, write_table

_FEWEST = 8  # points that a comparison needs


class Comparison(NamedTuple):
    """Two audits side by side.

    Attributes:
        between: one row per layer that both read: overlap of the k most memorized points, the overlap of two random
            sets, Kendall's tau with its p-value and 95 % interval, and both calibrated figures.
        within: one row per pair of layers of each audit: the same agreement between layers.
        splits: one row per audit, layer and pair of splits: Welch's t between their SSLMem.
        extremes: one row per audit: units that each of the k most and of the k least memorized points drives, with
            Welch's t; unknown for ensembles, in which the encoder whose units are listed saw only some of the points.
        record: k, points in common, and what the comparison cannot say.
    """

    between: pd.DataFrame
    within: pd.DataFrame
    splits: pd.DataFrame
    extremes: pd.DataFrame
    record: dict[str, Any]

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: table for name, table in self._asdict().items() if name != "record"}


def compare(first: Audit, second: Audit, *, k: int | None = None) -> Comparison:
    """Compare which points two audits find memorized, layer by layer; between seeds, objectives, or trainings.

    Args:
        first, second: audits; points are joined by name, and those that both score as candidates are compared.
        k: how many of the most memorized points count; a tenth of those in common by default.
    Raises:
        DataError: fewer than eight candidates in common. SpecError: a k that is out of range.
    Source: LocMem, Tables 3, 11 and 28.

    >>> found = compare(audit_of_a_pair, audit_of_a_pair)  # doctest: +SKIP
    """
    both = {ranking_column(each.point_layers) for each in (first, second)}
    column = "score" if both == {"score"} else "sslmem"
    tables = [_scores(each, column) for each in (first, second)]
    common = tables[0].index.intersection(tables[1].index)
    if len(common) < _FEWEST:
        raise DataError(
            f"{len(common)} candidates are in both audits. Expected at least {_FEWEST} points, by name, that both"
            " score. Audit the same images with both."
        )
    k = max(len(common) // 10, 1) if k is None else k
    if not 1 <= k <= len(common):
        raise SpecError(
            f"k is {k} for {len(common)} candidates in common. Expected 1 to {len(common)}. Pass --k"
            f" {min(max(k, 1), len(common))}."
        )
    one, two = (table.loc[common] for table in tables)
    shared = [name for name in one.columns if name in two.columns]
    figures = [each.layers.set_index("layer") for each in (first, second)]
    between = pd.DataFrame(
        [
            {
                "layer": name,
                **_agreement(one[name], two[name], k),
                **{f"layermem_{side}": _figure(table, name) for side, table in zip("ab", figures, strict=True)},
            }
            for name in shared
        ]
    )
    within = pd.DataFrame(
        [
            row
            for side, table, each in (("a", tables[0], first), ("b", tables[1], second))
            for row in _within(side, table, each.layers, k)
        ]
    )
    splits = pd.DataFrame([row for side, each in (("a", first), ("b", second)) for row in _splits(side, each)])
    extremes = pd.DataFrame([{"audit": side, **_extremes(each, k)} for side, each in (("a", first), ("b", second))])
    notes = (
        []
        if shared
        else ["The two audits have no layer of the same name in common, so nothing was compared between them."]
    )
    prints = [(each.record.get("fingerprints") or {}).get("encoders") for each in (first, second)]
    if prints[0] is not None and prints[0] == prints[1]:
        notes.append("Both audits are of the same encoders: they can differ in their views alone.")
    for side, row in zip(("first", "second"), map(leading_row, (first, second)), strict=True):
        value = row["reliability_runs"]
        known = value is not None and value == value
        notes.append(
            f"The {side} audit's score at {row['layer']} has reliability {value:.2f} over training runs: agreement"
            " cannot be expected to exceed what that allows."
            if known
            else (
                f"The {side} audit has one training run a side, so how much of its ranking another run would repeat is"
                " unknown."
            )
        )
    return Comparison(
        between, within, splits, extremes, {"k": k, "points": len(common), "by_chance": k / len(common), "notes": notes}
    )


def compare_folders(
    first: Path, second: Path, *, k: int | None = None, out: Path | None = None, overwrite: bool = False
) -> Comparison:
    """Compare the audits in two folders, and write the tables and compare.json into a third one, if any."""
    for folder in (first, second):
        if not folder.exists():
            raise DataNotFoundError(
                f"there is no folder {str(folder)!r}. Expected one that memloc audit wrote. Check the path."
            )
    if k is not None and k < 1:
        raise SpecError(f"k is {k}. Expected at least 1. Pass --k 10.")
    audits = [Audit.load(folder) for folder in (first, second)]
    found = compare(*audits, k=k)
    if out is not None:
        one, two = (each.record.get("spec_hash") for each in audits)
        spec = {"first": one, "second": two, "k": found.record["k"]}
        with claimed(out, spec, overwrite=overwrite, inputs=(first, second)):
            for name, table in found.tables().items():
                write_table(out / f"{name}.parquet", table)
            write_json(out / "compare.json", {**found.record, "first": str(first), "second": str(second)})
    return found


def _scores(audit: Audit, column: str) -> pd.DataFrame:
    """A score of candidates: a row per point's name, a column per layer, in the order of the forward pass."""
    names = audit.points.loc[audit.points["split"] == "candidate"].set_index("point")["name"]
    rows = audit.point_layers[audit.point_layers["point"].isin(names.index)].dropna(subset=[column])
    table = rows.pivot(index="point", columns="layer", values=column)
    order = audit.layers.sort_values("order")["layer"]
    return table[[name for name in order if name in table.columns]].set_axis(names.loc[table.index], axis=0).dropna()


def _agreement(one: pd.Series, two: pd.Series, k: int) -> dict[str, float]:
    first, second = (torch.tensor(each.to_numpy(dtype=np.float64)) for each in (one, two))
    tau, p_value = kendall_tau(first, second)
    se = float(
        np.sqrt(2 * (1 - tau**2) / len(first))
    )  # Kendall's bound, whatever the distribution (Rank Correlation Methods, 1970)
    return {
        "overlap": overlap_at_k(first, second, k),
        "overlap_by_chance": k / len(first),
        "kendall": tau,
        "kendall_low": max(tau - Z95 * se, -1.0),
        "kendall_high": min(tau + Z95 * se, 1.0),
        "kendall_p": p_value,
    }


def _figure(layers: pd.DataFrame, name: str) -> float:
    for column in ("layermem_calibrated", "layermem"):
        if (
            column in layers
            and layers.loc[name, column] == layers.loc[name, column]
            and layers.loc[name, column] is not None
        ):
            return float(layers.loc[name, column])
    return float("nan")


def _within(side: str, table: pd.DataFrame, layers: pd.DataFrame, k: int) -> list[dict[str, Any]]:
    names, k = list(table.columns), min(k, len(table))
    losses = set(layers.loc[layers["kind"] == "loss", "layer"])  # which follow no layer
    return [
        {
            "audit": side,
            "layer": one,
            "other": two,
            "neighbours": number == place + 1 and two not in losses,
            **_agreement(table[one], table[two], k),
        }
        for place, one in enumerate(names)
        for number, two in enumerate(names)
        if number > place
    ]


def _splits(side: str, audit: Audit) -> list[dict[str, Any]]:
    split = audit.points.set_index("point")["split"]
    rows = audit.point_layers.dropna(subset=["sslmem"])
    found = []
    for layer, table in rows.groupby("layer", sort=False):
        parts = {
            name: torch.tensor(part["sslmem"].to_numpy()) for name, part in table.groupby(table["point"].map(split))
        }
        for other in ("shared", "independent", "external"):
            if len(parts.get("candidate", ())) > 1 and len(parts.get(other, ())) > 1:
                t, p_value = t_test(parts["candidate"], parts[other])
                means = {"candidate_mean": float(parts["candidate"].mean()), "other_mean": float(parts[other].mean())}
                found.append(
                    {"audit": side, "layer": layer, "split": "candidate", "other": other, **means, "t": t, "p": p_value}
                )
    return found


def _extremes(audit: Audit, k: int) -> dict[str, Any]:
    """Units that the most and the least memorized points drive: those of the first encoder, so NaN where it saw only
    some of the candidates."""
    by = ranking_column(audit.points)
    candidates = audit.points[audit.points["split"] == "candidate"].dropna(subset=[by]).sort_values([by, "point"])
    k = min(k, len(candidates) // 2)
    if audit.record.get("mode") == "ensemble" or k < 2:
        return {"k": k, "units_most": float("nan"), "units_least": float("nan"), "t": float("nan"), "p": float("nan")}
    driven = torch.tensor(candidates["n_units"].to_numpy(dtype=np.float64))
    least, most = driven[:k], driven[-k:]
    t, p_value = t_test(most, least)
    return {"k": k, "units_most": float(most.mean()), "units_least": float(least.mean()), "t": t, "p": p_value}
