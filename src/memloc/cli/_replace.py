"""memloc replace: layers of another encoder in place of an encoder's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import (
    AuditFolder,
    By,
    Count,
    EncoderName,
    Layers,
    Order,
    Out,
    Seed,
    Test,
    Train,
    Weights,
    told,
)
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix

if TYPE_CHECKING:
    pass


def replace(
    encoder: EncoderName,
    donor: Annotated[
        str, typer.Option("--from", help="Encoder of the same architecture that the layers are taken from.")
    ],
    out: Out,
    layers: Layers = None,
    audit: AuditFolder = None,
    by: By = "delta",
    order: Order = "highest",
    count: Count = 3,
    train: Train = None,
    test: Test = None,
    weights: Weights = None,
    donor_weights: Annotated[
        str | None, typer.Option("--from-weights", help="Checkpoint of --from, or random.")
    ] = None,
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
    """Replace layers by those of another encoder, chosen by Δ, LayerMem, at random or by name; probe before and
    after."""
    from memloc.encoders import fingerprint
    from memloc.interventions import (
        intervene,
        keep_apart,
        labelled,
        layers_asked,
        measured,
        opened,
        own_size,
        prints,
        probing,
        replace_layers,
        run_of,
    )

    keep_apart(out, encoder, weights, donor, donor_weights, audit, train, test)
    parts = labelled(train, test, own_size(encoder, weights, size, state_key, strip_prefix), max_bad)
    source, metadata = opened(
        encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=parts and parts[0]
    )
    other, _ = opened(donor, donor_weights, images=parts and parts[0])
    chosen, how = layers_asked(source, layers, audit, by, order, count, seed)
    measure = measured(source, parts, device, seed)
    result = replace_layers(source, other, chosen)  # cheap, and finds what does not fit before any folder is made
    if dry_run:
        common.show_plan(as_json, probing(source, parts, layers=chosen), out)
        return
    settings = {
        "layers": chosen,
        "from": donor,
        "from_fingerprint": fingerprint(other.module),
        **how,
        "seed": seed,
        "size": size,
        "train": train,
        "test": test,
        **prints(parts),
    }
    record = intervene(
        "replace", source, metadata, settings, lambda: (result, {}, {}), out=out, measure=measure, overwrite=overwrite
    )
    common.emit(
        as_json,
        {"out": str(out), **record},
        told(record, out, f"replaced in {source.name}: {', '.join(chosen)}", run=run_of(encoder)),
    )
