"""memloc prune: units silenced."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import EncoderName, Layers, Out, Seed, Test, Train, Weights, told
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix


def prune(
    encoder: EncoderName,
    audit: Annotated[
        Path, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder: UnitMem of its units.")
    ],
    out: Out,
    fraction: Annotated[float, typer.Option(help="Share of the units, above 0 to 1.")] = 0.1,
    order: Annotated[str, typer.Option(help="top or low UnitMem first, or random.")] = "top",
    per: Annotated[
        str, typer.Option(help="layer (the share of every layer) or network (of all units together).")
    ] = "layer",
    layers: Layers = None,
    train: Train = None,
    test: Test = None,
    weights: Weights = None,
    state_key: StateKey = None,
    strip_prefix: StripPrefix = None,
    size: Size = None,
    max_bad: MaxBad = 0,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Silence units of top, low or random UnitMem: filter, bias, batch-norm scale and shift at zero; probe before and
    after."""
    from memloc.interventions import (
        audit_of,
        choose_units,
        intervene,
        keep_apart,
        labelled,
        measured,
        opened,
        own_size,
        prints,
        probing,
        prune_units,
        run_of,
    )

    keep_apart(out, encoder, weights, audit, train, test)
    parts = labelled(train, test, own_size(encoder, weights, size, state_key, strip_prefix), max_bad)
    source, metadata = opened(
        encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=parts and parts[0]
    )
    audited = audit_of(source, audit, units=True)
    units = choose_units(source, audited.units, fraction=fraction, order=order, per=per, layers=layers, seed=seed)
    measure = measured(source, parts, device, seed)
    if dry_run:
        common.show_plan(
            as_json, probing(source, parts, units=units.groupby("layer", sort=False).size().to_dict()), out
        )
        return
    settings = {
        "audit": audited.record.get("spec_hash"),
        "fraction": fraction,
        "order": order,
        "per": per,
        "layers": layers,
        "seed": seed,
        "size": size,
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
        settings,
        lambda: (result, {"pruned": counts}, {"units": units}),
        out=out,
        measure=measure,
        overwrite=overwrite,
    )
    spread = ", ".join(f"{count} of {name}" for name, count in record["pruned"].items())
    common.emit(
        as_json,
        {"out": str(out), **record},
        told(record, out, f"silenced {len(units)} units: {spread}", run=run_of(encoder)),
    )
