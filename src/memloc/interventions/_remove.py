"""Retrain an encoder without the points it memorized most, least, or random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from memloc.data import origins
from memloc.encoders import Encoder, fingerprint, versions
from memloc.errors import DataError, SpecError, nearest
from memloc.interventions._specs import RemoveSpec
from memloc.interventions._write import RECORD
from memloc.pretrain import Plan, TrainSpec, train
from memloc.probe import Probe, paired_difference
from memloc.progress import Report, silent
from memloc.results import SCHEMA_VERSION, locked, ranking_column, read_json, write_json, write_table
from memloc.runs import Run, images_of
from memloc.streams import Stream, generator


def choose_points(
    run: Run, points: pd.DataFrame, count: int, *, order: str = "most", encoder: str | None = None, seed: int = 0
) -> list[int]:
    """Ids of points that an encoder of a run was trained on, by their SSLMem.

    Args:
        points: the points of an audit of that run. count: how many.
        order: "most" or "least" memorized first, or "random", a seeded draw among the same points.
        encoder: one of the run's; the first by default. Of a pair f's candidates can be chosen: scores of shared points
            say nothing.
    Raises:
        SpecError: an unknown order or encoder, more points than there are. DataError: an audit of other points.

    >>> import memloc
    >>> images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    >>> run = memloc.train_pair(images, epochs=1, candidates=6, batch_size=32, workers=1).run
    >>> scores = run.points.assign(sslmem=np.linspace(1, 0, 24))
    >>> len(choose_points(run, scores, 2))
    2
    """
    RemoveSpec(order, seed=seed)  # raises what is wrong
    name = encoder_named(run, encoder)
    seen = run.membership.loc[run.membership[name].to_numpy(dtype=bool), "point"]
    mine = run.points[run.points["point"].isin(seen) & (run.points["split"] != "shared")]
    of_g = not run.is_ensemble and name.startswith("g")
    column = "sslmem" if of_g else ranking_column(points)
    table = points[points["point"].isin(mine["point"])].dropna(subset=[column])
    if table.empty:
        raise DataError(
            f"no point of the audit is one that {name} alone was trained on and that has a score. Expected the audit of"
            " this run. Pass --audit with the folder that memloc audit RUN wrote."
        )
    if not 1 <= count <= len(table):
        raise SpecError(
            f"{count} points are to be removed of {len(table)} that {name} was trained on and that have scores."
            f" Expected 1 to {len(table)}. Pass --count {min(max(count, 1), len(table))}."
        )
    if order == "random":
        return sorted(
            table["point"].to_numpy()[generator(Stream.RANDOM_REMOVAL, seed).permutation(len(table))[:count]].tolist()
        )
    # An audit's scores are f's: what g memorized has a low SSLMem.
    own = -table[column] if of_g else table[column]
    named = table["named"].to_numpy(dtype=bool) if "named" in table and not of_g else np.zeros(len(table), dtype=bool)
    first = np.where(named, table["evidence"], -np.inf) if named.any() else np.zeros(len(table))
    ranked = table.assign(first=first, own=own).sort_values(
        ["first", "own", "point"], ascending=[order == "least"] * 2 + [True]
    )
    return sorted(ranked["point"].head(count).tolist())


def remove_points(
    run: Run,
    points: list[int],
    *,
    encoder: str | None = None,
    module: nn.Module | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
) -> Run:
    """Train an encoder of a run again without some points, with everything else as it was.

    The removed points are external in the new run, so `memloc audit` can compare them with those that stayed.

    Args:
        points: ids. encoder: as in `choose_points`. module: the architecture, where the run was trained from an
            nn.Module.
        device: as in the run by default. out: folder for the new run; None trains in a temporary one.
    Returns:
        The new run, of one encoder.
    Raises:
        DataError: the images changed, or a point that the encoder was not trained on. SpecError.
    Source: SSLMem, section 4.4.
    """
    name = encoder_named(run, encoder)
    kept = run.membership[["point", name]].copy()
    strangers = np.setdiff1d(points, kept.loc[kept[name].to_numpy(dtype=bool), "point"])
    if len(strangers):
        raise DataError(
            f"point {strangers[0]} is none that {name} was trained on. Expected points of its training set. Name points"
            " of an audit of this run."
        )
    gone = kept["point"].isin(points).to_numpy()
    kept[name] = kept[name].to_numpy(dtype=bool) & ~gone
    split = np.where(kept[name], np.where(run.points["split"] == "shared", "shared", "candidate"), "external")
    spec = TrainSpec(
        **{
            **run.record["spec"],
            "ensemble": 0,
            "runs": 1,
            "candidates": None,
            "independents": None,
            "shared": None,
            "held_out": 0.0,  # the plan says who is
            "coin": False,  # who is in was chosen since
            "device": device or run.record["spec"]["device"],
        }
    )
    images, external = images_of(run)
    origin = np.array(origins(split.tolist(), given=0 if external is None else len(external)), dtype=object)
    origin[gone] = "removed"  # by their scores, it may be: no others are like them
    plan = Plan(run.points.drop(columns="pair", errors="ignore").assign(split=split, origin=origin), kept)
    return train(
        images, spec, plan=plan, external=external, encoder=module, out=out, progress=progress, overwrite=overwrite
    )


def encoder_named(run: Run, name: str | None) -> str:
    """An encoder of a run by name, the first by default."""
    names = list(run.encoders)
    if name is not None and name not in names:
        raise SpecError(
            f"the run has no encoder {name!r}. {nearest(name, names)} Expected one of its encoders. Pass --encoder"
            f" {names[0]}."
        )
    return name or names[0]


def remove_and_record(
    run: Run,
    points: list[int],
    settings: Mapping[str, Any],
    *,
    encoder: str,
    out: Path,
    measure: Callable[[Encoder], Probe] | None = None,
    device: str | None = None,
    progress: Report = silent,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train an encoder again without some points, probe both, and write intervention.json beside the new run.

    Args:
        settings: what was asked for; a record of the same settings is kept. measure: a probe of an encoder.
    Returns:
        The record.
    """
    again = remove_points(run, points, encoder=encoder, device=device, out=out, progress=progress, overwrite=overwrite)
    with locked(out):
        return _recorded(run, again, points, settings, encoder, out, measure)


def _recorded(
    run: Run,
    again: Run,
    points: list[int],
    settings: Mapping[str, Any],
    encoder: str,
    out: Path,
    measure: Callable[[Encoder], Probe] | None,
) -> dict[str, Any]:
    """Probe the encoder and its successor, and write the record."""
    if (out / RECORD).is_file() and (kept := read_json(out / RECORD))["settings"] == settings:
        return kept
    before, after = run.encoders[encoder], again.encoders[encoder]
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "remove",
        "fingerprint_before": fingerprint(before.module),
        "fingerprint_after": fingerprint(after.module),
        "versions": versions(),
        "settings": dict(settings),
        "removed": points,
        "checkpoint": f"encoders/{encoder}.safetensors",
    }
    if measure is not None:
        one, two = measure(before), measure(after)
        record["probe"] = {"before": one.to_dict(), "after": two.to_dict(), **paired_difference(two, one)}
        write_table(out / "probe.parquet", pd.DataFrame({"right_before": one.right, "right_after": two.right}))
    write_json(out / RECORD, record)
    return record
