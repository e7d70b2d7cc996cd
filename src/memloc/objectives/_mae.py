"""MAE: He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import (
    Encoder,
    draw_as_mae,
    is_vit,
    mae_decoder,
    mae_positions,
    patches_of,
    visible_tokens,
)
from memloc.errors import EncoderError
from memloc.objectives._objective import Batch, Objective, Projected
from memloc.objectives._own import Shown, of_views
from memloc.streams import Stream
from memloc.views import uniforms

_HIDDEN = 0.75  # share of patches


def mae_loss(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the hidden patches, each patch's pixels brought to mean 0 and deviation 1; one number per
    point.

    Args:
        predicted, target: shape (point, patch, pixel). hidden: 1 where a patch was hidden, shape (point, patch).

    >>> target = torch.tensor([[[0.0, 2.0], [5.0, 5.0]]])
    >>> loss = mae_loss(torch.zeros(1, 2, 2), target, torch.tensor([[1.0, 0.0]]))
    >>> round(float(loss), 4)                                       # (0, 2) becomes (-0.707, 0.707)
    0.5
    """
    target = (target - target.mean(dim=2, keepdim=True)) / (target.var(dim=2, keepdim=True) + 1e-6).sqrt()
    error = (predicted - target).square().mean(dim=2)
    return (error * hidden).sum(dim=1) / hidden.sum(dim=1)


class MAE(Objective):
    """Three quarters of the patches are hidden; a small decoder draws them from what the encoder makes of the others.

    The encoder's weights and positions become MAE's own random ones.
    """

    small = {"encoder": "vit-tiny", "policy": "crop", "weight_decay": 0.05}
    published = {**small, "optimizer": "adamw", "learning_rate": 1.2e-3}
    needs_patches = True
    not_private = ""
    views = 1
    coupled = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.decoder = mae_decoder(module)
        draw_as_mae(module, self.decoder)

    @classmethod
    def build(cls, module: nn.Module, example: Tensor, *, classes: int, **own: Any) -> Objective:
        """A decoder beside the encoder, whose weights are drawn anew."""
        return cls(module)

    @classmethod
    def check(cls, encoder: Encoder) -> None:
        """Its patches can be hidden, and have positions."""
        if not is_vit(encoder.module):
            raise EncoderError(
                f"{encoder.name} is no plain ViT of transformers, whose patches the objective mae could hide. Expected"
                " one with a class token and a position per patch. Pass --encoder vit-tiny."
            )
        mae_positions(1, encoder.module.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @classmethod
    def scored_with(cls, policy: str) -> str:
        """The usual views, as published, without masks (REFERENCE A6)."""
        return "normal"

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Predicted and true pixels, and which patches were hidden."""
        return Projected(None, self.reconstruct(module, inputs, self.point_draws(module, inputs, batch)))

    def point_draws(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Tensor:
        """A draw per patch that belongs to the point: the patches with the lowest are seen; shape (view, patch)."""
        patches = patches_of(module, inputs[:1]).shape[1]
        slots = batch.slots.to(inputs.device)
        number = torch.zeros(1, dtype=torch.int64, device=inputs.device) + batch.epoch
        drawn = uniforms(Stream.MASKS.keyed(batch.seed), slots, number, patches, "independent")[:, 0]
        return drawn.repeat(len(inputs) // len(drawn), 1)

    def reconstruct(self, module: nn.Module, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the patches of lowest noise and decode all."""
        shuffle = noise.argsort(dim=1)
        kept = round(noise.shape[1] * (1 - _HIDDEN))
        restore = shuffle.argsort(dim=1)
        predicted = self.decoder(visible_tokens(module, inputs, shuffle[:, :kept]), restore).logits
        return predicted, patches_of(module, inputs), (restore >= kept).float()

    def point_losses(self, module: nn.Module, inputs: Tensor, drawn: Tensor) -> Tensor:
        """The error of each image's hidden patches."""
        return mae_loss(*self.reconstruct(module, inputs, drawn))

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """The mean over points."""
        predicted, target, hidden = projected.parts
        return mae_loss(predicted.float(), target.float(), hidden).mean()

    def own_losses(self, shown: Shown) -> Tensor:
        """The error of each view's hidden patches, which are drawn by point and view."""
        patches = patches_of(shown.module, shown.inputs[:1]).shape[1]
        key, numbers = Stream.OWN_MASKS.keyed(shown.seed), torch.arange(shown.views)
        noise = uniforms(key, shown.points.cpu(), numbers, patches, "independent").flatten(0, 1)
        return of_views(shown.by_point(self.point_losses(shown.module, shown.inputs, noise.to(shown.inputs.device))))
