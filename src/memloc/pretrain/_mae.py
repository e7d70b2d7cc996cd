"""MAE: He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memloc.encoders import draw_as_mae, mae_decoder, patches_of, visible_tokens
from memloc.pretrain._objective import Batch, Objective, Projected
from memloc.views import uniforms

_HIDDEN = 0.75  # share of patches
_STREAM = 3 << 32  # keeps masks apart from views and order


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

    views = 1
    coupled = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.decoder = mae_decoder(module)
        draw_as_mae(module, self.decoder)

    def project(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Projected:
        """Predicted and true pixels, and which patches were hidden."""
        return Projected(None, self.reconstruct(module, inputs, self.noise(module, inputs, batch)))

    def noise(self, module: nn.Module, inputs: Tensor, batch: Batch) -> Tensor:
        """A draw per patch that belongs to the point: the patches with the lowest are seen; shape (view, patch)."""
        patches = patches_of(module, inputs[:1]).shape[1]
        number = torch.tensor([batch.epoch])
        drawn = uniforms(batch.seed + _STREAM, batch.slots.cpu(), number, patches, "independent")[:, 0]
        return drawn.to(inputs.device).repeat(len(inputs) // len(drawn), 1)

    def reconstruct(self, module: nn.Module, inputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the patches of lowest noise and decode all."""
        shuffle = noise.argsort(dim=1)
        kept = round(noise.shape[1] * (1 - _HIDDEN))
        restore = shuffle.argsort(dim=1)
        predicted = self.decoder(visible_tokens(module, inputs, shuffle[:, :kept]), restore).logits
        return predicted, patches_of(module, inputs), (restore >= kept).float()

    def loss(self, projected: Projected, batch: Batch) -> Tensor:
        """The mean over points."""
        predicted, target, hidden = projected.parts
        return mae_loss(predicted.float(), target.float(), hidden).mean()
