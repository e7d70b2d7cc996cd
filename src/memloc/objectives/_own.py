"""What a point's own loss under an objective is computed from, and the form it comes in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Shown:
    """Views of several points as an encoder sees them, point after point.

    Attributes:
        module: the encoder. inputs: prepared views, shape (point x view, channel, height, width).
        features: what the encoder makes of them, shape (point x view, feature).
        points: ids, shape (point,). views: of each point. seed: of what is drawn besides.
        labels: class numbers, shape (point,), or None.
        references: what `Objective.embed` makes of views of points that no encoder saw, shape (reference, feature).
        same: which of them show the point itself, bool (point, reference).
    """

    module: nn.Module
    inputs: Tensor
    features: Tensor
    points: Tensor
    views: int
    seed: int
    labels: Tensor | None
    references: Tensor | None = None
    same: Tensor | None = None

    def by_point(self, rows: Tensor) -> Tensor:
        """Rows of views as (point, view, ...)."""
        return rows.unflatten(0, (len(self.points), self.views))


def between_views(losses: Tensor) -> Tensor:
    """Losses of a view with another, (point, view, view), as readings of pairs: the mean of both directions, 0 of a
    view with itself.

    >>> import torch
    >>> between_views(torch.tensor([[[9.0, 1.0], [3.0, 9.0]]]))
    tensor([[[0., 2.],
             [2., 0.]]])
    """
    both = (losses + losses.transpose(1, 2)) / 2
    both.diagonal(dim1=1, dim2=2).zero_()
    return both


def of_views(losses: Tensor) -> Tensor:
    """Losses of single views, (point, view), as readings of pairs: the mean of the two.

    >>> import torch
    >>> of_views(torch.tensor([[1.0, 3.0]]))
    tensor([[[0., 2.],
             [2., 0.]]])
    """
    return between_views(losses[:, :, None].expand(-1, -1, losses.shape[1]))
