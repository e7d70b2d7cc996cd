"""Checksums of files, and writing them to disk for good."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

DIGEST = 16  # bytes of a checksum
_AT_ONCE = 1 << 20


def new_digest() -> hashlib.blake2b:
    """The hash that all checksums are of."""
    return hashlib.blake2b(digest_size=DIGEST)


def digest_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return digest(file, path.stat().st_size).hex()


def digest(file: BinaryIO, length: int) -> bytes:
    """The checksum of a file's first bytes."""
    found = new_digest()
    while length > 0:
        part = file.read(min(_AT_ONCE, length))
        if not part:
            break
        found.update(part)
        length -= len(part)
    return found.digest()


def flushed(path: Path) -> None:
    """Have the system write a file to disk; or a folder's list of names, where its file system can."""
    if path.is_dir():
        with contextlib.suppress(OSError):
            _fsync(path, os.O_RDONLY)
        return
    _fsync(path, os.O_RDWR)


def _fsync(path: Path, how: int) -> None:
    file = os.open(path, how)
    try:
        os.fsync(file)
    finally:
        os.close(file)
