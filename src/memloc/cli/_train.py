"""memloc train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._flags import WORK
from memloc.cli._options import Given, with_settings
from memloc.pretrain import TrainSpec


@with_settings(TrainSpec, flags={"unpaired": "--unpaired/--paired"}, common=("size", "max_bad", *WORK))
def train(
    data: Annotated[str, typer.Argument(help="Images to train on: a folder, .parquet, IDX, .npz, or sample:train.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; an interrupted one is resumed.")],
    settings: Given,
    external: Annotated[
        str | None, typer.Option(help="Further images that no encoder sees, beside those held out.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="small, or published: the papers' optimizer, learning rate, weight decay, batch, epochs and unpaired"
            " training, where no flag says otherwise; heads keep their size."
        ),
    ] = "small",
) -> None:
    """Train f and its reference g (or an ensemble) with a self-supervised objective, ready for memloc audit."""
    from memloc.data import concatenate, open_images
    from memloc.pretrain import rank, spec_of, train_cost
    from memloc.pretrain import train as train_run

    spec = spec_of(recipe=recipe, **settings.only_named())
    images = open_images(data, size=settings.size, max_bad=settings.max_bad)
    others = None if external is None else open_images(external, size=settings.size, max_bad=settings.max_bad)
    if settings.dry_run:
        everything = images if others is None else concatenate(images, others)
        found = train_cost(everything, spec, 0 if others is None else len(others))
        common.show_plan(settings.as_json, found, out, data, external)
        return
    run = train_run(images, spec, external=others, out=out, progress=settings.progress, overwrite=settings.overwrite)
    if rank():  # under torchrun one process speaks for all
        return
    for note in [] if settings.as_json else run.record.get("notes", []):
        common.say(note)
    for warning in [] if settings.as_json else run.record.get("warnings", []):
        common.say(f"warning: {warning}")
    found = {
        "run": str(out),
        "encoders": list(run.encoders),
        "seconds": run.record["seconds"],
        "notes": run.record.get("notes", []),
        "warnings": run.record.get("warnings", []),
    }
    common.emit(
        settings.as_json,
        found,
        f"{out}: {', '.join(run.encoders)} trained in {run.record['seconds']:.0f} s\nnext: memloc audit {out} --out"
        f" {out}-audit",
    )
