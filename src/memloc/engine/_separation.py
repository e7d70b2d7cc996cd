"""Whether trained points stand out from others: AUROC and excess fraction, f's own figure, the alignment gap."""

from __future__ import annotations

import torch
from torch import Tensor

from memloc.engine._job import Job
from memloc.engine._scores import REPEATS, candidates, log_readings, mean_of, score_draws
from memloc.metrics import (
    Auroc,
    auroc,
    auroc_of_cells,
    excess_fraction,
    mean_draws,
    percentile_interval,
    run_clusters,
    standard_error,
)
from memloc.streams import Stream


def own_figure(
    job: Job, score: Tensor, align: Tensor, candidate: Tensor, external: Tensor, draws: Tensor, spread: Tensor | None
) -> tuple[dict[str, float], Tensor | None]:
    """f's own memorization, candidates less points that neither encoder saw, and its bootstrap draws."""
    if not external.any() or score[external].isnan().all():
        return {}, None
    # other points, drawn on their own
    draws = draws - score_draws(job, align, external, spread, stream=Stream.EXTERNAL_BOOTSTRAP)
    low, high = percentile_interval(draws)
    own = mean_of(score[candidate]) - mean_of(score[external])
    return {"layermem_own": own, "own_se": standard_error(draws), "own_low": low, "own_high": high}, draws


def separation(job: Job, score: Tensor, align: Tensor, candidate: Tensor, external: Tensor) -> dict[str, float]:
    """Do trained points stand out: candidates against external ones, or in against out cells of an ensemble.

    Args:
        score: what orders the points. align: their alignment by each encoder, (encoder, point).
    """
    if job.mode == "alone":
        candidate = job.membership[0]
    return {
        **_interval("auroc", standing_out(job, score, align, torch.ones_like(external))),
        "excess_low": excess_fraction(score[candidate], score[external])[1],
    }


def standing_out(job: Job, score: Tensor, align: Tensor, among: Tensor) -> Auroc:
    """AUROC of points that were trained on against others, among some of the points: candidates (of an encoder alone
    all that it was trained on) against external points, or the cells of an ensemble."""
    if job.mode == "ensemble":
        return _cells_auroc(job, align, among)
    trained = job.membership[0] if job.mode == "alone" else candidates(job)
    unseen = torch.from_numpy(job.split == "external")
    return auroc(score[trained & among], score[unseen & among])


def _interval(name: str, found: Auroc) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def gap(job: Job, align: Tensor, external: Tensor) -> tuple[dict[str, float], Tensor | None]:
    """Of an encoder alone, mean alignment of external points less that of trained ones, and its bootstrap draws."""
    if job.mode != "alone" or not external.any():
        return {}, None
    score = -align.mean(dim=0)
    seed, apart = job.options.seed, Stream.EXTERNAL_BOOTSTRAP  # other points, drawn on their own
    trained = job.membership[0]
    unseen = mean_draws(-score[external], repeats=REPEATS, seed=seed, stream=apart)
    draws = unseen - mean_draws(-score[trained], repeats=REPEATS, seed=seed)
    low, high = percentile_interval(draws)
    value = mean_of(score[trained]) - mean_of(score[external])
    return {"alignment_gap": value, "gap_se": standard_error(draws), "gap_low": low, "gap_high": high}, draws


def cells_of(job: Job, align: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """The (encoder, point) cells of an ensemble: log readings net of encoder and point, and who was trained on what."""
    varying = job.membership.any(dim=0) & ~job.membership.all(dim=0) & among
    seen = job.membership[:, varying]
    logs = log_readings(job, align.T).T[:, varying]
    inside, outside = (side.sum(dim=0).clamp_min(1) for side in (seen, ~seen))
    # the mean of either side, whatever their sizes
    level = ((logs * seen).sum(dim=0) / inside + (logs * ~seen).sum(dim=0) / outside) / 2
    return level - logs, seen


def _cells_auroc(job: Job, align: Tensor, among: Tensor) -> Auroc:
    closeness, seen = cells_of(job, align, among)
    clusters = run_clusters(seen, paired=job.paired)
    return auroc_of_cells(closeness, seen, clusters=clusters, repeats=REPEATS, seed=job.options.seed)
