"""The demo: train on the embedded sample, audit it, and say how well the scores tell what is known to be true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from memloc.data import Images, concatenate, open_images
from memloc.engine import prepare, run_job
from memloc.metrics import auroc
from memloc.pretrain import TrainSpec, train
from memloc.progress import Report, silent
from memloc.results import Audit, claimed, leading_row, ranking_column
from memloc.views import Views


@dataclass(frozen=True)
class DemoPlan:
    """Sizes of the demo, chosen by the measurements in docs/demo.md.

    Attributes:
        candidates: points that only f sees (and as many that only g sees). planted, repeats: of them, shown more often.
        external: points never seen. epochs, runs: of training. views: per point in the audit.
    """

    candidates: int
    planted: int
    repeats: int
    external: int
    epochs: int
    runs: int
    views: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    policy: str = "normal"
    batch_size: int = 62


DEMO = DemoPlan(candidates=26, planted=14, repeats=8, external=300, epochs=560, runs=1, views=32)
DEMO_QUICK = replace(DEMO, epochs=40, views=16, external=100)


def demo_inputs(plan: DemoPlan, *, seed: int, device: str) -> tuple[Images, Images, TrainSpec]:
    """The images to train on, the images never seen, and how to train."""
    TrainSpec(seed=seed)  # raises what is wrong
    generator = torch.Generator().manual_seed(seed)
    everything, unseen = open_images("sample:train"), open_images("sample:test")
    images = everything.take(torch.randperm(len(everything), generator=generator)[: 2 * plan.candidates].sort().values)
    external = unseen.take(torch.randperm(len(unseen), generator=generator)[: plan.external].sort().values)
    external = replace(external, ids=external.ids + len(everything))
    spec = TrainSpec(
        epochs=plan.epochs,
        candidates=plan.candidates,
        independents=plan.candidates,
        shared=0,
        held_out=0,
        plant=plan.planted,
        repeats=plan.repeats,
        runs=plan.runs,
        learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay,
        policy=plan.policy,
        batch_size=plan.batch_size,
        seed=seed,
        device=device,
    )
    return images, external, spec


def run_demo(
    plan: DemoPlan, out: Path, *, seed: int, device: str, progress: Report = silent, overwrite: bool = False
) -> Audit:
    """Train, audit and compare with the truth; the finished audit lies in `out`."""
    images, external, spec = demo_inputs(plan, seed=seed, device=device)
    with claimed(out, {"demo": vars(plan), "seed": seed, "device": device}, overwrite=overwrite):
        run = train(images, spec, external=external, out=out / "run", progress=progress)
        known = concatenate(images, external)
        job = prepare(
            run.side("f"),
            run.side("g"),
            images=known,
            splits=run.points["split"].tolist(),
            views=Views(plan.policy, n=plan.views),
            seed=seed,
            device=device,
        )
        known_of = {
            name: dict(zip(run.points["point"].tolist(), run.points[name].tolist(), strict=True))
            for name in ("repeats", "origin")
        }
        result = run_job(
            job,
            out=out / "audit",
            progress=progress,
            extra={"run": str(out / "run"), "training": run.record["spec"], **known_of},
        )
        if "truth" not in result.record:
            result = replace(result, record={**result.record, "truth": known_truth(result)})
            result.save(out / "audit")
        return result


def known_truth(audit: Audit) -> dict[str, Any]:
    """How well the score that leads tells trained points from unseen ones, and planted candidates from the others.

    `trained_auroc` is of f's candidates; `both_auroc` also counts g's independents, by SSLMem there with the sign
    turned, both less the external points' median: the two encoders were trained alike, so this is the same question
    asked twice.
    """
    leading = str(leading_row(audit)["layer"])
    there = audit.point_layers[audit.point_layers["layer"] == leading].set_index("point")["sslmem"]
    points = audit.points.assign(difference=audit.points["point"].map(there))
    score, difference = (
        {split: torch.tensor(rows[name].to_numpy()) for split, rows in points.groupby("split")}
        for name in (ranking_column(points), "difference")
    )
    candidates = points[points["split"] == "candidate"]
    planted = torch.tensor((candidates["repeats"] > 1).to_numpy())
    trained = auroc(score["candidate"], score["external"])
    centre = difference["external"].median()
    both = auroc(
        torch.cat([difference["candidate"] - centre, centre - difference["independent"]]),
        torch.cat([difference["external"] - centre, centre - difference["external"]]),
    )
    found = auroc(score["candidate"][planted], score["candidate"][~planted])
    named = torch.tensor(candidates["named"].to_numpy())
    counts = {
        "planted_named": int((named & planted).sum()),
        "others_named": int((named & ~planted).sum()),
        **{name: audit.record["naming"][name] for name in ("decoys", "decoys_named")},
    }
    text = (
        f"Membership is known here. The score at {leading} puts an image that f was trained on above an unseen one"
        f" in {_share(trained)}; with g's images as well, {_share(both)}. {int(planted.sum())} of the"
        f" {len(candidates)} candidates were planted, that is shown {int(candidates['repeats'].max())} times per epoch;"
        f" the score puts a planted one above another candidate in {_share(found)}. Chance is 50 %. Of the planted"
        f" {counts['planted_named']} are named as memorized, of the other candidates {counts['others_named']}, and of"
        f" {counts['decoys']} decoys {counts['decoys_named']}."
    )
    return {
        "trained_auroc": list(trained),
        "both_auroc": list(both),
        "planted_auroc": list(found),
        "planted": int(planted.sum()),
        "candidates": len(candidates),
        **counts,
        "text": text,
    }


def _share(found: Any) -> str:
    return f"{100 * found.value:.0f} % of comparisons (95 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %)"
