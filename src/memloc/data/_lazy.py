"""Pixels of image sets that do not fit in memory: decoded when they are asked for, batch by batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from memloc.data._decode import decode_one
from memloc.errors import DataError
from memloc.fit import Fit
from memloc.machine import cores

_THREADS = 16  # at most


@dataclass(frozen=True)
class ImageFiles:
    """Files of one folder, brought to one size when they are read.

    Attributes:
        folder: where they lie. names: their paths within it. fit: to which size, and how.
    """

    folder: Path
    names: Sequence[str]
    fit: Fit

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """Decode some files: uint8 (point, 3, size, size)."""
        with ThreadPoolExecutor(min(cores(), _THREADS)) as pool:
            return torch.stack(list(pool.map(self._read, rows.tolist())))

    def _read(self, row: int) -> Tensor:
        name = self.names[row]
        try:
            return decode_one(self.folder / name, self.fit, name)
        except DataError:
            raise
        except Exception as problem:  # PIL raises whatever the bytes lead it to
            raise DataError(
                f"{name} in {self.folder} cannot be read ({problem}). Expected an image: a set that does not fit in"
                " memory is read as it goes. Mend or remove the file; what was done is kept."
            ) from problem

    def digest(self, row: int) -> bytes:
        """A hash of a file's name and length, which stand for its content."""
        name = self.names[row]
        state = f":{(self.folder / name).stat().st_size}:{self.fit}".encode()
        return hashlib.blake2b(os.fsencode(name) + state, digest_size=8).digest()


class LazyPixels:
    """Stands where a uint8 tensor (point, channel, height, width) does, and reads the rows it is asked for.

    Attributes:
        shape: of all pixels.
    """

    dtype = torch.uint8

    def __init__(
        self, sources: Sequence[ImageFiles | Tensor], source: np.ndarray, row: np.ndarray, extent: tuple[int, int, int]
    ) -> None:
        self._sources, self._source, self._row = list(sources), source, row
        self.shape = torch.Size((len(row), *extent))

    @staticmethod
    def of_files(files: ImageFiles) -> LazyPixels:
        """All files of a folder."""
        count = len(files.names)
        return LazyPixels(
            [files],
            np.zeros(count, dtype=np.int16),
            np.arange(count),
            (3, cast(int, files.fit.size), cast(int, files.fit.size)),
        )

    def __len__(self) -> int:
        return len(self._row)

    def numel(self) -> int:
        """Bytes that are held at once: a batch of 256."""
        return min(len(self), 256) * int(np.prod(self.shape[1:]))

    def __getitem__(self, rows: Any) -> Tensor:
        """Pixels of a row, a slice, or some rows: uint8, without the first axis for a single row."""
        if isinstance(rows, (int, np.integer)):
            return self[[int(rows)]][0]
        places = np.arange(len(self))[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]
        found = torch.empty((len(places), *self.shape[1:]), dtype=torch.uint8)
        for number, source in enumerate(self._sources):
            mine = np.flatnonzero(self._source[places] == number)
            if len(mine):
                read = (
                    source[self._row[places[mine]]]
                    if isinstance(source, ImageFiles)
                    else source[torch.from_numpy(self._row[places[mine]])]
                )
                found[torch.from_numpy(mine)] = read.expand(-1, self.shape[1], -1, -1)
        return found

    def take(self, rows: Tensor) -> LazyPixels:
        """Some of the rows, still unread."""
        places = rows.numpy()
        return LazyPixels(self._sources, self._source[places], self._row[places], cast(Any, tuple(self.shape[1:])))

    def hashes(self) -> np.ndarray:
        """A hash of each row, int64: of names and lengths of files."""
        digests = []
        for number, row in zip(self._source.tolist(), self._row.tolist(), strict=True):
            source = self._sources[number]
            digests.append(
                source.digest(row)
                if isinstance(source, ImageFiles)
                else hashlib.blake2b(source[row].numpy().tobytes(), digest_size=8).digest()
            )
        return np.frombuffer(b"".join(digests), dtype="<i8")

    def joined(self, other: LazyPixels | Tensor, *, after: bool) -> LazyPixels:
        """These rows and another set's, which come `after` or before them."""
        if isinstance(other, Tensor):
            other = LazyPixels(
                [other], np.zeros(len(other), dtype=np.int16), np.arange(len(other)), cast(Any, tuple(other.shape[1:]))
            )
        first, second = (self, other) if after else (other, self)
        source = np.concatenate([first._source, second._source + len(first._sources)])
        channels = max(first.shape[1], second.shape[1])
        extent = (channels, int(self.shape[2]), int(self.shape[3]))
        return LazyPixels(
            [*first._sources, *second._sources], source, np.concatenate([first._row, second._row]), extent
        )
