"""A part of an audit, for job arrays: some shards into a folder that all jobs share; then the whole is merged."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memloc.encoders import versions
from memloc.engine._job import Job
from memloc.engine._own_loss import encode_references
from memloc.engine._pilot import with_view_count
from memloc.engine._run import job_spec, on_device, shard_place
from memloc.engine._shard import audit_shard
from memloc.engine._stored import load_shard, save_shard
from memloc.errors import FolderInUseError, ResultsError
from memloc.progress import Report, silent
from memloc.results import claimed, remove_folder, spec_hash
from memloc.workers import Part, compute_part, join_jobs

_PATIENCE = 60.0  # seconds that a job waits for others, which each take a folder for a moment


@dataclass(frozen=True)
class PartDone:
    """What a job did.

    Attributes:
        computed: shards that it computed. there: shards that are there, of all jobs, among `count`.
        elsewhere: of its shards, those that another job is computing. is_merged: whether the folder holds the audit.
    """

    computed: int
    there: int
    count: int
    elsewhere: tuple[int, ...]
    is_merged: bool

    @property
    def is_complete(self) -> bool:
        """Whether every shard is there."""
        return self.there == self.count


def run_part(
    job: Job,
    part: Part,
    *,
    out: str | Path,
    progress: Report = silent,
    inputs: Sequence[str | Path | None] = (),
) -> PartDone:
    """Compute every N-th shard of a prepared job into `out`, which other jobs share.

    Raises:
        SpecError: jobs that differ in their number or versions. ResultsError: the folder is another work's.
        FolderInUseError: it is being merged.
    """
    folder, spec = Path(out), job_spec(job)
    work = folder / ".shards"
    if _joined(folder, work, spec, part, tuple(inputs)):
        return PartDone(0, len(job.shards), len(job.shards), (), is_merged=True)
    hashed = spec_hash(spec)

    def is_there(number: int) -> bool:
        merged = (folder / "audit.json").is_file()  # by somebody who computed the rest alone
        return merged or load_shard(shard_place(work, number), hashed) is not None

    def compute(number: int) -> None:
        state = audit_shard(job, job.shards[number])
        try:
            save_shard(shard_place(work, number), state, hashed)
        except (OSError, RuntimeError) as problem:
            if work.is_dir():
                raise
            raise ResultsError(
                f"{str(folder)!r} was removed while a part of it was computed. Expected it to stay until all parts are"
                " merged. Repeat the command."
            ) from problem

    with on_device(job):
        job, _ = with_view_count(job, progress)
        job = replace(job, references=encode_references(job, work))
        mine = part.shards(len(job.shards))
        doing = f"scoring points of part {part.number}/{part.of}"
        computed, elsewhere = compute_part(
            mine,
            place=lambda number: shard_place(work, number),
            is_there=is_there,
            compute=compute,
            show=lambda number: progress(doing, mine.index(number), len(mine)),
        )
    progress(doing, len(mine), len(mine))
    if (folder / "audit.json").is_file():
        remove_folder(work)  # what was computed here meanwhile
        return PartDone(computed, len(job.shards), len(job.shards), tuple(elsewhere), is_merged=True)
    there = sum(shard_place(work, number).is_file() for number in range(len(job.shards)))
    return PartDone(computed, there, len(job.shards), tuple(elsewhere), is_merged=False)


def _joined(folder: Path, work: Path, spec: dict[str, Any], part: Part, inputs: tuple[Any, ...]) -> bool:
    """Join the jobs of a folder, waiting for those that do so at the same moment; whether it is merged already."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with ExitStack() as stack:
                stack.enter_context(claimed(folder, spec, inputs=inputs))
                if (folder / "audit.json").is_file():
                    return True
                work.mkdir(exist_ok=True)
                join_jobs(work, part, {name: versions()[name] for name in ("memloc", "torch")})
                return False
        except FolderInUseError:
            if time.monotonic() > end:
                raise
            time.sleep(random.uniform(0.1, 0.5))


def cost_of_part(cost: dict[str, Any], job: Job, part: Part) -> dict[str, Any]:
    """The cost of a whole audit as that of one job's part."""
    mine = part.shards(len(job.shards))
    share = sum(job.shards[number].stop - job.shards[number].start for number in mine) / len(job.images)
    scaled = {name: cost[name] * share for name in ("forward_passes", "seconds") if cost.get(name) is not None}
    return {**cost, **{name: round(value) for name, value in scaled.items()}, "shards": len(mine)}
