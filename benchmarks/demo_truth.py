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

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/demo.md"


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
            **{name: truth[name] for name in ("trained_auroc", "both_auroc", "planted_auroc")},
            "calibrated": {
                layer: [row["layermem_calibrated"], row["calibrated_low"], row["calibrated_high"]]
                for layer, row in layers.iterrows()
            },
            "reliability_views": float(layers["reliability_views"].iloc[-1]),
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
    write_json(HERE / "demo_truth.json", result)
    others = read_json(HERE / "demo_frontier.json")["designs"] if (HERE / "demo_frontier.json").is_file() else {}
    PAGE.write_text(page(result, others))
    for seed, row in found.items():
        figures = {name: [round(value, 3) for value in row[name]] for name in row if name.endswith("auroc")}
        print(seed, f"{row['seconds']:.0f} s", figures, row["reliability_views"])
        print({layer: [round(value, 4) for value in values] for layer, values in row["calibrated"].items()})
    print(
        {key: value for key, value in result.items() if key.startswith("pooled")}, result["planted"], result["others"]
    )


def page(result: dict, others: dict) -> str:
    """docs/demo.md: the text of demo_text.md with the measured tables in it."""
    seeds = result["seeds"]
    text = [
        "| seed | seconds | trained against unseen: f's candidates | both roles of f and g | planted against other | reliability over views |",
        "|---|---|---|---|---|---|",
    ]
    names = ("trained_auroc", "both_auroc", "planted_auroc")
    for seed, row in seeds.items():
        figures = " | ".join(_figure(row[name]) for name in names)
        text.append(f"| {seed} | {row['seconds']:.0f} | {figures} | {row['reliability_views']:.2f} |")
    means = [sum(row[name][0] for row in seeds.values()) / len(seeds) for name in names[:2]]
    pooled = f"pooled, {result['planted']} against {result['others']}: {_figure(result['pooled_planted_auroc_sslmem'])}"
    text.append(f"| all | | mean {means[0]:.2f} | mean {means[1]:.2f} | {pooled} | |")
    layers = ["| layer | " + " | ".join(f"seed {seed}" for seed in seeds) + " |", "|---" * (1 + len(seeds)) + "|"]
    for layer in next(iter(seeds.values()))["calibrated"]:
        layers.append(
            f"| {layer} | " + " | ".join(_figure(row["calibrated"][layer], 3) for row in seeds.values()) + " |"
        )
    designs = [
        "| design | encoders, images of each, planted, repeats, batch, never seen | seeds | audit's own AUROC | trained against unseen | planted against other |",
        "|---" * 6 + "|",
    ]
    for name, row in others.items():
        numbers = [
            ", ".join(f"{value:.2f}" for value in row[key]) for key in ("audits_own_auroc", "trained", "planted")
        ]
        shape = ", ".join(map(str, row["design"]))
        designs.append(f"| {name} | {shape} | {', '.join(map(str, row['seeds']))} | {' | '.join(numbers)} |")
    parts = {"TRUTH": text, "LAYERS": layers, "DESIGNS": designs}
    page = (HERE / "demo_text.md").read_text()
    for name, lines in parts.items():
        page = page.replace(f"{{{name}}}", "\n".join(lines))
    return page


def _figure(values: list[float], digits: int = 2) -> str:
    value, low, high = values
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
