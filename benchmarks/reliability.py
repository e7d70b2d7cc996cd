"""Reliability and planted AUROC against views, sampling and estimator, on pairs whose truth is known.

Usage: python benchmarks/reliability.py NAME=RUN [NAME=RUN ...]; kept in reliability.json, shown in docs/reliability.md

A RUN is a folder that `memloc train --plant` (or the demo) finished; runs of one NAME are pooled, and the sets of other
names keep their figures. Retest reliability is the
correlation of a point's score with the same score from other views (another seed); planted AUROC compares planted points with
the others of their split (independents with the sign turned), pooled over both splits, runs and the two seeds.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from asked import parser
from stored import keep

from memloc.encoders import tapped, versions
from memloc.engine import run_subject
from memloc.metrics import auroc, pair_distances, sslmem, sslmem_pairwise, view_distances
from memloc.runs import open_run
from memloc.views import AUTO_COUNTS, Views

LAYERS = ("conv4_1", "conv4_2", "output")
SEEDS = (11, 12)


def distances(run: Path, sampling: str, seed: int):
    """Distances between 64 views of every candidate and independent, by side and layer, and what is known of the points."""
    trained = open_run(run)
    known, policy = trained.points, trained.record["augmentation"]
    rows = np.flatnonzero(known["split"].isin(("candidate", "independent")))
    images = run_subject(trained).arguments["images"].take(torch.from_numpy(rows))
    recipe = Views(policy, n=max(AUTO_COUNTS), seed=seed, sampling=sampling)
    found = {}
    for side in ("f", "g"):
        encoder = trained.side(side)[0]
        parts = defaultdict(list)
        count = [0]

        def reduce(layer, output, parts=parts, count=count):
            parts[layer.name].append(view_distances(output.unflatten(0, (count[0], -1))))

        layers = [layer for layer in encoder.layers if layer.name in LAYERS]
        with tapped(encoder.module, layers, reduce) as forward:
            for batch in torch.arange(len(images)).split(8):
                count[0] = len(batch)
                forward(encoder.prepare(recipe.draw(images.pixels[batch], images.ids[batch]).flatten(0, 1)))
        found[side] = {name: torch.cat(part).double() for name, part in parts.items()}
    known = known.iloc[rows]
    return found, (known["split"] == "candidate").to_numpy(), (known["repeats"] > 1).to_numpy(), recipe.pairs


def table(runs: list[Path]) -> list[dict]:
    """One row per sampling, number of views, estimator and layer."""
    rows = []
    for sampling in ("sobol", "independent"):
        measured = [[distances(run, sampling, seed) for seed in SEEDS] for run in runs]
        for count in AUTO_COUNTS:
            for estimator in ("ratio", "pairwise"):
                for layer in LAYERS:
                    retest, planted, others = [], [], []
                    for pair in measured:
                        scores = []
                        for found, candidate, repeated, pairs in pair:
                            f, g = (pair_distances(found[side][layer][:, :count, :count], pairs) for side in ("f", "g"))
                            score = sslmem_pairwise(f, g) if estimator == "pairwise" else sslmem(f.mean(1), g.mean(1))
                            scores.append(score.numpy())
                            for split, sign in ((candidate, 1), (~candidate, -1)):
                                planted.append(sign * score.numpy()[split & repeated])
                                others.append(sign * score.numpy()[split & ~repeated])
                        for split in (candidate, ~candidate):
                            retest.append(np.corrcoef(scores[0][split], scores[1][split])[0, 1])
                    found_planted = auroc(torch.tensor(np.concatenate(planted)), torch.tensor(np.concatenate(others)))
                    rows.append(
                        {
                            "sampling": sampling,
                            "views": count,
                            "estimator": estimator,
                            "layer": layer,
                            "reliability": float(np.mean(retest)),
                            "planted_auroc": found_planted.value,
                        }
                    )
    return rows


def main() -> None:
    """Measure every named set of runs, and keep its figures after each."""
    asked = parser(__doc__)
    asked.add_argument("sets", nargs="+", metavar="NAME=RUN")
    sets = defaultdict(list)
    for argument in asked.parse_args().sets:
        name, is_there, run = argument.partition("=")
        if not is_there:
            asked.error(f"{argument} names no run. Expected NAME=RUN, such as demo=memloc-demo/run")
        sets[name].append(Path(run))
    torch.set_num_threads(2)
    for name, runs in sets.items():
        keep("reliability.json", {name: table(runs), "versions": versions()})
        keep("reliability.json", {"runs": {name: len(runs)}}, depth=2)
        print(name, "measured", flush=True)


if __name__ == "__main__":
    main()
