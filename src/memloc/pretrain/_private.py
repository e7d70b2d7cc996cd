"""Differentially private training with opacus: DP-SGD's clipped and noised gradients, Poisson-drawn batches, and
the ε spent."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import Encoder
from memloc.errors import EncoderError, MissingExtraError, SpecError, TrainingError
from memloc.objectives import Batch, Objective
from memloc.pretrain._spec import TrainSpec
from memloc.streams import Stream
from memloc.views import Views, uniforms


def check_private(module: nn.Module) -> None:
    """Raise EncoderError where a part mixes the points of a batch, so that clipping bounds nothing.

    >>> check_private(nn.BatchNorm1d(3))
    Traceback (most recent call last):
    memloc.errors.EncoderError: the encoder has BatchNorm1d at ''. ...
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise EncoderError(
                f"the encoder has {type(part).__name__} at {name!r}. Expected none for differential privacy: it mixes"
                " the points of a batch. Pass an encoder with group or layer norm, such as --encoder vit-tiny."
            )


def delta_of(spec: TrainSpec, points: int) -> float:
    """The δ of a run: as given, else half of one over the number of points."""
    return spec.dp_delta if spec.dp_delta is not None else 0.5 / points


def noise_of(spec: TrainSpec, points: int) -> tuple[float, float, int]:
    """Noise multiplier for the budget, sampling rate, and steps of an epoch."""
    opacus = _library()
    rate = min(spec.batch_size / points, 1.0)
    steps = math.ceil(1 / rate)
    try:
        noise = _noise(opacus, spec, points, rate, steps)
    except ValueError as problem:
        raise SpecError(
            f"dp_epsilon is {spec.dp_epsilon}, which {spec.epochs} epochs on {points} points cannot keep ({problem})."
            " Expected a larger budget, more points or fewer epochs. Pass --dp-epsilon 8."
        ) from problem
    return noise, rate, steps


def _noise(opacus: Any, spec: TrainSpec, points: int, rate: float, steps: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of orders that the accountant tries
        noise = opacus.accountants.utils.get_noise_multiplier(
            target_epsilon=spec.dp_epsilon,
            target_delta=delta_of(spec, points),
            sample_rate=rate,
            steps=steps * spec.epochs,
            accountant="rdp",
        )
    return float(noise)


def train_privately(
    encoder: Encoder,
    objective: Objective,
    pixels: Tensor,
    spec: TrainSpec,
    *,
    seed: int,
    secret: int,
    device: torch.device,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int, int, float], float],
    log: Callable[[dict[str, Any]], None],
    save: Callable[[int], None],
    resume: Callable[[], int],
) -> None:
    """Train in place; every epoch's metrics state the ε spent so far.

    Each step draws every point with probability batch_size / points, clips each point's gradient to norm `dp_clip`,
    adds Gaussian noise, and divides by the expected batch. CLS and mask token, which are no layer's weights, keep their
    first values. Which points are drawn and the noise follow from a secret that is drawn for this training and kept in
    its checkpoint alone: from the seed, which the record publishes, anyone could take the noise away again.

    Args:
        secret: of draws and noise.
    Source: Abadi et al., Deep Learning with Differential Privacy, CCS 2016; opacus's accountant of Rényi differential
        privacy.
    """
    opacus = _library()
    check_private(encoder.module)
    noise, rate, steps = noise_of(spec, len(pixels))
    generator, expected = torch.Generator(device=device), max(round(rate * len(pixels)), 1)
    per_point, private = _made_private(encoder, objective, optimizer, noise, spec.dp_clip, expected, generator)
    accountant = opacus.accountants.RDPAccountant()
    views = Views(spec.policy, n=1, seed=seed, sampling="independent")
    slot = torch.arange(len(pixels))
    first = resume()
    accountant.history = [(noise, rate, first * steps)] if first else []
    every = max(spec.epochs // 10, 1)
    spent = None
    for epoch in range(first, spec.epochs):
        began, losses, shown = time.monotonic(), [], 0
        generator.manual_seed(Stream.PRIVATE_NOISE.keyed(secret) + epoch)
        for number in range(steps):
            step = epoch * steps + number
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * schedule(step, spec.epochs * steps, spec.warmup)
            drawn = uniforms(
                Stream.PRIVATE_BATCHES.keyed(secret), slot, torch.tensor([step]), 1, "independent"
            ).flatten()
            rows = slot[drawn < rate].to(device)
            private.zero_grad()
            if len(rows):
                batch = Batch(rows, None, rows, epoch, seed)
                inputs = encoder.prepare(views.draw(pixels[rows].to(device), rows, first=epoch)[:, 0])
                loss = per_point(inputs, objective.point_draws(encoder.module, inputs, batch))
                _backward(loss.sum())
                losses.append(loss.detach().mean())
                shown += len(rows)
                private.step()
            else:  # nobody was drawn: the step is noise alone, since no step at all would tell that
                _step_of_noise(optimizer, noise * spec.dp_clip / expected, generator)
            accountant.step(noise_multiplier=noise, sample_rate=rate)
        loss_of_epoch = _mean(losses, epoch)
        if (epoch + 1) % every == 0 or epoch + 1 == spec.epochs:  # the accountant takes a third of a second
            spent = _spent(accountant, delta_of(spec, len(pixels)))
        seconds = time.monotonic() - began
        log(
            {
                "epoch": epoch + 1,
                "loss": loss_of_epoch,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "seconds": seconds,
                "images_per_second": shown / seconds,
                "epsilon": spent,
            }
        )
        save(epoch + 1)
    per_point.remove_hooks()


def _made_private(
    encoder: Encoder,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    noise: float,
    clip: float,
    expected: int,
    generator: torch.Generator,
) -> tuple[Any, Any]:
    """The loss with a gradient per point, and the optimizer that clips those and adds noise."""
    opacus = _library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        per_point = opacus.GradSampleModule(_Loss(encoder.module, objective), loss_reduction="sum")
    private = opacus.optimizers.DPOptimizer(
        optimizer,
        noise_multiplier=noise,
        max_grad_norm=clip,
        expected_batch_size=expected,
        loss_reduction="mean",
        generator=generator,
    )
    return per_point, private


def _mean(losses: list[Tensor], epoch: int) -> float | None:
    """The mean loss of an epoch; None where nobody was drawn."""
    if not losses:
        return None
    if not torch.stack(losses).isfinite().all():
        raise TrainingError(
            f"the loss is not finite in epoch {epoch + 1}. Expected a finite loss. Pass a lower --learning-rate or a"
            " larger --dp-epsilon."
        )
    return float(torch.stack(losses).mean())


def _backward(loss: Tensor) -> None:
    """Gradients per point, without remarks on opacus's hooks at the first layer and on the layout of gradients."""
    with warnings.catch_warnings():
        for message in ("Full backward hook is firing", "grad and param do not obey"):
            warnings.filterwarnings("ignore", message=message)
        loss.backward()


def _step_of_noise(optimizer: torch.optim.Optimizer, deviation: float, generator: torch.Generator) -> None:
    for parameter in (each for group in optimizer.param_groups for each in group["params"]):
        normal = torch.randn(parameter.shape, device=parameter.device, generator=generator)
        parameter.grad = normal * deviation
    optimizer.step()


def _spent(accountant: Any, delta: float) -> float:
    """ε so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))


class _Loss(nn.Module):
    """An objective's loss per point as one module, for per-point gradients."""

    def __init__(self, encoder: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective

    def forward(self, inputs: Tensor, drawn: Tensor) -> Tensor:
        return self.objective.point_losses(self.encoder, inputs, drawn)


def freeze_tokens(module: nn.Module, objective: Objective) -> None:
    """Keep the parameters that belong to no layer as they are: their gradients per point are not computed."""
    for part in (module, objective):
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
