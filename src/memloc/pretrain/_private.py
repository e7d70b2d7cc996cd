"""Differentially private training of MAE with opacus: DP-SGD's clipped and noised gradients, Poisson-drawn batches, and the ε spent."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import Encoder
from memloc.errors import EncoderError, MissingExtraError
from memloc.pretrain._mae import MAE, mae_loss
from memloc.pretrain._objective import Batch
from memloc.pretrain._spec import TrainSpec
from memloc.views import Views, uniforms

_DRAW_STREAM = 4 << 32  # which points a batch has
_NOISE_SEED = 5 << 32


def check_private(module: nn.Module) -> None:
    """Raise EncoderError where a part mixes the points of a batch, so that clipping bounds nothing.

    >>> check_private(nn.BatchNorm1d(3))
    Traceback (most recent call last):
    memloc.errors.EncoderError: the encoder has BatchNorm1d at ''. ...
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise EncoderError(
                f"the encoder has {type(part).__name__} at {name!r}. Expected none for differential privacy: it mixes the points of a batch. "
                "Pass an encoder with group or layer norm, such as --encoder vit-tiny."
            )


def delta_of(spec: TrainSpec, points: int) -> float:
    """The δ of a run: as given, else one over the number of points."""
    return spec.dp_delta if spec.dp_delta is not None else 1 / points


def noise_of(spec: TrainSpec, points: int) -> tuple[float, float, int]:
    """Noise multiplier for the budget, sampling rate, and steps of an epoch."""
    opacus = _library()
    rate = min(spec.batch_size / points, 1.0)
    steps = math.ceil(1 / rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders that the accountant tries
        noise = opacus.accountants.utils.get_noise_multiplier(
            target_epsilon=spec.dp_epsilon, target_delta=delta_of(spec, points), sample_rate=rate, steps=steps * spec.epochs, accountant="rdp"
        )  # fmt: skip
    return float(noise), rate, steps


def train_privately(
    encoder: Encoder,
    objective: MAE,
    pixels: Tensor,
    spec: TrainSpec,
    *,
    seed: int,
    device: torch.device,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int, int, float], float],
    log: Callable[[dict[str, Any]], None],
    save: Callable[[int], None],
    resume: Callable[[], int],
) -> None:
    """Train in place; every epoch's metrics state the ε spent so far.

    Each step draws every point with probability batch_size / points, clips each point's gradient to norm `dp_clip`, adds Gaussian
    noise, and divides by the expected batch. CLS and mask token, which are no layer's weights, keep their first values.

    Source: Abadi et al., Deep Learning with Differential Privacy, CCS 2016; opacus's accountant of Rényi differential privacy.
    """
    opacus = _library()
    check_private(encoder.module)
    noise, rate, steps = noise_of(spec, len(pixels))
    work = _Loss(encoder.module, objective)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        per_point = opacus.GradSampleModule(work, loss_reduction="sum")
    generator = torch.Generator(device=device)
    private = opacus.optimizers.DPOptimizer(
        optimizer, noise_multiplier=noise, max_grad_norm=spec.dp_clip, expected_batch_size=max(round(rate * len(pixels)), 1),
        loss_reduction="mean", generator=generator,
    )  # fmt: skip
    accountant = opacus.accountants.RDPAccountant()
    views = Views(spec.policy, n=2, seed=seed, sampling="independent")  # of which the first is shown
    slot = torch.arange(len(pixels))
    first = resume()
    accountant.history = [(noise, rate, first * steps)] if first else []
    for epoch in range(first, spec.epochs):
        began, losses, shown = time.monotonic(), [], 0
        generator.manual_seed(seed + _NOISE_SEED + epoch)
        for number in range(steps):
            step = epoch * steps + number
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * schedule(step, spec.epochs * steps, spec.warmup)
            drawn = uniforms(seed + _DRAW_STREAM, slot, torch.tensor([step]), 1, "independent").flatten()
            rows = slot[drawn < rate].to(device)
            private.zero_grad()
            if len(rows):  # an empty batch has a probability of exp(-batch_size)
                batch = Batch(rows, None, rows, epoch, seed)
                inputs = encoder.prepare(views.draw(pixels[rows].to(device), rows, first=2 * epoch)[:, 0])
                loss = per_point(inputs, objective.noise(encoder.module, inputs, batch))
                loss.sum().backward()
                losses.append(loss.detach().mean())
                shown += len(rows)
                private.step()
            accountant.step(noise_multiplier=noise, sample_rate=rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spent = accountant.get_epsilon(delta_of(spec, len(pixels)))
        seconds = time.monotonic() - began
        log(
            {
                "epoch": epoch + 1, "loss": float(torch.stack(losses).mean()) if losses else float("nan"),
                "learning_rate": optimizer.param_groups[0]["lr"], "seconds": seconds, "images_per_second": shown / seconds, "epsilon": spent,
            }
        )  # fmt: skip
        save(epoch + 1)
    per_point.remove_hooks()


class _Loss(nn.Module):
    """MAE's loss per point as one module, for per-point gradients."""

    def __init__(self, encoder: nn.Module, objective: MAE) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, objective.decoder
        self._objective = [objective]  # in a list, so that its parts are not counted twice

    def forward(self, inputs: Tensor, noise: Tensor) -> Tensor:
        predicted, target, hidden = self._objective[0].reconstruct(self.encoder, inputs, noise)
        return mae_loss(predicted, target, hidden)


def freeze_tokens(module: nn.Module, objective: MAE) -> None:
    """Keep the parameters that belong to no layer as they are: their gradients per point are not computed."""
    for part in (module, objective.decoder):
        for name, parameter in part.named_parameters():
            if name.endswith(("cls_token", "mask_token", "position_embeddings", "decoder_pos_embed")):
                parameter.requires_grad_(False)


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import opacus
            import opacus.accountants.utils
    except ImportError as problem:
        raise MissingExtraError(
            "opacus is not installed. Expected it for differential privacy. Install it with: pip install 'memloc[dp]'"
        ) from problem
    return opacus
