"""The head that an encoder of a run was trained with, and its objective, put together again."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from memloc.encoders import Encoder, load_weights, read_weights, with_head
from memloc.errors import warn
from memloc.objectives import Objective, make_objective


def with_objective(encoder: Encoder, path: Path, spec: dict[str, Any], *, classes: int, slots: int) -> Encoder:
    """An encoder of a run with its head, and with its objective in evaluation mode.

    Args:
        path: of the head's weights. spec: of the training. classes: of the labels.
        slots: images in an epoch of the encoder's.
    Raises:
        CheckpointError: the file holds weights of another objective.
    """
    if not path.is_file():
        warn(
            f"{str(path)!r} is missing, so {encoder.name} is read without its head. Train again to have it.",
        )
        return encoder
    weights, _ = read_weights(path)
    objective = _built(encoder, spec, classes)
    objective.settle(weights)
    load_weights(objective, weights, name=str(path))
    objective.requires_grad_(False).eval()
    objective.batch_size = min(int(spec["batch_size"]), slots)
    head = objective.head_read()
    return replace(encoder, objective=objective) if head is None else with_head(encoder, head, objective=objective)


def _built(encoder: Encoder, spec: dict[str, Any], classes: int) -> Objective:
    """The objective with weights of no meaning yet; built on a copy, since some draw the encoder's weights anew."""
    module = copy.deepcopy(encoder.module)
    example = torch.zeros(2, *(encoder.shape or (3, 32, 32)))
    return make_objective(SimpleNamespace(**spec), module, encoder.prepare(example), classes=classes, seed=0)
