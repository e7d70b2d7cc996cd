"""Supervised training with cross-entropy, the contrast to the self-supervised objectives."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.objectives._objective import Batch, Objective, Projected, width_of
from memloc.objectives._own import Shown, of_views


class Supervised(Objective):
    """A linear layer on the encoder's features predicts the label of each view."""

    published = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4}
    needs_labels = True
    not_private = "its encoders have batch-norms, which mix the points of a batch"
    views = 1
    coupled = False

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(features, classes)

    @classmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """A layer from the encoder's features to the classes."""
        return cls(width_of(module, example), classes)

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Logits of every view."""
        features = features_of(module(inputs))
        return Projected(features, (self.head(features),))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """-log softmax(logits)[label], averaged over views and points."""
        assert batch.labels is not None, "labels were checked before training"
        logits = projected.parts[0].float()
        return nn.functional.cross_entropy(logits, batch.labels.repeat(len(logits) // len(batch.labels)))

    def head_read(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def own_losses(self, shown: Shown) -> Tensor:
        """Cross-entropy of the point's label."""
        assert shown.labels is not None, "labels were checked before"
        logits = self.head(shown.features).double()  # the loss of a class that is certain is no 0
        losses = nn.functional.cross_entropy(logits, shown.labels.repeat_interleave(shown.views), reduction="none")
        return of_views(shown.by_point(losses))
