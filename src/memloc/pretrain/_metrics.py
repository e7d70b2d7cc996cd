"""The metrics of a run in progress: a line of JSON per encoder and epoch."""

from __future__ import annotations

import json
import math
from pathlib import Path

from memloc.pretrain._checkpoints import epochs_of
from memloc.results import replacing


def epochs_done(folder: Path) -> int:
    """Epochs that all encoders have been trained for, together."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def trim_metrics(folder: Path, missing: list[str]) -> None:
    """Drop lines of epochs that will be trained again, so that every epoch stands once."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        with replacing(path, growing=True) as temporary:
            temporary.touch()
        return
    reached = {name: epochs_of(folder / f"checkpoints/{name}.pt") for name in missing}
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off when the run was killed
        if entry["epoch"] <= reached.get(entry["encoder"], math.inf):
            kept.append(line)
    with replacing(path, growing=True) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))
