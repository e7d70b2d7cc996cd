"""The reading that an answer leads with: by default the head's, or one that separates better on half of the points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from memloc.encoders import HEAD
from memloc.engine._job import Job
from memloc.engine._own_loss import LOSS
from memloc.engine._scores import Scores
from memloc.engine._separation import standing_out
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
    default = _default(job, score)
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


def _default(job: Job, score: Tensor) -> int:
    """The first choice among rows that have scores: a constant reading has none."""
    known = [number for number in range(len(job.layers)) if not score[:, number].isnan().all()]
    for kind in (HEAD, LOSS):
        rows = [number for number in known if job.layers[number].kind == kind]
        if rows:
            return rows[-1]
    return job.output
