"""The training loop of one encoder, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders import Encoder, has_bfloat16
from memloc.errors import TrainingError
from memloc.pretrain._simclr import nt_xent, projection_head
from memloc.pretrain._spec import TrainSpec
from memloc.results import replacing
from memloc.views import Views, uniforms

_EPOCH_STRIDE = 1 << 20
_ORDER_STREAM = 1 << 32  # keeps the order of points apart from their views, which use the plain seed


def train_encoder(
    encoder: Encoder,
    pixels: Tensor,
    points: Tensor,
    spec: TrainSpec,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    log: Callable[[dict[str, Any]], None],
) -> nn.Module:
    """Train an encoder in place and return its projection head.

    Every draw is a function of (seed, slot, epoch), so a run that resumes from its checkpoint goes on as if it had not
    stopped.

    Args:
        encoder: its module's output is flattened to (point, feature).
        pixels: uint8 images, one per slot of an epoch, shape (slot, channel, height, width).
        points: which point each slot shows; copies of a point are no negatives of each other.
        seed: of the head, the order and the views.
        checkpoint: file to write every few epochs and to resume from.
        log: called with a line of metrics after every epoch.
    """
    module, slot = encoder.module, torch.arange(len(pixels))
    views = Views(spec.policy, n=2, seed=seed, sampling="independent")
    batches = math.ceil(len(slot) / spec.batch_size)
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    head = _head(module, encoder.prepare(torch.zeros(2, *pixels.shape[1:], device=device)), seed).to(device).train()
    parameters = [*module.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    low = spec.precision == "bfloat16" or (spec.precision == "auto" and has_bfloat16(device))
    pixels, points = pixels.to(device), points.to(device)
    first = _resume(checkpoint, module, head, optimizer)
    every = spec.checkpoint_every or math.ceil(spec.epochs / 20)
    for epoch in range(first, spec.epochs):
        began, losses = time.monotonic(), []
        torch.manual_seed(
            seed + epoch * _EPOCH_STRIDE
        )  # for dropout and the like; train_one keeps the caller's generator
        order = uniforms(seed + _ORDER_STREAM, slot, torch.tensor([epoch]), 1, "independent").flatten().argsort()
        for number, batch in enumerate(order.tensor_split(batches)):
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * _schedule(
                    epoch * batches + number, spec.epochs * batches, spec.warmup
                )
            batch = batch.to(device)
            drawn = views.draw(pixels[batch], batch, first=2 * epoch)
            inputs = encoder.prepare(drawn.transpose(0, 1).flatten(0, 1))
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                projected = head(module(inputs).flatten(1)).float()
            left, right = projected.chunk(2)
            loss = nt_xent(left, right, points[batch], temperature=spec.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} in epoch {epoch + 1}. Expected a finite loss. Pass a lower --learning-rate, or --precision float32."
            )
        seconds = time.monotonic() - began
        log(
            {
                "epoch": epoch + 1,
                "loss": mean,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "seconds": seconds,
                "images_per_second": len(slot) / seconds,
            }
        )
        if (epoch + 1) % every == 0 and epoch + 1 < spec.epochs:
            _save(checkpoint, module, head, optimizer, epoch + 1)
    module.eval()
    return head.eval()


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to 0."""
    rising = max(round(steps * warmup), 1)
    return (
        (step + 1) / rising
        if step < rising
        else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
    )


def _head(module: nn.Module, example: Tensor, seed: int) -> nn.Module:
    """A projection head for the module's output, with seeded weights."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        was_training = module.training
        features = module.eval()(example).flatten(1).shape[1]
        module.train(was_training)
        return projection_head(features)


def _save(path: Path, module: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(
            {
                "module": module.state_dict(),
                "head": head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
            },
            temporary,
        )


def _resume(path: Path, module: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.is_file():
        return 0
    stored = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(stored["module"])
    head.load_state_dict(stored["head"])
    optimizer.load_state_dict(stored["optimizer"])
    return int(stored["epoch"])
