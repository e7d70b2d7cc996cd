"""The separation table: AUROC and true-positive rates at fixed false-positive rates, by reading and of the evidence."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from memloc.engine._job import Job
from memloc.engine._naming import Naming
from memloc.engine._scores import REPEATS, Scores, candidates, log_readings
from memloc.engine._separation import cells_of
from memloc.metrics import FPRS, Auroc, Rate, auroc, lira, tpr_at_fpr

EVIDENCE = "evidence"
_CELL_REPEATS = 400


def separation_rows(job: Job, scores: Scores, naming: Naming, leading: str, layers: pd.DataFrame) -> pd.DataFrame:
    """One row per reading and false-positive rate: the rows of layers, LiRA at the leading one of an ensemble, and the
    evidence.

    Args:
        layers: the layers table, in the order of the job's layers.
    """
    deciding, areas = scores.deciding(job), layers[["auroc", "auroc_low", "auroc_high"]].to_numpy(dtype=float)
    rows: list[dict[str, Any]] = []
    for number, layer in enumerate(job.layers):
        align = scores.align[:, number].T
        rows += _rows(layer.name, Auroc(*areas[number]), _rates(job, deciding[:, number], align))
        if job.mode == "ensemble" and layer.name == leading:
            rows += _rows(f"LiRA ({leading})", *_lira(job, align))
    known = naming.evidence[candidates(job)], naming.evidence[naming.calibration]
    rows += _rows(EVIDENCE, auroc(*known), tpr_at_fpr(*known, seed=job.options.seed, repeats=REPEATS))
    return pd.DataFrame(rows)


def _rows(reading: str, found: Auroc, rates: list[Rate]) -> list[dict[str, Any]]:
    area = {"auroc": found.value, "auroc_low": found.low, "auroc_high": found.high}
    return [
        {"reading": reading, **area, "fpr": fpr, "tpr": rate.value, "tpr_low": rate.low, "tpr_high": rate.high}
        for fpr, rate in zip(FPRS, rates, strict=True)
    ]


def _rates(job: Job, score: Tensor, align: Tensor) -> list[Rate]:
    if job.mode == "ensemble":
        closeness, seen = cells_of(job, align, torch.ones(len(job.images), dtype=torch.bool))
        points = torch.arange(seen.shape[1]).expand(seen.shape)
        of = points[seen], points[~seen]
        return tpr_at_fpr(closeness[seen], closeness[~seen], points=of, seed=job.options.seed, repeats=_CELL_REPEATS)
    trained = job.membership[0] if job.mode == "alone" else candidates(job)
    unseen = job.never & torch.from_numpy(job.split == "external")
    return tpr_at_fpr(score[trained], score[unseen], seed=job.options.seed, repeats=REPEATS)


def _lira(job: Job, align: Tensor) -> tuple[Auroc, list[Rate]]:
    """Mean log likelihood ratio of the encoders that saw a point: candidates against points that nobody saw, with
    memberships of candidates by chance."""
    ratio = lira(log_readings(job, align.T).T, job.target)
    score = (ratio * job.target).sum(dim=0) / job.target.sum(dim=0)
    varying = job.membership.any(dim=0) & ~job.membership.all(dim=0)
    unseen = job.never & torch.from_numpy(job.split == "external")
    sides = score[varying & candidates(job)], score[unseen]
    return auroc(*sides), tpr_at_fpr(*sides, seed=job.options.seed, repeats=REPEATS)
