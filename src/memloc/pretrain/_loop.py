"""The training loop of one encoder, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memloc.data import LazyPixels
from memloc.encoders import Encoder, features_of, has_bfloat16
from memloc.errors import TrainingError, warn
from memloc.objectives import Batch, Objective, Projected, alignment_penalty, make_objective
from memloc.pretrain._checkpoints import resume_checkpoint, save_checkpoint, secret_of
from memloc.pretrain._distributed import average_gradients, gathered, rank, share_of, world
from memloc.pretrain._feed import fits
from memloc.pretrain._lars import LARS
from memloc.pretrain._private import freeze_tokens, train_privately
from memloc.pretrain._spec import TrainSpec
from memloc.pretrain._step import CannotCaptureError, StaticStep
from memloc.streams import Stream
from memloc.views import uniforms

_EPOCH_STRIDE = 1 << 20
_HOW = ("lr", "fused", "foreach", "capturable")  # what an optimizer's checkpoint says of how, not of what


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
    steps = steps_of(
        encoder,
        pixels,
        points,
        spec,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        log=log,
        labels=labels,
        classes=classes,
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            objective: Objective = end.value
            return objective


def steps_of(
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
) -> Generator[None, None, Objective]:
    """`train_encoder`, one step at a time, so that several encoders can take turns; returns the objective."""
    module = encoder.module
    module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    attention = _set_attention(module, device, "eager")
    example = encoder.prepare(torch.zeros(2, *pixels.shape[1:], device=device))
    objective = make_objective(spec, module, example, classes=classes, seed=seed).to(device).train()
    if spec.dp_epsilon is not None:
        freeze_tokens(module, objective)
    training = Training(encoder, objective, spec, seed, device, checkpoint, log)
    if spec.dp_epsilon is not None:
        training.run_privately(pixels if isinstance(pixels, LazyPixels) else pixels.to(device))
    else:
        yield from training.steps(pixels, points.to(device), None if labels is None else labels.to(device))
        objective.finish(module)
    _set_attention(module, device, attention)
    module.eval()
    return objective.eval()


class Training:
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
        self.optimizer = make_optimizer(self.parameters, spec)
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

    def steps(self, pixels: Tensor, points: Tensor, labels: Tensor | None) -> Iterator[None]:
        """Train epoch by epoch, from the checkpoint if there is one, and pause after every step."""
        slot, spec = torch.arange(len(pixels)), self.spec
        batches = math.ceil(len(slot) / spec.batch_size)
        take = self._taker(pixels, points, labels)
        for epoch in range(self.resume(), spec.epochs):
            began, losses = time.monotonic(), []
            # for dropout and the like; train_one keeps the caller's generator
            torch.manual_seed(self.seed + epoch * _EPOCH_STRIDE)
            number = torch.tensor([epoch])
            order = uniforms(Stream.ORDER.keyed(self.seed), slot, number, 1, "independent").flatten().argsort()
            done, steps = epoch * batches, spec.epochs * batches
            rates = [spec.learning_rate * schedule(done + place, steps, spec.warmup) for place in range(batches)]
            paces = [self.objective.pace(done + place, steps) for place in range(batches)]
            why = _begun(take, epoch, order, rates, paces)
            if why is not None:
                warn(f"Training goes on without a graph, which is slower: {why}")
                take.finish()
                del take  # with its images and buffers, before there are others
                take = PlainStep(self, pixels, points, labels)
                take.begin(epoch, order, rates, paces)
            start = 0
            for place, rows in enumerate(order.tensor_split(batches)):
                stop = start + len(rows)
                losses.append(take.take(place, start, stop))
                start = stop
                yield
            take.wait()
            self._report(epoch + 1, losses, rates[-1], time.monotonic() - began, len(slot))
            if (epoch + 1) % self.every == 0 and epoch + 1 < spec.epochs and rank() == 0:
                self.save(epoch + 1)
        take.finish()

    def _taker(self, pixels: Tensor, points: Tensor, labels: Tensor | None) -> PlainStep | StaticStep:
        """What takes the steps: a graph on a GPU and where it is asked for, else the plain loop."""
        kind = self.spec.step
        if kind == "loop" or (kind == "auto" and self.device.type != "cuda"):
            return PlainStep(self, pixels, points, labels)
        if world() > 1:
            warn("Several processes train together, and average their gradients in the plain loop, not in a graph.")
            return PlainStep(self, pixels, points, labels)
        step = StaticStep(self, pixels, points, labels)
        self.optimizer = make_optimizer(self.parameters, self.spec, rate=step.rate)
        vars(self.optimizer)["_warned_capturable_if_run_uncaptured"] = True  # the steps before a capture are few
        return step

    def prepared(self, views: Tensor) -> Tensor:
        """Drawn views, (slot, view, ...), as the encoder takes them, view after view."""
        return self.encoder.prepare(views.transpose(0, 1).flatten(0, 1))

    def loss(self, inputs: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, whose views are encoded and projected here."""
        objective, penalty = self.objective, self.spec.alignment_penalty
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

    def _report(self, epoch: int, losses: list[Tensor], rate: float, seconds: float, slots: int) -> None:
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} in epoch {epoch}. Expected a finite loss. Pass a lower --learning-rate, or"
                " --precision float32."
            )
        line = {"epoch": epoch, "loss": mean, "learning_rate": rate, "seconds": seconds}
        self.log({**line, "images_per_second": slots / seconds})

    def save(self, epoch: int, secret: int | None = None) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.checkpoint, self.module, self.objective, self.optimizer, epoch, secret)

    def resume(self) -> int:
        """Take the state of the checkpoint, if there is one that can be used; returns the epochs done."""
        own = [{key: group[key] for key in _HOW if key in group} for group in self.optimizer.param_groups]
        done = resume_checkpoint(self.checkpoint, self.module, self.objective, self.optimizer)
        for group, how in zip(self.optimizer.param_groups, own, strict=True):
            group.update(how)  # how steps are taken is this process's
        return done


def _begun(
    take: PlainStep | StaticStep, epoch: int, order: Tensor, rates: list[float], paces: list[float]
) -> str | None:
    """Begin an epoch; why that cannot be, where the model cannot be captured."""
    try:
        take.begin(epoch, order, rates, paces)
    except CannotCaptureError as problem:
        return str(problem)
    return None


class PlainStep:
    """A step as it is written, with numbers of Python."""

    def __init__(self, training: Training, pixels: Tensor, points: Tensor, labels: Tensor | None) -> None:
        self._of, self._points, self._labels = training, points, labels
        lies = not isinstance(pixels, LazyPixels) and fits(pixels, training.device)
        self._pixels = pixels.to(training.device) if lies else pixels
        self._draw = training.objective.drawer(training.spec.policy, training.seed)

    def begin(self, epoch: int, order: Tensor, rates: list[float], paces: list[float]) -> None:
        """Note what an epoch needs: the order of its slots, and learning rate and pace of each step."""
        self._epoch, self._order, self._rates, self._paces = epoch, order, rates, paces

    def take(self, number: int, start: int, stop: int) -> Tensor:
        """Take one step of the epoch; returns its loss."""
        training = self._of
        for group in training.optimizer.param_groups:
            group["lr"] = self._rates[number]
        rows = share_of(self._order[start:stop]).to(training.device)
        known = None if self._labels is None else self._labels[rows]
        batch = Batch(self._points[rows], known, rows, self._epoch, training.seed)
        places = rows if isinstance(self._pixels, LazyPixels) else rows.to(self._pixels.device)
        views = self._draw(self._pixels[places].to(training.device), rows, self._epoch)
        loss = training.loss(training.prepared(views), batch)
        training.optimizer.zero_grad()
        loss.backward()
        average_gradients(training.parameters)
        training.optimizer.step()
        training.objective.after_step(training.module, self._paces[number])
        return loss.detach()

    def wait(self) -> None:
        """Every step is done when it returns."""

    def finish(self) -> None:
        """Nothing is kept."""


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


def make_optimizer(
    parameters: list[nn.Parameter], spec: TrainSpec, *, rate: Tensor | None = None
) -> torch.optim.Optimizer:
    """The spec's optimizer.

    Args:
        rate: where the learning rate lies, for steps that are captured; else it is set before each step.
    """
    learning_rate: Any = spec.learning_rate if rate is None else rate
    captured = rate is not None and rate.device.type == "cuda"
    if spec.optimizer == "lars":
        return LARS(parameters, learning_rate=learning_rate, weight_decay=spec.weight_decay)
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=spec.weight_decay, fused=True)
    return torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=spec.weight_decay, fused=True, capturable=captured
    )


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
