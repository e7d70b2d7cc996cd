"""memloc remove: train an encoder again without some of its points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import Test, Train, show
from memloc.cli._flags import WORK
from memloc.cli._options import Given, with_settings
from memloc.interventions import RemoveSpec


@with_settings(RemoveSpec, common=("max_bad", "device", "trust", *WORK))
def remove(
    run: Annotated[Path, typer.Argument(help="A folder that memloc train finished.")],
    audit: Annotated[Path, typer.Option("--audit", help="The audit of that run: SSLMem of its points.")],
    out: Annotated[Path, typer.Option(help="Folder for the new run and the record; an interrupted one is resumed.")],
    count: Annotated[int, typer.Option(help="Points to remove.")],
    settings: Given,
    train: Train = None,
    test: Test = None,
) -> None:
    """Train an encoder again without its most memorized, least memorized or random points; probe both."""
    from memloc.interventions import remove_work

    spec = settings.of(RemoveSpec)
    work = remove_work(
        run,
        audit,
        count,
        spec,
        train=train,
        test=test,
        max_bad=settings.max_bad,
        device=settings.device,
        trust=settings.trust,
        out=out,
    )
    if settings.dry_run:
        common.show_plan(settings.as_json, work.cost(), out)
        return
    record = work.do(out, settings.progress, settings.overwrite)
    which = f"{spec.order}{' memorized' if spec.order != 'random' else ''}"
    show(settings, record, out, f"trained {record['settings']['encoder']} again without {count} points ({which})")
