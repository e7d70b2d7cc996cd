"""The training loop of one encoder, top to bottom."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memloc.data import LazyPixels
from memloc.encoders import Encoder, features_of, has_bfloat16
from memloc.errors import TrainingError
from memloc.objectives import Batch, Objective, Projected, alignment_penalty, make_objective
from memloc.pretrain._distributed import average_gradients, gathered, rank, share_of, world
from memloc.pretrain._lars import LARS
from memloc.pretrain._private import freeze_tokens, train_privately
from memloc.pretrain._spec import TrainSpec
from memloc.results import replacing
from memloc.views import uniforms

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
    labels: Tensor | None = None,
    classes: int = 0,
) -> Objective:
    """Train an encoder in place and return its objective, which holds the head.

    Every draw is a function of (seed, slot, epoch), so a run that resumes from its checkpoint goes on as if it had not
    stopped.

    Args:
        encoder: its module's output is one vector, tokens or maps per image.
        pixels: uint8 images, one per slot of an epoch, shape (slot, channel, height, width).
        points: which point each slot shows; copies of a point are no negatives of each other.
        seed: of the head, the order and the views.
        checkpoint: file to write every few epochs and to resume from.
        log: called with a line of metrics after every epoch.
        labels, classes: class number of each slot and how many there are, for supervised training.
    """
    module, slot = encoder.module, torch.arange(len(pixels))
    batches = math.ceil(len(slot) / spec.batch_size)
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    attention = _set_attention(module, device, "eager")
    example = encoder.prepare(torch.zeros(2, *pixels.shape[1:], device=device))
    objective = make_objective(spec, module, example, classes=classes, seed=seed).to(device).train()
    if spec.dp_epsilon is not None:
        freeze_tokens(module, objective)
    draw = objective.drawer(spec.policy, seed)
    parameters = [each for each in (*module.parameters(), *objective.parameters()) if each.requires_grad]
    optimizer = _optimizer(parameters, spec)
    low = spec.precision == "bfloat16" or (spec.precision == "auto" and has_bfloat16(device))
    points = points.to(device)
    pixels = pixels if isinstance(pixels, LazyPixels) else pixels.to(device)
    labels = None if labels is None else labels.to(device)
    every = spec.checkpoint_every or math.ceil(spec.epochs / 20)
    if spec.dp_epsilon is not None:
        secret = _secret(checkpoint)
        train_privately(
            encoder,
            objective,
            pixels,
            spec,
            seed=seed,
            secret=secret,
            device=device,
            optimizer=optimizer,
            log=log,
            schedule=_schedule,
            resume=lambda: _resume(checkpoint, module, objective, optimizer),
            save=lambda epoch: (
                _save(checkpoint, module, objective, optimizer, epoch, secret)
                if epoch % every == 0 and epoch < spec.epochs
                else None
            ),
        )
        _set_attention(module, device, attention)
        module.eval()
        return objective.eval()
    first = _resume(checkpoint, module, objective, optimizer)
    for epoch in range(first, spec.epochs):
        began, losses = time.monotonic(), []
        torch.manual_seed(
            seed + epoch * _EPOCH_STRIDE
        )  # for dropout and the like; train_one keeps the caller's generator
        order = uniforms(seed + _ORDER_STREAM, slot, torch.tensor([epoch]), 1, "independent").flatten().argsort()
        for number, rows in enumerate(order.tensor_split(batches)):
            step, steps = epoch * batches + number, spec.epochs * batches
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * _schedule(step, steps, spec.warmup)
            rows = share_of(rows).to(device)
            batch = Batch(points[rows], None if labels is None else labels[rows], rows, epoch, seed)
            inputs = encoder.prepare(draw(pixels[rows].to(device), rows, epoch).transpose(0, 1).flatten(0, 1))
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                projected = objective.project(module, inputs, batch)
                if spec.alignment_penalty and projected.features is None:
                    projected = Projected(features_of(module(inputs)), projected.parts)
            if objective.coupled:
                projected, batch = _of_all(projected, batch, objective.views)
            loss = objective.loss(projected, batch)
            if spec.alignment_penalty:
                assert projected.features is not None, "features were made above"
                loss = loss + spec.alignment_penalty * alignment_penalty(projected.features[: 2 * len(batch.points)])
            optimizer.zero_grad()
            loss.backward()
            average_gradients(parameters)
            optimizer.step()
            objective.after_step(module, step, steps)
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} in epoch {epoch + 1}. Expected a finite loss. Pass a lower --learning-rate, or"
                " --precision float32."
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
        if (epoch + 1) % every == 0 and epoch + 1 < spec.epochs and rank() == 0:
            _save(checkpoint, module, objective, optimizer, epoch + 1)
    objective.finish(module)
    _set_attention(module, device, attention)
    module.eval()
    return objective.eval()


def _set_attention(module: Any, device: torch.device, kind: str | None) -> str | None:
    """Choose how a transformers model attends while it trains on a CPU, and return what it did before; nothing for
    others.

    The backward pass of torch's fused attention is slow there: the plain one trains a ViT of 65 tokens in .6 of the
    time.
    """
    if kind is None or device.type != "cpu" or not hasattr(module, "set_attn_implementation"):
        return None
    before = str(module.config._attn_implementation)
    module.set_attn_implementation(kind)
    return before


def _optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    if spec.optimizer == "lars":
        return LARS(parameters, learning_rate=spec.learning_rate, weight_decay=spec.weight_decay)
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=spec.learning_rate, momentum=0.9, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def _of_all(projected: Projected, batch: Batch, views: int) -> tuple[Projected, Batch]:
    """What every process of torchrun projected, as if one had."""
    if world() == 1:
        return projected, batch

    def whole(part: Any) -> Any:
        if isinstance(part, list):
            return [gathered(view, 1) for view in part]
        return gathered(part, len(part) // len(batch.points))

    features = None if projected.features is None else gathered(projected.features, views)
    labels = None if batch.labels is None else gathered(batch.labels, 1)
    whole_batch = Batch(gathered(batch.points, 1), labels, gathered(batch.slots, 1), batch.epoch, batch.seed)
    return Projected(features, tuple(whole(part) for part in projected.parts)), whole_batch


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to 0."""
    rising = max(round(steps * warmup), 1)
    return (
        (step + 1) / rising
        if step < rising
        else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
    )


def _secret(checkpoint: Path) -> int:
    """What a private training's draws and noise follow from: new, or that of the checkpoint it goes on from."""
    if checkpoint.is_file():
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["secret"])
    return secrets.randbits(48)


def _save(
    path: Path,
    module: nn.Module,
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    secret: int | None = None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(
            {
                "module": module.state_dict(),
                "head": head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch,
                **({} if secret is None else {"secret": secret}),
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
