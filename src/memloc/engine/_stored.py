"""Shards on disk: states by the names of their fields, with the version of their schema."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memloc.engine._shard import ShardState
from memloc.results import seal_holds, sealing, set_aside, unsealed
from memloc.stats import ClassState, PointState, UnitState

# of what a shard holds; 1 (memloc 0.1) stored fields by their place, 2 did not list its blocks, 3 knew no log readings
SHARD_VERSION = 4
_WHAT, _INSTEAD = "the shard", "it is computed again"


def save_shard(path: Path, state: ShardState, spec: str = "") -> None:
    """Write a shard, and the activations of its points beside it.

    Args:
        spec: hash of what it was computed for.
    """
    for group, block in state.activations.items():
        with sealing(path.with_suffix(f".{group}.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, block.numpy())
    content = {
        "version": SHARD_VERSION,
        "spec": spec,
        "blocks": list(state.activations),
        "points": {"points": state.points.points, "columns": dict(state.points.columns)},
        "units": _named(state.units),
        "classes": _named(state.classes),
    }
    with sealing(path) as temporary:
        torch.save(content, temporary)


def load_shard(path: Path, spec: str = "") -> ShardState | None:
    """Read a shard; None where there is none, or one that is damaged, was computed for another spec or holds other
    fields than this memloc's, which is set aside and said."""
    stored = unsealed(path, _WHAT, _INSTEAD)
    if stored is None:
        return None
    content = torch.load(stored, weights_only=True)
    of = content.get("spec", spec)  # those of memloc 0.1 do not say
    if content.get("version") != SHARD_VERSION or of != spec or not _is_whole(content):
        set_aside(path, _WHAT, _INSTEAD)
        return None
    blocks = [path.with_suffix(f".{group}.npy") for group in content["blocks"]]
    if not all(block.is_file() and seal_holds(block) for block in blocks):
        set_aside(path, _WHAT, _INSTEAD)
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
