"""memloc prune: units silenced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import EncoderName, Out, Test, Train, named, show
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings
from memloc.interventions import PruneSpec


@with_settings(PruneSpec, common=(*ENCODER, *IMAGES, *WORK))
def prune(
    encoder: EncoderName,
    audit: Annotated[
        Path, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder: UnitMem of its units.")
    ],
    out: Out,
    settings: Given,
    train: Train = None,
    test: Test = None,
) -> None:
    """Silence units of top, low or random UnitMem: filter, bias, batch-norm scale and shift at zero; probe before and
    after."""
    from memloc.interventions import prune_work

    work = prune_work(named(settings, encoder, train, test), audit, settings.of(PruneSpec), out=out)
    if settings.dry_run:
        common.show_plan(settings.as_json, work.cost(), out)
        return
    record = work.do(out, settings.progress, settings.overwrite)
    spread = ", ".join(f"{count} of {name}" for name, count in record["pruned"].items())
    show(settings, record, out, f"silenced {sum(record['pruned'].values())} units: {spread}", run=work.run)
