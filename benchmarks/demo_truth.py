"""The demo's truth over seeds: python benchmarks/demo_truth.py OUT_FOLDER [SEED ...]

Runs `memloc demo` for each seed (0, 1 and 2 by default), pools planted points among the other candidates, and writes
benchmarks/demo_truth.json: trained against unseen per seed, planted pooled with its interval, calibrated LayerMem of every layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch

from memloc.cli._demo import FULL, known_truth, run_demo
from memloc.encoders import versions
from memloc.metrics import auroc
from memloc.progress import Console
from memloc.results import Audit, read_json, write_json


def main() -> None:
    """Run the demos that are not there yet and summarize them."""
    folder, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2]
    found, scores = {}, []
    for seed in seeds:
        place = folder / f"seed-{seed}"
        done = (place / "audit/audit.json").is_file()
        audit = (
            Audit.load(place / "audit") if done else run_demo(FULL, place, seed=seed, device="auto", progress=Console())
        )
        seconds = read_json(place / "run/run.json")["seconds"] + audit.record["timings"]["total_seconds"]
        truth = known_truth(audit)
        candidates = audit.points[audit.points["split"] == "candidate"].assign(seed=seed)
        scores.append(candidates)
        layers = audit.layers.set_index("layer")
        found[str(seed)] = {
            "seconds": seconds,
            **{name: truth[name] for name in ("cells_auroc", "trained_auroc", "planted_auroc")},
            "calibrated": {
                layer: [row["layermem_calibrated"], row["calibrated_low"], row["calibrated_high"]]
                for layer, row in layers.iterrows()
            },
            **{name: float(layers[name].iloc[-1]) for name in ("reliability_views", "reliability_runs")},
        }
    pooled = pd.concat(scores)
    planted = pooled["repeats"] > 1
    result = {
        "seeds": found,
        "plan": vars(FULL),
        "versions": versions(),
        "planted": int(planted.sum()),
        "others": int((~planted).sum()),
    }
    for column in ("sslmem", "sslmem_pairwise"):
        result[f"pooled_planted_auroc_{column}"] = list(
            auroc(
                torch.tensor(pooled.loc[planted, column].to_numpy()),
                torch.tensor(pooled.loc[~planted, column].to_numpy()),
            )
        )
    write_json(Path(__file__).with_name("demo_truth.json"), result)
    for seed, row in found.items():
        figures = {name: [round(value, 3) for value in row[name]] for name in row if name.endswith("auroc")}
        print(seed, f"{row['seconds']:.0f} s", figures, row["reliability_views"], row["reliability_runs"])
        print({layer: [round(value, 4) for value in values] for layer, values in row["calibrated"].items()})
    print(
        {key: value for key, value in result.items() if key.startswith("pooled")}, result["planted"], result["others"]
    )


if __name__ == "__main__":
    main()
