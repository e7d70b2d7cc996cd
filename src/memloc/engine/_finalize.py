"""States to tables: the only place for ranges, standard errors, intervals and reliabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from memloc.encoders import Layer
from memloc.engine._job import Job
from memloc.engine._shard import ShardState
from memloc.errors import NonFiniteError
from memloc.metrics import (
    Z95,
    Effect,
    auroc,
    bootstrap_sums,
    class_contrast,
    contrast,
    empirical_p_values,
    excess_fraction,
    mean_draws,
    mean_interval,
    mean_of_rest,
    median_of_rest,
    member_share,
    membership_effect,
    percentile_interval,
    q_values,
    relative_alignment,
    reliability,
    run_reliability,
    run_weights,
    sslmem,
    sslmem_range,
    standard_error,
)
from memloc.stats import UnitState

REPEATS = 1_000  # bootstrap samples
_TOP = 50  # points in the top and least columns (LocMem Table 1), at most a quarter of the candidates
_UNIT_BLOCK = 64  # units whose medians are taken at once
_NAN = float("nan")


def finalize(job: Job, state: ShardState, blocks: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """The points, point_layers, layers and units tables of a job.

    Args:
        job: what was computed. state: the fold of all shards.
        blocks: files with the activations of each shard, for medians.
    """
    units = _units(job, state, blocks)
    scores = _Scores(job, state)
    points = _points(job, state, scores, units)
    return {
        "points": points,
        "point_layers": _point_layers(job, scores),
        "layers": _layers(job, state, scores, units, blocks),
        "units": units,
    }


class _Scores:
    """Per point and layer: alignments of both sides and SSLMem', from all views and from either half of them."""

    def __init__(self, job: Job, state: ShardState) -> None:
        columns = state.points.columns
        self.align = columns["align"]  # (point, layer, encoder)
        if not self.align.isfinite().all():
            raise NonFiniteError(
                "some alignments are NaN or Inf. Expected finite numbers. Check the encoder's weights and the images."
            )
        self.pairwise = columns["pairwise"]
        self.align_f, self.align_g = (self.mean(self.align, side) for side in (job.target, job.reference))
        self.ratio = sslmem(self.align_f, self.align_g)
        raw = self.align_g - self.align_f
        low, high = (
            torch.nan_to_num(raw, nan=fill).aminmax(dim=0)[side] for side, fill in ((0, torch.inf), (1, -torch.inf))
        )
        spread = torch.where(high > low, high - low, 1.0) if job.options.scale == "range" else None
        self.spread = spread  # of the raw scores, per layer; None for SSLMem'
        self.score = score_of(self.align_f, self.align_g, spread=spread)
        half = columns["half"]
        self.half = torch.stack(
            [
                score_of(
                    self.mean(half[..., number], job.target), self.mean(half[..., number], job.reference), spread=spread
                )
                for number in (0, 1)
            ],
            dim=2,
        )
        self.align_in, self.align_out = (self.mean(self.align, side) for side in (job.membership, ~job.membership))

    @staticmethod
    def mean(align: Tensor, side: Tensor) -> Tensor:
        """Mean over the encoders of a side, NaN where it has none: (point, layer)."""
        weight = side.T.double()
        return torch.einsum("ple,pe->pl", align, weight) / weight.sum(dim=1)[:, None]


def score_of(align_f: Tensor, align_g: Tensor, *, spread: Tensor | None) -> Tensor:
    """SSLMem', or the raw difference over the range of the points scored, where that is given."""
    return sslmem(align_f, align_g) if spread is None else sslmem(align_f, align_g, normalize=False) / spread


def _points(job: Job, state: ShardState, scores: _Scores, units: pd.DataFrame) -> pd.DataFrame:
    last = len(job.layers) - 1  # the encoder's returned output
    score, candidate = scores.ratio[:, last], torch.from_numpy(job.split == "candidate")
    raw = scores.align_g[:, last] - scores.align_f[:, last]
    error = (state.points.columns["variance"] + _run_variance(job, scores.align[:, last])).sqrt()
    table = pd.DataFrame({"point": job.images.ids.numpy(), "name": list(job.images.names), "split": job.split})
    if job.images.labels is not None:
        table["label"] = job.images.labels.numpy()
    table["sslmem"] = score.numpy()
    table["sslmem_pairwise"] = scores.pairwise[:, last, 0].numpy()
    table["sslmem_raw"] = raw.numpy()
    table["sslmem_range"] = sslmem_range(raw).numpy()
    table["sslmem_low"], table["sslmem_high"] = (score - Z95 * error).numpy(), (score + Z95 * error).numpy()
    external = score[torch.from_numpy(job.split == "external")]
    if len(external[~external.isnan()]):
        p_value = torch.full_like(score, torch.nan)
        p_value[candidate] = empirical_p_values(score[candidate], external)
        table["p_value"], table["q_value"] = p_value.numpy(), q_values(p_value).numpy()
    table["align_in"], table["align_out"] = scores.align_in[:, last].numpy(), scores.align_out[:, last].numpy()
    table["n_units"] = table["point"].map(units["point"].value_counts()).fillna(0).astype(np.int64)
    return table


def _run_variance(job: Job, align: Tensor) -> Tensor:
    """Variance of a point's score over training runs, where there are three or more a side; else 0 (unknown).

    The ratio's linear part: each side's mean alignment varies by the variance over its encoders over their number.
    """
    total = torch.zeros(len(align), dtype=torch.float64)
    f, g = job.target.T, job.reference.T
    if int(f.sum(dim=1).min()) < 3 or int(g.sum(dim=1).min()) < 3:
        return total
    means = [(align * side).sum(dim=1) / side.sum(dim=1) for side in (f, g)]
    whole = means[0] + means[1]
    if job.paired:  # f's and g's runs vary together
        scale = torch.where(whole > 0, 2 / whole.clamp_min(1e-300) ** 2, 0.0)[:, None]
        influence = scale * (means[0][:, None] * align[:, job.f_count :] - means[1][:, None] * align[:, : job.f_count])
        return influence.var(dim=1) / job.f_count
    for side, other, mean in ((f, means[1], means[0]), (g, means[0], means[1])):
        count = side.sum(dim=1)
        variance = (((align - mean[:, None]) ** 2) * side).sum(dim=1) / (count - 1) / count
        total += torch.where(whole > 0, (2 * other / whole.clamp_min(1e-300) ** 2) ** 2 * variance, 0.0)
    return total


def _point_layers(job: Job, scores: _Scores) -> pd.DataFrame:
    points, layers = scores.score.shape
    return pd.DataFrame(
        {
            "point": np.repeat(job.images.ids.numpy(), layers),
            "layer": (
                pd.Categorical(
                    [layer.name for layer in job.layers] * points, [layer.name for layer in job.layers]
                ).astype(str)
            ),
            "align_in": scores.align_in.flatten().numpy(),
            "align_out": scores.align_out.flatten().numpy(),
            "sslmem": scores.ratio.flatten().numpy(),
        }
    )


def _layers(job: Job, state: ShardState, scores: _Scores, units: pd.DataFrame, blocks: Sequence[Path]) -> pd.DataFrame:
    candidate, external = (torch.from_numpy(job.split == name) for name in ("candidate", "external"))
    rows: list[dict[str, Any]] = []
    start = 0
    effects: dict[str, Effect] = {}
    means: dict[str, Tensor] = {}
    for number, layer in enumerate(job.layers):
        score, align = scores.score[:, number], scores.align[:, number].T
        effects[layer.name] = _effect(job, align)
        spread = None if scores.spread is None else scores.spread[number]
        means[layer.name] = _score_draws(job, align, candidate, spread)
        low, high = percentile_interval(means[layer.name])
        before = layer.predecessor if layer.predecessor in effects else None
        runs = (
            run_reliability(
                align[:, candidate],
                job.target[:, candidate],
                job.reference[:, candidate],
                paired=job.paired,
                seed=job.options.seed,
            )
            if job.mode != "alone"
            else None
        )
        row = {
            "layer": layer.name,
            "read_at": layer.read_at,
            "order": layer.order,
            "kind": layer.kind,
            "predecessor": before,
            "n_points": int(candidate.sum()),
            "n_units": layer.units,
            "reliability_views": reliability(scores.half[candidate, number, 0], scores.half[candidate, number, 1]),
            "reliability_runs": runs.value if runs else _NAN,
            "layermem": _mean(score[candidate]),
            "se": standard_error(means[layer.name]),
            "low": low,
            "high": high,
        }
        for split in ("shared", "candidate", "independent", "external"):
            member = torch.from_numpy(job.split == split)
            if member.any():
                row[f"layermem_{split}"] = _mean(score[member])
                draws = _score_draws(job, align, member, spread)
                row[f"{split}_se"] = standard_error(draws)
                row[f"{split}_low"], row[f"{split}_high"] = percentile_interval(draws)
        effect = effects[layer.name]
        row |= {
            "layermem_calibrated": effect.value,
            "calibrated_se": effect.se,
            "calibrated_low": effect.low,
            "calibrated_high": effect.high,
        }
        row |= _own(job, score, align, candidate, external, means[layer.name], spread)
        row |= _deltas(rows, before, row, means, effects, layer)
        row |= _separation(job, score, align, candidate, external)
        row |= _extremes(scores.half[candidate, number])
        of_layer = units[units["layer"] == layer.name]
        row |= _unit_summary(job, state, layer, of_layer, blocks, slice(start, start + len(of_layer)))
        start += len(of_layer)
        rows.append(row)
    return pd.DataFrame(rows)


def _effect(job: Job, align: Tensor) -> Effect:
    """The calibrated figure; NaN for f alone and where no independent points stand beside the candidates."""
    if job.mode == "alone" or (job.mode == "pair" and not (job.split == "independent").any()):
        return Effect(_NAN, _NAN, _NAN, _NAN, 0, False, torch.full((REPEATS,), torch.nan, dtype=torch.float64))
    return membership_effect(align, job.membership, paired=job.paired, repeats=REPEATS, seed=job.options.seed)


def _score_draws(job: Job, align: Tensor, member: Tensor, spread: Tensor | None, *, apart: int = 0) -> Tensor:
    """Bootstrap means of the score over some points, and over runs where there are three or more a side: (repeat,).

    Layers draw the same samples, and so do groups of points with equal numbers unless they are set `apart`.
    """
    seed = job.options.seed
    target, reference = job.target[:, member].double(), job.reference[:, member].double()
    varying = job.membership.any(dim=0) & ~job.membership.all(dim=0)
    sides_of_runs = job.membership[:, varying] if varying.any() else job.target
    runs = None if job.mode == "alone" else run_weights(sides_of_runs, REPEATS, seed, paired=job.paired)
    align = align[:, member]
    if runs is None or not member.any():
        means = [(align * side).sum(dim=0) / side.sum(dim=0) for side in (target, reference)]
        return mean_draws(score_of(means[0], means[1], spread=spread), repeats=REPEATS, seed=seed + apart)
    draws = []
    for row, run in enumerate(runs):
        sides = [run[:, None] * side for side in (target, reference)]
        score = score_of(*[(align * side).sum(dim=0) / side.sum(dim=0) for side in sides], spread=spread)
        known = torch.stack([score.nan_to_num(), (~score.isnan()).double()], dim=1)
        sums, _ = bootstrap_sums(known, repeats=REPEATS, seed=seed + apart, only=row)
        draws.append(sums[0, 0] / sums[0, 1])
    return torch.stack(draws)


def _deltas(
    rows: list[dict], before: str | None, row: dict, means: dict[str, Tensor], effects: dict[str, Effect], layer: Layer
) -> dict[str, float]:
    """Δ of both figures; the bootstrap resamples the same points in both layers."""
    found: dict[str, float] = {}
    previous = None if before is None else next(other for other in rows if other["layer"] == before)
    for name, figure in (("delta", "layermem"), ("delta_calibrated", "layermem_calibrated")):
        names = (name, f"{name}_se", f"{name}_low", f"{name}_high")
        if before is None or previous is None:
            found |= dict.fromkeys(names, _NAN)
            continue
        draws = (
            means[layer.name] - means[before]
            if figure == "layermem"
            else effects[layer.name].draws - effects[before].draws
        )
        values = (row[figure] - previous[figure], standard_error(draws), *percentile_interval(draws))
        found |= dict(zip(names, values, strict=True))
    return found


def _own(
    job: Job, score: Tensor, align: Tensor, candidate: Tensor, external: Tensor, draws: Tensor, spread: Tensor | None
) -> dict[str, float]:
    """f's own memorization: candidates less points that neither encoder saw."""
    if not external.any() or score[external].isnan().all():
        return {}
    draws = draws - _score_draws(job, align, external, spread, apart=1)  # other points, drawn on their own
    low, high = percentile_interval(draws)
    own = _mean(score[candidate]) - _mean(score[external])
    return {"layermem_own": own, "own_se": standard_error(draws), "own_low": low, "own_high": high}


def _separation(job: Job, score: Tensor, align: Tensor, candidate: Tensor, external: Tensor) -> dict[str, float]:
    """Do trained points stand out: candidates against external ones, or in against out cells of an ensemble."""
    row: dict[str, float] = {}
    if job.mode == "ensemble":
        value, low, high = _cells_auroc(job, align)
        excess = excess_fraction(score[candidate], score[external])[1] if external.any() else _NAN
        return {"auroc": value, "auroc_low": low, "auroc_high": high, "excess_low": excess}
    if job.mode == "alone":
        trained = job.membership[0]
        score = -align.mean(dim=0)
        if external.any():
            draws = mean_draws(-score[external], repeats=REPEATS, seed=job.options.seed + 1) - mean_draws(
                -score[trained], repeats=REPEATS, seed=job.options.seed
            )
            low, high = percentile_interval(draws)
            gap = _mean(score[trained]) - _mean(score[external])
            row = {"alignment_gap": gap, "gap_se": standard_error(draws), "gap_low": low, "gap_high": high}
        candidate = trained
    found = auroc(score[candidate], score[external])
    return row | {
        "auroc": found.value,
        "auroc_low": found.low,
        "auroc_high": found.high,
        "excess_low": excess_fraction(score[candidate], score[external])[1],
    }


def _cells_auroc(job: Job, align: Tensor) -> tuple[float, float, float]:
    """AUROC of (encoder, point) cells, trained against not, on relative alignment net of encoder; bootstrap over
    points."""
    varying = job.membership.any(dim=0) & ~job.membership.all(dim=0)
    seen = job.membership[:, varying]
    relative = relative_alignment(align[:, varying], seen)
    closeness = -(relative - relative.mean(dim=1, keepdim=True))
    value = auroc(closeness[seen], closeness[~seen]).value
    generator = np.random.default_rng([job.options.seed, 3])
    draws = []
    for _ in range(200):
        rows = torch.from_numpy(generator.integers(0, closeness.shape[1], closeness.shape[1]))
        draws.append(auroc(closeness[:, rows][seen[:, rows]], closeness[:, rows][~seen[:, rows]]).value)
    return (value, *percentile_interval(torch.tensor(draws, dtype=torch.float64)))


def _extremes(half: Tensor) -> dict[str, float]:
    """LayerMem of the most and least memorized candidates, ranked on one half of the views and scored on the other."""
    half = half[~half.isnan().any(dim=1)]
    k = min(_TOP, len(half) // 4)
    if k < 1:
        return {"layermem_top": _NAN, "layermem_least": _NAN}
    top, least = [], []
    for ranked, scored in ((0, 1), (1, 0)):
        order = half[:, ranked].argsort(stable=True)
        least.append(float(half[order[:k], scored].mean()))
        top.append(float(half[order[-k:], scored].mean()))
    return {"layermem_top": float(np.mean(top)), "layermem_least": float(np.mean(least))}


def _unit_summary(
    job: Job, state: ShardState, layer: Layer, units: pd.DataFrame, blocks: Sequence[Path], columns: slice
) -> dict[str, float]:
    value = torch.tensor(units["unitmem"].to_numpy())
    mean, _, low, high = mean_interval(value, repeats=REPEATS, seed=job.options.seed)
    known = value[~value.isnan()]
    row = {
        "unitmem_mean": mean,
        "unitmem_low": low,
        "unitmem_high": high,
        "unitmem_p90": float(known.quantile(0.9)) if len(known) else _NAN,
    }
    if "external_equal" in state.units:
        members, external = state.units["trained_equal"][layer.name], state.units["external_equal"][layer.name]
        equal = contrast(members.mu_max, _rest(job, members, blocks, "trained_equal", columns))
        winner = torch.where(members.mu_max >= external.mu_max, members.point, external.point)
        share = member_share(members.mu_max, external.mu_max, winner)
        row |= {"unitmem_equal_mean": _mean(equal), "unitmem_external_mean": float(units["unitmem_external"].mean())}
        row |= {"member_share": share.value, "member_share_low": share.low, "member_share_high": share.high}
    if "classmem" in units:
        row["classmem_mean"] = float(units["classmem"].mean())
    return row


def _units(job: Job, state: ShardState, blocks: Sequence[Path]) -> pd.DataFrame:
    tables = []
    labelled = {
        name: states
        for name, states in state.classes.items()
        if all(int((each.count > 0).sum()) >= 2 for each in states.values())
    }
    start = 0
    for layer in job.layers:
        trained = state.units["trained"][layer.name]
        units = len(trained.total)
        rest = _rest(job, trained, blocks, "trained", slice(start, start + units))
        table = {
            "layer": layer.name,
            "unit": np.arange(units),
            "unitmem": contrast(trained.mu_max, rest),
            "mu_max": trained.mu_max,
            "mu_rest": rest,
            "point": trained.point,
        }
        if "external_equal" in state.units:
            external = state.units["external_equal"][layer.name]
            table["unitmem_external"] = contrast(
                external.mu_max, _rest(job, external, blocks, "external_equal", slice(start, start + units))
            )
        for group, column in (("trained", "classmem"), ("external", "class_selectivity")):
            if group in labelled:
                classes = labelled[group][layer.name]
                found = class_contrast(classes.total, classes.count, job.classes)
                table[column] = found.value
                if group == "trained":
                    table["class"] = found.label
        start += units
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def _rest(job: Job, state: UnitState, blocks: Sequence[Path], group: str, units: slice) -> Tensor:
    if job.options.rest == "mean":
        return mean_of_rest(state.mu_max, state.total, state.points)
    parts = [np.load(path, mmap_mode="r") for path in blocks if path.name.endswith(f"{group}.npy")]
    medians = []
    for first in range(units.start, units.stop, _UNIT_BLOCK):
        columns = slice(first, min(first + _UNIT_BLOCK, units.stop))
        medians.append(median_of_rest(torch.from_numpy(np.concatenate([part[:, columns] for part in parts])).double()))
    return torch.cat(medians)


def _mean(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else _NAN
