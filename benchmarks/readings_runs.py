"""Train what docs/readings.md stands on: python benchmarks/readings_runs.py [NAME ...]; every run resumes.

CIFAR-10 as in findings_runs.py. Ensembles of 4 and 8 encoders on random halves of 200 images, three draws; pairs of every objective on 300
images (100 shared, 100 candidates, 100 independents). Runs lie in runs/readings (READINGS), which git ignores.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from asked import names
from findings_runs import SEEDS, VIT, source

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("READINGS", HERE.parent / "runs/readings"))
EPOCHS, BATCH, EXTERNAL = 400, 100, 400
ENSEMBLE, PAIR = 200, 300


def ensemble(k: int, seed: int) -> list[str]:
    """Arguments of k encoders, each on a random half of 200 images."""
    return [f"cifar-{ENSEMBLE}-s{seed}.npz", "--ensemble", str(k), "--seed", str(seed)]


def pair(objective: str, *more: str) -> list[str]:
    """Arguments of a pair with that objective."""
    sizes = ["--shared", "100", "--candidates", "100", "--independents", "100"]
    return [f"cifar-{PAIR}-s0.npz", "--objective", objective, *sizes, *more]


RUNS: dict[str, list[str]] = {
    **{f"k4-s{seed}": ensemble(4, seed) for seed in SEEDS},
    "vicreg": pair("vicreg"),
    "simclr": pair("simclr"),
    **{f"k8-s{seed}": ensemble(8, seed) for seed in SEEDS},
    "supervised": pair("supervised"),
    "simsiam": pair("simsiam"),
    "dino": pair("dino"),
    "mae": pair("mae", "--encoder", VIT),
}


def make_data() -> None:
    """The subsets, seeded, as npz files; those that are there are kept."""
    home = FOLDER / "data"
    home.mkdir(parents=True, exist_ok=True)
    wanted = {"cifar-external": ("test", EXTERNAL, 0)}
    wanted |= {f"cifar-{count}-s{seed}": ("train", count, 10 + seed) for count in (ENSEMBLE, PAIR) for seed in SEEDS}
    for name, (part, count, draw) in wanted.items():
        if not (home / f"{name}.npz").is_file():
            images = source("cifar", part)
            rows = np.random.default_rng([draw, len(images)]).permutation(len(images))[:count]
            pixels = images.pixels[rows].permute(0, 2, 3, 1).numpy()
            np.savez(home / f"{name}.npz", images=pixels, labels=images.labels[rows].numpy())


def trained(chosen: list[str]) -> Iterator[str]:
    """Those of the runs that are there; of the others it is said."""
    for name in chosen:
        if (FOLDER / name / "run.json").is_file():
            yield name
        else:
            print(f"{name}: not trained yet (python benchmarks/readings_runs.py {name}); its figures stay as they are")


def main(chosen: list[str]) -> None:
    make_data()
    common = [
        "--external",
        "cifar-external.npz",
        "--held-out",
        "0",
        "--epochs",
        str(EPOCHS),
        "--batch-size",
        str(BATCH),
    ]
    for name in chosen:
        command = ["train", *RUNS[name], *common, "--out", f"../{name}"]
        print("memloc", shlex.join(command), flush=True)
        subprocess.run([sys.executable, "-m", "memloc", *command], cwd=FOLDER / "data", check=True)


if __name__ == "__main__":
    main(names(__doc__, RUNS))
