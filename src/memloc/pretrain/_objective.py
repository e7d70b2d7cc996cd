"""What is minimized: an objective has its own head, says what it needs of a batch, and turns it into one loss."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """What a step knows of its points.

    Attributes:
        points: which point each row shows, shape (point,). labels: class numbers, or None.
        slots: place of each row in the epoch, the key of its draws. epoch, seed: the others.
    """

    points: Tensor
    labels: Tensor | None
    slots: Tensor
    epoch: int
    seed: int


@dataclass(frozen=True)
class Projected:
    """What a forward pass leaves for the loss.

    Attributes:
        features: of the encoder, shape (view x point, feature), the views one after the other; None where views were
            masked.
        parts: whatever the objective's own loss takes.
    """

    features: Tensor | None
    parts: tuple[Any, ...]


class Objective(nn.Module, ABC):
    """A head and its loss.

    A subclass sets `views` (of each point and step) and `coupled` (whether a point's loss depends on the others in its
    batch), and defines `project`, which runs under autocast, and `loss`, which runs in float32.
    """

    views = 2
    coupled = True

    @abstractmethod
    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Run the encoder and the head over prepared views, shape (view x point, channel, height, width)."""

    @abstractmethod
    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """The mean loss of a batch, a scalar."""

    def after_step(self, module: nn.Module, step: int, steps: int) -> None:
        """What follows the optimizer's step, counted from 0, of so many."""

    def finish(self, module: nn.Module) -> None:
        """What follows training: the module becomes the encoder that is kept."""


def mlp(*sizes: int, last_norm: bool = False) -> nn.Sequential:
    """Linear layers with batch-norm and ReLU between them, and batch-norm without scale and shift after the last where
    asked.

    >>> [type(part).__name__ for part in mlp(4, 8, 2)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes[:-1]):
        parts += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    parts.append(nn.Linear(sizes[-2], sizes[-1], bias=not last_norm))
    if last_norm:
        parts.append(nn.BatchNorm1d(sizes[-1], affine=False))
    return nn.Sequential(*parts)


def alignment_penalty(features: Tensor) -> Tensor:
    """Mean distance between the two views of each point, of features of unit length: what SSLMem Eq. 3 adds to the
    loss, before its weight.

    >>> import torch
    >>> round(float(alignment_penalty(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [0.0, 3.0]]))), 4)
    0.7071
    """
    first, second = nn.functional.normalize(features.float(), dim=1).chunk(2)
    return (first - second).square().sum(dim=1).clamp_min(1e-12).sqrt().mean()
