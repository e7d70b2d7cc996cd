"""memloc finetune: chosen layers and a linear head trained on labelled images."""

from __future__ import annotations

from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import AuditFolder, EncoderName, Out, named, show
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings
from memloc.interventions import FinetuneSpec, LayerSpec


@with_settings(LayerSpec, FinetuneSpec, common=(*ENCODER, *IMAGES, *WORK))
def finetune(
    encoder: EncoderName,
    train: Annotated[str, typer.Option(help="Labelled images to train on.")],
    test: Annotated[str, typer.Option(help="Labelled images to test on.")],
    out: Out,
    settings: Given,
    audit: AuditFolder = None,
    head_only: Annotated[bool, typer.Option("--head-only", help="Train the linear head alone.")] = False,
) -> None:
    """Train chosen layers and a linear head on labelled images, everything else frozen."""
    from memloc.interventions import finetune_work

    work = finetune_work(
        named(settings, encoder, train, test),
        settings.of(LayerSpec),
        settings.of(FinetuneSpec),
        audit=audit,
        head_only=head_only,
        out=out,
    )
    if settings.dry_run:
        common.show_plan(settings.as_json, work.cost(), out)
        return
    record = work.do(out, settings.progress, settings.overwrite)
    accuracy, chosen = record["accuracy"], record["settings"]["layers"]
    what = (
        f"trained {', '.join(chosen) or 'the head alone'}{' and the head' if chosen else ''}:"
        f" {record['trained_parameters']} of {record['parameters']} parameters"
    )
    line = (
        f"test accuracy {accuracy['accuracy']:.3f} (95 % interval {accuracy['low']:.3f} to {accuracy['high']:.3f}, over"
        f" test images){'' if head_only else '; compare with --head-only'}"
    )
    show(settings, record, out, what, line, run=work.run)
