"""memloc prune: units silenced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli import _encoder_flags as flags
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings


@with_settings(common=(*ENCODER, *IMAGES, *WORK))
def prune(
    encoder: flags.EncoderName,
    audit: Annotated[
        Path, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder: UnitMem of its units.")
    ],
    out: flags.Out,
    settings: Given,
    fraction: Annotated[float, typer.Option(help="Share of the units, above 0 to 1.")] = 0.1,
    order: Annotated[str, typer.Option(help="top or low UnitMem first, or random.")] = "top",
    per: Annotated[
        str, typer.Option(help="layer (the share of every layer) or network (of all units together).")
    ] = "layer",
    layers: flags.Layers = None,
    train: flags.Train = None,
    test: flags.Test = None,
    seed: flags.Seed = 0,
) -> None:
    """Silence units of top, low or random UnitMem: filter, bias, batch-norm scale and shift at zero; probe before and
    after."""
    from memloc.interventions import (
        audit_of,
        choose_units,
        intervene,
        keep_apart,
        measured,
        opened_with_probe,
        prints,
        probing,
        prune_units,
        run_of,
    )

    keep_apart(out, encoder, settings.weights, audit, train, test)
    source, metadata, parts = opened_with_probe(
        encoder, settings.weights, train, test, size=settings.size, max_bad=settings.max_bad, **settings.keys_of
    )
    audited = audit_of(source, audit, units=True)
    units = choose_units(source, audited.units, fraction=fraction, order=order, per=per, layers=layers, seed=seed)
    measure = measured(source, parts, settings.device, seed)
    if settings.dry_run:
        common.show_plan(
            settings.as_json, probing(source, parts, units=units.groupby("layer", sort=False).size().to_dict()), out
        )
        return
    asked = {
        "audit": audited.record.get("spec_hash"),
        "fraction": fraction,
        "order": order,
        "per": per,
        "layers": layers,
        "seed": seed,
        "size": settings.size,
        "train": train,
        "test": test,
        **prints(parts),
    }
    result = prune_units(source, units)
    counts = units.groupby("layer", sort=False).size().to_dict()
    record = intervene(
        "prune",
        source,
        metadata,
        asked,
        lambda: (result, {"pruned": counts}, {"units": units}),
        out=out,
        measure=measure,
        overwrite=settings.overwrite,
    )
    spread = ", ".join(f"{count} of {name}" for name, count in record["pruned"].items())
    common.emit(
        settings.as_json,
        {"out": str(out), **record},
        flags.told(record, out, f"silenced {len(units)} units: {spread}", run=run_of(encoder)),
    )
