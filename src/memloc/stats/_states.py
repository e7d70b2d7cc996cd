"""Mergeable states: what a batch of points adds up to. `of` makes one, `merge` joins two, in any order and grouping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class UnitState:
    """Sum, count and maximum of every unit's mean activation, and the point that reaches the maximum.

    >>> mu = torch.tensor([[3.0, 2.0], [1.0, 2.0]])
    >>> state = UnitState.of(mu[:1], torch.tensor([5])).merge(UnitState.of(mu[1:], torch.tensor([4])))
    >>> state.mu_max, state.point                               # the tie in unit 1 goes to the smaller id
    (tensor([3., 2.], dtype=torch.float64), tensor([5, 4]))
    """

    points: int
    total: Float[Tensor, " unit"]  # float64
    mu_max: Float[Tensor, " unit"]  # float64
    point: Int[Tensor, " unit"]

    @classmethod
    def of(cls, mu: Float[Tensor, "point unit"], points: Int[Tensor, " point"]) -> UnitState:
        """The state of one batch: mean activations (rectified where signed) and the ids of their points."""
        mu = mu.double()
        mu_max = mu.amax(dim=0)
        last = torch.iinfo(torch.int64).max
        tied = torch.where(mu == mu_max, points[:, None], last)
        return cls(len(mu), mu.sum(dim=0), mu_max, tied.amin(dim=0))

    def on_host(self) -> UnitState:
        """The same in the machine's own memory."""
        return UnitState(self.points, self.total.cpu(), self.mu_max.cpu(), self.point.cpu())

    def merge(self, other: UnitState) -> UnitState:
        """The state of both batches together."""
        first = (self.mu_max > other.mu_max) | ((self.mu_max == other.mu_max) & (self.point <= other.point))
        return UnitState(
            self.points + other.points,
            self.total + other.total,
            torch.maximum(self.mu_max, other.mu_max),
            torch.where(first, self.point, other.point),
        )


@dataclass(frozen=True)
class ClassState:
    """Sum and count of every unit's mean activation per class.

    >>> state = ClassState.of(torch.tensor([[3.0], [1.0]]), torch.tensor([0, 2]), classes=3)
    >>> state.count.tolist(), state.total[:, 0].tolist()
    ([1, 0, 1], [3.0, 0.0, 1.0])
    """

    count: Int[Tensor, " label"]
    total: Float[Tensor, "label unit"]  # float64

    @classmethod
    def of(cls, mu: Float[Tensor, "point unit"], labels: Int[Tensor, " point"], *, classes: int) -> ClassState:
        """The state of one batch; labels are class numbers below `classes`."""
        mu = mu.double()
        if mu.device.type != "cpu":  # where adding by index has no order; a product has one
            return cls(*sums_by_product(mu, labels, classes))
        total = torch.zeros(classes, mu.shape[1], dtype=torch.float64).index_add_(0, labels, mu)
        return cls(torch.bincount(labels, minlength=classes), total)

    def on_host(self) -> ClassState:
        """The same in the machine's own memory."""
        return ClassState(self.count.cpu(), self.total.cpu())

    def merge(self, other: ClassState) -> ClassState:
        """The state of both batches together."""
        return ClassState(self.count + other.count, self.total + other.total)


def sums_by_product(mu: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Points of each class, and the sum of their rows.

    >>> sums_by_product(torch.tensor([[3.0], [1.0]], dtype=torch.float64), torch.tensor([0, 2]), 3)
    (tensor([1, 0, 1]), tensor([[3.],
            [0.],
            [1.]], dtype=torch.float64))
    """
    member = labels[None] == torch.arange(classes, device=labels.device)[:, None]
    return member.sum(dim=1), member.double() @ mu


@dataclass(frozen=True)
class PointState:
    """Columns with one row per point, kept in the order of the point ids.

    >>> a = PointState.of(torch.tensor([7]), {"align": torch.tensor([0.5])})
    >>> a.merge(PointState.of(torch.tensor([3]), {"align": torch.tensor([0.25])})).columns["align"]
    tensor([0.2500, 0.5000])
    """

    points: Int[Tensor, " point"]
    columns: Mapping[str, Tensor]  # each (point, ...)

    @classmethod
    def of(cls, points: Int[Tensor, " point"], columns: Mapping[str, Tensor]) -> PointState:
        """The state of one batch: ids that are all different, and any columns with a row for each."""
        order = points.argsort(stable=True)
        return cls(points[order], {name: column[order] for name, column in columns.items()})

    def on_host(self) -> PointState:
        """The same in the machine's own memory."""
        return PointState(self.points.cpu(), {name: column.cpu() for name, column in self.columns.items()})

    def merge(self, other: PointState) -> PointState:
        """The rows of both batches."""
        points = torch.cat([self.points, other.points])
        return PointState.of(
            points, {name: torch.cat([column, other.columns[name]]) for name, column in self.columns.items()}
        )
