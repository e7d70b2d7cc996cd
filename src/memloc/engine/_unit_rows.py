"""The units table, and what the layers table says of a layer's units."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from memloc.encoders import Layer
from memloc.engine._job import Job
from memloc.engine._scores import REPEATS, mean_of
from memloc.engine._shard import ShardState
from memloc.metrics import contrast, mean_interval, mean_of_rest, median_of_rest, member_share
from memloc.results import UNIT_COLUMNS, UnitColumn
from memloc.stats import UnitState

_UNIT_BLOCK = 64  # units whose medians are taken at once
_FORMULAS = "memloc.metrics._units"


def unit_summary(
    job: Job, state: ShardState, layer: Layer, units: pd.DataFrame, blocks: Sequence[Path], columns: slice
) -> dict[str, float]:
    """What a row of layers says of its units.

    Args:
        columns: places of the units among those of all layers.
    """
    value = torch.tensor(units["unitmem"].to_numpy())
    mean, _, low, high = mean_interval(value, repeats=REPEATS, seed=job.options.seed)
    known = value[~value.isnan()]
    row = {
        "unitmem_mean": mean,
        "unitmem_low": low,
        "unitmem_high": high,
        "unitmem_p90": float(known.quantile(0.9)) if len(known) else float("nan"),
    }
    if "external_equal" in state.units:
        members, external = state.units["trained_equal"][layer.name], state.units["external_equal"][layer.name]
        equal = contrast(members.mu_max, _rest(job, members, blocks, "trained_equal", columns))
        winner = torch.where(members.mu_max >= external.mu_max, members.point, external.point)
        share = member_share(members.mu_max, external.mu_max, winner)
        row |= {"unitmem_equal_mean": mean_of(equal), "unitmem_external_mean": float(units["unitmem_external"].mean())}
        row |= {"member_share": share.value, "member_share_low": share.low, "member_share_high": share.high}
    if "classmem" in units:
        row["classmem_mean"] = float(units["classmem"].mean())
    return row


def unit_rows(job: Job, state: ShardState, blocks: Sequence[Path]) -> pd.DataFrame:
    """One row per unit of the first encoder, with the columns that `memloc.results.UNIT_COLUMNS` declares."""
    tables = []
    start = 0
    for layer in job.layers_with_units:
        units = len(state.units["trained"][layer.name].total)
        table: dict[str, Any] = {"layer": layer.name, "unit": np.arange(units)}
        known = _quantities(job, state, layer.name, blocks, slice(start, start + units))
        for column in UNIT_COLUMNS:
            if column.of in known:
                table[column.name] = _column(column, known[column.of])
        start += units
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def _quantities(
    job: Job, state: ShardState, layer: str, blocks: Sequence[Path], units: slice
) -> dict[str, dict[str, Any]]:
    """What formulas of units may take, by the group of points that it is of: the fields of its state, and `mu_rest`."""
    found: dict[str, dict[str, Any]] = {}
    for group, states in state.units.items():
        rest = _rest(job, states[layer], blocks, group, units)
        found[group] = {**vars(states[layer]), "mu_rest": rest}
    for group, labelled in state.classes.items():
        if all(int((each.count > 0).sum()) >= 2 for each in labelled.values()):
            found[f"classes {group}"] = {**vars(labelled[layer]), "classes": job.classes}
    return found


def _column(column: UnitColumn, known: dict[str, Any]) -> Tensor:
    """A column by its formula."""
    given = [known[name] for name in column.takes]
    found = getattr(import_module(_FORMULAS), column.formula)(*given) if column.formula else given[0]
    return getattr(found, column.part) if column.part else found


def _rest(job: Job, state: UnitState, blocks: Sequence[Path], group: str, units: slice) -> Tensor:
    """Mean or median activation of every unit over the other points of a group."""
    if job.options.rest == "mean":
        return mean_of_rest(state.mu_max, state.total, state.points)
    parts = [np.load(path, mmap_mode="r") for path in blocks if path.name.endswith(f"{group}.npy")]
    medians = []
    for first in range(units.start, units.stop, _UNIT_BLOCK):
        columns = slice(first, min(first + _UNIT_BLOCK, units.stop))
        medians.append(median_of_rest(torch.from_numpy(np.concatenate([part[:, columns] for part in parts])).double()))
    return torch.cat(medians)
