"""memloc demo: train on the embedded sample, audit it, and say how well the scores tell what is known to be true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._flags import Device, DryRun, Json, Overwrite

if TYPE_CHECKING:
    from memloc.data import Images
    from memloc.pretrain import TrainSpec
    from memloc.results import Audit


@dataclass(frozen=True)
class DemoPlan:
    """Sizes of the demo, chosen by the measurements in docs/demo.md.

    Attributes:
        points: images, each of which half of the encoders see. planted, repeats: of them, shown more often.
        external: points that no encoder sees. encoders: how many are trained. epochs: of each. views: per point in the audit.
    """

    points: int
    planted: int
    repeats: int
    external: int
    encoders: int
    epochs: int
    views: int
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    policy: str = "normal"
    batch_size: int = 67


FULL = DemoPlan(points=60, planted=16, repeats=12, external=200, encoders=4, epochs=294, views=32)
QUICK = replace(FULL, epochs=40, views=16, external=100)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run, the tables and report.html.")] = Path("memloc-demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute; too short to find much, and the report says so.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of images, splits, weights and views.")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Train encoders on random halves of a few embedded images, audit them in one pass, write a report, and check it against the truth."""
    from memloc.report import summarize, write_report

    plan = QUICK if quick else FULL
    if dry_run:
        from memloc.pretrain import train_cost

        images, external, spec = demo_inputs(plan, seed=seed, device=device)
        found = {"training": train_cost(images, spec), "points": len(images) + len(external), "views": plan.views}
        common.emit(as_json, found, "\n".join(f"{key}: {value}" for key, value in found.items()))
        return
    result = run_demo(plan, out, seed=seed, device=device, progress=common.progress(as_json), overwrite=overwrite)
    path = write_report(result, out / "report.html")
    truth, answer = result.record["truth"], summarize(result)["answer"]
    common.emit(
        as_json,
        {"report": str(path), "answer": answer, "truth": truth},
        "\n".join([*answer, truth["text"], f"report: {path}"]),
    )


def demo_inputs(plan: DemoPlan, *, seed: int, device: str) -> tuple[Images, Images, TrainSpec]:
    """The images to train on, the images never seen, and how to train."""
    import torch

    from memloc.data import open_images
    from memloc.pretrain import TrainSpec

    generator = torch.Generator().manual_seed(seed)
    everything, unseen = open_images("sample:train"), open_images("sample:test")
    images = everything.take(torch.randperm(len(everything), generator=generator)[: plan.points].sort().values)
    external = unseen.take(torch.randperm(len(unseen), generator=generator)[: plan.external].sort().values)
    external = replace(external, ids=external.ids + len(everything))
    spec = TrainSpec(
        epochs=plan.epochs, ensemble=plan.encoders, plant=plan.planted, repeats=plan.repeats, learning_rate=plan.learning_rate,
        weight_decay=plan.weight_decay, policy=plan.policy, batch_size=plan.batch_size, seed=seed, device=device,
    )  # fmt: skip
    return images, external, spec


def run_demo(plan: DemoPlan, out: Path, *, seed: int, device: str, progress: Any, overwrite: bool = False) -> Audit:
    """Train, audit and compare with the truth; the finished audit lies in `out`."""
    import torch

    from memloc.data import concatenate
    from memloc.engine import prepare, run_job
    from memloc.pretrain import train
    from memloc.results import claim_folder
    from memloc.views import Views

    claim_folder(out, {"demo": vars(plan), "seed": seed, "device": device}, overwrite=overwrite)
    images, external, spec = demo_inputs(plan, seed=seed, device=device)
    run = train(images, spec, external=external, out=out / "run", progress=progress)
    known = concatenate(images, external)
    seen = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
    job = prepare(
        encoders=list(run.encoders.values()),
        membership=seen,
        images=known,
        splits=run.points["split"].tolist(),
        views=Views(plan.policy, n=plan.views),
        seed=seed,
        device=device,
    )
    repeats = dict(zip(run.points["point"].tolist(), run.points["repeats"].tolist(), strict=True))
    result = run_job(
        job, out=out / "audit", progress=progress, extra={"training": run.record["spec"], "repeats": repeats}
    )
    if "truth" not in result.record:
        result = replace(result, record={**result.record, "truth": known_truth(result)})
        result.save(out / "audit")
    return result


def known_truth(audit: Audit) -> dict[str, Any]:
    """How well the output tells trained from unseen, and planted images from the others.

    `cells_auroc` compares one encoder's alignment of an image that it was trained on with that of one that it was not, net of
    encoder and image (the audit's own AUROC); `trained_auroc` compares the images' scores over all encoders with those of
    images that none saw; `planted_auroc` compares planted images with the others.
    """
    import torch

    from memloc.metrics import auroc

    score = {split: torch.tensor(rows["sslmem"].to_numpy()) for split, rows in audit.points.groupby("split")}
    candidates = audit.points[audit.points["split"] == "candidate"]
    planted = torch.tensor((candidates["repeats"] > 1).to_numpy())
    output = audit.layers.set_index("layer").loc["output"]
    cells = [float(output[name]) for name in ("auroc", "auroc_low", "auroc_high")]
    trained = list(auroc(score["candidate"], score["external"]))
    found = list(auroc(score["candidate"][planted], score["candidate"][~planted]))
    text = (
        f"Membership is known here: half of the encoders were trained on each of the {len(candidates)} candidates. At the encoder's output an "
        f"encoder aligns an image better when it was trained on it in {_share(cells)}, and SSLMem of a candidate is above that of an image no "
        f"encoder saw in {_share(trained)}. {int(planted.sum())} of the candidates were planted, that is shown {int(candidates['repeats'].max())} "
        f"times per epoch; the score puts a planted one above another candidate in {_share(found)}. Chance is 50 %."
    )
    return {
        "cells_auroc": cells, "trained_auroc": trained, "planted_auroc": found, "planted": int(planted.sum()), "candidates": len(candidates), "text": text,
    }  # fmt: skip


def _share(found: list[float]) -> str:
    value, low, high = (100 * part for part in found)
    return f"{value:.0f} % of comparisons (95 % interval {low:.0f} to {high:.0f} %)"
