"""What other seeds and designs of the demo find: python benchmarks/demo_frontier.py OUT_FOLDER [DESIGN:SEED ...]

Pairs spend the image steps of the demo; an ensemble of four encoders on random halves spends the same in all. Runs that lie in
OUT_FOLDER are not repeated; all that lie there are summarized in benchmarks/demo_frontier.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from memloc import Views
from memloc.cli._demo import FULL, demo_inputs, known_truth, run_demo
from memloc.data import concatenate
from memloc.encoders import versions
from memloc.engine import prepare, run_job
from memloc.metrics import auroc
from memloc.pretrain import TrainSpec, train
from memloc.progress import Console
from memloc.results import Audit, write_json

STEPS = 69_440  # image steps of one encoder of a pair
DESIGNS = {  # encoders, images of an encoder, planted, repeats, batches an epoch
    "demo": (2, 26, 14, 8, 2),
    "fewer-images": (2, 22, 14, 8, 2),
    "more-planted": (2, 26, 18, 16, 5),
    "ensemble": (4, 30, 8, 8, 2),
}
RUNS = ["demo:3", "demo:4", "demo:5", "fewer-images:3", "more-planted:3", "ensemble:3", "ensemble:4"]


def plan_of(design: str):
    """The demo's plan for a design, with as many epochs as the image steps allow."""
    encoders, images, planted, repeats, batches = DESIGNS[design]
    slots = planted * repeats + images - planted
    return replace(
        FULL,
        candidates=images,
        planted=planted,
        repeats=repeats,
        batch_size=-(-slots // batches) + 8 * (encoders > 2),
        epochs=round(STEPS * 2 / encoders / slots),
    )


def ensemble(design: str, place: Path, seed: int) -> Audit:
    """Train encoders on random halves of twice the images, and audit them."""
    plan, encoders = plan_of(design), DESIGNS[design][0]
    images, external, _ = demo_inputs(replace(plan, external=100), seed=seed, device="auto")
    spec = TrainSpec(
        epochs=plan.epochs, ensemble=encoders, plant=2 * plan.planted, repeats=plan.repeats, batch_size=plan.batch_size, learning_rate=plan.learning_rate,
        seed=seed,
    )  # fmt: skip
    run = train(images, spec, external=external, out=place / "run", progress=Console())
    membership = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
    repeats = dict(zip(run.points["point"].tolist(), run.points["repeats"].tolist(), strict=True))
    job = prepare(
        encoders=list(run.encoders.values()), membership=membership, images=concatenate(images, external), splits=run.points["split"].tolist(),
        views=Views(plan.policy, n=plan.views), seed=seed,
    )  # fmt: skip
    return run_job(job, out=place / "audit", progress=Console(), extra={"repeats": repeats})


def main() -> None:
    """Run what is missing and summarize after every run."""
    folder = Path(sys.argv[1])
    found: dict[str, dict[int, Audit]] = {}
    for name in sys.argv[2:] or RUNS:
        design, seed = name.split(":")[0], int(name.split(":")[1])
        place = folder / design / f"seed-{seed}"
        if (place / "audit/audit.json").is_file():
            audit = Audit.load(place / "audit")
        elif DESIGNS[design][0] > 2:
            audit = ensemble(design, place, seed)
        else:
            audit = run_demo(plan_of(design), place, seed=seed, device="auto", progress=Console())
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
        "both_roles": [
            known_truth(audit)["both_auroc"][0]
            for audit, part in zip(audits.values(), parts, strict=True)
            if "independent" in part
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
