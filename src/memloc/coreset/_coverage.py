"""How far every point of a group is from its nearest pick, and what a further pick would add."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memloc.coreset._distances import Distances

_LISTS_BYTES = 8 << 20  # that lists of neighbours may take, or a quarter of the matrix of distances where that is more
# picks after which candidates have lists of whom they can serve; those served have theirs from the first pick on
_FIRST_LISTS = 64
_CHUNK = 1 << 24  # distances looked at together on an accelerator


def lists_bytes(matrix: int) -> int:
    """What lists of neighbours may take beside a matrix of so many bytes, 0 without one."""
    return max(_LISTS_BYTES, matrix // 4)


class Lists(NamedTuple):
    """For each point some others with their distances, one list after the other.

    Attributes:
        starts: where each list begins, shape (point + 1,). others: points. lengths: distances in steps, whole numbers.
    """

    starts: NDArray[np.int64]
    others: NDArray[np.int32]
    lengths: NDArray[np.floating]

    def of(self, points: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the lists' entries of some points, and how many each has."""
        first = self.starts[points]
        counts = self.starts[points + 1] - first
        ends = counts.cumsum()
        return np.repeat(first - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0), counts

    def shorter(self, kept: NDArray[np.bool_]) -> Lists:
        """The entries that are kept."""
        ends = np.cumsum(kept, dtype=np.int32 if len(kept) < 1 << 31 else np.int64)
        starts = np.where(self.starts > 0, ends[np.maximum(self.starts - 1, 0)] if len(ends) else 0, 0)
        return Lists(starts, self.others[kept], self.lengths[kept])


class Coverage:
    """Distances to the nearest pick, on the CPU.

    Once a point is served by a pick, only those nearer to it than that pick can still serve it. Such neighbours are
    listed as soon as they
    fit, and what they add is summed over lists instead of rows. All numbers are whole, so that the sums are the same
    either way.

    Attributes:
        near: distance to the nearest pick, d_0 before the first (similarity is d_0 - d, never negative). owner: that
            pick; the lower number where two are as near. picks: in order.
    """

    def __init__(self, distances: Distances, *, by_candidate: bool) -> None:
        self.distances, self.picks = distances, []
        self.near = np.full(distances.n, distances.largest, dtype=distances.dtype_of_numpy)
        self.owner = np.full(distances.n, distances.n)
        self._by_candidate = by_candidate
        self._lists: Lists | None = None
        self._next_lists = _FIRST_LISTS if by_candidate else 1
        self._room = lists_bytes(distances.bytes) // (4 + distances.dtype.itemsize)
        self._touched = 0

    picks: list[int]

    @property
    def evaluations(self) -> int:
        """Gains computed so far; one that is brought up to date counts by the share of the points that are looked
        at."""
        return self.distances.n + math.ceil(self._touched / self.distances.n)

    def serve(self, point: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Add a pick; returns the points that it serves better than those before, and how far they were."""
        self.picks.append(point)
        row = self.distances.rows([point])[0].numpy()
        served = (row <= self.near).nonzero()[0]
        before, after = self.near[served], row[served]
        self.near[served] = after
        closer = after < before
        self.owner[served] = np.where(closer, point, np.minimum(self.owner[served], point))
        return served[closer], before[closer]

    def serve_all(self, points: NDArray[np.int64], progress: Callable[[float], None]) -> None:
        """Add picks at once, which serve the points as one after the other would."""
        self.picks += points.tolist()
        near, owner = nearest_of(self.distances, points, progress)
        self.near, self.owner = near.numpy().astype(self.near.dtype), owner.numpy()

    def updated(
        self, gains: NDArray[np.float64], served: NDArray[np.int64], before: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """What each point would add, from what it would have before the last pick, which serves these points better;
        -inf for picks."""
        listed = self._lists is not None
        if not listed:
            self.shorten()
        if self._lists is not None and not listed:
            added = np.repeat(self.near, np.diff(self._lists.starts)) - self._lists.lengths
            gains = _summed(self._lists.others, added, self.distances.n)
            self._touched += len(added)
            gains[self.picks] = -np.inf
            return gains
        gains -= self._lost(served, before)
        gains[self.picks[-1]] = -np.inf
        if listed:
            self.shorten()
        return gains

    def gains(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each candidate would add now, shape (candidate,)."""
        self._touched += len(candidates) * self.distances.n
        if self._lists is not None:
            places, counts = self._lists.of(candidates)
            added = np.maximum(self.near[self._lists.others[places]] - self._lists.lengths[places], 0)
            return _summed(np.repeat(np.arange(len(candidates)), counts), added, len(candidates))
        found, at_once = [], self.distances.height
        for start in range(0, len(candidates), at_once):
            rows = self.distances.rows(candidates[start : start + at_once].tolist()).numpy()
            found.append(np.maximum(self.near - rows, 0).sum(axis=1, dtype=np.float64))
        return np.concatenate(found)

    def shorten(self) -> None:
        """From time to time, list for each point whom it can still serve or be served by, or drop from the lists what
        no longer holds."""
        if len(self.picks) != self._next_lists:
            return
        self._next_lists *= 4
        if self._lists is not None:
            reach = (
                self.near[self._lists.others]
                if self._by_candidate
                else np.repeat(self.near, np.diff(self._lists.starts))
            )
            self._lists = self._lists.shorter(self._lists.lengths <= reach)
            return
        n, counts, others, lengths, total = self.distances.n, [], [], [], 0
        for start, block in self.distances.blocks():
            rows = block.numpy()
            reach = self.near if self._by_candidate else self.near[start : start + len(rows), None]
            flat = np.flatnonzero(rows <= reach)
            total += len(flat)
            if total > self._room:
                return
            mine = np.diff(np.searchsorted(flat, np.arange(len(rows) + 1) * n))
            counts.append(mine)
            others.append((flat - np.repeat(np.arange(len(rows)) * n, mine)).astype(np.int32))
            lengths.append(rows.ravel()[flat])
        starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        together = np.concatenate(others)
        others.clear()  # both would be held twice
        self._lists = Lists(starts, together, np.concatenate(lengths))

    def _lost(self, points: NDArray[np.int64], before: NDArray[np.floating]) -> NDArray[np.float64]:
        """What each point's gain fell by since these points' nearest picks were `before` away, shape (point,)."""
        now = self.near[points]
        # max(0, before - d) - max(0, now - d) with before >= now is before less d held between them.
        if self._lists is not None:
            places, counts = self._lists.of(points)
            self._touched += len(places)
            lengths = self._lists.lengths[places]
            then = np.repeat(before, counts)
            np.maximum(lengths, np.repeat(now, counts), out=lengths)
            then -= np.minimum(lengths, then, out=lengths)
            return _summed(self._lists.others[places], then, self.distances.n)
        self._touched += len(points) * self.distances.n
        total, at_once = np.zeros(self.distances.n), self.distances.height
        for start in range(0, len(points), at_once):
            part = slice(start, start + at_once)
            rows = self.distances.rows(points[part].tolist()).numpy()
            held = np.clip(rows, now[part, None], before[part, None])
            total += before[part].sum(dtype=np.float64) - held.sum(axis=0, dtype=np.float64)
        return total


def _summed(places: NDArray[np.integer], numbers: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    """The sum of the numbers at each place, shape (n,)."""
    return np.bincount(places, weights=numbers, minlength=n).astype(np.float64, copy=False)


def nearest_of(
    distances: Distances, picks: NDArray[np.int64], progress: Callable[[float], None]
) -> tuple[Tensor, Tensor]:
    """How far every point is from the nearest of some picks, in steps, float64, and that pick; the lower number of
    equals."""
    n, device = distances.n, distances.device
    near = torch.zeros(n, dtype=torch.float64, device=device)
    owner = torch.arange(n, device=device)
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.from_numpy(picks)] = True
    columns = chosen.nonzero().flatten().to(device)
    rows = (~chosen).nonzero().flatten().to(device)
    for part in distances.parts(len(rows)):
        mine = rows[part]
        best = torch.full((len(mine),), math.inf, dtype=torch.float64, device=device)
        place = torch.full((len(mine),), n, device=device)
        for some in distances.parts(len(columns)):
            tile = distances.between(mine, columns[some])
            least, at = _least(tile)
            closer = least < best
            best[closer], place[closer] = least[closer], columns[some][at[closer]]
        near[mine], owner[mine] = best, place
        progress(part.stop / len(rows))
    return near, owner


def _least(tile: Tensor) -> tuple[Tensor, Tensor]:
    """The least of each row, float64, and the first place where it stands."""
    if tile.device.type != "cpu":
        return _first_least(tile)
    at = torch.from_numpy(tile.numpy().argmin(axis=1))  # ten times as fast as torch's
    return tile.gather(1, at[:, None])[:, 0].double(), at


def _first_least(tile: Tensor) -> tuple[Tensor, Tensor]:
    """`_least` on an accelerator, which does not say which of equals it finds."""
    least = tile.amin(dim=1)
    places = torch.arange(tile.shape[1], device=tile.device)
    return least.double(), torch.where(tile == least[:, None], places, tile.shape[1]).amin(dim=1)


class DeviceCoverage:
    """`Coverage` on an accelerator, where whole rows are cheaper than lists."""

    def __init__(self, distances: Distances) -> None:
        self.distances, self.picks, self.evaluations = distances, [], distances.n
        self._near = torch.full((distances.n,), distances.largest, dtype=torch.float64, device=distances.device)
        self._owner = torch.full((distances.n,), distances.n, dtype=torch.int64, device=distances.device)

    picks: list[int]

    @property
    def near(self) -> NDArray[np.float64]:
        """Distance to the nearest pick, in steps."""
        return self._near.cpu().numpy()

    @property
    def owner(self) -> NDArray[np.int64]:
        """That pick."""
        return self._owner.cpu().numpy()

    def serve(self, point: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As of `Coverage`."""
        self.picks.append(point)
        row = self.distances.rows([point])[0].double()
        closer = (row < self._near).nonzero().flatten()
        before = self._near[closer]
        nearer = (row < self._near) | ((row == self._near) & (self._owner > point))
        self._owner.masked_fill_(nearer, point)
        self._near = torch.minimum(self._near, row)
        return closer.cpu().numpy(), before.cpu().numpy()

    def serve_all(self, points: NDArray[np.int64], progress: Callable[[float], None]) -> None:
        """As of `Coverage`."""
        self.picks += points.tolist()
        self._near, self._owner = nearest_of(self.distances, points, progress)

    def shorten(self) -> None:
        """Rows are looked at whole."""

    def updated(
        self, gains: NDArray[np.float64], served: NDArray[np.int64], before: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """As of `Coverage`."""
        at_once = max(_CHUNK // self.distances.n, 1)
        self.evaluations += len(served)
        for start in range(0, len(served), at_once):
            part = served[start : start + at_once].tolist()
            rows = self.distances.rows(part).double()
            far = torch.from_numpy(before[start : start + at_once]).to(rows.device)[:, None]
            held = torch.clamp(rows, self._near[torch.tensor(part, device=rows.device)][:, None], far)
            gains -= (far - held).sum(dim=0).cpu().numpy()
        gains[self.picks[-1]] = -np.inf
        return gains

    def gains(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each candidate would add now, shape (candidate,)."""
        self.evaluations += len(candidates)
        found, at_once = [], max(_CHUNK // self.distances.n, 1)
        for start in range(0, len(candidates), at_once):
            rows = self.distances.rows(candidates[start : start + at_once].tolist()).double()
            found.append((self._near - rows).clamp_(min=0).sum(dim=1).cpu().numpy())
        return np.concatenate(found)
