"""memloc insert: one unit made to memorize one point."""

from __future__ import annotations

from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import EncoderName, Out, named, show
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings
from memloc.interventions import InsertSpec


@with_settings(InsertSpec, common=(*ENCODER, *IMAGES, *WORK))
def insert(
    encoder: EncoderName,
    data: Annotated[str, typer.Option(help="Images: the point and others that UnitMem contrasts it with.")],
    point: Annotated[str, typer.Option(help="The image: its name in the data (path or row), or its id.")],
    layer: Annotated[str, typer.Option(help="Layer of the unit.")],
    unit: Annotated[int, typer.Option(help="Number of the unit.")],
    out: Out,
    settings: Given,
) -> None:
    """Make one unit memorize one point: its own weights are trained, everything else is held."""
    from memloc.interventions import insert_work

    work = insert_work(
        named(settings, encoder), data, settings.of(InsertSpec), point=point, layer=layer, unit=unit, out=out
    )
    if settings.dry_run:
        common.show_plan(settings.as_json, work.cost(), out)
        return
    record = work.do(out, settings.progress, settings.overwrite)
    driven = record["point_after"] == record["settings"]["point"]
    lines = (
        f"unit {unit} of {layer}: UnitMem {record['unitmem_before']:.4f} before, {record['unitmem_after']:.4f}"
        f" after, {'driven by this point' if driven else 'still driven by another point'}",
        f"largest change among the layer's other units: {record['largest_other_change']:.1e}",
    )
    show(settings, record, out, *lines)
