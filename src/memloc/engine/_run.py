"""A prepared job, computed: shards, fold, finalize, write."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from memloc.encoders import fingerprint, versions
from memloc.engine._finalize import finalize
from memloc.engine._job import Job
from memloc.engine._own_loss import encode_references
from memloc.engine._pilot import with_view_count
from memloc.engine._shard import ShardState, audit_shard
from memloc.engine._stored import load_shard, save_shard
from memloc.engine._thumbnails import thumbnails
from memloc.errors import warn
from memloc.progress import Report, silent
from memloc.report import Audit
from memloc.results import SCHEMA_VERSION, WRITES, claimed, conform, remove_folder, spec_hash
from memloc.workers import RayPlace, check_complete, compute_on_ray, compute_shards, jobs_of, sweep_claims


def run_job(
    job: Job,
    *,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
    extra: dict[str, Any] | None = None,
    inputs: Sequence[str | Path | None] = (),
    merge: str | None = None,
    ray: RayPlace | None = None,
) -> Audit:
    """Compute a prepared job, resuming from the shards that lie in `out`.

    Args:
        extra: what else the record should hold (audit.json). inputs: what was read, none of which may lie in `out`.
        merge: compute no shard, since other jobs did: the command that computes those that are missing.
        ray: compute the shards on actors there.
    Raises:
        ResultsError: shards are missing that were to be merged.
    """
    began = time.monotonic()
    spec = job_spec(job)
    if merge is not None and out is not None and not Path(out).is_dir():  # a name that is mistyped makes no folder
        check_complete(len(job.shards), partial(shard_place, Path(out)), merge, 1)
    with ExitStack() as stack:
        folder = (
            stack.enter_context(claimed(Path(out), spec, overwrite=overwrite, inputs=tuple(inputs)))
            if out is not None
            else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        work = folder / ".shards"
        if (folder / "audit.json").is_file():
            remove_folder(work)
            return Audit.load(folder)
        work.mkdir(exist_ok=True)
        if merge is not None:
            check_complete(len(job.shards), partial(shard_place, work), merge, jobs_of(work))
        with on_device(job):
            job, pilot = with_view_count(job, progress)
            job = replace(job, references=encode_references(job, work))
            states = _states(job, work, progress, spec_hash(spec), merge, ray)
            progress("scoring points", len(job.images), len(job.images))
        scored = time.monotonic() - began
        tables, found = finalize(job, fold(states), sorted(work.glob("*.npy")), extra or {})
        tables = _with_what_training_knows(tables, extra)
        pictures = (
            thumbnails(job, tables)
            if job.options.thumbnails
            else pd.DataFrame({"point": pd.Series(dtype="int64"), "png": pd.Series(dtype=object)})
        )
        record = (
            _record(job, spec, scored, time.monotonic() - began)
            | {**found, "warnings": [*job.found, *_constant(tables["point_layers"])]}
            | ({"pilot": pilot} if pilot else {})
            | {key: value for key, value in (extra or {}).items() if key not in ("repeats", "origin", "coins")}
        )
        tables = {name: conform(name, table) for name, table in {**tables, "thumbnails": pictures}.items()}
        result = Audit(**tables, record=record)
        if out is not None:
            result.save(folder)
            sweep_claims(work)
            remove_folder(work)
        return result


def shard_place(work: Path, number: int) -> Path:
    """The file of a shard."""
    return work / f"{number:05d}.pt"


def _states(
    job: Job, work: Path, progress: Report, hashed: str, merge: str | None, ray: RayPlace | None
) -> list[ShardState]:
    """The state of every shard, computed where it is not stored."""

    def load(number: int) -> ShardState | None:
        return load_shard(shard_place(work, number), hashed)

    def store(number: int, state: ShardState) -> None:
        save_shard(shard_place(work, number), state, hashed)

    if ray is not None:
        done = [0]

        def show(_start: int) -> None:
            done[0] += 1
            progress("scoring points on Ray", min(done[0] * job.options.shard_size, len(job.images)), len(job.images))

        return compute_on_ray(
            job.shards,
            place=ray,
            shared=on_host(job),
            modules=[part for encoder in job.encoders for part in encoder.parts],
            ready=ready_job,
            of=audit_shard,
            load=load,
            store=store,
            show=show,
        )

    def compute(shard: slice) -> ShardState:
        if merge is not None:  # it was there and cannot be used; so may others be
            for number in range(len(job.shards)):
                load(number)
            check_complete(len(job.shards), partial(shard_place, work), merge, jobs_of(work))
        return audit_shard(job, shard)

    return compute_shards(
        job.shards,
        load=load,
        compute=compute,
        store=store,
        show=lambda done: progress("scoring points", done, len(job.images)),
    )


def fold(states: list[ShardState]) -> ShardState:
    """Merge shard states in shard order, pair by pair, so that no row is copied more than log(shards) times."""
    while len(states) > 1:
        pairs = [states[number : number + 2] for number in range(0, len(states), 2)]
        states = [pair[0].merge(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
    return states[0]


def job_spec(job: Job) -> dict[str, Any]:
    """What decides the figures of a job, as text and numbers; the same spec gives the same tables."""
    return {
        "schema": SCHEMA_VERSION,
        "mode": job.mode,
        "f_count": job.f_count,
        "paired": job.paired,
        "earlier": job.earlier,
        "described": job.images.described(),
        "views": asdict(job.views),
        **({} if job.unit_views is None else {"unit_views": asdict(job.unit_views)}),
        "options": asdict(job.options),
        "device": job.device.type,
        "layers": [[layer.name, layer.read_at] for layer in job.layers],
        **({"output": job.encoders[0].output} if job.encoders[0].output else {}),
        "encoders": list(job.prints),
        "loss": None
        if job.loss is None
        else {
            "name": job.loss.layer.name,
            "batch_sizes": [each.batch_size for each in job.loss.objectives],
            "temperatures": [getattr(each, "temperature", None) for each in job.loss.objectives],
        },
        "heads": [fingerprint(nn.ModuleList(encoder.parts[1:])) for encoder in job.encoders if encoder.parts[1:]],
        "preprocess": [
            [list(each.mean), list(each.std), *(["flip"] if each.flip else [])]
            for each in (encoder.preprocess for encoder in job.encoders)
        ],
        "images": job.images.fingerprint(),
        "points": len(job.images),
        "splits": {
            str(name): int(count)
            for name, count in zip(*np.unique(job.split.astype(str), return_counts=True), strict=True)
        },
        "membership": spec_hash({"rows": job.membership.int().tolist(), "split": job.split.tolist()}),
        **({"held_out": spec_hash({"rows": job.held_out.int().tolist()})} if job.held_out.any() else {}),
    }


@contextmanager
def on_device(job: Job) -> Iterator[None]:
    """The job's encoders on its device, then back where they were."""
    places = [next(encoder.module.parameters(), torch.empty(0)).device for encoder in job.encoders]
    try:
        for encoder in job.encoders:
            for part in encoder.parts:
                part.to(job.device)
        yield
    finally:
        for encoder, place in zip(job.encoders, places, strict=True):
            for part in encoder.parts:
                part.to(place)


def on_host(job: Job) -> Job:
    """A job whose references lie in the machine's own memory, to be sent elsewhere."""
    return replace(job, references=tuple(each.cpu() for each in job.references))


@contextmanager
def ready_job(job: Job) -> Iterator[Job]:
    """A job that was sent here, on its device."""
    with on_device(job):
        yield replace(job, references=tuple(each.to(job.device) for each in job.references))


def _with_what_training_knows(tables: dict[str, pd.DataFrame], extra: dict[str, Any] | None) -> dict[str, pd.DataFrame]:
    repeats = (extra or {}).get("repeats")
    if repeats is not None:
        tables["points"]["repeats"] = tables["points"]["point"].map(repeats).fillna(0).astype(np.int64)
    origin = (extra or {}).get("origin")
    if origin is not None:
        tables["points"]["origin"] = tables["points"]["point"].map(origin)
    return tables


def _constant(readings: pd.DataFrame) -> list[str]:
    """What to say of readings that are the same for all points, where others are not; warned of, too."""
    known = readings.groupby("layer", sort=False)["score"].apply(lambda scores: bool(scores.notna().any()))
    if not known.any():
        return []
    texts = [
        f"The reading {name!r} hardly differs between points that no encoder saw, so no point has a score there."
        for name in known.index[~known]
    ]
    for text in texts:
        warn(text)
    return texts


def _record(job: Job, spec: dict[str, Any], scored: float, total: float) -> dict[str, Any]:
    own = 0 if job.unit_views is None else job.unit_views.count
    views = len(job.images) * (job.views.count * len(job.encoders) + own)
    return {
        "schema_version": SCHEMA_VERSION,
        "writes": WRITES,
        "spec": spec,
        "spec_hash": spec_hash(spec),
        "seed": job.options.seed,
        "mode": job.mode,
        "encoder": job.encoders[0].name,
        "reference": "earlier checkpoint" if job.earlier else None,
        "weights": [encoder.note for encoder in job.encoders],
        "input": list(dict.fromkeys(line for encoder in job.encoders for line in encoder.in_words())),
        "views": asdict(job.views),
        "class_names": list(job.images.class_names),
        "versions": versions(),
        "warnings": list(job.found),
        "skipped": [list(pair) for pair in job.images.skipped],
        "fingerprints": {"encoders": spec["encoders"], "images": spec["images"]},
        "timings": {
            "scoring_seconds": scored,
            "total_seconds": total,
            "forward_passes": views,
            "forward_passes_per_second": views / max(scored, 1e-9),
        },
    }
