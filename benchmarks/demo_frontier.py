"""What other designs of the demo find: python benchmarks/demo_frontier.py OUT_FOLDER [DESIGN:SEED ...]

Pairs of f and g, and ensembles of four encoders on random halves, with the same image steps in all. Runs that lie in OUT_FOLDER are
not repeated. Writes benchmarks/demo_frontier.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from memloc import Views
from memloc.cli._demo import FULL, demo_inputs
from memloc.data import concatenate
from memloc.encoders import versions
from memloc.engine import prepare, run_job
from memloc.metrics import auroc
from memloc.pretrain import TrainSpec, train
from memloc.progress import Console
from memloc.results import Audit, write_json

STEPS = 138_880  # image steps of all encoders together
DESIGNS = {  # encoders, images of an encoder, of them planted, repeats, batch size, images never seen
    "pair": (2, 26, 14, 8, 62, 300),
    "pair, fewer images": (2, 22, 14, 8, 60, 300),
    "pair, more planted": (2, 26, 18, 16, 60, 300),
    "ensemble, x 8": (4, 30, 8, 8, 51, 100),
    "ensemble, x 12": (4, 30, 8, 12, 67, 200),
    "ensemble, x 16": (4, 30, 8, 16, 58, 100),
}
RUNS = [
    *(f"pair:{seed}" for seed in range(4)), "pair, fewer images:3", "pair, more planted:3", "ensemble, x 8:3", "ensemble, x 8:4", "ensemble, x 12:0", "ensemble, x 16:3",
]  # fmt: skip


def trained(design: str, place: Path, seed: int) -> Audit:
    """Train a design's encoders and audit them."""
    encoders, number, planted, repeats, batch, outside = DESIGNS[design]
    slots = planted * repeats + number - planted
    images, external, _ = demo_inputs(replace(FULL, candidates=number, external=outside), seed=seed, device="auto")
    if encoders == 2:
        kind = {"candidates": number, "independents": number, "shared": 0, "plant": planted}
    else:
        kind = {"ensemble": encoders, "plant": 2 * planted}
    spec = TrainSpec(epochs=round(STEPS / encoders / slots), repeats=repeats, batch_size=batch, seed=seed, **kind)
    run = train(images, spec, external=external, out=place / "run", progress=Console())
    membership = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
    who = (
        {"f": run.side("f"), "g": run.side("g")}
        if encoders == 2
        else {"encoders": list(run.encoders.values()), "membership": membership}
    )
    job = prepare(
        **who, images=concatenate(images, external), splits=run.points["split"].tolist(), views=Views(FULL.policy, n=FULL.views), seed=seed
    )  # fmt: skip
    shown = dict(zip(run.points["point"].tolist(), run.points["repeats"].tolist(), strict=True))
    return run_job(job, out=place / "audit", progress=Console(), extra={"repeats": shown})


def main() -> None:
    """Run what is missing and summarize after every run."""
    folder = Path(sys.argv[1])
    found: dict[str, dict[int, Audit]] = {}
    for name in sys.argv[2:] or RUNS:
        design, seed = name.split(":")[0], int(name.split(":")[1])
        place = folder / design.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"
        done = (place / "audit/audit.json").is_file()
        audit = Audit.load(place / "audit") if done else trained(design, place, seed)
        found.setdefault(design, {})[seed] = audit
        rows = {name: {"design": DESIGNS[name], **summary(audits)} for name, audits in found.items()}
        write_json(Path(__file__).with_name("demo_frontier.json"), {"designs": rows, "versions": versions()})
        print(name, rows[design], flush=True)


def summary(audits: dict[int, Audit]) -> dict:
    """Trained against unseen and planted against other candidates, per seed and pooled over seeds."""
    parts = [dict(iter(audit.points.groupby("split"))) for audit in audits.values()]
    candidates = pd.concat([part["candidate"] for part in parts])
    return {
        "seeds": list(audits),
        "trained": [
            auroc(*(torch.tensor(part[name]["sslmem"].to_numpy()) for name in ("candidate", "external"))).value
            for part in parts
        ],
        "audits_own_auroc": [float(audit.layers["auroc"].iloc[-1]) for audit in audits.values()],
        "planted": [_planted(part["candidate"])[0] for part in parts],
        "planted_pooled": _planted(candidates),
    }


def _planted(candidates: pd.DataFrame) -> list[float]:
    planted = (candidates["repeats"] > 1).to_numpy()
    score = torch.tensor(candidates["sslmem"].to_numpy())
    return list(auroc(score[planted], score[~planted]))


if __name__ == "__main__":
    main()
