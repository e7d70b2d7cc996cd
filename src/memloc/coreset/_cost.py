"""What a coreset will take, from a few timed steps."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from memloc.coreset._crust import Crust
from memloc.coreset._sources import Source
from memloc.coreset._spec import RobustSpec
from memloc.coreset._train import train_robust
from memloc.data import Images
from memloc.encoders import Encoder, represent
from memloc.progress import roughly

_BATCHES, _IMAGES, _SELECTED = 4, 32, 4_000  # timed: batches, images to represent, points to select from
_ACTIVATIONS = (
    60  # floats of activations and gradients per float of input in a small convolutional net, as in training of pairs
)


def training_cost(
    model: nn.Module, dataset: Any, crust: Crust, spec: RobustSpec, *, labels: Any = None, tested: int = 0
) -> dict[str, Any]:
    """Points, picks a group, forward passes, and expected seconds and memory; the model is left as it is.

    Args:
        As in `train_robust`. tested: points of the test data.
    """
    source = Source(dataset, labels)
    n, plan = len(source), crust.plan(source.labels, features=source.classes)
    few = torch.from_numpy(np.random.default_rng(0).permutation(n)[: _BATCHES * spec.batch_size])
    # Labels by turns, so that the sample has every class.
    turns = torch.arange(len(few)) % source.classes
    part = dataset.take(few) if isinstance(dataset, Images) else (source.plain(few), turns)
    seconds = []
    for epochs in (1, 1, 3):  # the first also loads what the others use
        began = time.monotonic()
        train_robust(
            copy.deepcopy(model),
            part,
            crust=None,
            labels=turns,
            epochs=epochs,
            batch_size=spec.batch_size,
            warmup=1,
            mixup=spec.mixup,
            augmentation=spec.augmentation,
            precision=spec.precision,
            device=spec.device,
            seed=spec.seed,
        )
        seconds.append(time.monotonic() - began)
    each = max(seconds[2] - seconds[1], 0.0) / 2 / len(few)  # one point trained on and scored
    share = sum(plan["picks"]) / n
    trained = n * (spec.warmup + share * (spec.epochs - spec.warmup))
    scored = spec.epochs * (n + tested)
    selections = len(range(spec.warmup, spec.epochs, spec.every))
    # Training a point takes about three times what scoring one does.
    steps = each * (0.75 * trained + 0.25 * scored)
    largest = 4 * source.plain(few[:1]).numel() * spec.batch_size
    return {
        "points": n,
        "classes": source.classes,
        "picks": plan["picks"],
        "forward_passes": round(trained + scored),
        "seconds": roughly(steps + selections * _selection_seconds(crust, source)),
        "memory_mb": plan["memory_mb"] + round(_ACTIVATIONS * largest / 2**20),
    }


def representation_cost(encoder: Encoder, images: Images, crust: Crust, *, device: str = "auto") -> dict[str, Any]:
    """Points, picks, forward passes, and expected seconds and memory of a selection by representation."""
    few = images.take(torch.arange(min(_IMAGES, len(images))))
    represent(encoder, few.pixels, device=device)
    began = time.monotonic()
    features = represent(encoder, few.pixels, device=device)
    each = (time.monotonic() - began) / len(few)
    plan = crust.plan(len(images), features=features.shape[1])
    sample = torch.randn(min(_SELECTED, len(images)), features.shape[1], generator=torch.Generator().manual_seed(0))
    began = time.monotonic()
    Crust(
        group_by=None, objective=crust.objective, optimizer=crust.optimizer, epsilon=crust.epsilon, metric=crust.metric
    ).select(sample)
    grows = (len(images) / len(sample)) ** 2
    return {
        **plan,
        "forward_passes": len(images),
        "seconds": roughly(each * len(images) + grows * (time.monotonic() - began)),
    }


def _selection_seconds(crust: Crust, source: Source) -> float:
    """One selection from gradients of these points, timed on a sample of them."""
    n = min(_SELECTED, len(source))
    logits = torch.randn(n, source.classes, generator=torch.Generator().manual_seed(0))
    trial = Crust(
        objective=crust.objective,
        group_by=crust.group_by,
        optimizer=crust.optimizer,
        epsilon=crust.epsilon,
        metric=crust.metric,
    )
    began = time.monotonic()
    trial.select_logits(logits, torch.arange(n) % source.classes)
    return (time.monotonic() - began) * (len(source) / n) ** 2
