"""How fast coresets are selected, and in how much memory: python benchmarks/coreset_speed.py

Kept in coreset_speed.json, shown in docs/coresets.md.

5 000 points of one class, 10 dimensions, half of them picked, on one core, each method in a process of its own; also 20 000 points
without a matrix. The bound is the matrix of similarities as the published code makes it, scikit-learn's pairwise_distances and its
largest less it. Peers are measured where they import (PEERS, else .peers, which `make bench` fills): submodlib's lazy greedy and
apricot's. A method that does not run here keeps its figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from asked import parser

PEERS = os.environ.get("PEERS", str(Path(__file__).parents[1] / ".peers"))
N, D, RUNS = 5_000, 10, 3


def points(n: int) -> np.ndarray:
    """Gradients p - onehot of one class, a fifth of whose labels are wrong."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, D))
    logits[:, 0] += rng.exponential(3, n) * np.sign(rng.random(n) - 0.2)
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chance[:, 0] -= 1
    return chance.astype(np.float32)


def similarities(x: np.ndarray) -> np.ndarray:
    """d_0 - d, as the published code makes it."""
    from sklearn.metrics import pairwise_distances

    d = pairwise_distances(x)
    return d.max() - d


def crust(x: np.ndarray, **settings: object) -> list[int]:
    from memloc.coreset import Crust

    return Crust(group_by=None, **settings).select(x).indices.tolist()


def submodlib(x: np.ndarray) -> list[int]:
    from submodlib import FacilityLocationFunction

    function = FacilityLocationFunction(
        n=len(x), mode="dense", sijs=similarities(x).astype(np.float32), separate_rep=False
    )
    return [point for point, _ in function.maximize(budget=len(x) // 2, optimizer="LazyGreedy", show_progress=False)]


def apricot(x: np.ndarray) -> list[int]:
    from apricot import FacilityLocationSelection

    return (
        FacilityLocationSelection(len(x) // 2, metric="precomputed", optimizer="lazy")
        .fit(similarities(x))
        .ranking.tolist()
    )


METHODS = {
    "bound: the similarities": (similarities, N), "centrality": (lambda x: crust(x, objective="centrality"), N), "exact, dense": (crust, N),
    "stochastic, dense": (lambda x: crust(x, optimizer="stochastic"), N), "exact, without a matrix": (lambda x: crust(x, memory="free"), N),
    "stochastic, without a matrix": (lambda x: crust(x, optimizer="stochastic", memory="free"), N),
    "20 000 points, stochastic, without a matrix": (lambda x: crust(x, optimizer="stochastic", memory="free"), 20_000),
    "20 000 points, exact, without a matrix": (lambda x: crust(x, memory="free"), 20_000),
    "submodlib, lazy": (submodlib, N), "apricot, lazy": (apricot, N),
}  # fmt: skip


BOUND, EXACT, EXACT_OF_MANY = "bound: the similarities", "exact, dense", "20 000 points, exact, without a matrix"


def measure(name: str) -> dict[str, object]:
    """Best seconds, first seconds, memory added at most and picks, in this process."""
    import psutil
    import torch

    torch.set_num_threads(1)
    sys.path.append(PEERS)
    call, n = METHODS[name]
    x, warm = points(n), points(300)
    call(warm)  # imports
    before, seconds = psutil.Process().memory_info().rss, []
    for _ in range(RUNS if n == N else 1):
        began = time.perf_counter()
        found = call(x)
        seconds.append(time.perf_counter() - began)
    # Not ru_maxrss, which a child begins with its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    added = peak * 1024 - before
    return {
        "seconds": min(seconds),
        "first_seconds": seconds[0],
        "added_mb": added / 2**20,
        "picks": found if isinstance(found, list) else None,
    }


def cost(picks: list[int], n: int) -> float:
    from scipy.spatial.distance import cdist

    x = points(n)
    return float(sum(cdist(part, x[picks]).min(axis=1).sum() for part in np.array_split(x, max(n // 1000, 1))))


def main() -> None:
    parser(__doc__).parse_args()
    from stored import keep

    from memloc.encoders import versions

    found: dict[str, dict[str, object]] = {}
    env = {**os.environ, **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}}
    for name in METHODS:
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True, env=env)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1][:100]
            print(f"{name}: not measured, its figures stay ({reason})", file=sys.stderr, flush=True)
            continue
        found[name] = json.loads(done.stdout.splitlines()[-1])
        line = found[name]
        picks = line.pop("picks")
        if BOUND in found:
            line["ratio"] = float(line["seconds"]) / float(found[BOUND]["seconds"])
        if picks is not None:
            line["cost"] = cost(picks, METHODS[name][1])
        print(name, {key: round(float(value), 3) for key, value in line.items()}, flush=True)
    for name, line in found.items():
        exact = found.get(EXACT if METHODS[name][1] == N else EXACT_OF_MANY)
        if "cost" in line and exact is not None:
            line["cost_over_exact"] = float(line["cost"]) / float(exact["cost"])
    if EXACT in found:
        random = np.random.default_rng(1).permutation(N)[: N // 2].tolist()
        found["random half"] = {"cost_over_exact": cost(random, N) / float(found[EXACT]["cost"])}
        print("random half", found["random half"])
    keep("coreset_speed.json", {"methods": found, "machine": versions()}, depth=2)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        main()
