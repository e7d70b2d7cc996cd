"""What designs of the demo can find: python benchmarks/demo_frontier.py OUT_FOLDER [SEED ...]

Every design takes about the same time. Runs that lie in OUT_FOLDER are not repeated. Seeds 3 and 4 by default: the demo's own
seeds 0, 1 and 2 stay unseen while a design is chosen. Writes benchmarks/demo_frontier.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from memloc.cli._demo import FULL, known_truth, run_demo
from memloc.encoders import versions
from memloc.metrics import auroc
from memloc.progress import Console
from memloc.results import Audit, write_json

STEPS = {"resnet9-slim": 300_000, "resnet9": 139_000}  # image steps of all encoders together
DESIGNS = {  # encoders, architecture, points, planted, repeats
    "4 slim, 60 images, 16 x 8": (4, "resnet9-slim", 60, 16, 8),
    "4 full, 60 images, 16 x 8": (4, "resnet9", 60, 16, 8),
    "2 slim, 60 images, 16 x 8": (2, "resnet9-slim", 60, 16, 8),
    "8 slim, 60 images, 16 x 8": (8, "resnet9-slim", 60, 16, 8),
}


def plan_of(design: str):
    """The demo's plan for a design, with as many epochs as the image steps allow."""
    encoders, architecture, points, planted, repeats = DESIGNS[design]
    slots = (planted * repeats + points - planted) / 2
    return replace(
        FULL,
        points=points,
        planted=planted,
        repeats=repeats,
        encoders=encoders,
        encoder=architecture,
        epochs=round(STEPS[architecture] / encoders / slots),
    )


def main() -> None:
    """Run what is missing, seed by seed, and summarize after every run."""
    folder, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [3, 4]
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
    """Trained against unseen per seed, and planted against other candidates per seed and pooled."""
    truths = [known_truth(audit) for audit in audits.values()]
    candidates = pd.concat([audit.points[audit.points["split"] == "candidate"] for audit in audits.values()])
    planted = (candidates["repeats"] > 1).to_numpy()
    score = torch.tensor(candidates["sslmem"].to_numpy())
    return {
        "seeds": list(audits),
        **{name: [truth[f"{name}_auroc"][0] for truth in truths] for name in ("cells", "trained")},
        "planted_by_seed": [truth["planted_auroc"][0] for truth in truths],
        "planted": list(auroc(score[planted], score[~planted])),
    }


if __name__ == "__main__":
    main()
