"""What other designs of the demo find: python benchmarks/demo_frontier.py OUT_FOLDER [DESIGN:SEED ...]

Pairs of f and g, and ensembles of four encoders on random halves, with the same image steps in all. Runs that lie in OUT_FOLDER are
not repeated. Kept by design and seed in demo_frontier.json, which docs/demo.md shows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from asked import checked, parser
from stored import keep, stored

from memloc import Views
from memloc.data import Images, concatenate
from memloc.encoders import versions
from memloc.engine import prepare, run_job
from memloc.integrations import DEMO, demo_inputs
from memloc.metrics import auroc
from memloc.pretrain import TrainSpec, train
from memloc.progress import Console
from memloc.results import Audit

STORE = "demo_frontier.json"
PER_SEED = ("trained", "audits_own_auroc", "planted")
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


def drawn(number: int, outside: int, seed: int) -> tuple[Images, Images]:
    """The images that memloc demo would draw: twice `number` to train on, and those never seen."""
    plan = replace(DEMO, candidates=number, planted=0, repeats=1, external=outside)
    images, external, _ = demo_inputs(plan, seed=seed, device="cpu")
    return images, external


def trained(design: str, place: Path, seed: int) -> Audit:
    """Train a design's encoders and audit them."""
    encoders, number, planted, repeats, batch, outside = DESIGNS[design]
    slots = planted * repeats + number - planted
    images, external = drawn(number, outside, seed)
    if encoders == 2:
        kind = {"candidates": number, "independents": number, "shared": 0, "plant": planted}
    else:
        kind = {"ensemble": encoders, "plant": 2 * planted}
    spec = TrainSpec(
        epochs=round(STEPS / encoders / slots), repeats=repeats, batch_size=batch, held_out=0, seed=seed, **kind
    )
    run = train(images, spec, external=external, out=place / "run", progress=Console())
    membership = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
    who = (
        {"f": run.side("f"), "g": run.side("g")}
        if encoders == 2
        else {"encoders": list(run.encoders.values()), "membership": membership}
    )
    splits, recipe = run.points["split"].tolist(), Views(DEMO.policy, n=DEMO.views)
    job = prepare(**who, images=concatenate(images, external), splits=splits, views=recipe, seed=seed)
    shown = dict(zip(run.points["point"].tolist(), run.points["repeats"].tolist(), strict=True))
    return run_job(job, out=place / "audit", progress=Console(), extra={"repeats": shown})


def main() -> None:
    """Run what is missing and keep the figures after every run."""
    asked = parser(__doc__)
    asked.add_argument("folder", type=Path, metavar="OUT_FOLDER")
    asked.add_argument("runs", nargs="*", metavar="DESIGN:SEED")
    given = asked.parse_args()
    runs = [name.partition(":") for name in given.runs or RUNS]
    checked(asked, [design for design, _, _ in runs], DESIGNS)
    found: dict[str, dict[int, Audit]] = {}
    for design, _, number in runs:
        seed = int(number)
        place = given.folder / design.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"
        done = (place / "audit/audit.json").is_file()
        audit = Audit.load(place / "audit") if done else trained(design, place, seed)
        found.setdefault(design, {})[seed] = audit
        row = {"design": list(DESIGNS[design]), **summary(found[design])}
        known = stored(STORE).get("designs", {}).get(design)
        row = row if known is None else joined(known, row)
        keep(STORE, {"designs": {design: row}, "versions": versions()}, depth=2)
        print(design, seed, row, flush=True)


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A design's figures by seed, those of seeds that were not measured again as they were.

    What is pooled over seeds is the old as long as the new lacks a seed of it.
    """
    if list(old["design"]) != list(new["design"]):
        return new
    seeds = [*old["seeds"], *(seed for seed in new["seeds"] if seed not in old["seeds"])]
    row = {**new, "seeds": seeds}
    for name in PER_SEED:
        by_seed = dict(zip(old["seeds"], old[name], strict=True)) | dict(zip(new["seeds"], new[name], strict=True))
        row[name] = [by_seed[seed] for seed in seeds]
    if not set(old["seeds"]) <= set(new["seeds"]):
        row["planted_pooled"] = old["planted_pooled"]
    return row


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
