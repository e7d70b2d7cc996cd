"""What an audit will take, from one timed batch."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from memloc.engine._job import Job
from memloc.engine._own_loss import encode_references
from memloc.engine._run import job_spec, on_device
from memloc.engine._shard import audit_shard
from memloc.progress import roughly
from memloc.views import AUTO_COUNTS


def plan_cost(job: Job) -> dict[str, Any]:
    """What an audit will take: points, views, forward passes, and expected seconds and memory from one timed batch."""
    views = max(AUTO_COUNTS) if job.views.n == "auto" else job.views.count
    trial = job if job.views.n != "auto" else replace(job, views=replace(job.views, n=views))
    rows = slice(0, min(job.batch, len(job.images)))
    with on_device(trial), tempfile.TemporaryDirectory() as work:
        trial = replace(trial, references=encode_references(trial, Path(work)))
        audit_shard(trial, rows)
        began = time.monotonic()
        audit_shard(trial, rows)
    own = 0 if job.unit_views is None else job.unit_views.count
    seconds = (time.monotonic() - began) * len(job.images) / (rows.stop - rows.start)
    tables = len(job.images) * (len(job.layers) * (3 * len(job.encoders) + 8) + 16) * 8
    batch = (
        rows.stop * views * job.images.pixels[0].numel() * 4 * 24
    )  # views and the widest activations of small convolutional nets
    return {
        "points": len(job.images),
        "splits": job_spec(job)["splits"],
        "views": job.views.n,
        "encoders": len(job.encoders),
        "layers": len(job.layers),
        "forward_passes": len(job.images) * (views * len(job.encoders) + own),
        "shards": len(job.shards),
        "seconds": roughly(seconds),
        "memory_mb": round((tables + batch + job.images.pixels.numel()) / 2**20),
    }
