"""What a training will take, from one timed epoch of a batch."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memloc.data import Images
from memloc.encoders import RANDOM, load_encoder, pick_device
from memloc.machine import cores
from memloc.pretrain._checks import check_training
from memloc.pretrain._loop import train_encoder
from memloc.pretrain._plan import labels_of, make_plan, slots
from memloc.pretrain._spec import TrainSpec
from memloc.progress import roughly


def train_cost(images: Images, spec: TrainSpec, external: int = 0) -> dict[str, Any]:
    """What training will take: splits, images per epoch, forward passes, and expected seconds and memory from one timed
    epoch of a batch.

    Args:
        images: training images, then `external` ones that no encoder sees.
    """
    plan, device = make_plan(images, spec, external), pick_device(spec.device)
    check_training(spec.encoder, images, spec, plan)
    each = {name: len(slots(plan, name)[0]) for name in plan.encoders}
    rows, points = slots(plan, plan.encoders[0])
    few = slice(0, min(spec.batch_size, len(rows)))
    labels, classes = labels_of(plan, spec, rows[few])
    lines: list[dict[str, Any]] = []
    shape = (images.pixels.shape[1], *images.pixels.shape[2:])
    workers = min(spec.workers or (2 if device.type == "cuda" else cores()), len(plan.encoders))
    threads = torch.get_num_threads()
    held: dict[int, int] = {}  # bytes that the backward pass needs, by their address

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    encoder = load_encoder(spec.encoder, weights=RANDOM, shape=shape)
    hooks = torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), hooks:
        torch.set_num_threads(max(cores() // workers, 1))
        objective = train_encoder(
            encoder,
            images.pixels[rows[few]],
            points[few],
            replace(spec, epochs=2, step="loop"),
            seed=0,
            device=device,
            checkpoint=Path(folder) / "trial.pt",
            log=lines.append,
            labels=labels,
            classes=classes,
        )
        torch.set_num_threads(threads)
    steps = spec.epochs * sum(each.values())
    weights = 4 * sum(
        part.numel() for part in (*encoder.module.parameters(), *objective.parameters())
    )  # and gradients, and two of the optimizer's
    batch = sum(held.values()) + 4 * objective.passes * min(spec.batch_size, len(rows)) * images.pixels[0].numel()
    return {
        "encoders": plan.encoders,
        "splits": plan.points["split"].value_counts().to_dict(),
        "held_out": " ".join(plan.notes) or None,
        "images_per_epoch": each,
        "forward_passes": objective.passes * steps,
        "seconds": roughly(steps / lines[-1]["images_per_second"] / workers),
        "memory_mb": round((workers * (batch + 4 * weights) + 2 * images.pixels.numel()) / 2**20),
    }
