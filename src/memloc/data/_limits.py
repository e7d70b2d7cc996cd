"""How much a file may unfold to, so that a small hostile one cannot fill memory or run for ever."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from memloc.errors import DataError, MemlocError

LIMITS = {  # of what is read; another number in the environment's MEMLOC_MAX_… goes before
    "BYTES": 4 * 2**30,  # of one file, unpacked
    "PIXELS": 100_000_000,  # of one image
    "ROWS": 20_000_000,  # of one table, or images of one set
    "CLASSES": 1_000_000,  # the largest class number
    "DEPTH": 64,  # folders within folders
}
_ROWS = 4096  # of a parquet file at once
_WORDS = {"BYTES": "bytes unpacked", "PIXELS": "pixels", "ROWS": "rows", "CLASSES": "classes", "DEPTH": "folders deep"}


def limit(what: str) -> int:
    """A limit, a key of LIMITS.

    >>> limit("PIXELS")
    100000000
    """
    name = f"MEMLOC_MAX_{what}"
    given = os.environ.get(name)
    if given is None:
        return LIMITS[what]
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise DataError(f"the environment's {name} is {given!r}. Expected a whole number. Set it to {LIMITS[what]}.")
    return int(given)


def check_limit(what: str, amount: int, where: object) -> None:
    """Raise DataError where something is more than its limit."""
    if amount > limit(what):
        raise DataError(
            f"{where} has {amount if amount < 10**15 else 'far too many'} {_WORDS[what]}. Expected at most"
            f" {limit(what)}. If you know who made it, raise the limit: MEMLOC_MAX_{what}={2 * limit(what)}, before the"
            " command."
        )


@contextmanager
def readable(where: object, expected: str, *, state: str = "cannot be read") -> Iterator[None]:
    """Turn whatever the content of a file leads a reader to raise into one clear error.

    Args:
        expected: what the file should be, in words that end with what to do. state: what is wrong with it.
    """
    try:
        yield
    except MemlocError:
        raise
    except FileNotFoundError as problem:
        raise DataError(f"{where} is gone ({problem.strerror}). Expected {expected}") from problem
    except Exception as problem:
        reason = (str(problem).strip().splitlines() or [""])[0][:200] or type(problem).__name__
        raise DataError(f"{where} {state} ({reason}). Expected {expected}") from problem


def read_parquet(path: Path) -> Any:
    """A parquet file as an Arrow table, read in parts, so that repeated values cannot unfold to more than the limit."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        check_limit("ROWS", file.metadata.num_rows, path)
        parts, held = [], 0
        for part in file.iter_batches(_ROWS):
            held += part.nbytes
            check_limit("BYTES", held, path)
            parts.append(part)
        return pa.Table.from_batches(parts, file.schema_arrow)


class Capped(io.RawIOBase):
    """A readable stream that raises DataError where more than the limit of bytes would be unpacked from it."""

    def __init__(self, inner: IO[bytes], where: object) -> None:
        super().__init__()
        self._inner, self._where = inner, where

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Bytes from here, all without a size."""
        most = limit("BYTES") - self._inner.tell()
        content = self._inner.read(most + 1 if size is None or size < 0 else min(size, most + 1))
        if len(content) > most:
            check_limit("BYTES", self._inner.tell(), self._where)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, which is before the limit."""
        if whence == io.SEEK_END:
            raise OSError("the end is not known before all is unpacked")
        aim = offset + (self._inner.tell() if whence == io.SEEK_CUR else 0)
        check_limit("BYTES", aim, self._where)
        return self._inner.seek(aim)

    def tell(self) -> int:
        """Where it is."""
        return self._inner.tell()
