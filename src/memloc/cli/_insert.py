"""memloc insert: one unit made to memorize one point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import EncoderName, Out, Seed, told
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings

if TYPE_CHECKING:
    from memloc.encoders import Encoder


@with_settings(common=(*ENCODER, *IMAGES, *WORK))
def insert(
    encoder: EncoderName,
    data: Annotated[str, typer.Option(help="Images: the point and others that UnitMem contrasts it with.")],
    point: Annotated[str, typer.Option(help="The image: its name in the data (path or row), or its id.")],
    layer: Annotated[str, typer.Option(help="Layer of the unit.")],
    unit: Annotated[int, typer.Option(help="Number of the unit.")],
    out: Out,
    settings: Given,
    goal: Annotated[
        str, typer.Option(help="unitmem (raises the unit's contrast) or contrast (goes on with NT-Xent, as published).")
    ] = "unitmem",
    steps: Annotated[int, typer.Option(help="Of Adam.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    limit: Annotated[int, typer.Option(help="Images to use at most, the point among them.")] = 200,
    policy: Annotated[str | None, typer.Option(help="Of the views; as in training by default.")] = None,
    seed: Seed = 0,
) -> None:
    """Make one unit memorize one point: its own weights are trained, everything else is held."""
    from memloc.data import open_images
    from memloc.interventions import (
        INSERT_SCORED,
        INSERT_VIEWS,
        check_insert,
        images_around,
        insert_point,
        intervene,
        keep_apart,
        opened,
        own_size,
        planned,
    )

    keep_apart(out, encoder, settings.weights, data)
    images = open_images(
        data,
        size=own_size(encoder, settings.weights, settings.size, **settings.keys_of),
        max_bad=settings.max_bad,
    )
    some, number = images_around(images, point, limit=limit, seed=seed, where=data)
    source, metadata = opened(encoder, settings.weights, **settings.keys_of, images=images)
    training: dict[str, Any] = {
        "layer": layer,
        "unit": unit,
        "goal": goal,
        "steps": steps,
        "learning_rate": learning_rate,
        "policy": policy,
        "seed": seed,
    }
    check_insert(source, some, number, **{key: value for key, value in training.items() if key != "seed"})

    if settings.dry_run:
        trained = steps * INSERT_VIEWS
        forward = trained + 2 * INSERT_SCORED * len(some)
        plan = planned(source, some, forward=forward, backward=trained, point=number, layer=layer, unit=unit)
        common.show_plan(settings.as_json, plan, out)
        return

    def act() -> tuple[Encoder, dict[str, Any], dict[str, Any]]:
        found = insert_point(source, some, number, device=settings.device, progress=settings.progress, **training)
        table = found.units.set_index("unit")
        change = (table["unitmem_after"] - table["unitmem_before"]).abs()
        line = table.loc[unit]
        more = {
            "unitmem_before": line["unitmem_before"],
            "unitmem_after": line["unitmem_after"],
            "point_before": int(line["point_before"]),
            "point_after": int(line["point_after"]),
            "largest_other_change": float(change.drop(index=unit).max()) if len(change) > 1 else 0.0,
            "loss": list(found.loss),
        }
        if more["unitmem_after"] <= more["unitmem_before"]:
            more["warnings"] = ["The unit's UnitMem did not rise. Try more --steps, or a lower --learning-rate."]
        return found.encoder, more, {"units": found.units}

    asked = {
        "data": data,
        "fingerprint": some.fingerprint(),
        "size": settings.size,
        "point": number,
        "limit": limit,
        **training,
    }
    record = intervene("insert", source, metadata, asked, act, out=out, overwrite=settings.overwrite)
    lines = [
        (
            f"unit {unit} of {layer}: UnitMem {record['unitmem_before']:.4f} before, {record['unitmem_after']:.4f}"
            f" after, {'driven by this point' if record['point_after'] == number else 'still driven by another point'}"
        ),
        f"largest change among the layer's other units: {record['largest_other_change']:.1e}",
    ]
    common.emit(settings.as_json, {"out": str(out), **record}, told(record, out, *lines))
