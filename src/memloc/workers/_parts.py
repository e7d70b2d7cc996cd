"""The plain way of clusters: a job computes every N-th shard into a folder that all jobs share, each shard claimed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memloc.errors import FolderInUseError, OutputError, ResultsError, SpecError
from memloc.results import locked, sealing, unsealed

_JOBS, _CLAIM = "jobs.json", ".claim"


@dataclass(frozen=True)
class Part:
    """Which shards a job computes: every `of`-th, from the `number`-th on, which is counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """From what a user types.

        Raises:
            SpecError: it is no I/N with I from 1 to N.

        >>> Part.parse("2/4").shards(7)
        [1, 5]
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise SpecError(
                f"{text!r} is no part of an audit. Expected I/N: this job's number, from 1, and how many there are."
                " Pass --shards 1/4."
            )
        return part

    def shards(self, count: int) -> list[int]:
        """The numbers of this job's shards among so many, from 0."""
        return list(range(self.number - 1, count, self.of))


def join_jobs(work: Path, part: Part, versions: dict[str, str]) -> None:
    """Note how many jobs share a folder and with what they compute, or check that this one agrees.

    Raises:
        SpecError: another number of jobs, or another version of what computes.
    """
    path = work / _JOBS
    stored = unsealed(path, "the note on the jobs", "it is written again")
    known = {"of": part.of, **versions}
    if stored is None:
        with sealing(path) as temporary:
            temporary.write_text(json.dumps(known))
        return
    before: dict[str, Any] = json.loads(stored.read())
    different = next((name for name in known if before.get(name) != known[name]), None)
    if different == "of":
        raise SpecError(
            f"this job is part {part.number}/{part.of} and the folder is computed by {before['of']} jobs. Expected one"
            f" number for all. Pass --shards I/{before['of']}, or another --out."
        )
    if different is not None:
        raise SpecError(
            f"{different} is {known[different]} here, and the folder was begun with {before.get(different)}. Expected"
            " the same everywhere, which gives the same figures. Install that version, or pass another --out."
        )


def compute_part(
    numbers: list[int],
    *,
    place: Callable[[int], Path],
    is_there: Callable[[int], bool],
    compute: Callable[[int], None],
    show: Callable[[int], None],
) -> tuple[int, list[int]]:
    """Compute shards that are not there, each under a claim of its own.

    Args:
        numbers: of the shards. place: a shard's file. is_there: whether it was computed. compute: compute and store it.
        show: called with a shard's number before it is computed.
    Returns:
        How many were computed here, and which ones another job is computing.
    """
    computed, elsewhere = 0, []
    for number in numbers:
        if is_there(number):
            continue
        try:
            with claimed_shard(place(number)):
                if not is_there(number):  # it may have been finished between the look and the claim
                    show(number)
                    compute(number)
                    computed += 1
        except FolderInUseError:
            elsewhere.append(number)
    return computed, elsewhere


@contextmanager
def claimed_shard(path: Path) -> Iterator[None]:
    """Work on one shard alone.

    Raises:
        FolderInUseError: another job does.
    """
    claim = path.with_suffix(_CLAIM)
    with ExitStack() as stack:
        for last in (False, False, True):
            claim.mkdir(exist_ok=True)
            try:
                stack.enter_context(locked(claim))
                break
            except OutputError:
                if last or claim.is_dir():  # else the job before removed it at this moment
                    raise
        yield
    with suppress(OSError):  # another job looks at it
        claim.rmdir()


def sweep_claims(work: Path) -> None:
    """Remove claims that jobs left that were killed."""
    for claim in work.glob(f"*{_CLAIM}"):
        with suppress(FolderInUseError, OutputError), claimed_shard(claim):
            pass


def check_complete(count: int, place: Callable[[int], Path], command: str, of: int) -> None:
    """Raise ResultsError where shards are missing, with what computes them.

    Args:
        count: of all shards. command: that computes a part, but for its number. of: jobs.
    """
    missing = [number for number in range(count) if not place(number).is_file()]
    if missing:
        jobs = sorted({number % of + 1 for number in missing})
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ResultsError(
            f"{len(missing)} of {count} shards are missing ({shown}). Expected all. Type: {command} --shards"
            f" {jobs[0]}/{of}" + (f", and likewise {', '.join(f'{job}/{of}' for job in jobs[1:6])}" if jobs[1:] else "")
        )


def jobs_of(work: Path) -> int:
    """How many jobs share a folder; 1 where none said."""
    stored = unsealed(work / _JOBS, "the note on the jobs", "it is written again")
    return 1 if stored is None else int(json.loads(stored.read())["of"])
