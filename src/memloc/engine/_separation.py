"""Whether trained points stand out from others: AUROC and excess fraction, f's own figure, the alignment gap."""

from __future__ import annotations

import torch
from torch import Tensor

from memloc.engine._job import Job
from memloc.engine._scores import REPEATS, mean_of, score_draws
from memloc.metrics import (
    auroc,
    excess_fraction,
    mean_draws,
    percentile_interval,
    relative_alignment,
    standard_error,
)
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
    """Do trained points stand out: candidates against external ones, or in against out cells of an ensemble."""
    row: dict[str, float] = {}
    if job.mode == "ensemble":
        value, low, high = _cells_auroc(job, align)
        excess = excess_fraction(score[candidate], score[external])[1] if external.any() else float("nan")
        return {"auroc": value, "auroc_low": low, "auroc_high": high, "excess_low": excess}
    if job.mode == "alone":
        trained = job.membership[0]
        score = -align.mean(dim=0)
        if external.any():
            seed, apart = job.options.seed, Stream.EXTERNAL_BOOTSTRAP  # other points, drawn on their own
            unseen = mean_draws(-score[external], repeats=REPEATS, seed=seed, stream=apart)
            draws = unseen - mean_draws(-score[trained], repeats=REPEATS, seed=seed)
            low, high = percentile_interval(draws)
            gap = mean_of(score[trained]) - mean_of(score[external])
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
    random = generator(Stream.CELL_BOOTSTRAP, job.options.seed)
    draws = []
    for _ in range(_CELL_REPEATS):
        rows = torch.from_numpy(random.integers(0, closeness.shape[1], closeness.shape[1]))
        draws.append(auroc(closeness[:, rows][seen[:, rows]], closeness[:, rows][~seen[:, rows]]).value)
    return (value, *percentile_interval(torch.tensor(draws, dtype=torch.float64)))
