"""Files that stand by themselves, with a checksum at their end."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from memloc.errors import warn
from memloc.results._digest import DIGEST, digest
from memloc.results._files import replacing

_MARK = b"memloc-sealed-01"
SEAL = DIGEST + len(_MARK)
CHECKSUM = "memloc_checksum"  # in the metadata of weights
_HEADER = 100_000_000  # bytes of the header of a safetensors file at most


@contextmanager
def sealing(path: Path) -> Iterator[Path]:
    """As `replacing`, for a file that stands by itself: its checksum is added at its end."""
    with replacing(path, listed=False) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            found = digest(file, temporary.stat().st_size)
            file.seek(0, io.SEEK_END)
            file.write(found + _MARK)


def seal_holds(path: Path) -> bool:
    """Whether a file is sealed, and as it was when it was."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < SEAL or not _is_marked(file, size):
            return False
        file.seek(0)
        found = digest(file, size - SEAL)
        return file.read(DIGEST) == found


def _is_marked(file: BinaryIO, size: int) -> bool:
    file.seek(size - len(_MARK))
    return file.read() == _MARK


def unsealed(path: Path, what: str, instead: str) -> io.BytesIO | None:
    """The content of a sealed file; None where there is none, or a damaged one, which is set aside and said.

    Args:
        what: the file is, and instead: what is done without it, for the line that says so.
    """
    if not path.is_file():
        return None
    if not seal_holds(path):
        set_aside(path, what, instead)
        return None
    with path.open("rb") as file:
        return io.BytesIO(file.read(path.stat().st_size - SEAL))


def set_aside(path: Path, what: str, instead: str) -> None:
    """Rename a file that cannot be used, so that it is made again, and say so."""
    path.replace(path.with_name(f"{path.name}.damaged"))
    warn(
        f"{what} {str(path)!r} is damaged, or was stored by another version of memloc, and was set aside; {instead}.",
    )


def is_sealed(path: Path) -> bool:
    """Whether memloc wrote a file, by the mark that it carries: a seal, or a checksum among weights' metadata."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size >= SEAL and _is_marked(file, size):
            return True
        if path.suffix != ".safetensors":
            return False
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _HEADER):
            return False
        try:
            header = json.loads(file.read(length))
            return CHECKSUM in header.get("__metadata__", {})
        except (ValueError, AttributeError, RecursionError):
            return False
