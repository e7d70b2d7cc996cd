"""memloc remove: train an encoder again without some of its points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._encoder_flags import Test, Train, told
from memloc.cli._flags import WORK
from memloc.cli._options import Given, with_settings


@with_settings(common=("max_bad", "device", *WORK))
def remove(
    run: Annotated[Path, typer.Argument(help="A folder that memloc train finished.")],
    audit: Annotated[Path, typer.Option("--audit", help="The audit of that run: SSLMem of its points.")],
    out: Annotated[Path, typer.Option(help="Folder for the new run and the record; an interrupted one is resumed.")],
    count: Annotated[int, typer.Option(help="Points to remove.")],
    settings: Given,
    order: Annotated[str, typer.Option(help="most or least memorized first, or random.")] = "most",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of the run to train again; the first by default.")
    ] = None,
    train: Train = None,
    test: Test = None,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
) -> None:
    """Train an encoder again without its most memorized, least memorized or random points; probe both."""
    from memloc.interventions import (
        audit_of,
        choose_points,
        encoder_named,
        keep_apart,
        labelled,
        measured,
        planned,
        prints,
        remove_and_record,
    )
    from memloc.runs import images_of, open_run

    keep_apart(out, run, audit, train, test)
    loaded = open_run(run)
    name = encoder_named(loaded, encoder)
    audited = audit_of(loaded.encoders[name], audit)
    gone = choose_points(loaded, audited.points, count, order=order, encoder=name, seed=seed)
    parts = labelled(train, test, loaded.record["size"], settings.max_bad)
    measure = measured(loaded.encoders[name], parts, settings.device, seed)
    if settings.dry_run:
        images, _ = images_of(loaded)
        slots = loaded.record["spec"]["epochs"] * int(loaded.membership[name].sum() - len(gone)) * 2
        probed = 0 if parts is None else 2 * (len(parts[0]) + len(parts[1]))
        plan = planned(loaded.encoders[name], images, forward=slots + probed, backward=slots, removed=gone)
        common.show_plan(settings.as_json, plan, out)
        return
    asked = {
        "run": str(run),
        "audit": audited.record.get("spec_hash"),
        "count": count,
        "order": order,
        "encoder": name,
        "seed": seed,
        "train": train,
        "test": test,
        **prints(parts),
    }
    record = remove_and_record(
        loaded,
        gone,
        asked,
        encoder=name,
        out=out,
        measure=measure,
        device=settings.device,
        progress=settings.progress,
        overwrite=settings.overwrite,
    )
    which = f"{order}{' memorized' if order != 'random' else ''}"
    text = told(record, out, f"trained {name} again without {count} points ({which})")
    common.emit(settings.as_json, {"out": str(out), **record}, text)
