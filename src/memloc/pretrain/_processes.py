"""Encoders of a run trained at the same time, each in a process of its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from memloc.errors import TrainingError
from memloc.pretrain._spec import TrainSpec
from memloc.progress import Report
from memloc.results import read_table, replacing

_POLL = 0.3  # seconds between looks at the workers


def train_apart(folder: Path, spec: TrainSpec, missing: list[str], workers: int, progress: Report) -> None:
    """Train encoders in worker processes, a share of the processor's threads each."""
    threads = max((os.cpu_count() or 1) // workers, 1)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
    }
    waiting = list(missing)
    running: dict[str, subprocess.Popen[bytes]] = {}
    everything = len(read_table(folder / "membership.parquet").columns) - 1
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                errors = (folder / f".work/{name}.err").open("w")
                command = [sys.executable, "-m", "memloc.pretrain._worker", str(folder), name]
                running[name] = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
                )
                errors.close()
            time.sleep(_POLL)
            progress(f"training {everything} encoders", _epochs_done(folder), spec.epochs * everything)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode:
                        said = (folder / f".work/{name}.err").read_text().strip().splitlines()
                        reason = said[-1] if said else f"exit code {process.returncode}"
                        raise TrainingError(
                            f"training {name} stopped: {reason}. Expected it to finish. Repeat the command to resume"
                            " from its checkpoint."
                        )
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _epochs_done(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def trim_metrics(folder: Path, missing: list[str]) -> None:
    """Drop lines of epochs that will be trained again, so that every epoch stands once."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return
    reached = {}
    for name in missing:
        checkpoint = folder / f"checkpoints/{name}.pt"
        reached[name] = (
            int(torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"]) if checkpoint.is_file() else 0
        )
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut off when the run was killed
        if entry["epoch"] <= reached.get(entry["encoder"], math.inf):
            kept.append(line)
    with replacing(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))
