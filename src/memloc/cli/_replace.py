"""memloc replace: layers of another encoder in place of an encoder's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from memloc.cli import _common as common
from memloc.cli import _encoder_flags as flags
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings

if TYPE_CHECKING:
    pass


@with_settings(common=(*ENCODER, *IMAGES, *WORK))
def replace(
    encoder: flags.EncoderName,
    donor: Annotated[
        str, typer.Option("--from", help="Encoder of the same architecture that the layers are taken from.")
    ],
    out: flags.Out,
    settings: Given,
    layers: flags.Layers = None,
    audit: flags.AuditFolder = None,
    by: flags.By = "delta",
    order: flags.Order = "highest",
    count: flags.Count = 3,
    train: flags.Train = None,
    test: flags.Test = None,
    donor_weights: Annotated[
        str | None, typer.Option("--from-weights", help="Checkpoint of --from, or random.")
    ] = None,
    seed: flags.Seed = 0,
) -> None:
    """Replace layers by those of another encoder, chosen by Δ, LayerMem, at random or by name; probe before and
    after."""
    from memloc.encoders import fingerprint
    from memloc.interventions import (
        intervene,
        keep_apart,
        layers_asked,
        measured,
        opened,
        opened_with_probe,
        prints,
        probing,
        replace_layers,
        run_of,
    )

    keep_apart(out, encoder, settings.weights, donor, donor_weights, audit, train, test)
    source, metadata, parts = opened_with_probe(
        encoder, settings.weights, train, test, size=settings.size, max_bad=settings.max_bad, **settings.keys_of
    )
    other, _ = opened(donor, donor_weights, images=parts and parts[0])
    chosen, how = layers_asked(source, layers, audit, by, order, count, seed)
    measure = measured(source, parts, settings.device, seed)
    result = replace_layers(source, other, chosen)  # cheap, and finds what does not fit before any folder is made
    if settings.dry_run:
        common.show_plan(settings.as_json, probing(source, parts, layers=chosen), out)
        return
    asked = {
        "layers": chosen,
        "from": donor,
        "from_fingerprint": fingerprint(other.module),
        **how,
        "seed": seed,
        "size": settings.size,
        "train": train,
        "test": test,
        **prints(parts),
    }
    record = intervene(
        "replace",
        source,
        metadata,
        asked,
        lambda: (result, {}, {}),
        out=out,
        measure=measure,
        overwrite=settings.overwrite,
    )
    common.emit(
        settings.as_json,
        {"out": str(out), **record},
        flags.told(record, out, f"replaced in {source.name}: {', '.join(chosen)}", run=run_of(encoder)),
    )
