"""SimSiam: Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, Eq. 2 and 4."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.objectives._objective import Batch, Objective, Projected, mlp, width_of
from memloc.objectives._own import Shown, between_views


def negative_cosine(predicted: Tensor, projected: Tensor) -> Tensor:
    """-mean cos(p, stop-gradient(z)) over points, from -1 to 1.

    Args:
        predicted: p, shape (point, feature). projected: z, likewise; no gradient flows into it.

    >>> import torch
    >>> float(negative_cosine(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])))
    -0.5
    """
    return -nn.functional.cosine_similarity(predicted, projected.detach(), dim=1).mean()


class SimSiam(Objective):
    """A predictor guesses the projection of one view from the other's; gradients flow through the guess alone."""

    published = {"epochs": 200, "optimizer": "sgd", "learning_rate": 2.5e-2, "weight_decay": 1e-4}

    def __init__(self, features: int, *, hidden: int = 512, outputs: int = 512) -> None:
        super().__init__()
        self.projector = mlp(features, hidden, hidden, outputs, last_norm=True)
        self.predictor = mlp(outputs, outputs // 4, outputs)

    @classmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """A head as wide as the encoder's features."""
        return cls(width_of(module, example))

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Projections and predictions of both views; batch statistics are of one view at a time, as in the paper's
        code."""
        features = features_of(module(inputs))
        z = [self.projector(view) for view in features.chunk(2)]
        return Projected(features, (z, [self.predictor(view) for view in z]))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """Half the sum of both directions."""
        (z1, z2), (p1, p2) = ([view.float() for view in part] for part in projected.parts)
        return 0.5 * (negative_cosine(p1, z2) + negative_cosine(p2, z1))

    def head_read(self) -> nn.Module:
        """The projector, then the predictor."""
        return nn.Sequential(OrderedDict(projector=self.projector, predictor=self.predictor))

    def own_losses(self, shown: Shown) -> Tensor:
        """1 - cos of the prediction of one view and the projection of the other."""
        projected = self.projector(shown.features)
        z, p = (nn.functional.normalize(shown.by_point(part), dim=2) for part in (projected, self.predictor(projected)))
        return between_views((1 - p @ z.transpose(1, 2)).clamp_min(0))
