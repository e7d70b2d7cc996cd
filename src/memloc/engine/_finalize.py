"""States to tables: the only place for ranges, standard errors, intervals and reliabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from memloc.engine._auditor import separation_rows
from memloc.engine._coins import guess_coins, with_bound
from memloc.engine._job import Job
from memloc.engine._layer_rows import layer_rows
from memloc.engine._naming import name_points
from memloc.engine._point_rows import point_layer_rows, point_rows
from memloc.engine._reading import components, leading_reading
from memloc.engine._scores import Scores
from memloc.engine._shard import ShardState
from memloc.engine._unit_rows import unit_rows


def finalize(
    job: Job, state: ShardState, blocks: Sequence[Path], known: Mapping[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The tables of a job but its pictures, and what its record says of them: the reading that leads, and of naming.

    Args:
        job: what was computed. state: the fold of all shards.
        blocks: files with the activations of each shard, for medians.
        known: what the training knows of its points: `repeats`, and `coins`.
    """
    units = unit_rows(job, state, blocks)
    scores = Scores(job, state)
    leading = leading_reading(job, scores)
    naming = name_points(job, scores)
    layers = layer_rows(job, state, scores, units, blocks)
    tables = {
        "points": point_rows(job, state, scores, units, leading["layer"], naming),
        "point_layers": point_layer_rows(job, scores),
        "layers": layers,
        "units": units,
        "separation": separation_rows(job, scores, naming, leading["layer"], layers),
    }
    found: dict[str, Any] = {"reading": leading, "naming": naming.record}
    parts = components(job, scores, leading["layer"])
    if parts is not None:
        found["components"] = parts
    if "coins" in known:
        found["coins"] = guess_coins(job, scores, known["coins"], known.get("repeats", {}))
        tables["separation"] = with_bound(tables["separation"], found["coins"])
    return tables, found
