"""Checkpoints in several files, with an index of which holds which weight."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memloc.errors import CheckpointError, DataNotFoundError

INDEX = ".index.json"
_KNOWN = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARD = re.compile(r"-\d{5}-of-\d{5}(\.safetensors|\.bin|\.pth?)$")


def index_of(path: Path) -> Path:
    """The file to read: of a folder the one that libraries write there, of a shard the index beside it.

    Raises:
        DataNotFoundError: a folder without weights. CheckpointError: a shard without its index.
    """
    if path.is_dir():
        found = next((path / name for name in _KNOWN if (path / name).is_file()), None)
        single = sorted(path.glob("*.safetensors"))
        if found is None and len(single) == 1 and _SHARD.search(single[0].name) is None:
            return single[0]
        if found is None:
            raise DataNotFoundError(
                f"the folder {str(path)!r} holds no weights. Expected {', '.join(_KNOWN)}. Pass the file itself."
            )
        return found
    match = _SHARD.search(path.name)
    if match is None or not path.is_file() or "-00001-of-00001" in path.name:
        return path
    beside = path.with_name(f"{path.name[: match.start()]}{match[1]}{INDEX}")
    if not beside.is_file():
        raise CheckpointError(
            f"{path} is one of several files of a checkpoint and {beside.name} is not beside it. Expected the index,"
            " which says where each weight is. Fetch it too and pass it."
        )
    return beside


def read_shards(index: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """All weights of an index.

    Raises:
        CheckpointError: an index that is damaged or leads out of its folder, a shard or a weight that is missing.
    """
    try:
        where = json.loads(index.read_text())["weight_map"]
        names = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(
            f"{index} is no index of a checkpoint ({type(problem).__name__}). Expected JSON with a weight_map. Fetch it"
            " again."
        ) from problem
    outside = next((name for name in names if not isinstance(name, str) or Path(name).name != name), None)
    if outside is not None:
        raise CheckpointError(f"{index} names {outside!r}, outside its folder. Expected files beside it. Correct it.")
    gone = [name for name in names if not (index.parent / name).is_file()]
    if gone:
        raise CheckpointError(
            f"{index} names {len(names)} files and {len(gone)} are missing, such as {gone[0]!r}. Expected all of them"
            " beside it. Fetch them."
        )
    found: dict[str, Any] = {}
    for name in names:
        part = read(index.parent / name)
        found |= {key: value for key, value in part.items() if where.get(key) == name}
    lacking = sorted(set(where) - set(found))
    if lacking:
        raise CheckpointError(
            f"the files of {index} lack {len(lacking)} weights, such as {lacking[0]!r}. Expected those that it names."
            " Fetch them again."
        )
    return found
