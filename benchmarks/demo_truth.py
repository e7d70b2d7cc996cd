"""The demo's truth over seeds: python benchmarks/demo_truth.py OUT_FOLDER [SEED ...]

Runs `memloc demo` for each seed (0, 1 and 2 by default) and keeps in demo_truth.json, which docs/demo.md shows: trained
against unseen per seed, planted pooled with its interval, calibrated LayerMem of every layer. Demos that lie in OUT_FOLDER
are not repeated. Seeds that are not asked for keep their figures, and so does what is pooled, unless all of its seeds are
asked for again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from asked import parser
from stored import keep, stored

from memloc.encoders import versions
from memloc.metrics import auroc
from memloc.results import Audit, read_json

STORE = "demo_truth.json"
TRUTH = ("trained_auroc", "both_auroc", "planted_auroc")
COUNTS = ("planted", "planted_named", "others_named", "decoys", "decoys_named")


def main() -> None:
    """Run the demos that are not there yet and summarize them."""
    asked = parser(__doc__)
    asked.add_argument("folder", type=Path, metavar="OUT_FOLDER")
    asked.add_argument("seeds", type=int, nargs="*", metavar="SEED")
    given = asked.parse_args()
    places = {str(seed): given.folder / f"seed-{seed}" for seed in given.seeds or [0, 1, 2]}
    audits = {seed: demo(place, seed) for seed, place in places.items()}
    committed = stored(STORE)
    plan = plan_of(places, committed)
    rows = {seed: summary(audits[seed], read_json(place / "run/run.json")["seconds"]) for seed, place in places.items()}
    for seed, row in rows.items():
        shown = {name: [round(value, 3) for value in row[name]] for name in TRUTH}
        print(seed, f"{row['seconds']:.0f} s", shown, row["reliability_views"])
        print({layer: [round(value, 4) for value in values] for layer, values in row["calibrated"].items()})
    keep(STORE, {"seeds": rows, "plan": plan, "versions": versions()}, depth=2)
    lacking = [seed for seed in committed.get("pooled_seeds", []) if seed not in audits]
    if lacking:
        print(f"pooled figures stay: they stand on seed {', '.join(lacking)}, too", file=sys.stderr)
        return
    found = pooled(audits)
    keep(STORE, found)
    print(found)


def plan_of(places: dict[str, Path], committed: dict[str, Any]) -> dict[str, Any]:
    """The plan of the demos; ends the script if figures of two plans, such as --quick, would stand side by side."""
    plans = {seed: read_json(place / "spec.json")["demo"] for seed, place in places.items()}
    known = committed.get("seeds", {})
    stays = [committed["plan"]] if set(known) - set(plans) else []
    plan = [*stays, *plans.values()][0]
    strange = [seed for seed, each in plans.items() if each != plan]
    if strange:
        sys.exit(
            f"the demo of seed {strange[0]} in {str(places[strange[0]])!r} has another plan than the others. Expected one plan. "
            f"Run it anew without --quick, or ask for all seeds: {', '.join(dict.fromkeys([*known, *plans]))}"
        )
    return plan


def demo(place: Path, seed: str) -> Audit:
    """The audit of a finished demo, run as a user would if it is not there."""
    folder = place / "audit"
    if not (folder / "audit.json").is_file() or "truth" not in Audit.load(folder).record:
        command = [sys.executable, "-m", "memloc", "demo", "--out", str(place), "--seed", seed]
        code = subprocess.run(command).returncode
        if code:
            sys.exit(code)  # memloc has said why
    return Audit.load(folder)


def summary(audit: Audit, training: float) -> dict[str, Any]:
    """What one demo finds; `training` is its seconds of training."""
    layers = audit.layers.set_index("layer")
    return {
        "seconds": training + audit.record["timings"]["total_seconds"],
        **{name: audit.record["truth"][name] for name in (*TRUTH, *COUNTS)},
        "calibrated": {
            layer: [row["layermem_calibrated"], row["calibrated_low"], row["calibrated_high"]]
            for layer, row in layers.iterrows()
        },
        "reliability_views": float(layers.loc[audit.record["reading"]["layer"], "reliability_views"]),
    }


def pooled(audits: dict[str, Audit]) -> dict[str, Any]:
    """Planted candidates against the others, over the points of all seeds."""
    parts = [audit.points[audit.points["split"] == "candidate"] for audit in audits.values()]
    points = pd.concat(parts)
    planted = points["repeats"] > 1
    found: dict[str, Any] = {
        "pooled_seeds": list(audits), "planted": int(planted.sum()), "others": int((~planted).sum())
    }  # fmt: skip
    for column in ("score", "sslmem", "sslmem_pairwise"):
        one, other = (torch.tensor(points.loc[rows, column].to_numpy()) for rows in (planted, ~planted))
        found[f"pooled_planted_auroc_{column}"] = list(auroc(one, other))
    return found


if __name__ == "__main__":
    main()
