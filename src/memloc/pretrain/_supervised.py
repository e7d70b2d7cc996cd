"""Supervised training with cross-entropy, the contrast to the self-supervised objectives."""

from __future__ import annotations

from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.pretrain._objective import Batch, Objective, Projected


class Supervised(Objective):
    """A linear layer on the encoder's features predicts the label of each view."""

    views = 1
    coupled = False

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, classes)

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Logits of every view."""
        features = features_of(module(inputs))
        return Projected(features, (self.head(features),))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """-log softmax(logits)[label], averaged over views and points."""
        assert batch.labels is not None, "labels were checked before training"
        logits = projected.parts[0].float()
        return nn.functional.cross_entropy(logits, batch.labels.repeat(len(logits) // len(batch.labels)))
