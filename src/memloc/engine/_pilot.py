"""How many views an audit needs: a pilot on some candidates finds the fewest that order them steadily."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from memloc.engine._job import Job
from memloc.engine._shard import audit_shard
from memloc.metrics import reliability, sslmem
from memloc.progress import Report
from memloc.streams import Stream, generator
from memloc.views import AUTO_COUNTS

PILOT_POINTS, PILOT_RELIABILITY = 256, 0.8


def with_view_count(job: Job, progress: Report) -> tuple[Job, dict[str, Any]]:
    """Resolve n="auto": the fewest views at which the output's score has a reliability of .8 on a pilot of
    candidates."""
    if job.views.n != "auto":
        return job, {}
    candidates = np.flatnonzero(job.split == "candidate")
    rows = np.sort(generator(Stream.PILOT, job.options.seed).permutation(candidates)[:PILOT_POINTS])
    progress("choosing the number of views", 0, 1)
    index = torch.from_numpy(rows)
    layers = (job.layers[job.output],)
    encoders = tuple(replace(encoder, layers=layers, head=None) for encoder in job.encoders)
    groups = {"trained": torch.zeros(len(rows), dtype=torch.bool)}
    chosen, found = max(AUTO_COUNTS), {}
    for count in AUTO_COUNTS:
        pilot = replace(
            job,
            encoders=encoders,
            images=job.images.take(index),
            split=job.split[rows],
            membership=job.membership[:, index],
            groups=groups,
            views=replace(job.views, n=count),
            loss=None,
        )
        columns = audit_shard(pilot, slice(0, len(rows))).points.columns
        half = columns["half"][:, 0]
        scores = [
            sslmem(
                *(
                    (half[..., number] * side.T).sum(dim=1) / side.T.sum(dim=1)
                    for side in (pilot.target, pilot.reference)
                )
            )
            for number in (0, 1)
        ]
        found[str(count)] = reliability(scores[0], scores[1])
        if found[str(count)] >= PILOT_RELIABILITY:
            chosen = count
            break
    else:
        text = (
            f"Even {chosen} views give the output's scores a reliability of {found[str(chosen)]:.2f} on {len(rows)}"
            f" candidates, below {PILOT_RELIABILITY}."
        )
        job = replace(job, found=(*job.found, text))
    progress("choosing the number of views", 1, 1)
    return replace(job, views=replace(job.views, n=chosen)), {"points": len(rows), "reliability": found}
