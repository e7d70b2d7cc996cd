"""Whether trained points stand out from others: AUROC and excess fraction, f's own figure, the alignment gap."""

from __future__ import annotations

import torch
from torch import Tensor

from memloc.engine._job import Job
from memloc.engine._scores import REPEATS, candidates, log_readings, mean_of, score_draws
from memloc.metrics import Auroc, auroc, excess_fraction, mean_draws, percentile_interval, standard_error
from memloc.streams import Stream, generator

_CELL_REPEATS = 200  # bootstrap samples of points, each with an AUROC of all cells


def own_figure(
    job: Job, score: Tensor, align: Tensor, candidate: Tensor, external: Tensor, draws: Tensor, spread: Tensor | None
) -> dict[str, float]:
    """f's own memorization: candidates less points that neither encoder saw."""
    if not external.any() or score[external].isnan().all():
        return {}
    # other points, drawn on their own
    draws = draws - score_draws(job, align, external, spread, stream=Stream.EXTERNAL_BOOTSTRAP)
    low, high = percentile_interval(draws)
    own = mean_of(score[candidate]) - mean_of(score[external])
    return {"layermem_own": own, "own_se": standard_error(draws), "own_low": low, "own_high": high}


def separation(job: Job, score: Tensor, align: Tensor, candidate: Tensor, external: Tensor) -> dict[str, float]:
    """Do trained points stand out: candidates against external ones, or in against out cells of an ensemble.

    Args:
        score: what orders the points. align: their alignment by each encoder, (encoder, point).
    """
    row: dict[str, float] = {}
    if job.mode == "alone":
        candidate = job.membership[0]
        if external.any():
            row = _gap(job, -align.mean(dim=0), external)
    return {
        **row,
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


def _gap(job: Job, score: Tensor, external: Tensor) -> dict[str, float]:
    """Mean alignment of external points less that of trained ones, with its interval."""
    seed, apart = job.options.seed, Stream.EXTERNAL_BOOTSTRAP  # other points, drawn on their own
    trained = job.membership[0]
    unseen = mean_draws(-score[external], repeats=REPEATS, seed=seed, stream=apart)
    draws = unseen - mean_draws(-score[trained], repeats=REPEATS, seed=seed)
    low, high = percentile_interval(draws)
    gap = mean_of(score[trained]) - mean_of(score[external])
    return {"alignment_gap": gap, "gap_se": standard_error(draws), "gap_low": low, "gap_high": high}


def _cells_auroc(job: Job, align: Tensor, among: Tensor) -> Auroc:
    """AUROC of (encoder, point) cells, trained against not, on log readings net of encoder and point; bootstrap over
    points."""
    varying = job.membership.any(dim=0) & ~job.membership.all(dim=0) & among
    seen = job.membership[:, varying]
    logs = log_readings(job, align.T).T[:, varying]
    inside, outside = (side.sum(dim=0).clamp_min(1) for side in (seen, ~seen))
    # the mean of either side, whatever their sizes
    level = ((logs * seen).sum(dim=0) / inside + (logs * ~seen).sum(dim=0) / outside) / 2
    closeness = level - logs
    value = auroc(closeness[seen], closeness[~seen]).value
    random = generator(Stream.CELL_BOOTSTRAP, job.options.seed)
    draws = []
    for _ in range(_CELL_REPEATS):
        rows = torch.from_numpy(random.integers(0, closeness.shape[1], closeness.shape[1]))
        draws.append(auroc(closeness[:, rows][seen[:, rows]], closeness[:, rows][~seen[:, rows]]).value)
    return Auroc(value, *percentile_interval(torch.tensor(draws, dtype=torch.float64)))
