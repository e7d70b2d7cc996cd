"""memloc train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._flags import Config, DryRun, Json, MaxBad, Overwrite, Size
from memloc.cli._options import Given, with_settings
from memloc.pretrain import TrainSpec


@with_settings(TrainSpec, flags={"unpaired": "--unpaired/--paired"})
def train(
    data: Annotated[str, typer.Argument(help="Images to train on: a folder, .parquet, IDX, .npz, or sample:train.")],
    out: Annotated[Path, typer.Option(help="Folder for the run; an interrupted one is resumed.")],
    settings: Given,
    external: Annotated[str | None, typer.Option(help="Images that no encoder sees, for comparison.")] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="small, or published: the papers' optimizer, learning rate, weight decay, batch, epochs and unpaired"
            " training, where no flag says otherwise; heads keep their size."
        ),
    ] = "small",
    size: Size = None,
    max_bad: MaxBad = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Train f and its reference g (or an ensemble) with a self-supervised objective, ready for memloc audit."""
    from memloc.data import concatenate, open_images
    from memloc.pretrain import rank, spec_of, train_cost
    from memloc.pretrain import train as train_run

    spec = spec_of(recipe=recipe, **settings.only_named())
    images = open_images(data, size=size, max_bad=max_bad)
    others = None if external is None else open_images(external, size=size, max_bad=max_bad)
    if dry_run:
        everything = images if others is None else concatenate(images, others)
        found = train_cost(everything, spec, 0 if others is None else len(others))
        common.show_plan(as_json, found, out)
        return
    run = train_run(images, spec, external=others, out=out, progress=common.progress(as_json), overwrite=overwrite)
    if rank():  # under torchrun one process speaks for all
        return
    for warning in [] if as_json else run.record.get("warnings", []):
        common.say(f"warning: {warning}")
    found = {
        "run": str(out),
        "encoders": list(run.encoders),
        "seconds": run.record["seconds"],
        "warnings": run.record.get("warnings", []),
    }
    common.emit(
        as_json,
        found,
        f"{out}: {', '.join(run.encoders)} trained in {run.record['seconds']:.0f} s\nnext: memloc audit {out} --out"
        f" {out}-audit",
    )
