"""The layers table: a row of figures, errors, intervals and reliabilities for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from memloc.data import SPLITS
from memloc.encoders import Layer
from memloc.engine._job import Job
from memloc.engine._scores import REPEATS, Scores, difference, log_readings, mean_of, score_draws
from memloc.engine._separation import gap, own_figure, separation
from memloc.engine._shard import ShardState
from memloc.engine._unit_rows import unit_summary
from memloc.metrics import (
    Effect,
    membership_effect,
    percentile_interval,
    reliability,
    run_reliability,
    simultaneous_bounds,
    standard_error,
)
from memloc.results import headline

_TOP = 50  # points in the top and least columns (LocMem Table 1), at most a quarter of the candidates
_NAN = float("nan")


def layer_rows(
    job: Job, state: ShardState, scores: Scores, units: pd.DataFrame, blocks: Sequence[Path]
) -> pd.DataFrame:
    """One row per layer, in the order of the forward pass."""
    candidate, external = (torch.from_numpy(job.split == name) for name in ("candidate", "external"))
    rows: list[dict[str, Any]] = []
    start = 0
    effects: dict[str, Effect] = {}
    means: dict[str, Tensor] = {}
    of_all: dict[str, list[Tensor]] = {}
    for number, layer in enumerate(job.layers):
        score, align = scores.score[:, number], scores.align[:, number].T
        spread = None if scores.spread is None else scores.spread[number]
        effect = effects[layer.name] = _effect(job, align)
        ranked = scores.ranking(job)[candidate, number]
        draws = means[layer.name] = score_draws(job, align, candidate, spread)
        row = _place(job, layer, effects) | {
            "n_points": int(candidate.sum()),
            "reliability_views": reliability(ranked[:, 0], ranked[:, 1]),
            "reliability_runs": _reliability_of_runs(job, scores, number, candidate),
            "layermem": mean_of(score[candidate]),
            **_spread(draws, ""),
        }
        row |= _by_split(job, score, align, spread)
        row |= {
            "layermem_calibrated": effect.value,
            "calibrated_se": effect.se,
            "calibrated_low": effect.low,
            "calibrated_high": effect.high,
        }
        own, own_draws = own_figure(job, score, align, candidate, external, draws, spread)
        apart, gap_draws = gap(job, align, external)
        row |= own | apart
        for name, each in (
            ("layermem_calibrated", effect.draws),
            ("layermem_own", own_draws),
            ("alignment_gap", gap_draws),
        ):
            if each is not None:
                of_all.setdefault(name, []).append(each)
        row |= _deltas(rows, row, means, effects)
        row |= separation(job, scores.deciding(job)[:, number], align, candidate, external)
        row |= {
            "reference_slope": scores.regressions[number].overall,
            "reference_correlation": scores.regressions[number].correlation,
        }
        row |= _extremes(ranked, scores.half[candidate, number])
        of_layer = units[units["layer"] == layer.name]
        if len(of_layer):
            row |= unit_summary(job, state, layer, of_layer, blocks, slice(start, start + len(of_layer)))
        start += len(of_layer)
        rows.append(row)
    return _with_simultaneous(pd.DataFrame(rows), of_all)


def _with_simultaneous(table: pd.DataFrame, draws: dict[str, list[Tensor]]) -> pd.DataFrame:
    """The table with bounds of the figure that decides, right for all rows at once, and whether they lie above 0."""
    decides = headline(table)
    if decides is None:
        return table
    values = torch.tensor(table[decides.figure].to_numpy(dtype=float))
    low, high = simultaneous_bounds(values, torch.stack(draws[decides.figure]))
    return table.assign(simultaneous_low=low.numpy(), simultaneous_high=high.numpy(), shows=(low > 0).numpy())


def _place(job: Job, layer: Layer, known: dict[str, Effect]) -> dict[str, Any]:
    """Where a layer is read and what it follows among those read."""
    return {
        "layer": layer.name,
        "read_at": layer.read_at,
        "order": layer.order,
        "kind": layer.kind,
        "predecessor": layer.predecessor if layer.predecessor in known else None,
        "n_units": layer.units,
    }


def _spread(draws: Tensor, name: str) -> dict[str, float]:
    """Standard error and interval of bootstrap draws, as columns that begin with a name."""
    low, high = percentile_interval(draws)
    return {f"{name}se": standard_error(draws), f"{name}low": low, f"{name}high": high}


def _by_split(job: Job, score: Tensor, align: Tensor, spread: Tensor | None) -> dict[str, float]:
    """Mean score of each split that there is, with its error and interval."""
    row: dict[str, float] = {}
    for split in SPLITS:
        member = torch.from_numpy(job.split == split)
        if member.any():
            row[f"layermem_{split}"] = mean_of(score[member])
            row |= _spread(score_draws(job, align, member, spread), f"{split}_")
    return row


def _reliability_of_runs(job: Job, scores: Scores, layer: int, candidate: Tensor) -> float:
    if job.mode == "alone":
        return _NAN
    align = scores.align[:, layer]
    sides = job.target[:, candidate], job.reference[:, candidate]

    def score(used: Tensor) -> Tensor:
        return difference(job, log_readings(job, align), used)[candidate]

    chosen = None if job.options.scale == "range" else score
    return run_reliability(align[candidate].T, *sides, paired=job.paired, seed=job.options.seed, score=chosen).value


def _effect(job: Job, align: Tensor) -> Effect:
    """The calibrated figure; NaN for f alone and where no independent points stand beside the candidates."""
    if job.mode == "alone" or (job.mode == "pair" and not (job.split == "independent").any()):
        return Effect(_NAN, _NAN, _NAN, _NAN, 0, False, torch.full((REPEATS,), torch.nan, dtype=torch.float64))
    return membership_effect(align, job.membership, paired=job.paired, repeats=REPEATS, seed=job.options.seed)


def _deltas(
    rows: list[dict[str, Any]], row: dict[str, Any], means: dict[str, Tensor], effects: dict[str, Effect]
) -> dict[str, float]:
    """Δ of both figures; the bootstrap resamples the same points in both layers."""
    found: dict[str, float] = {}
    layer, before = row["layer"], row["predecessor"]
    previous = None if before is None else next(other for other in rows if other["layer"] == before)
    for name, figure in (("delta", "layermem"), ("delta_calibrated", "layermem_calibrated")):
        if previous is None:
            found |= dict.fromkeys((name, f"{name}_se", f"{name}_low", f"{name}_high"), _NAN)
            continue
        draws = means[layer] - means[before] if figure == "layermem" else effects[layer].draws - effects[before].draws
        found[name] = row[figure] - previous[figure]
        found |= _spread(draws, f"{name}_")
    return found


def _extremes(ranking: Tensor, half: Tensor) -> dict[str, float]:
    """LayerMem of the most and least memorized candidates, ranked on one half of the views and scored on the other."""
    known = ~(half.isnan() | ranking.isnan()).any(dim=1)
    ranking, half = ranking[known], half[known]
    k = min(_TOP, len(half) // 4)
    if k < 1:
        return {"layermem_top": _NAN, "layermem_least": _NAN}
    top, least = [], []
    for ranked, scored in ((0, 1), (1, 0)):
        order = ranking[:, ranked].argsort(stable=True)
        least.append(float(half[order[:k], scored].mean()))
        top.append(float(half[order[-k:], scored].mean()))
    return {"layermem_top": float(np.mean(top)), "layermem_least": float(np.mean(least))}
