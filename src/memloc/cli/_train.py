"""memloc train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size

Out = Annotated[Path, typer.Option(help="Folder for the run; an interrupted one is resumed.")]
Seed = Annotated[int, typer.Option(help="Of splits, initial weights, order and views.")]


def train(
    data: Annotated[str, typer.Argument(help="Images to train on: a folder, .parquet, IDX, .npz, or sample:train.")],
    out: Out,
    external: Annotated[str | None, typer.Option(help="Images that no encoder sees, for comparison.")] = None,
    size: Size = None,
    objective: Annotated[str, typer.Option(help="simclr, simsiam, vicreg, dino, mae or supervised.")] = "simclr",
    recipe: Annotated[
        str,
        typer.Option(
            help=(
                "small, or published: the papers' optimizer, learning rate, weight decay, batch, epochs and unpaired"
                " training, where no flag says otherwise; heads keep their size."
            )
        ),
    ] = "small",
    encoder: Annotated[
        str | None,
        typer.Option(
            help=(
                "resnet9 (by default; vit-tiny for mae), resnet18, resnet34, resnet50, vit-tiny, vit-base, timm:NAME,"
                " torchvision:NAME, hf:NAME or file.py:factory; with new weights."
            )
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every encoder; 200 by default.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Largest batch; batches of an epoch are of equal size; 256 by default.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw (by default), sgd or lars.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest; 0.001 by default.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="0.0001 by default.")] = None,
    temperature: Annotated[float, typer.Option(help="Of the contrastive loss.")] = 0.5,
    local_crops: Annotated[int, typer.Option(help="Further small crops per point for dino's student.")] = 0,
    alignment_penalty: Annotated[
        float, typer.Option(help="Weight of the distance between two views in the loss, which limits memorization.")
    ] = 0.0,
    dp_epsilon: Annotated[
        float | None, typer.Option(help="Train mae with differential privacy: the budget, such as 8.")
    ] = None,
    dp_delta: Annotated[
        float | None, typer.Option(help="Of the budget; half of one over the number of points by default.")
    ] = None,
    dp_clip: Annotated[float, typer.Option(help="Norm that each point's gradient is clipped to.")] = 1.0,
    warmup: Annotated[
        float | None,
        typer.Option(help="Share of steps with a rising learning rate, before the cosine; 0.1 by default."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Augmentations: weak, normal (by default), strong, independent, crop (for mae).")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    candidates: Annotated[int | None, typer.Option(help="Points that only f sees; a tenth by default.")] = None,
    independents: Annotated[int | None, typer.Option(help="Points that only g sees; as many as candidates.")] = None,
    shared: Annotated[int | None, typer.Option(help="Points that both see; the rest by default.")] = None,
    runs: Annotated[int, typer.Option(help="Pairs of f and g on the same splits.")] = 1,
    unpaired: Annotated[
        bool | None,
        typer.Option(
            "--unpaired/--paired", help="Other initial weights, order and views for g, as published; paired by default."
        ),
    ] = None,
    ensemble: Annotated[int, typer.Option(help="Train this many encoders on random parts instead of a pair.")] = 0,
    fraction: Annotated[float, typer.Option(help="Share of the points in each encoder of an ensemble.")] = 0.5,
    plant: Annotated[int, typer.Option(help="Candidates to show --repeats times per epoch.")] = 0,
    repeats: Annotated[int, typer.Option(help="How often planted candidates are shown.")] = 1,
    checkpoint_every: Annotated[int, typer.Option(help="Epochs between checkpoints; 0: twenty in all.")] = 0,
    workers: Annotated[int, typer.Option(help="Encoders trained at once; 0: one per core, one on a GPU.")] = 0,
    max_bad: MaxBad = 0,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Train f and its reference g (or an ensemble) with a self-supervised objective, ready for memloc audit."""
    from memloc.data import concatenate, open_images
    from memloc.pretrain import rank, spec_of, train_cost
    from memloc.pretrain import train as train_run

    spec = spec_of(
        recipe=recipe,
        objective=objective,
        encoder=encoder,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        temperature=temperature,
        local_crops=local_crops,
        alignment_penalty=alignment_penalty,
        dp_epsilon=dp_epsilon,
        dp_delta=dp_delta,
        dp_clip=dp_clip,
        warmup=warmup,
        policy=policy,
        precision=precision,
        seed=seed,
        candidates=candidates,
        independents=independents,
        shared=shared,
        runs=runs,
        unpaired=unpaired,
        ensemble=ensemble,
        fraction=fraction,
        plant=plant,
        repeats=repeats,
        checkpoint_every=checkpoint_every,
        workers=workers,
        device=device,
    )
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
