"""What a robust training will take, from a few timed steps."""

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

_BATCHES = 4


def training_cost(
    model: nn.Module, dataset: Any, crust: Crust, spec: RobustSpec, *, labels: Any = None
) -> dict[str, Any]:
    """Points, picks a group, forward passes, and expected seconds and memory; the model is left as it is.

    Args:
        As in `train_robust`.
    """
    source = Source(dataset, labels)
    plan = crust.plan(source.labels, features=source.classes)
    few = torch.from_numpy(np.random.default_rng(0).permutation(len(source))[: _BATCHES * spec.batch_size])
    inputs = source.plain(few)
    seconds = []
    for epochs in (1, 3):
        began = time.monotonic()
        # Labels by turns, so that a sample has every class.
        train_robust(
            copy.deepcopy(model), (inputs, torch.arange(len(few)) % source.classes), crust=None, epochs=epochs, batch_size=spec.batch_size,
            warmup=1, mixup=spec.mixup, device=spec.device, seed=spec.seed,
        )  # fmt: skip
        seconds.append(time.monotonic() - began)
    each = (seconds[1] - seconds[0]) / 2 / len(few)  # one point trained on and scored
    share = sum(plan["picks"]) / len(source)
    trained = len(source) * (min(spec.warmup, spec.epochs) + share * max(spec.epochs - spec.warmup, 0))
    mixed = 1 if spec.mixup == "none" else 2
    return {
        "points": len(source), "classes": source.classes, "picks": plan["picks"], "forward_passes": round(trained + spec.epochs * len(source)),
        "inputs_read": round(mixed * trained + spec.epochs * len(source)), "seconds": round(each * max(trained, spec.epochs * len(source) / 2), 1),
        "memory_mb": plan["memory_mb"] + round(4 * inputs[0].numel() * spec.batch_size * 60 / 2**20),
    }  # fmt: skip
