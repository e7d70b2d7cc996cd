"""memloc replace and finetune: act on layers, write a new checkpoint and a record, and leave the input as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._acting import (
    AuditFolder,
    EncoderName,
    Layers,
    Out,
    Seed,
    Test,
    Train,
    Weights,
    audit_of,
    keep_apart,
    labelled,
    measured,
    opened,
    own_size,
    planned,
    prints,
    probing,
    run_of,
    told,
)
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.encoders import Encoder

By = Annotated[str, typer.Option(help="With --audit: delta, layermem or random.")]
Order = Annotated[str, typer.Option(help="With --audit: highest or lowest.")]
Count = Annotated[int, typer.Option(help="With --audit: how many layers.")]


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
    from memloc.interventions import intervene, replace_layers

    keep_apart(out, encoder, weights, donor, donor_weights, audit, train, test)
    parts = labelled(train, test, own_size(encoder, weights, size, state_key, strip_prefix), max_bad)
    source, metadata = opened(
        encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=parts and parts[0]
    )
    other, _ = opened(donor, donor_weights, images=parts and parts[0])
    chosen, how = _layers(source, layers, audit, by, order, count, seed)
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
    from memloc.interventions import check_finetune, finetune_layers, intervene

    keep_apart(out, encoder, weights, audit, train, test)
    parts = labelled(train, test, own_size(encoder, weights, size, state_key, strip_prefix), max_bad)
    assert parts is not None, "both are required"
    source, metadata = opened(encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=parts[0])
    if head_only and (layers or audit is not None):
        raise SpecError("--head-only is given with layers to train. Expected one or the other. Leave --head-only out.")
    chosen, how = ([], {}) if head_only else _layers(source, layers, audit, by, order, count, seed)
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


def _layers(
    encoder: Encoder, names: list[str] | None, audit: Path | None, by: str, order: str, count: int, seed: int
) -> tuple[list[str], dict[str, Any]]:
    """Layers by name, or by the figures of an audit; and how they were chosen, for the record."""
    from memloc.encoders import layer_parts
    from memloc.interventions import choose_layers

    if bool(names) == (audit is not None):
        raise SpecError(
            f"{'both --layers and --audit are' if names else 'neither --layers nor --audit is'} given. Expected one:"
            " names, or an audit to choose by. Pass for instance --layers conv4_2."
        )
    if names:
        return list(layer_parts(encoder, names)), {}
    assert audit is not None, "one of both is given"
    audited = audit_of(encoder, audit)
    how = {
        "chosen_by": by,
        "audit": audited.record.get("spec_hash"),
        **({"seed": seed} if by == "random" else {"order": order}),
    }
    return choose_layers(encoder, audited.layers, count, by=by, order=order, seed=seed), how
