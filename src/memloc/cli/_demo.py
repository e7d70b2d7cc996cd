"""memloc demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._options import Given, with_settings


@with_settings(common=("device", "dry_run", "as_json", "overwrite"))
def demo(
    settings: Given,
    out: Annotated[Path, typer.Option(help="Folder for the run, the tables and report.html.")] = Path("memloc-demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute; too short to find much, and the report says so.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of images, splits, weights and views.")] = 0,
) -> None:
    """Train an encoder pair on the embedded sample, audit it in one pass, write a report, and check it against the
    truth."""
    from memloc.integrations import DEMO, DEMO_QUICK, demo_inputs, run_demo
    from memloc.report import summarize, write_report

    plan = DEMO_QUICK if quick else DEMO
    if settings.dry_run:
        from memloc.pretrain import train_cost

        images, external, spec = demo_inputs(plan, seed=seed, device=settings.device)
        found = {"training": train_cost(images, spec), "points": len(images) + len(external), "views": plan.views}
        common.show_plan(settings.as_json, found, out)
        return
    result = run_demo(
        plan,
        out,
        seed=seed,
        device=settings.device,
        progress=settings.progress,
        overwrite=settings.overwrite,
    )
    path = write_report(out / "audit", out / "report.html")
    truth, answer = result.record["truth"], summarize(result)["answer"]
    common.emit(
        settings.as_json,
        {"report": str(path), "answer": answer, "truth": truth},
        "\n".join([*answer, truth["text"], f"report: {path}"]),
    )
