"""What memloc audit says and refuses as one of several jobs."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from memloc.cli import _common as common
from memloc.errors import FolderInUseError, SpecError

if TYPE_CHECKING:
    from memloc.cli._options import Given
    from memloc.engine import Job, PartDone, Subject
    from memloc.report import Audit
    from memloc.workers import Part, RayPlace


def place_of(ray: str | None, given: list[str], *, workers: int, gpus: float) -> RayPlace | None:
    """Where actors of Ray run, if they do.

    Raises:
        SpecError: settings of Ray without it.
    """
    from memloc.workers import RayPlace

    if ray is None and given:
        raise SpecError(
            f"{given[0]} is given without --ray and would do nothing. Expected both. Pass --ray local, or leave"
            f" {given[0]} out."
        )
    return None if ray is None else RayPlace(ray, workers=workers, gpus=gpus)


def check_part(
    part: Part | None, merge: bool, overwrite: bool, fail_above: float | None, place: RayPlace | None
) -> None:
    """Raise SpecError for what does not go with a part of an audit."""
    if merge and place is not None:
        raise SpecError("--ray is given beside --merge, which computes nothing. Expected one. Leave --ray out.")
    if merge and overwrite:
        raise SpecError(
            "--overwrite is given beside --merge, and would remove what is to be merged. Expected one or the other."
            " Leave --overwrite out."
        )
    if part is None:
        return
    for given, flag, why in (
        (merge, "--merge", "a merge computes nothing"),
        (place is not None, "--ray", "both divide the work"),
        (overwrite, "--overwrite", "each job would remove what the others computed"),
        (fail_above is not None, "--fail-above", "a part has no figure to look at"),
    ):
        if given:
            raise SpecError(
                f"{flag} is given beside --shards: {why}. Expected one or the other. Leave {flag} out"
                + (", and pass it to --merge." if flag == "--fail-above" else ".")
            )


def without_parts(words: list[str]) -> str:
    """A command line without what makes it a part or a merge."""
    kept, skip = [], False
    for word in words:
        if skip or word == "--merge" or word.startswith("--shards="):
            skip = False
        elif word == "--shards":
            skip = True
        else:
            kept.append(word)
    return shlex.join(kept)


def say_part(done: PartDone, part: Part, as_json: bool) -> None:
    """What a job did, and how much of the whole is there."""
    found = asdict(done) | {"part": f"{part.number}/{part.of}"}
    after = (
        "the audit is there" if done.is_merged else "the last job merges them" if not done.is_complete else "merging"
    )
    common.emit(
        as_json,
        found,
        f"part {part.number}/{part.of}: {done.computed} shards computed, {done.there} of {done.count} there; {after}",
    )


def compute(
    job: Job,
    subject: Subject,
    part: Part | None,
    place: RayPlace | None,
    *,
    merge: bool,
    out: Path,
    settings: Given,
) -> Audit | None:
    """Compute an audit, or a job's part of it and the whole where it is the last; None where another job merges."""
    from memloc.engine import run_job, run_part

    done = None
    if part is not None:
        done = run_part(job, part, out=out, progress=settings.progress, inputs=subject.inputs)
        if done.is_merged or not done.is_complete:
            say_part(done, part, settings.as_json)
            return None
    try:
        return run_job(
            job,
            out=out,
            progress=settings.progress,
            overwrite=settings.overwrite,
            extra=subject.extra,
            inputs=subject.inputs,
            ray=place,
            merge=f"memloc {without_parts(sys.argv[1:])}" if merge or part is not None else None,
        )
    except FolderInUseError:
        if done is None or part is None:
            raise
        say_part(done, part, settings.as_json)  # another job is merging
        return None
