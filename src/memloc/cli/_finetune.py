"""memloc finetune: chosen layers and a linear head trained on labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli import _encoder_flags as flags
from memloc.cli._flags import ENCODER, IMAGES, WORK
from memloc.cli._options import Given, with_settings
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.encoders import Encoder


@with_settings(common=(*ENCODER, *IMAGES, *WORK))
def finetune(
    encoder: flags.EncoderName,
    train: Annotated[str, typer.Option(help="Labelled images to train on.")],
    test: Annotated[str, typer.Option(help="Labelled images to test on.")],
    out: flags.Out,
    settings: Given,
    layers: flags.Layers = None,
    audit: flags.AuditFolder = None,
    head_only: Annotated[bool, typer.Option("--head-only", help="Train the linear head alone.")] = False,
    by: flags.By = "delta",
    order: flags.Order = "highest",
    count: flags.Count = 1,
    epochs: Annotated[int, typer.Option(help="Over the training images.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="At the start; it falls by a cosine.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-4,
    policy: Annotated[
        str | None, typer.Option(help="Augmentation of the training images, such as weak; none by default.")
    ] = None,
    seed: flags.Seed = 0,
) -> None:
    """Train chosen layers and a linear head on labelled images, everything else frozen."""
    from memloc.encoders import save_weights
    from memloc.interventions import (
        check_finetune,
        finetune_layers,
        intervene,
        keep_apart,
        layers_asked,
        opened_with_probe,
        planned,
        prints,
        run_of,
    )

    keep_apart(out, encoder, settings.weights, audit, train, test)
    source, metadata, parts = opened_with_probe(
        encoder, settings.weights, train, test, size=settings.size, max_bad=settings.max_bad, **settings.keys_of
    )
    assert parts is not None, "both are required"
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
    if settings.dry_run:
        forward = epochs * len(parts[0]) + len(parts[1])
        common.show_plan(
            settings.as_json,
            planned(source, parts[0], forward=forward, backward=epochs * len(parts[0]), layers=chosen),
            out,
        )
        return
    asked = {
        "layers": chosen,
        **how,
        **training,
        "size": settings.size,
        "train": train,
        "test": test,
        **prints(parts),
    }

    def act() -> tuple[Encoder, dict[str, Any], dict[str, Any]]:
        tuned = finetune_layers(
            source,
            *parts,
            layers=chosen,
            device=settings.device,
            progress=settings.progress,
            **training,
        )
        save_weights(out / "head.safetensors", tuned.head, {"format": "memloc"})
        trained = {"trained_parameters": tuned.trained[0], "parameters": tuned.trained[1]}
        return (
            tuned.encoder,
            {"accuracy": tuned.accuracy.to_dict(), "history": tuned.history, "head": "head.safetensors", **trained},
            {},
        )

    record = intervene("finetune", source, metadata, asked, act, out=out, overwrite=settings.overwrite)
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
    common.emit(settings.as_json, {"out": str(out), **record}, flags.told(record, out, what, line, run=run_of(encoder)))
