"""Distances within a group on a grid of a power of two: their sums are exact, so that no order of additions changes a
pick."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memloc.errors import NonFiniteError

METRICS = ("euclidean", "cosine", "manhattan")
_FLOAT64_POINTS, _FLOAT64_PRODUCTS = 4096, 500_000_000  # up to which float64 input has distances of float64
_EXACT = 50_000_000  # products up to which Euclidean distances are of differences, not of the Gram matrix
_ZERO = 4e-15  # of the largest squared length: squared distances below are rounding of the Gram matrix
_BLOCK_BYTES = 2 << 20
_SIDE = 512  # points of a square of distances: its numbers stay in the processor's cache


class _Buffers:
    """Memory that blocks of distances are written to: fresh blocks leave holes that add up to gigabytes."""

    def __init__(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.height = height
        self.product, self.both = (torch.empty(height, width, dtype=torch.float64, device=device) for _ in range(2))
        self.block = torch.empty(height, width, dtype=dtype, device=device)

    def of(self, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Products, sums of squares, and distances, of a block of that size."""
        return self.product[:height, :width], self.both[:height, :width], self.block[:height, :width]


class Distances:
    """Distances between the points of one group, kept or computed as they are asked for.

    Every distance is a whole number of `step`, at most 2^24 of them (2^40 for float64 input of up to 4 096 points and 5
    x 10^8 products):
    sums of a group are whole numbers that float64 holds, whatever the order or the number of points asked for at once.
    A distance is wrong by less than 2^-22 of the largest (2^-38).

    Attributes:
        step: a power of two. largest: the largest distance, d_0, in steps.

    >>> found = Distances(torch.tensor([[0.0], [3.0], [4.0]]), "euclidean", dense=True)
    >>> (found.rows([1]) * found.step).tolist(), found.largest * found.step
    ([[3.0, 0.0, 1.0]], 4.0)
    """

    def __init__(
        self, points: Tensor, metric: str, *, dense: bool, progress: Callable[[float], None] = lambda _share: None
    ) -> None:
        self.n, self.metric, self.device = len(points), metric, points.device
        wide = is_wide(self.n, points.shape[1], points.dtype == torch.float64)
        self.dtype = torch.float64 if wide else torch.float32
        self._points = _centred(points.double(), metric)
        bound = max(_bound(self._points, metric), float(np.finfo(np.float32).tiny))
        if not bound < 1e150:
            raise NonFiniteError(
                "the gradients hold numbers above 1e150. Expected numbers whose squares are finite. Scale them."
            )
        self.step = 2.0 ** (math.ceil(math.log2(bound)) - (40 if wide else 24))
        self._points /= 1.0 if metric == "cosine" else self.step
        self._direct = metric == "euclidean" and (wide or self.n * self.n * points.shape[1] <= _EXACT)
        self._squared = self._points.square().sum(dim=1)
        self._zero = float(_ZERO * self._squared.max())
        self.height = max(_BLOCK_BYTES // (8 * self.n), 1)
        self._held = _Buffers(self.height, self.n, self.dtype, self.device)
        side = min(_SIDE, self.n)
        self._tile = _Buffers(side, side, self.dtype, self.device)
        self._matrix = torch.empty(self.n, self.n, dtype=self.dtype, device=self.device) if dense else None
        self._sums: NDArray[np.float64] | None = None
        self.largest = 0.0
        if self._matrix is None:
            self._sums = self._added_up(progress)
            return
        for start in range(0, self.n, self.height):
            block = self._compute(slice(start, start + self.height), into=self._matrix[start : start + self.height])
            self.largest = max(self.largest, float(block.max()))
            progress(min((start + self.height) / self.n, 1.0))

    def _added_up(self, progress: Callable[[float], None]) -> NDArray[np.float64]:
        """Each point's sum of distances to all, of every pair once; finds the largest, too."""
        sums = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        parts = self.parts(self.n)
        for number, rows in enumerate(parts):
            for columns in parts[number:]:
                tile = self._compute(rows, columns)
                self.largest = max(self.largest, float(tile.max()))
                wide = self._tile.of(*tile.shape)[0].copy_(tile)
                sums[rows] += wide.sum(dim=1)
                if columns is not rows:
                    sums[columns] += wide.sum(dim=0)
            progress(1 - (1 - rows.stop / self.n) ** 2)
        return sums.cpu().numpy()

    @staticmethod
    def parts(n: int) -> list[slice]:
        """So many points in parts of a square's side."""
        return [slice(start, min(start + _SIDE, n)) for start in range(0, n, _SIDE)]

    def between(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Distances of up to 512 points to as many, in steps; good until the next call."""
        return self._compute(rows, columns) if self._matrix is None else self._matrix[rows[:, None], columns]

    def rows(self, indices: list[int]) -> Tensor:
        """Distances of some points to all, in steps, shape (len(indices), point); of up to `height` points good until
        the next call."""
        if self._matrix is None:
            return self._compute(torch.tensor(indices, device=self.device))
        if len(indices) == 1:  # a view
            return self._matrix[indices[0] : indices[0] + 1]
        return self._matrix[torch.tensor(indices, device=self.device)]

    def first_gains(self) -> NDArray[np.float64]:
        """What each point would add as first pick, its total similarity n d_0 - Σ d, shape (point,)."""
        if self._sums is None:
            self._sums = np.concatenate([_sums(block) for _, block in self.blocks()])
        return self.n * self.largest - self._sums

    @property
    def dtype_of_numpy(self) -> type[np.floating]:
        """The kind of number that holds a distance."""
        return np.float64 if self.dtype == torch.float64 else np.float32

    @property
    def bytes(self) -> int:
        """What the kept distances take."""
        return 0 if self._matrix is None else self._matrix.nbytes

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """All rows, some at a time, with the number of the first; a block is good until the next one."""
        for start in range(0, self.n, self.height):
            rows = slice(start, min(start + self.height, self.n))
            yield start, self._compute(rows) if self._matrix is None else self._matrix[rows]

    def _compute(
        self, rows: slice | Tensor, columns: slice | Tensor | None = None, into: Tensor | None = None
    ) -> Tensor:
        """Distances of some points to some, to all by default, in steps, written to `into` where given."""
        chosen, others = self._points[rows], self._points if columns is None else self._points[columns]
        held = self._held if columns is None else self._tile
        shape = len(chosen), len(others)
        product, both, block = held.of(*shape) if len(chosen) <= held.height else (None, None, None)
        if self.metric == "manhattan":
            found = torch.cdist(chosen, others, p=1)
        elif self.metric == "cosine":
            found = (1 - chosen @ others.T).clamp_(min=0).div_(self.step)
            every = torch.arange(self.n, device=self.device)
            same = every[rows][:, None] == (every if columns is None else every[columns])
            found.masked_fill_(same, 0.0)
        elif self._direct:
            found = torch.cdist(chosen, others, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            # x² + y² first: the sum is then the same for (x, y) and (y, x).
            squared = self._squared if columns is None else self._squared[columns]
            both = torch.add(self._squared[rows, None], squared, out=both)
            found = torch.addmm(both, chosen, others.T, alpha=-2, out=product)
        into = block if into is None else into
        found = found.to(self.dtype) if into is None else into.copy_(found)
        if self.metric == "euclidean" and not self._direct:
            torch.threshold_(found, self._zero, 0.0).sqrt_()
        return found.round_()


def is_wide(n: int, features: int, float64: bool) -> bool:
    """Whether the distances of a group are kept in float64."""
    return float64 and n <= _FLOAT64_POINTS and n * n * features <= _FLOAT64_PRODUCTS


def matrix_bytes(n: int, features: int, float64: bool) -> int:
    """What a group's matrix of distances takes."""
    return n * n * (8 if is_wide(n, features, float64) else 4)


def free_bytes(device: torch.device) -> int:
    """Memory that is free where the distances will lie."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def _sums(block: Tensor) -> NDArray[np.float64]:
    if block.device.type == "cpu":  # NumPy's is several times as fast as torch's where the dtype changes
        return block.numpy().sum(axis=1, dtype=np.float64)
    return block.sum(dim=1, dtype=torch.float64).cpu().numpy()


def _centred(points: Tensor, metric: str) -> Tensor:
    if metric == "cosine":
        return torch.nn.functional.normalize(points, dim=1)
    return points - points.mean(dim=0)


def _bound(points: Tensor, metric: str) -> float:
    """A number that no distance exceeds."""
    if metric == "cosine":
        return 2.0
    return 2.0 * float(points.norm(dim=1, p=1 if metric == "manhattan" else 2).max())
