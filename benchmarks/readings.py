"""Where memorization is read best: python benchmarks/readings.py [RUN ...]; runs are those of readings_runs.py.

Each encoder reads every point once, in rows of layers, head and training loss, and without its head by NT-Xent at the output. From these
readings: cells of ensembles, pairs and encoders alone, each by the published difference, by the encoder alone, and by the regressed score. Writes
readings.json; make docs renders it. Readings are kept beside each run.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from asked import names
from readings_runs import FOLDER, RUNS, trained
from stored import keep

from memloc import Views, open_run
from memloc.data import concatenate
from memloc.engine import audit_shard, encode_references, prepare
from memloc.metrics import auroc, log_reading, regress_readings
from memloc.runs import images_of

ROWS = ("output", "head", "loss")
BARE = "NT-Xent at the output"


def read(name: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Log readings of every row, (encoder, point), and who saw which point."""
    run = open_run(FOLDER / name)
    images, given = images_of(run)
    known = images if given is None else concatenate(images, given)
    sees = np.concatenate(
        [run.sees, np.zeros((len(run.encoders), len(known) - run.sees.shape[1]), dtype=bool)], axis=1
    )[:, : len(known)]
    path = FOLDER / name / "readings.npz"
    if not path.is_file():
        found = {}
        for bare in (False, True):
            encoders = [replace(each, head=None, objective=None) if bare else each for each in run.encoders.values()]
            job = prepare(encoders=encoders, membership=torch.from_numpy(sees), images=known, views=Views())
            with tempfile.TemporaryDirectory() as work:
                job = replace(job, references=encode_references(job, Path(work)))
            state = audit_shard(job, slice(0, len(known)))
            align = state.points.columns["align"]
            for number, layer in enumerate(job.layers):
                if not bare or layer.kind == "loss":
                    found[BARE if bare else layer.name] = align[:, number].T.numpy()
        np.savez(path, **found)
    with np.load(path) as stored:
        return {row: log_reading(torch.from_numpy(stored[row])) for row in stored.files}, sees


def cells(logs: torch.Tensor, sees: np.ndarray) -> list[float]:
    """AUROC of (encoder, point) cells, trained against not, net of encoder (over points that nobody saw) and point."""
    seen = torch.from_numpy(sees)
    never = ~seen.any(dim=0)
    logs = logs - logs[:, never].mean(dim=1, keepdim=True)
    some = seen.any(dim=0) & ~seen.all(dim=0)
    logs, seen = logs[:, some], seen[:, some]
    level = ((logs * seen).sum(0) / seen.sum(0) + (logs * ~seen).sum(0) / (~seen).sum(0)) / 2
    return list(auroc((level - logs)[seen], (level - logs)[~seen]))


def pairs(logs: torch.Tensor, sees: np.ndarray) -> dict[str, float]:
    """Of all pairs of encoders, mean AUROC: candidates against points that nobody saw, by difference, by f alone, regressed, and against
    independents by difference."""
    found: dict[str, list[float]] = {"difference": [], "alone": [], "regressed": [], "independents": [], "slope": []}
    never = torch.from_numpy(~sees.any(axis=0))
    for f, g in itertools.permutations(range(len(logs)), 2):
        mine = torch.from_numpy(sees[f] & ~sees[g])
        other = torch.from_numpy(sees[g] & ~sees[f])
        line = regress_readings(logs[f], logs[g], never)
        scores = {
            "difference": logs[g] - logs[f],
            "alone": regress_readings(logs[f], None, never).score(logs[f], None),
            "regressed": line.score(logs[f], logs[g]),
        }
        for name, score in scores.items():
            found[name].append(auroc(score[mine], score[never]).value)
        found["independents"].append(auroc(scores["difference"][mine], scores["difference"][other]).value)
        found["slope"].append(line.overall)
    return {name: float(np.mean(values)) for name, values in found.items()}


def measure(name: str) -> dict[str, dict[str, object]]:
    """Every row of a run."""
    logs, sees = read(name)
    return {
        row: {"cells": cells(each, sees) if len(each) > 2 else None, **pairs(each, sees)} for row, each in logs.items()
    }


def main(chosen: list[str]) -> None:
    for name in trained(chosen):
        found = measure(name)
        keep("readings.json", {name: found})
        for row, figures in found.items():
            print(name, row, figures)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(names(__doc__, RUNS))
