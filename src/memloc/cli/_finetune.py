"""memloc finetune: chosen layers and a linear head trained on labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    Weights,
    told,
)
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.encoders import Encoder


def finetune(
    encoder: EncoderName,
    train: Annotated[str, typer.Option(help="Labelled images to train on.")],
    test: Annotated[str, typer.Option(help="Labelled images to test on.")],
    out: Out,
    layers: Layers = None,
    audit: AuditFolder = None,
    by: By = "delta",
    order: Order = "highest",
    count: Count = 1,
    head_only: Annotated[bool, typer.Option("--head-only", help="Train the linear head alone.")] = False,
    epochs: Annotated[int, typer.Option(help="Over the training images.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls by a cosine.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-4,
    policy: Annotated[
        str | None, typer.Option(help="Augmentation of the training images, such as weak; none by default.")
    ] = None,
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
    """Train chosen layers and a linear head on labelled images, everything else frozen."""
    from memloc.encoders import save_weights
    from memloc.interventions import (
        check_finetune,
        finetune_layers,
        intervene,
        keep_apart,
        labelled,
        layers_asked,
        opened,
        own_size,
        planned,
        prints,
        run_of,
    )

    keep_apart(out, encoder, weights, audit, train, test)
    parts = labelled(train, test, own_size(encoder, weights, size, state_key, strip_prefix), max_bad)
    assert parts is not None, "both are required"
    source, metadata = opened(encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=parts[0])
    if head_only and (layers or audit is not None):
        raise SpecError("--head-only is given with layers to train. Expected one or the other. Leave --head-only out.")
    chosen, how = ([], {}) if head_only else layers_asked(source, layers, audit, by, order, count, seed)
    training: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "policy": policy,
        "seed": seed,
    }
    check_finetune(source, *parts, layers=chosen, **{key: value for key, value in training.items() if key != "seed"})
    if dry_run:
        forward = epochs * len(parts[0]) + len(parts[1])
        common.show_plan(
            as_json, planned(source, parts[0], forward=forward, backward=epochs * len(parts[0]), layers=chosen), out
        )
        return
    settings = {"layers": chosen, **how, **training, "size": size, "train": train, "test": test, **prints(parts)}

    def act() -> tuple[Encoder, dict[str, Any], dict[str, Any]]:
        tuned = finetune_layers(
            source, *parts, layers=chosen, device=device, progress=common.progress(as_json), **training
        )
        save_weights(out / "head.safetensors", tuned.head, {"format": "memloc"})
        trained = {"trained_parameters": tuned.trained[0], "parameters": tuned.trained[1]}
        return (
            tuned.encoder,
            {"accuracy": tuned.accuracy.to_dict(), "history": tuned.history, "head": "head.safetensors", **trained},
            {},
        )

    record = intervene("finetune", source, metadata, settings, act, out=out, overwrite=overwrite)
    accuracy = record["accuracy"]
    what = (
        f"trained {', '.join(chosen) or 'the head alone'}{' and the head' if chosen else ''}:"
        f" {record['trained_parameters']} of {record['parameters']} parameters"
    )
    line = (
        f"test accuracy {accuracy['accuracy']:.3f} (95 % interval {accuracy['low']:.3f} to {accuracy['high']:.3f}, over"
        " test images)"
    )
    line += "" if head_only else "; compare with --head-only"
    common.emit(as_json, {"out": str(out), **record}, told(record, out, what, line, run=run_of(encoder)))
