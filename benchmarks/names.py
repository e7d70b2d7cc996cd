"""Which points are named, and whether they are of the point or of the run: python benchmarks/names.py [NAME ...], runs of readings_runs.py.

Every run's readings are taken once and kept beside it (state.pt). Ten draws of decoys each; means go to names.json, which docs/readings.md shows.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asked import names
from readings_runs import FOLDER, RUNS, trained
from stored import keep

from memloc import Views, open_run
from memloc.engine import (
    Job,
    Scores,
    ShardState,
    audit_shard,
    components,
    encode_references,
    guess_coins,
    load_shard,
    name_points,
    prepare,
    run_subject,
    save_shard,
)

DRAWS = 10


def state_of(name: str, job: Any) -> ShardState:
    """The readings of a run, kept beside it."""
    path = FOLDER / name / "state.pt"
    if not path.is_file():
        with tempfile.TemporaryDirectory() as work:
            job = replace(job, references=encode_references(job, Path(work)))
        save_shard(path, audit_shard(job, slice(0, len(job.images))))
    return load_shard(path)


def coins_of(job: Job, scores: Scores) -> dict[str, Any]:
    """What guesses say of a pair whose splits were drawn at random: which point of two f saw is a fair coin, too."""
    random = np.random.default_rng(0)
    sides = [
        random.permutation(job.images.ids.numpy()[job.split == split]).tolist()
        for split in ("candidate", "independent")
    ]
    pair = {point: number for side in sides for number, point in enumerate(side)}
    return guess_coins(job, scores, {"pair": pair, "delta": 0.0}, {})


def measure(name: str) -> dict[str, Any]:
    """Mean shares over draws of decoys, and components at every row behind the encoder."""
    subject = run_subject(open_run(FOLDER / name))
    found, parts = [], {}
    for seed in range(DRAWS):
        job = prepare(**subject.arguments, views=Views(), seed=seed)
        scores = Scores(job, state_of(name, job))
        record = name_points(job, scores).record
        found.append([record["named"] / record["candidates"], record["decoys_named"] / record["decoys"]])
        if not seed:
            behind = [layer.name for layer in job.layers if layer.kind in ("output", "head", "loss")]
            parts = {row: components(job, scores, row) for row in behind}
    named, decoys = np.array(found).T
    return {
        "candidates": record["candidates"],
        "calibration": record["calibration"],
        "named": [float(named.mean()), float(named.min()), float(named.max())],
        "decoys": record["decoys"],
        "decoys_named": [float(decoys.mean()), float(decoys.min()), float(decoys.max())],
        **({"coins": coins_of(job, scores)} if job.mode == "pair" else {}),
        "components": {row: part for row, part in parts.items() if part is not None},
    }


def main(chosen: list[str]) -> None:
    for name in trained(chosen):
        found = measure(name)
        keep("names.json", {name: found})
        print(name, found)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(names(__doc__, RUNS))
