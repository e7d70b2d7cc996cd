"""DINO: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, Eq. 1-4."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import features_of
from memloc.objectives._objective import Batch, Draw, Objective, Projected, width_of
from memloc.objectives._own import Shown, between_views
from memloc.streams import Stream
from memloc.views import Views, policy_named

_STUDENT, _TEACHER = 0.1, 0.04  # temperatures
_CENTRE, _MOMENTUM = 0.9, 0.996
# of the teacher's memory in a training: with the published momentum 400 steps would keep a fifth of its random weights
_SMALLEST, _CROP = 0.05, 0.4  # shares of the image that small and large crops show
_TURNS = 10


def dino_loss(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor,
    *,
    student_temperature: float = _STUDENT,
    teacher_temperature: float = _TEACHER,
) -> Tensor:
    """Cross-entropy of the student's views under the teacher's other views, averaged over pairs of views and points.

    H = -Σ softmax((t - c) / τ_t) · log softmax(s / τ_s) for every teacher view and every other student view.

    Args:
        student: shape (view, point, prototype). teacher: its first (global) views, shape (global view, point,
            prototype).
        centre: c, shape (prototype,).

    >>> s = torch.zeros(2, 1, 4)
    >>> round(float(dino_loss(s, s, torch.zeros(4))), 4)          # log 4
    1.3863
    """
    target = ((teacher - centre) / teacher_temperature).softmax(dim=-1).detach()
    guess = (student / student_temperature).log_softmax(dim=-1)
    losses = -torch.einsum("tpk,spk->ts", target, guess) / student.shape[1]
    same = torch.eye(len(teacher), len(student), dtype=torch.bool, device=losses.device)
    return losses.masked_fill(same, 0.0).sum() / (losses.numel() - min(losses.shape))


class Head(nn.Module):
    """Three layers with GELU, a bottleneck of unit length, and prototypes of unit length.

    With `norm` two of the layers are followed by batch-norm, for encoders that have it themselves: the features of such
    an encoder point in nearly
    one direction at first, all images look alike to the teacher, and the student learns to answer evenly.
    """

    def __init__(
        self, features: int, *, norm: bool, hidden: int = 512, bottleneck: int = 128, prototypes: int = 1024
    ) -> None:
        super().__init__()
        norms = [nn.BatchNorm1d(hidden) if norm else nn.Identity() for _ in range(2)]
        self.mlp = nn.Sequential(
            nn.Linear(features, hidden),
            norms[0],
            nn.GELU(),
            nn.Linear(hidden, hidden),
            norms[1],
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for part in self.mlp:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        nn.init.normal_(self.prototypes)

    def forward(self, features: Tensor) -> Tensor:
        """Similarity to each prototype, shape (view, prototype)."""
        normal = nn.functional.normalize
        return nn.functional.linear(normal(self.mlp(features), dim=1), normal(self.prototypes, dim=1))


class DINO(Objective):
    """The student matches a teacher that is its moving average; the teacher sees the two global views alone and is what
    is kept."""

    published = {"encoder": "vit-tiny", "optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.04}
    own_settings = ("local_crops",)
    centre: Tensor

    def __init__(self, module: nn.Module, features: int, *, local_crops: int = 0) -> None:
        super().__init__()
        self.views = 2 + local_crops
        self.head = Head(
            features, norm=any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
        )
        self.teacher = copy.deepcopy(module).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(len(self.head.prototypes)))

    @classmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """A teacher and its head, as wide as the encoder's features."""
        return cls(module, width_of(module, example), **own)

    @property
    def passes(self) -> int:
        """The teacher sees the two large views."""
        return self.views + 2

    def drawer(self, policy: str, seed: int, *, static: bool = False) -> Draw:
        """With local crops two large ones, then the small ones."""
        local = self.views - 2
        if not local:
            return super().drawer(policy, seed, static=static)
        whole = policy_named(policy)
        large = Views(replace(whole, crop_scale=(_CROP, 1.0)), n=2, seed=seed, sampling="independent")
        small = Views(
            replace(whole, crop_scale=(_SMALLEST, _CROP)),
            n=local,
            seed=Stream.LOCAL_CROPS.keyed(seed),
            sampling="independent",
        )

        def draw(pixels: Tensor, slots: Tensor, epoch: int | Tensor) -> Tensor:
            crops = ((large, 2), (small, local))
            return torch.cat(
                [each.draw(pixels, slots, first=count * epoch, static=static) for each, count in crops], dim=1
            )

        return draw

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """What student and teacher say of their views."""
        features = features_of(module(inputs))
        with torch.no_grad():
            shown = inputs[: 2 * len(batch.points)]
            teacher = self.teacher_head(features_of(self.teacher(shown)))
        return Projected(features, (self.head(features), teacher))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """The cross-entropy; then the centre moves towards the teacher's mean."""
        student, teacher = (part.float().unflatten(0, (-1, len(batch.points))) for part in projected.parts)
        loss = dino_loss(student, teacher, self.centre)
        with torch.no_grad():
            self.centre.lerp_(teacher.mean(dim=(0, 1)), 1 - _CENTRE)
        return loss

    def pace(self, step: int, steps: int) -> float:
        """How far the teacher moves: its momentum rises by a cosine from .996 (less in short trainings) to 1."""
        first = max(min(_MOMENTUM, 1 - _TURNS / steps), 0.0)
        momentum = 1 - (1 - first) * (math.cos(math.pi * (step + 1) / steps) + 1) / 2
        return 1 - momentum

    @torch.no_grad()
    def after_step(self, module: nn.Module, pace: float | Tensor) -> None:
        """Move the teacher's parameters. Its batch-norms keep statistics of their own."""
        for own, other in ((self.teacher, module), (self.teacher_head, self.head)):
            moved, towards = ([each.detach() for each in part.parameters()] for part in (own, other))
            apart = torch._foreach_sub(towards, moved)
            torch._foreach_mul_(apart, pace)
            torch._foreach_add_(moved, apart)

    def finish(self, module: nn.Module) -> None:
        """The teacher is the encoder, and the student is kept in its place."""
        student = {name: weight.clone() for name, weight in module.state_dict().items()}
        module.load_state_dict(self.teacher.state_dict())
        self.teacher.load_state_dict(student)
        self.settle(["student."])

    def settle(self, names: Collection[str]) -> None:
        """The student in the teacher's place; memloc 0.1 kept none."""
        if any(name.startswith("student.") for name in names):
            self.student = self.teacher
            del self.teacher

    @property
    def has_own_losses(self) -> bool:
        """Whether the student was kept."""
        return hasattr(self, "student")

    def head_read(self) -> nn.Module:
        """The teacher's, since the teacher is the encoder."""
        return self.teacher_head

    def own_losses(self, shown: Shown) -> Tensor:
        """Cross-entropy of the student's view under the teacher's other one."""
        teacher = shown.by_point(self.teacher_head(shown.features))
        student = shown.by_point(self.head(features_of(self.student(shown.inputs)).to(shown.features.dtype)))
        target = ((teacher - self.centre) / _TEACHER).softmax(dim=2)
        return between_views(-target @ (student / _STUDENT).log_softmax(dim=2).transpose(1, 2))
