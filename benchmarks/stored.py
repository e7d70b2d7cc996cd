"""The figures of a benchmark in their JSON: what is measured joins what is there, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memloc.results import read_json, write_json

HERE = Path(__file__).parent


def stored(name: str) -> dict[str, Any]:
    """What a file of this folder holds; nothing of one that is not there."""
    path = HERE / name
    return read_json(path) if path.is_file() else {}


def keep(name: str, found: Mapping[str, Any], *, depth: int = 1) -> None:
    """Merge figures into a file of this folder, as it is now, since another part may have written to it meanwhile.

    Args:
        depth: levels of keys that are merged. Below them what is found takes the place of what is there.
    """
    write_json(HERE / name, merged(stored(name), found, depth=depth))


def merged(old: Mapping[str, Any], new: Mapping[str, Any], *, depth: int = 1) -> dict[str, Any]:
    """Both by key, the new where both have one.

    >>> merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 4}})
    {'a': {'x': 4}, 'b': 3}
    >>> merged({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 4}}, depth=2)
    {'a': {'x': 4, 'y': 2}, 'b': 3}
    """
    together = dict(old)
    for key, value in new.items():
        before = old.get(key)
        deeper = depth > 1 and isinstance(value, Mapping) and isinstance(before, Mapping)
        together[key] = merged(before, value, depth=depth - 1) if deeper else value
    return together
