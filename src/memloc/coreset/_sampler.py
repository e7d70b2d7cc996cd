"""A sampler that draws a coreset's points by their numbers in the whole dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from memloc.coreset._crust import Coreset
from memloc.coreset._gradients import on_host
from memloc.errors import ShapeError


class CrustSampler(Sampler[int]):
    """Indices of the selected points, in an order that follows from `seed` and the epoch alone.

    Call `set_epoch` before each epoch, as with torch's DistributedSampler: else the order is that of epoch 0. A resumed
    training sees the same one.

    Args:
        coreset: what `Crust.select` found, or the selected points' numbers. weights: of numbers given bare; 1 by
            default.
        shuffle: False keeps pick order.

    >>> sampler = CrustSampler([7, 3, 5], seed=0)
    >>> sorted(sampler), len(sampler), sampler.weights_of([5, 3]).tolist()
    ([3, 5, 7], 3, [1.0, 1.0])
    """

    def __init__(self, coreset: Coreset | Any, weights: Any = None, *, shuffle: bool = True, seed: int = 0) -> None:
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self.update(coreset, weights)

    def update(self, coreset: Coreset | Any, weights: Any = None) -> None:
        """Draw from another selection from now on.

        Raises:
            ShapeError: no points, a point twice, or weights of another length.
        """
        picked = coreset.indices if isinstance(coreset, Coreset) else coreset
        weights = coreset.weights if isinstance(coreset, Coreset) and weights is None else weights
        self.indices = torch.as_tensor(on_host(picked)).long()
        known = np.ones(len(self.indices)) if weights is None else on_host(weights)
        if (
            not len(self.indices)
            or len(self.indices.unique()) != len(self.indices)
            or known.shape != self.indices.shape
        ):
            raise ShapeError(
                f"the selection has {len(self.indices)} points, {len(self.indices.unique())} of them different, and"
                f" {len(known)} weights. Expected different points with a weight each. Pass what Crust.select returned."
            )
        self._weights = torch.zeros(int(self.indices.max()) + 1, dtype=torch.float64)
        self._weights[self.indices] = torch.as_tensor(known, dtype=torch.float64)

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next order is for."""
        self.epoch = epoch

    def weights_of(self, points: Any) -> Tensor:
        """Weights of some selected points, float64, shape (point,); 0 of points that are not selected.

        Raises:
            ShapeError: a negative number.
        """
        wanted = torch.as_tensor(on_host(points)).long()
        if len(wanted) and int(wanted.min()) < 0:
            raise ShapeError(f"point {int(wanted.min())} is asked for. Expected numbers of points from 0. Pass those.")
        inside = wanted < len(self._weights)
        return torch.where(inside, self._weights[wanted.clamp_max(len(self._weights) - 1)], 0.0)

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            return iter(self.indices.tolist())
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(self.indices[torch.randperm(len(self.indices), generator=generator)].tolist())

    def __len__(self) -> int:
        return len(self.indices)
