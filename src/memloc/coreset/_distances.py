"""Distances within a group on a grid of a power of two: their sums are exact, so that no order of additions changes a
pick."""

from __future__ import annotations

import math
from collections.abc import Iterator

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

    def __init__(self, points: Tensor, metric: str, *, dense: bool) -> None:
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
        # Blocks are written to the same memory each time: fresh ones of a few rows leave holes that add up to
        # gigabytes.
        self._product, self._both = (
            torch.empty(self.height, self.n, dtype=torch.float64, device=self.device) for _ in range(2)
        )
        self._block = torch.empty(self.height, self.n, dtype=self.dtype, device=self.device)
        self._matrix = torch.empty(self.n, self.n, dtype=self.dtype, device=self.device) if dense else None
        self._sums: list[NDArray[np.float64]] = []
        self.largest = 0.0
        for _, block in self._computed(self._matrix):
            self.largest = max(self.largest, float(block.max()))
            if self._matrix is None:
                self._sums.append(_sums(block))

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
        if not self._sums:
            self._sums = [_sums(block) for _, block in self.blocks()]
        return self.n * self.largest - np.concatenate(self._sums)

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
        if self._matrix is None:
            yield from self._computed(None)
        else:
            for start in range(0, self.n, self.height):
                yield start, self._matrix[start : start + self.height]

    def _computed(self, into: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, self.n, self.height):
            rows = slice(start, min(start + self.height, self.n))
            yield start, self._compute(rows, None if into is None else into[rows])

    def _compute(self, rows: slice | Tensor, into: Tensor | None = None) -> Tensor:
        """Distances of some points to all, in steps, written to `into` where given."""
        chosen = self._points[rows]
        if self.metric == "manhattan":
            found = torch.cdist(chosen, self._points, p=1)
        elif self.metric == "cosine":
            found = (1 - chosen @ self._points.T).clamp_(min=0).div_(self.step)
            mine = torch.arange(self.n, device=self.device)[rows]
            found[torch.arange(len(mine), device=self.device), mine] = 0.0
        elif self._direct:
            found = torch.cdist(chosen, self._points, compute_mode="donot_use_mm_for_euclid_dist")
        else:
            few = len(chosen) <= self.height
            product, both = (self._product[: len(chosen)], self._both[: len(chosen)]) if few else (None, None)
            # x² + y² first: the sum is then the same for (x, y) and (y, x).
            both = torch.add(self._squared[rows, None], self._squared, out=both)
            found = torch.addmm(both, chosen, self._points.T, alpha=-2, out=product)
        if into is None and len(chosen) <= self.height:
            into = self._block[: len(chosen)]
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
