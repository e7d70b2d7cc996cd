"""What is minimized: an objective has its own head, says what it needs of a batch, and turns it into one loss."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from memloc.encoders import Encoder, features_of
from memloc.objectives._own import Shown
from memloc.views import Views

# from (pixels, slots, epoch) to (slot, view, channel, height, width); in a graph the epoch is a tensor on the device
Draw = Callable[[Tensor, Tensor, "int | Tensor"], Tensor]


@dataclass(frozen=True)
class Batch:
    """What a step knows of its points.

    Attributes:
        points: which point each row shows, shape (point,). labels: class numbers, or None.
        slots: place of each row in the epoch, the key of its draws. epoch, seed: the others; in a graph the epoch is a
            tensor on the device.
    """

    points: Tensor
    labels: Tensor | None
    slots: Tensor
    epoch: int | Tensor
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
    """A head and its loss, with what it needs and how it is usually trained.

    A subclass defines `build`, `project`, which runs under autocast, and `loss`, which runs in float32.

    Attributes:
        small: settings of a training that differ from the usual ones. published: those of the papers, likewise.
        own_settings: settings of a training that this objective alone takes; `build` is given them.
        needs_labels: whether every point must have one. needs_patches: whether it hides patches, which takes a ViT.
        not_private: why a privacy budget would be false; "" where a loss is a sum over points that can be clipped.
        views: of each point and step. coupled: whether a point's loss depends on the others in its batch.
        contrasts: whether a point's own loss needs views of other points, which no encoder saw.
        batch_size: points in a batch of the training, which such a loss counts.
    """

    small: ClassVar[Mapping[str, Any]] = {}
    published: ClassVar[Mapping[str, Any]] = {}
    own_settings: ClassVar[tuple[str, ...]] = ()
    needs_labels: ClassVar[bool] = False
    needs_patches: ClassVar[bool] = False
    not_private: ClassVar[str] = (
        "its loss compares the points of a batch with each other, so clipping each point's gradient does not bound"
        " what a point changes, and the ε would be false"
    )
    views: int = 2
    coupled: ClassVar[bool] = True
    contrasts: ClassVar[bool] = False
    batch_size: int = 256

    @classmethod
    @abstractmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """The objective for an encoder.

        Args:
            example: prepared images. classes: of the labels. own: the settings that `own_settings` names.
        """

    @classmethod
    def check(cls, encoder: Encoder) -> None:
        """Raise EncoderError where the encoder cannot be trained so."""

    @classmethod
    def scored_with(cls, policy: str) -> str:
        """The policy of views that an encoder is scored with, by the one of its training."""
        return policy

    @property
    def passes(self) -> int:
        """Forward passes of each point and step."""
        return self.views

    def drawer(self, policy: str, seed: int, *, static: bool = False) -> Draw:
        """What draws the views of a step; `static` as in Views.draw."""
        recipe = Views(policy, n=self.views, seed=seed, sampling="independent")
        return lambda pixels, slots, epoch: recipe.draw(pixels, slots, first=self.views * epoch, static=static)

    @abstractmethod
    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Run the encoder and the head over prepared views, shape (view x point, channel, height, width)."""

    @abstractmethod
    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """The mean loss of a batch, a scalar."""

    @abstractmethod
    def own_losses(self, shown: Shown) -> Tensor:
        """Each point's own loss between two of its views, in evaluation mode: positive, symmetric, shape (point, view,
        view), 0 on the diagonal."""

    @property
    def has_own_losses(self) -> bool:
        """Whether everything is there that they are computed from."""
        return True

    def settle(self, names: Collection[str]) -> None:
        """Take the parts that a finished training kept, by the names of its weights."""

    def head_read(self) -> nn.Module | None:
        """What is read behind the encoder's features, shape (view, feature); None where there is no head."""
        return None

    def embed(self, features: Tensor) -> Tensor:
        """What `own_losses` takes of views of other points, where it contrasts."""
        return features

    def pace(self, step: int, steps: int) -> float:
        """A number that `after_step` takes and that changes from step to step, counted from 0, of so many."""
        return 0.0

    def after_step(self, module: nn.Module, pace: float | Tensor) -> None:
        """What follows the optimizer's step; in a graph the pace is a tensor on the device."""

    def finish(self, module: nn.Module) -> None:
        """What follows training: the module becomes the encoder that is kept."""

    def point_draws(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Tensor:
        """What `point_losses` takes of chance, which belongs to the points; of private objectives alone."""
        raise NotImplementedError(f"{type(self).__name__} is not private")

    def point_losses(self, module: nn.Module, inputs: Tensor, drawn: Tensor) -> Tensor:
        """The loss of each point by itself, shape (point,); of private objectives alone."""
        raise NotImplementedError(f"{type(self).__name__} is not private")


@torch.no_grad()
def width_of(module: nn.Module, example: Tensor) -> int:
    """How many features an encoder gives, by one pass in evaluation mode."""
    was_training = module.training
    features = features_of(module.eval()(example)).shape[1]
    module.train(was_training)
    return features


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

    >>> round(float(alignment_penalty(torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [0.0, 3.0]]))), 4)
    0.7071
    """
    first, second = nn.functional.normalize(features.float(), dim=1).chunk(2)
    return (first - second).square().sum(dim=1).clamp_min(1e-12).sqrt().mean()
