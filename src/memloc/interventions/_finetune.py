"""Fine-tune chosen layers and a linear head, everything else frozen."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memloc.data import Images
from memloc.encoders import Encoder, copied, features_of, has_bfloat16, home_of, layer_parts, pick_device
from memloc.errors import TrainingError
from memloc.interventions._specs import FinetuneSpec
from memloc.probe import Probe, check_probe, labels_of_both, scored
from memloc.progress import Report, silent
from memloc.views import Views, policy_named

_AT_ONCE = 500


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned encoder.

    Attributes:
        encoder: a copy with the chosen layers trained. head: the linear layer on its output, which was trained along.
        accuracy: of head and encoder on the test images.
        history: loss and seconds of each epoch.
        trained: parameters that were trained, and in all.
    """

    encoder: Encoder
    head: nn.Linear
    accuracy: Probe
    history: list[dict[str, float]]
    trained: tuple[int, int]


def finetune_layers(
    encoder: Encoder,
    train: Images,
    test: Images,
    *,
    layers: Sequence[str] = (),
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    policy: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Report = silent,
) -> Tuned:
    """Train some layers of a copy of an encoder with a linear head on labelled images.

    Args:
        layers: those to train; none trains the head alone. Batch-norms of other layers keep their running statistics.
        policy: augmentation of the training images; none by default.
        seed: of the head, the order and the augmentation.
    Returns:
        Tuned with .encoder, .head and .accuracy, with its 95 % interval over test images.
    Raises:
        DataError, LayerNotFoundError, EncoderError, SpecError before training; TrainingError if it diverges.
    Source: LocMem, Table 5.

    >>> from memloc import load_encoder, open_images
    >>> images = open_images("sample:train")
    >>> train, test = images.take(torch.arange(64)), images.take(torch.arange(64, 96))
    >>> tuned = finetune_layers(load_encoder("resnet9"), train, test, layers=["conv4_2"], epochs=1)
    >>> len(tuned.accuracy.right), tuned.trained
    (32, (593162, 1647242))
    """
    spec = FinetuneSpec(epochs, batch_size, learning_rate, weight_decay, policy, seed)
    check_finetune(encoder, train, test, layers=layers, policy=policy)
    train_labels, test_labels = labels_of_both(train, test)
    result, where = copied(encoder), pick_device(device)
    classes = np.unique(train_labels)
    codes = torch.from_numpy(np.searchsorted(classes, train_labels)).to(where)
    inside = _inside(result, layers)
    result.module.requires_grad_(False).to(where)
    tuned = {id(value): value for part in inside for value in part.parameters(recurse=False)}
    for value in tuned.values():
        value.requires_grad_(True)
    head = _head(result, train, len(classes), seed, where)
    parameters = [*tuned.values(), *head.parameters()]
    history = _tune(result, head, inside, parameters, train, codes, spec, progress)
    result.module.eval().requires_grad_(True)
    predicted = classes[_predicted(result, head, test, where)]
    counts = (
        sum(value.numel() for value in parameters),
        sum(value.numel() for value in (*result.module.parameters(), *head.parameters())),
    )
    return Tuned(result, head, scored(predicted, test_labels, kind="fine-tuned", n_train=len(train)), history, counts)


def _head(encoder: Encoder, images: Images, classes: int, seed: int, where: torch.device) -> nn.Linear:
    """A linear layer on the encoder's output."""
    kind = home_of(encoder.module)[1]
    with torch.no_grad():
        few = encoder.prepare(images.pixels[:2].to(where).float() / 255).to(kind)
        width = features_of(encoder.module.eval()(few)).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(width, classes)
    return head.to(where)


def _tune(
    encoder: Encoder,
    head: nn.Linear,
    inside: list[nn.Module],
    parameters: list[nn.Parameter],
    train: Images,
    codes: Tensor,
    spec: FinetuneSpec,
    progress: Report,
) -> list[dict[str, float]]:
    """Train the parameters; returns loss and seconds of each epoch."""
    module, where = encoder.module, codes.device
    kind = home_of(module)[1]
    views = None if spec.policy is None else Views(spec.policy, n=1, seed=spec.seed, sampling="independent")
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    batches = math.ceil(len(train) / spec.batch_size)
    generator, history = torch.Generator().manual_seed(spec.seed), []
    low = has_bfloat16(where) and kind == torch.float32

    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        inputs = _inputs(encoder, train, rows, views, epoch, where)
        with torch.autocast(where.type, torch.bfloat16, enabled=low), torch.set_grad_enabled(True):
            features = features_of(module(inputs.to(kind)))
        return nn.functional.cross_entropy(head(features.float()), codes[rows.to(where)])

    for epoch in range(spec.epochs):
        began, losses = time.monotonic(), []
        module.eval()
        for part in inside:
            part.train()
        for number, rows in enumerate(torch.randperm(len(train), generator=generator).tensor_split(batches)):
            done = (epoch * batches + number) / (spec.epochs * batches)
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            loss = loss_of(rows, epoch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        history.append({"epoch": epoch + 1, "loss": _finite(losses, epoch), "seconds": time.monotonic() - began})
        progress("fine-tuning", epoch + 1, spec.epochs)
    return history


def _inside(encoder: Encoder, layers: Sequence[str]) -> list[nn.Module]:
    """The modules of some layers, with all that they hold."""
    own = {name for parts in layer_parts(encoder, list(layers)).values() for name in parts.modules} if layers else set()
    return [
        part
        for name, part in encoder.module.named_modules()
        if any(name == each or name.startswith(f"{each}.") for each in own)
    ]


def _finite(losses: list[Tensor], epoch: int) -> float:
    """The mean loss of an epoch."""
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise TrainingError(
            f"the loss is {mean} in epoch {epoch + 1}. Expected a finite loss. Pass a lower --learning-rate."
        )
    return mean


def check_finetune(
    encoder: Encoder,
    train: Images,
    test: Images,
    *,
    layers: Sequence[str],
    policy: str | None = None,
) -> None:
    """Raise what `finetune_layers` would raise for these arguments, before any work."""
    if policy is not None:
        policy_named(policy)
    if layers:
        layer_parts(encoder, list(layers))
    check_probe(encoder, train, test)


def _inputs(
    encoder: Encoder, images: Images, rows: Tensor, views: Views | None, epoch: int, where: torch.device
) -> Tensor:
    pixels = images.pixels[rows].to(where)
    return encoder.prepare(
        pixels.float() / 255 if views is None else views.draw(pixels, rows.to(where), first=epoch)[:, 0]
    )


@torch.no_grad()
def _predicted(encoder: Encoder, head: nn.Linear, images: Images, where: torch.device) -> Any:
    found = []
    for start in range(0, len(images), _AT_ONCE):
        batch = encoder.prepare(images.pixels[start : start + _AT_ONCE].to(where).float() / 255).to(
            home_of(encoder.module)[1]
        )
        found.append(head(features_of(encoder.module(batch)).float()).argmax(dim=1).cpu())
    return torch.cat(found).numpy()
