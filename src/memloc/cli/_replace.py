"""memloc replace: layers of another encoder in place of an encoder's own."""

from __future__ import annotations

from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import AuditFolder, EncoderName, Out, Test, Train, named, show
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings
from memloc.interventions import LayerSpec


@with_settings(LayerSpec, defaults={"count": 3}, common=(*ENCODER, *IMAGES, *WORK))
def replace(
    encoder: EncoderName,
    donor: Annotated[
        str, typer.Option("--from", help="Encoder of the same architecture that the layers are taken from.")
    ],
    out: Out,
    settings: Given,
    audit: AuditFolder = None,
    train: Train = None,
    test: Test = None,
    donor_weights: Annotated[
        str | None, typer.Option("--from-weights", help="Checkpoint of --from, or random.")
    ] = None,
) -> None:
    """Replace layers by those of another encoder, chosen by Δ, LayerMem, at random or by name; probe before and
    after."""
    from memloc.interventions import replace_work

    work = replace_work(
        named(settings, encoder, train, test),
        donor,
        settings.of(LayerSpec),
        donor_weights=donor_weights,
        audit=audit,
        out=out,
    )
    if settings.dry_run:
        common.show_plan(settings.as_json, work.cost(), out)
        return
    record = work.do(out, settings.progress, settings.overwrite)
    what = f"replaced in {record['encoder']}: {', '.join(record['settings']['layers'])}"
    show(settings, record, out, what, run=work.run)
