"""memloc probe: how well a frozen encoder's layers tell labelled images apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import EncoderName, named
from memloc.cli._flags import ENCODER, IMAGES
from memloc.cli._options import Given, with_settings
from memloc.probe import ProbeSpec


@with_settings(ProbeSpec, common=(*ENCODER, "output", *IMAGES, "dry_run", "as_json", "config"))
def probe(
    encoder: EncoderName,
    train: Annotated[str, typer.Option(help="Labelled images to fit the probe on.")],
    test: Annotated[str, typer.Option(help="Labelled images to test it on.")],
    settings: Given,
    train_masks: Annotated[
        Path | None, typer.Option(help="Dense: .npy of class numbers per pixel, (image, height, width), -1 for none.")
    ] = None,
    test_masks: Annotated[Path | None, typer.Option(help="Dense: the same for the test images.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """How well a frozen encoder's layers tell labelled images apart: linear, nearest-neighbour or per patch."""
    from memloc.probe import probe_work

    spec = settings.of(ProbeSpec)
    work = probe_work(named(settings, encoder, train, test), spec, masks=(train_masks, test_masks), out=out)
    if settings.dry_run:
        common.show_plan(settings.as_json, work.cost())
        return
    result = work.run(settings.progress)
    rows = result["layers"]
    width = max(len(row["layer"]) for row in rows) + 2
    lines = [
        f"{row['layer']:{width}}{row['accuracy']:.3f}  95 % interval {row['low']:.3f} to {row['high']:.3f}"
        for row in rows
    ]
    lines.append(
        f"{rows[0]['n_test']} test {'patches' if spec.kind == 'dense' else 'images'}; the most frequent class is"
        f" {rows[0]['chance']:.3f} of them"
    )
    common.emit(settings.as_json, result, "\n".join(lines))
