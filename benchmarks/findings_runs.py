"""Train and audit what docs/findings.md stands on: python benchmarks/findings_runs.py [NAME ...]; every run resumes.

Data: CIFAR-10 (CIFAR10, else ../shared/data/cifar10; its images there are JPEG-compressed) and Fashion-MNIST (FASHION_MNIST, else
../shared/data/fashion-mnist). Runs lie in runs/findings (FINDINGS), which git ignores. Each line that is printed is a command that a user
could type.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from asked import names

from memloc import open_images

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("FINDINGS", HERE.parent / "runs/findings"))
SHARED = HERE.parents[1] / "shared/data"
SEEDS = (0, 1, 2)
POINTS, EXTERNAL, EPOCHS, BATCH = 200, 400, 400, 100
PAIR = {"shared": 1600, "candidates": 200, "independents": 200}
PROBE_TRAIN, PROBE_TEST = 2_000, 4_000
VIT = "hf:vit,hidden_size=96,num_hidden_layers=4,num_attention_heads=3,intermediate_size=384,image_size=32,patch_size=4,hidden_dropout_prob=0.0"
PARQUET = {"cifar": ("CIFAR10", "cifar10"), "fashion": ("FASHION_MNIST", "fashion-mnist")}


def small(
    *more: str, seed: int = 0, draw: int | None = None, data: str = "cifar", points: int = POINTS, k: int = 4, epochs: int = EPOCHS, batch: int = BATCH
) -> list[str]:  # fmt: skip
    """Arguments of an ensemble: k encoders, each on a random half of a few points; seed is that of the points, draw of the training."""
    return [
        f"{data}-{points}-s{seed}.npz", "--external", f"{data}-external.npz", "--ensemble", str(k), "--epochs", str(epochs), "--batch-size", str(batch),
        "--seed", str(seed if draw is None else draw), "--held-out", "0", *more,
    ]  # fmt: skip


def pair(seed: int, data: str = "cifar", epochs: int = 80, objective: str = "simclr") -> list[str]:
    """Arguments of a pair that is large enough to be probed."""
    count = sum(PAIR.values())
    sizes = [part for name, size in PAIR.items() for part in (f"--{name}", str(size))]
    return [
        f"{data}-{count}-s{seed}.npz",
        "--external",
        f"{data}-external.npz",
        *sizes,
        "--epochs",
        str(epochs),
        "--seed",
        str(seed),
        "--held-out",
        "0",
        *([] if objective == "simclr" else ["--objective", objective]),
    ]


# in the order of their weight: what comes first is there first
RUNS: dict[str, list[str]] = {
    "pair-s0": pair(0),
    "base-s0": small(k=8),
    "reseed": small(k=8, draw=5),
    "pair-fashion": pair(0, "fashion", 40),
    "pair-s1": pair(1),
    "pair-s2": pair(2),
    "strong-s0": small("--policy", "strong"),
    "vit": small("--encoder", VIT),
    "supervised": small("--objective", "supervised"),
    "epochs-100": small(epochs=100),
    "pair-supervised": pair(0, objective="supervised"),
    "weak-s0": small("--policy", "weak"),
    "base-s1": small(seed=1),
    "strong-s1": small("--policy", "strong", seed=1),
    "base-s2": small(seed=2),
    "strong-s2": small("--policy", "strong", seed=2),
    "penalty": small("--alignment-penalty", "1"),
    "vicreg": small("--objective", "vicreg"),
    "decay": small("--weight-decay", "0.1"),
    "fashion": small(data="fashion"),
    "epochs-200": small(epochs=200),
    "weak-s1": small("--policy", "weak", seed=1),
    "weak-s2": small("--policy", "weak", seed=2),
    "deep-s0": small(points=100, k=8, epochs=800, batch=50),
    "repeats": small("--plant", "20", "--repeats", "8"),
    "simsiam": small("--objective", "simsiam"),
    "epochs-800": small(epochs=800),
    "points-400": small(points=400, epochs=200),
}  # fmt: skip


def source(data: str, part: str):
    """All images of a published set."""
    variable, folder = PARQUET[data]
    home = Path(os.environ.get(variable, SHARED / folder))
    if data == "cifar":
        return open_images(home / f"{part}.parquet")
    name = "train" if part == "train" else "t10k"
    file = next(home.glob(f"{name}-images-idx3-ubyte*"))
    return open_images(file)


def make_data() -> None:
    """The subsets, seeded, as npz files; those that are there are kept."""
    (FOLDER / "data").mkdir(parents=True, exist_ok=True)
    for data in PARQUET:
        wanted = {f"{data}-external": ("test", EXTERNAL, 0), f"{data}-probe-test": ("test", PROBE_TEST, 1), f"{data}-probe-train": ("train", PROBE_TRAIN, 2)}  # fmt: skip
        sizes = (POINTS, 100, 400, sum(PAIR.values())) if data == "cifar" else (POINTS, sum(PAIR.values()))
        wanted |= {f"{data}-{count}-s{seed}": ("train", count, 10 + seed) for seed in SEEDS for count in sizes}
        missing = {name: how for name, how in wanted.items() if not (FOLDER / f"data/{name}.npz").is_file()}
        opened = {part: source(data, part) for part in sorted({how[0] for how in missing.values()})}
        for name, (part, count, draw) in missing.items():
            images = opened[part]
            order = np.random.default_rng([draw, len(images)]).permutation(len(images))
            # external points and the test images of probes are apart, and so are training points and those that a probe is fitted on
            rows = order[-count:] if "probe" in name else order[:count]
            if "probe" in name:
                used = [np.random.default_rng([other, len(images)]).permutation(len(images))[: max(EXTERNAL, sum(PAIR.values()))]
                        for other in (0, *(10 + seed for seed in SEEDS))]  # fmt: skip
                rows = order[~np.isin(order, np.concatenate(used))][:count]
            pixels = images.pixels[rows].permute(0, 2, 3, 1).numpy()
            np.savez(FOLDER / f"data/{name}.npz", images=pixels, labels=images.labels[rows].numpy())


def run(arguments: list[str]) -> None:
    """One memloc command in the folder of the data."""
    print("memloc", shlex.join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "memloc", *arguments], cwd=FOLDER / "data", check=True)


def main(chosen: list[str]) -> None:
    make_data()
    for name in chosen:
        run(["train", *RUNS[name], "--out", f"../{name}"])
        run(["audit", f"../{name}", "--out", f"../{name}-audit", "--views", "16"])


if __name__ == "__main__":
    main(names(__doc__, RUNS))
