"""Shards on disk: states by the names of their fields, with the version of their schema."""

from __future__ import annotations

import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memloc.engine._shard import ShardState
from memloc.errors import MemlocWarning
from memloc.results import replacing
from memloc.stats import ClassState, PointState, UnitState

SHARD_VERSION = 2  # of what a shard holds; 1 (memloc 0.1) stored fields by their place


def save_shard(path: Path, state: ShardState) -> None:
    """Write a shard, and the activations of its points beside it."""
    for group, block in state.activations.items():
        with replacing(path.with_suffix(f".{group}.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, block.numpy())
    content = {
        "version": SHARD_VERSION,
        "points": {"points": state.points.points, "columns": dict(state.points.columns)},
        "units": _named(state.units),
        "classes": _named(state.classes),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_shard(path: Path) -> ShardState | None:
    """Read a shard; None where there is none, or one that holds other fields than this memloc's, which is said."""
    if not path.is_file():
        return None
    content = torch.load(path, weights_only=True)
    if content.get("version") != SHARD_VERSION or not _is_whole(content):
        warnings.warn(
            f"the shard {str(path)!r} was stored by another version of memloc and holds other fields; it is computed"
            " again.",
            MemlocWarning,
            stacklevel=2,
        )
        return None
    return ShardState(
        PointState(**content["points"]),
        _states(UnitState, content["units"]),
        _states(ClassState, content["classes"]),
        {},
    )


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether every state has the fields that it has today."""
    held: list[tuple[type[Any], Any]] = [(PointState, content["points"])]
    for kind, name in ((UnitState, "units"), (ClassState, "classes")):
        held += [(kind, each) for states in content[name].values() for each in states.values()]
    return all(set(each) == {field.name for field in fields(kind)} for kind, each in held)


def _named(groups: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """States by group and layer as dictionaries of their fields."""
    return {
        group: {
            layer: {each.name: getattr(state, each.name) for each in fields(state)} for layer, state in states.items()
        }
        for group, states in groups.items()
    }


def _states(kind: type[Any], groups: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {group: {layer: kind(**named) for layer, named in states.items()} for group, states in groups.items()}
