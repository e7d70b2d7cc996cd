"""The training loop of one encoder, top to bottom."""

from __future__ import annotations

import math
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
from memloc.pretrain._checkpoints import resume_checkpoint, save_checkpoint, secret_of
from memloc.pretrain._distributed import average_gradients, gathered, rank, share_of, world
from memloc.pretrain._lars import LARS
from memloc.pretrain._private import freeze_tokens, train_privately
from memloc.pretrain._spec import TrainSpec
from memloc.streams import Stream
from memloc.views import uniforms

_EPOCH_STRIDE = 1 << 20


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
    module = encoder.module
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    attention = _set_attention(module, device, "eager")
    example = encoder.prepare(torch.zeros(2, *pixels.shape[1:], device=device))
    objective = make_objective(spec, module, example, classes=classes, seed=seed).to(device).train()
    if spec.dp_epsilon is not None:
        freeze_tokens(module, objective)
    training = _Training(encoder, objective, spec, seed, device, checkpoint, log)
    pixels = pixels if isinstance(pixels, LazyPixels) else pixels.to(device)
    if spec.dp_epsilon is not None:
        training.run_privately(pixels)
    else:
        training.run(pixels, points.to(device), None if labels is None else labels.to(device))
        objective.finish(module)
    _set_attention(module, device, attention)
    module.eval()
    return objective.eval()


class _Training:
    """An encoder, its objective and its optimizer, with where they are resumed from."""

    def __init__(
        self,
        encoder: Encoder,
        objective: Objective,
        spec: TrainSpec,
        seed: int,
        device: torch.device,
        checkpoint: Path,
        log: Callable[[dict[str, Any]], None],
    ) -> None:
        self.encoder, self.objective, self.spec, self.seed, self.device = encoder, objective, spec, seed, device
        self.checkpoint, self.log, self.module = checkpoint, log, encoder.module
        everything = (*encoder.module.parameters(), *objective.parameters())
        self.parameters = [each for each in everything if each.requires_grad]
        self.optimizer = _optimizer(self.parameters, spec)
        self.draw = objective.drawer(spec.policy, seed)
        self.low = spec.precision == "bfloat16" or (spec.precision == "auto" and has_bfloat16(device))
        self.every = spec.checkpoint_every or math.ceil(spec.epochs / 20)

    def run_privately(self, pixels: Tensor) -> None:
        """Train with differential privacy."""
        secret = secret_of(self.checkpoint)

        def save(epoch: int) -> None:
            if epoch % self.every == 0 and epoch < self.spec.epochs:
                self.save(epoch, secret)

        train_privately(
            self.encoder,
            self.objective,
            pixels,
            self.spec,
            seed=self.seed,
            secret=secret,
            device=self.device,
            optimizer=self.optimizer,
            log=self.log,
            schedule=schedule,
            resume=self.resume,
            save=save,
        )

    def run(self, pixels: Tensor, points: Tensor, labels: Tensor | None) -> None:
        """Train epoch by epoch, from the checkpoint if there is one."""
        slot, spec = torch.arange(len(pixels)), self.spec
        batches = math.ceil(len(slot) / spec.batch_size)
        for epoch in range(self.resume(), spec.epochs):
            began, losses = time.monotonic(), []
            # for dropout and the like; train_one keeps the caller's generator
            torch.manual_seed(self.seed + epoch * _EPOCH_STRIDE)
            number = torch.tensor([epoch])
            order = uniforms(Stream.ORDER.keyed(self.seed), slot, number, 1, "independent").flatten().argsort()
            for place, rows in enumerate(order.tensor_split(batches)):
                step, steps = epoch * batches + place, spec.epochs * batches
                for group in self.optimizer.param_groups:
                    group["lr"] = spec.learning_rate * schedule(step, steps, spec.warmup)
                rows = share_of(rows).to(self.device)
                known = None if labels is None else labels[rows]
                loss = self._loss(pixels, Batch(points[rows], known, rows, epoch, self.seed))
                self.optimizer.zero_grad()
                loss.backward()
                average_gradients(self.parameters)
                self.optimizer.step()
                self.objective.after_step(self.module, step, steps)
                losses.append(loss.detach())
            self._report(epoch + 1, losses, time.monotonic() - began, len(slot))
            if (epoch + 1) % self.every == 0 and epoch + 1 < spec.epochs and rank() == 0:
                self.save(epoch + 1)

    def _loss(self, pixels: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, whose views are drawn, encoded and projected here."""
        objective, penalty = self.objective, self.spec.alignment_penalty
        views = self.draw(pixels[batch.slots].to(self.device), batch.slots, batch.epoch)
        inputs = self.encoder.prepare(views.transpose(0, 1).flatten(0, 1))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            projected = objective.project(self.module, inputs, batch)
            if penalty and projected.features is None:
                projected = Projected(features_of(self.module(inputs)), projected.parts)
        if objective.coupled:
            projected, batch = _of_all(projected, batch, objective.views)
        loss = objective.loss(projected, batch)
        if penalty:
            assert projected.features is not None, "features were made above"
            loss = loss + penalty * alignment_penalty(projected.features[: 2 * len(batch.points)])
        return loss

    def _report(self, epoch: int, losses: list[Tensor], seconds: float, slots: int) -> None:
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} in epoch {epoch}. Expected a finite loss. Pass a lower --learning-rate, or"
                " --precision float32."
            )
        rate = self.optimizer.param_groups[0]["lr"]
        line = {"epoch": epoch, "loss": mean, "learning_rate": rate, "seconds": seconds}
        self.log({**line, "images_per_second": slots / seconds})

    def save(self, epoch: int, secret: int | None = None) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.checkpoint, self.module, self.objective, self.optimizer, epoch, secret)

    def resume(self) -> int:
        """Take the state of the checkpoint, if there is one that can be used; returns the epochs done."""
        return resume_checkpoint(self.checkpoint, self.module, self.objective, self.optimizer)


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


def schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to 0."""
    rising = max(round(steps * warmup), 1)
    return (
        (step + 1) / rising
        if step < rising
        else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
    )
