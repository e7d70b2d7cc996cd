"""The reading that an answer leads with: by default the head's, or one that separates better on half of the points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from memloc.encoders import HEAD
from memloc.engine._job import Job
from memloc.engine._own_loss import LOSS
from memloc.engine._scores import Scores, candidates, difference, log_readings
from memloc.engine._separation import standing_out
from memloc.metrics import FEWEST_REFERENCES, run_halves, variance_components
from memloc.streams import Stream, generator


def leading_reading(job: Job, scores: Scores) -> dict[str, Any]:
    """The row that leads, and how well it tells trained points from others, judged on points that had no say.

    The default is the last head row, else the training loss, else the encoder's output. Another row leads only where,
    on a random half of the points, the lower end of its AUROC's interval lies above the default's AUROC. The figures
    are of the other half.

    Returns:
        layer, auroc, auroc_low, auroc_high (None where unknown), default (whether it is the default's).
    """
    half = torch.zeros(len(job.images), dtype=torch.bool)
    for name in np.unique(job.split.astype(str)):
        rows = np.flatnonzero(job.split == name)
        drawn = generator(Stream.READING_CHOICE, job.options.seed, len(rows)).permutation(rows)[: len(rows) // 2]
        half[torch.from_numpy(drawn)] = True
    score = scores.deciding(job)
    found = [standing_out(job, score[:, number], scores.align[:, number].T, half) for number in range(len(job.layers))]
    default = default_reading(job, score)
    # a default without scores, or one below chance, is no bar to pass
    bar = max(float(torch.tensor(found[default].value).nan_to_num(0.5)), 0.5)
    better = [number for number, each in enumerate(found) if each.low > bar]
    chosen = max(better, key=lambda number: found[number].value) if better else default
    judged = standing_out(job, score[:, chosen], scores.align[:, chosen].T, ~half)
    figures = {
        name: None if value != value else value
        for name, value in zip(("auroc", "auroc_low", "auroc_high"), judged, strict=True)
    }
    return {"layer": job.layers[chosen].name, **figures, "default": chosen == default}


def components(job: Job, scores: Scores, layer: str) -> dict[str, float | None] | None:
    """What belongs to a point, to a training run, or is noise, at a reading; None with fewer than two encoders a side,
    or fewer points that nobody saw than tell noise."""
    number = [each.name for each in job.layers].index(layer)
    never = job.never & torch.from_numpy(job.split == "external")
    chosen = candidates(job) & ~job.never
    smallest = min(int(side[:, chosen].sum(dim=0).min()) for side in (job.target, job.reference))
    if (
        job.mode == "alone"
        or smallest < 2
        or int(never.sum()) < FEWEST_REFERENCES
        or int(chosen.sum()) < FEWEST_REFERENCES
    ):
        return None
    logs = log_readings(job, scores.align[:, number])
    halves = list(run_halves(job.target[:, chosen], job.reference[:, chosen], paired=job.paired, seed=job.options.seed))
    parts = torch.stack([torch.stack([difference(job, logs, half) for half in pair]) for pair in halves])
    counts = torch.stack([job.target[half][:, chosen].sum(dim=0).double() for pair in halves for half in pair])
    saw = 1 / float((1 / counts[counts > 0]).mean())  # what a mean over so many encoders varies by
    found = variance_components(parts[..., chosen], parts[..., never], saw, seed=job.options.seed)
    return {name: None if value != value else value for name, value in found._asdict().items()}


def default_reading(job: Job, score: Tensor) -> int:
    """The first choice among rows that have scores: a constant reading has none."""
    known = [number for number in range(len(job.layers)) if not score[:, number].isnan().all()]
    for kind in (HEAD, LOSS):
        rows = [number for number in known if job.layers[number].kind == kind]
        if rows:
            return rows[-1]
    return job.output
