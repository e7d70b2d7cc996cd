"""Audits in which nothing is memorized, by real encoders: python benchmarks/null_audits.py [RUN ...]

40 pairs of untrained ResNet9 on CIFAR-10, and 40 draws of labels over points that no encoder of a run saw, for each RUN of readings_runs.py
(k4-s0 by default): some are called candidates and given to random halves of the encoders, the others stay held out. In how many is memorization said to
show in a layer, and how many points are named? Kept in null_audits.json, which docs/coverage.md shows.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asked import checked, parser
from findings_runs import source
from readings_runs import FOLDER, RUNS
from stored import keep

from memloc import Views, open_run
from memloc.data import Images, as_images
from memloc.encoders import load_encoder
from memloc.engine import Job, Scores, audit_shard, encode_references, name_points, prepare
from memloc.metrics import membership_effect, simultaneous_bounds
from memloc.runs import images_of

DRAWS = 40
CANDIDATES, UNSEEN, VIEWS = 60, 150, 4


def judged(job: Job, align: torch.Tensor, scores: Scores) -> dict[str, Any]:
    """Whether memorization is said to show in a layer, and how many points are named."""
    effects = [
        membership_effect(align[:, row].T, job.membership, seed=job.options.seed) for row in range(align.shape[1])
    ]
    values = torch.tensor([each.value for each in effects], dtype=torch.float64)
    low, _ = simultaneous_bounds(values, torch.stack([each.draws for each in effects]))
    record = name_points(job, scores).record
    return {
        "shows": bool((low > 0).any()),
        **{name: record[name] for name in ("named", "candidates", "decoys", "decoys_named")},
    }


def readings(job: Job) -> Any:
    with tempfile.TemporaryDirectory() as work:
        job = replace(job, references=encode_references(job, Path(work)))
        return audit_shard(job, slice(0, len(job.images)))


def untrained(images: Images, seed: int) -> dict[str, Any]:
    """A pair with random weights; which points are candidates means nothing to it."""
    rows = np.random.default_rng(seed).permutation(len(images))[: 2 * CANDIDATES + UNSEEN]
    known = as_images(images.pixels[rows].permute(0, 2, 3, 1).numpy())
    splits = ["candidate"] * CANDIDATES + ["independent"] * CANDIDATES + ["external"] * UNSEEN
    encoders = []
    for draw in (2 * seed, 2 * seed + 1):
        torch.manual_seed(draw)
        encoders.append(load_encoder("resnet9", weights="random"))
    held_out = [name == "external" for name in splits]
    job = prepare(*encoders, images=known, splits=splits, held_out=held_out, views=Views(n=VIEWS, seed=seed), seed=seed)
    state = readings(job)
    return judged(job, state.points.columns["align"], Scores(job, state))


def permuted(name: str) -> list[dict[str, Any]]:
    """Labels drawn over the points that no encoder of a run saw."""
    run = open_run(FOLDER / name)
    images, given = images_of(run)
    known = (
        given
        if given is not None
        else images.take(torch.from_numpy((run.points["split"] == "external").to_numpy()).nonzero().flatten())
    )
    encoders = list(run.encoders.values())
    found, state = [], None
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        seen = np.zeros((len(encoders), len(known)), dtype=bool)
        for point in random.permutation(len(known))[: len(known) // 4]:
            seen[random.permutation(len(encoders))[: len(encoders) // 2], point] = True
        job = prepare(
            encoders=encoders,
            membership=torch.from_numpy(seen),
            images=known,
            held_out=(~seen.any(axis=0)).tolist(),
            views=Views(n=8),
            seed=seed,
        )
        state = readings(job) if state is None else state
        found.append(judged(job, state.points.columns["align"], Scores(job, state)))
    return found


def told(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over audits."""
    total = {name: sum(each[name] for each in found) for name in ("named", "candidates", "decoys", "decoys_named")}
    return {"audits": len(found), "shows": sum(each["shows"] for each in found), **total}


def main(runs: list[str]) -> None:
    images = source("cifar", "test")
    rows = {"untrained pairs": told([untrained(images, seed) for seed in range(DRAWS)])}
    rows |= {f"labels permuted, {name}": told(permuted(name)) for name in runs}
    for name, row in rows.items():
        keep("null_audits.json", {name: row})
        print(name, row)


if __name__ == "__main__":
    torch.set_num_threads(2)
    asked = parser(__doc__)
    asked.add_argument("runs", nargs="*", metavar="RUN", default=["k4-s0"])
    main(checked(asked, asked.parse_args().runs, RUNS))
