"""SimCLR: NT-Xent of Chen et al., A Simple Framework for Contrastive Learning, ICML 2020, Eq. 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.objectives._objective import Batch, Objective, Projected, width_of
from memloc.objectives._own import Shown, between_views


def nt_xent(first: Tensor, second: Tensor, points: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Normalized temperature-scaled cross-entropy between two views of a batch.

    For view i with positive j: -log( exp(s_ij/t) / sum_k exp(s_ik/t) ), averaged over all 2N views, where k runs over
    j and every view of another point. Copies of one point in a batch are not negatives of each other.

    Args:
        first, second: projections of the two views, shape (point, feature).
        points: which point each row shows, shape (point,).
        temperature: t, above 0.
    Returns:
        The mean loss, a scalar.

    >>> z = torch.eye(2)
    >>> round(float(nt_xent(z, z, torch.arange(2), temperature=1.0)), 4)      # log(1 + 2 / e)
    0.5514
    """
    z = nn.functional.normalize(torch.cat([first, second]).float(), dim=1)
    ids = torch.cat([points, points])
    views = len(z)
    positive = torch.arange(views, device=z.device).roll(views // 2)
    others = torch.arange(views, device=z.device)[None, :] != positive[:, None]
    excluded = (ids[:, None] == ids[None, :]) & others
    similarity = (z @ z.T / temperature).masked_fill(excluded, -torch.inf)
    return nn.functional.cross_entropy(similarity, positive)


def projection_head(features: int, *, hidden: int = 256, outputs: int = 128) -> nn.Module:
    """The two-layer head that the loss is computed behind; it is no part of the audited encoder."""
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )


def own_nt_xent(z: Tensor, references: Tensor, same: Tensor, *, temperature: float = 0.5, batch: int = 256) -> Tensor:
    """NT-Xent of each point between two of its views, with views of other points in place of a batch's negatives.

    -s(v, v')/t + log(exp(s(v, v')/t) + (2B - 2) · mean over k of exp(s(v, k)/t)), the mean of both directions.

    Args:
        z: of unit length, shape (point, view, feature). references: likewise, shape (reference, feature).
        same: which references show the point itself, bool (point, reference); they are left out.
        batch: B, points in a batch.
    Source: REFERENCE A11.

    >>> z = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> other = torch.tensor([[0.0, 1.0]])
    >>> loss = own_nt_xent(z, other, torch.tensor([[False]]), temperature=1.0, batch=2)
    >>> round(float(loss[0, 0, 1]), 4)                                       # log(1 + 2 / e)
    0.5514
    """
    similarity = z @ z.transpose(1, 2) / temperature
    apart = (z @ references.T / temperature).masked_fill(same[:, None], -torch.inf)
    negatives = apart.logsumexp(dim=2) - (~same).sum(dim=1).log()[:, None] + math.log(2 * batch - 2)
    return between_views(torch.logaddexp(similarity, negatives[:, :, None]) - similarity)


class SimCLR(Objective):
    """Two views of a point attract each other, views of other points repel."""

    published = {"optimizer": "lars", "learning_rate": 4.8, "weight_decay": 1e-6}
    own_settings = ("temperature",)
    contrasts = True

    def __init__(self, features: int | None, *, temperature: float = 0.5) -> None:
        super().__init__()
        self.head = nn.Identity() if features is None else projection_head(features)
        self.temperature = temperature

    @classmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """A head as wide as the encoder's features."""
        return cls(width_of(module, example), **own)

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Projections of both views."""
        features = features_of(module(inputs))
        return Projected(features, (self.head(features),))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """NT-Xent of the two views."""
        left, right = projected.parts[0].float().chunk(2)
        return nt_xent(left, right, batch.points, temperature=self.temperature)

    def head_read(self) -> nn.Module | None:
        """The projection head."""
        return None if isinstance(self.head, nn.Identity) else self.head

    def embed(self, features: Tensor) -> Tensor:
        """Projections of unit length."""
        return nn.functional.normalize(self.head(features), dim=1)

    def own_losses(self, shown: Shown) -> Tensor:
        """NT-Xent against the references."""
        assert shown.references is not None, "references were encoded before"
        assert shown.same is not None, "it comes with them"
        z = shown.by_point(self.embed(shown.features))
        return own_nt_xent(z, shown.references, shown.same, temperature=self.temperature, batch=self.batch_size)
