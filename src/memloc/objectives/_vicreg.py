"""VICReg: Bardes, Ponce and LeCun, Variance-Invariance-Covariance Regularization, ICLR 2022, Eq. 1-6."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.objectives._objective import Batch, Objective, Projected, mlp, width_of
from memloc.objectives._own import Shown, between_views

_EPSILON = 1e-4
_INVARIANCE = 25.0


def vicreg(
    first: Tensor, second: Tensor, *, invariance: float = _INVARIANCE, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """λ·mean squared distance + μ·[v(Z) + v(Z')] + ν·[c(Z) + c(Z')].

    v is the mean over features of max(0, 1 - std), c the sum of squared off-diagonal covariances over the number of
    features. As in the paper's code v and c of the two views are averaged and summed: v/2 + v'/2, c + c'.

    Args:
        first, second: expanded views, shape (point, feature).

    >>> z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])       # variance 2 in both features, covariance 2
    >>> round(float(vicreg(z, z)), 4)                       # c = (2² + 2²) / 2 for each view
    8.0
    """
    alike = nn.functional.mse_loss(first, second)
    spread = sum((1 - (view.var(dim=0) + _EPSILON).sqrt()).relu().mean() for view in (first, second))
    joint = sum(_off_diagonal(view) for view in (first, second))
    return torch.as_tensor(invariance * alike + variance * spread / 2 + covariance * joint)


def _off_diagonal(view: Tensor) -> Tensor:
    centred = view - view.mean(dim=0)
    matrix = centred.T @ centred / (len(view) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / view.shape[1]


class VICReg(Objective):
    """Views of a point agree while every feature varies and no two say the same."""

    published = {"optimizer": "lars", "learning_rate": 0.8, "weight_decay": 1e-6}

    def __init__(self, features: int, *, hidden: int = 512) -> None:
        super().__init__()
        self.expander = mlp(features, hidden, hidden, hidden)

    @classmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """A head as wide as the encoder's features."""
        return cls(width_of(module, example))

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Expanded features of both views."""
        features = features_of(module(inputs))
        return Projected(features, (torch.cat([self.expander(view) for view in features.chunk(2)]),))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """The three terms with the paper's weights 25, 25 and 1."""
        return vicreg(*projected.parts[0].float().chunk(2))

    def head_read(self) -> nn.Module:
        """The expander."""
        return self.expander

    def own_losses(self, shown: Shown) -> Tensor:
        """The invariance term: the weighted mean squared distance of two expanded views."""
        z = shown.by_point(self.expander(shown.features))
        return between_views(_INVARIANCE * torch.cdist(z, z).square() / z.shape[2])
