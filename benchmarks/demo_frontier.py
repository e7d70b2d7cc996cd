"""What designs of the demo can find: python benchmarks/demo_frontier.py OUT_FOLDER [SEED ...]

Every design spends the same number of image steps. Runs that lie in OUT_FOLDER are not repeated. Seeds 3, 4 and 5 by default:
the demo's own seeds 0, 1 and 2 stay unseen while a design is chosen. Writes benchmarks/demo_frontier.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pandas as pd
import torch

from memloc.cli._demo import FULL, known_truth, run_demo
from memloc.encoders import versions
from memloc.metrics import auroc
from memloc.progress import Console
from memloc.results import Audit, write_json

STEPS = 69_440  # image steps of one encoder
DESIGNS = {  # candidates, planted, repeats, batches an epoch
    "26, 14 x 8": (26, 14, 8, 2),
    "26, 18 x 16": (26, 18, 16, 5),
    "26, 14 x 24": (26, 14, 24, 6),
    "60, 14 x 16": (60, 14, 16, 4),
    "60, 40 x 6": (60, 40, 6, 4),
}


def plan_of(design: str):
    """The demo's plan for a design, with as many epochs as the image steps allow."""
    candidates, planted, repeats, batches = DESIGNS[design]
    slots = planted * repeats + candidates - planted
    return replace(
        FULL,
        candidates=candidates,
        planted=planted,
        repeats=repeats,
        batch_size=-(-slots // batches),
        epochs=round(STEPS / slots),
    )


def main() -> None:
    """Run what is missing, seed by seed, and summarize after every run."""
    folder, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [3, 4, 5]
    found: dict[str, dict[int, Audit]] = {}
    for seed in seeds:
        for design in DESIGNS:
            place = folder / design.replace(", ", "-").replace(" ", "") / f"seed-{seed}"
            done = (place / "audit/audit.json").is_file()
            audit = (
                Audit.load(place / "audit")
                if done
                else run_demo(plan_of(design), place, seed=seed, device="auto", progress=Console())
            )
            found.setdefault(design, {})[seed] = audit
            rows = {name: summary(audits) for name, audits in found.items()}
            write_json(Path(__file__).with_name("demo_frontier.json"), {"designs": rows, "versions": versions()})
            print(design, seed, rows[design], flush=True)


def summary(audits: dict[int, Audit]) -> dict:
    """Trained against unseen per seed, and planted against other candidates pooled over seeds."""
    truths = [known_truth(audit) for audit in audits.values()]
    candidates = pd.concat([audit.points[audit.points["split"] == "candidate"] for audit in audits.values()])
    planted = (candidates["repeats"] > 1).to_numpy()
    score = torch.tensor(candidates["sslmem"].to_numpy())
    return {
        "seeds": list(audits),
        "trained": [truth["trained_auroc"][0] for truth in truths],
        "trained_mean": mean(truth["trained_auroc"][0] for truth in truths),
        "both": [truth["both_auroc"][0] for truth in truths],
        "both_mean": mean(truth["both_auroc"][0] for truth in truths),
        "planted": list(auroc(score[planted], score[~planted])),
    }


if __name__ == "__main__":
    main()
