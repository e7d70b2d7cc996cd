"""memloc replace, finetune, prune, insert and remove: each writes a new checkpoint and a record, and leaves its input as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._acting import (
    AuditFolder,
    EncoderName,
    Out,
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
    run_of,
    told,
)
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite, Size, StateKey, StripPrefix
from memloc.errors import SpecError

if TYPE_CHECKING:
    from memloc.data import Images
    from memloc.encoders import Encoder

Layers = Annotated[list[str] | None, typer.Option(help="Layers by name; repeat for more.")]
By = Annotated[str, typer.Option(help="With --audit: delta, layermem or random.")]
Order = Annotated[str, typer.Option(help="With --audit: highest or lowest.")]
Count = Annotated[int, typer.Option(help="With --audit: how many layers.")]
Seed = Annotated[int, typer.Option(help="Of random choices and of training.")]


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
    """Replace layers by those of another encoder, chosen by Δ, LayerMem, at random or by name; probe before and after."""
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
        common.show_plan(as_json, _probing(source, parts, layers=chosen), out)
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
    what = f"trained {', '.join(chosen) or 'the head alone'}{' and the head' if chosen else ''}: {record['trained_parameters']} of {record['parameters']} parameters"
    line = f"test accuracy {accuracy['accuracy']:.3f} (95 % interval {accuracy['low']:.3f} to {accuracy['high']:.3f}, over test images)"
    line += "" if head_only else "; compare with --head-only"
    common.emit(as_json, {"out": str(out), **record}, told(record, out, what, line, run=run_of(encoder)))


def prune(
    encoder: EncoderName,
    audit: Annotated[
        Path, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder: UnitMem of its units.")
    ],
    out: Out,
    fraction: Annotated[float, typer.Option(help="Share of the units, above 0 to 1.")] = 0.1,
    order: Annotated[str, typer.Option(help="top or low UnitMem first, or random.")] = "top",
    per: Annotated[
        str, typer.Option(help="layer (the share of every layer) or network (of all units together).")
    ] = "layer",
    layers: Layers = None,
    train: Train = None,
    test: Test = None,
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
    """Silence units of top, low or random UnitMem: filter, bias, batch-norm scale and shift at zero; probe before and after."""
    from memloc.interventions import choose_units, intervene, prune_units

    keep_apart(out, encoder, weights, audit, train, test)
    parts = labelled(train, test, own_size(encoder, weights, size, state_key, strip_prefix), max_bad)
    source, metadata = opened(
        encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=parts and parts[0]
    )
    audited = audit_of(source, audit, units=True)
    units = choose_units(source, audited.units, fraction=fraction, order=order, per=per, layers=layers, seed=seed)
    measure = measured(source, parts, device, seed)
    if dry_run:
        common.show_plan(
            as_json, _probing(source, parts, units=units.groupby("layer", sort=False).size().to_dict()), out
        )
        return
    settings = {
        "audit": audited.record.get("spec_hash"), "fraction": fraction, "order": order, "per": per, "layers": layers, "seed": seed,
        "size": size, "train": train, "test": test, **prints(parts),
    }  # fmt: skip
    result = prune_units(source, units)
    counts = units.groupby("layer", sort=False).size().to_dict()
    record = intervene(
        "prune",
        source,
        metadata,
        settings,
        lambda: (result, {"pruned": counts}, {"units": units}),
        out=out,
        measure=measure,
        overwrite=overwrite,
    )
    spread = ", ".join(f"{count} of {name}" for name, count in record["pruned"].items())
    common.emit(
        as_json,
        {"out": str(out), **record},
        told(record, out, f"silenced {len(units)} units: {spread}", run=run_of(encoder)),
    )


def insert(
    encoder: EncoderName,
    data: Annotated[str, typer.Option(help="Images: the point and others that UnitMem contrasts it with.")],
    point: Annotated[str, typer.Option(help="The image: its name in the data (path or row), or its id.")],
    layer: Annotated[str, typer.Option(help="Layer of the unit.")],
    unit: Annotated[int, typer.Option(help="Number of the unit.")],
    out: Out,
    goal: Annotated[
        str, typer.Option(help="unitmem (raises the unit's contrast) or contrast (goes on with NT-Xent, as published).")
    ] = "unitmem",
    steps: Annotated[int, typer.Option(help="Of Adam.")] = 200,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    limit: Annotated[int, typer.Option(help="Images to use at most, the point among them.")] = 200,
    policy: Annotated[str | None, typer.Option(help="Of the views; as in training by default.")] = None,
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
    """Make one unit memorize one point: its own weights are trained, everything else is held."""
    import torch

    from memloc.data import open_images
    from memloc.errors import DataError, nearest
    from memloc.interventions import INSERT_SCORED, INSERT_VIEWS, check_insert, insert_point, intervene

    keep_apart(out, encoder, weights, data)
    images = open_images(data, size=own_size(encoder, weights, size, state_key, strip_prefix), max_bad=max_bad)
    ids = {str(each): row for row, each in enumerate(images.ids.tolist())}
    row = {name: row for row, name in enumerate(images.names)}.get(point, ids.get(point))
    if row is None:
        raise DataError(
            f"there is no image {point!r} in {data}. {nearest(point, images.names)} Expected its name or id. Pass --point {images.names[0]}."
        )
    if limit < 3:
        raise SpecError(f"limit is {limit}. Expected at least 3: the point and two others. Pass --limit 200.")
    rest = torch.tensor([each for each in range(len(images)) if each != row])
    drawn = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[: limit - 1]]
    some = images.take(torch.cat([torch.tensor([row]), drawn.sort().values]))
    source, metadata = opened(encoder, weights, state_key=state_key, strip_prefix=strip_prefix, images=images)
    training: dict[str, Any] = {
        "layer": layer,
        "unit": unit,
        "goal": goal,
        "steps": steps,
        "learning_rate": learning_rate,
        "policy": policy,
        "seed": seed,
    }
    number = int(images.ids[row])
    check_insert(source, some, number, **{key: value for key, value in training.items() if key != "seed"})

    if dry_run:
        trained = steps * INSERT_VIEWS
        forward = trained + 2 * INSERT_SCORED * len(some)
        plan = planned(source, some, forward=forward, backward=trained, point=number, layer=layer, unit=unit)
        common.show_plan(as_json, plan, out)
        return

    def act() -> tuple[Encoder, dict[str, Any], dict[str, Any]]:
        found = insert_point(source, some, number, device=device, progress=common.progress(as_json), **training)
        table = found.units.set_index("unit")
        change = (table["unitmem_after"] - table["unitmem_before"]).abs()
        line = table.loc[unit]
        more = {
            "unitmem_before": line["unitmem_before"], "unitmem_after": line["unitmem_after"], "point_before": int(line["point_before"]),
            "point_after": int(line["point_after"]), "largest_other_change": float(change.drop(index=unit).max()) if len(change) > 1 else 0.0,
            "loss": list(found.loss),
        }  # fmt: skip
        if more["unitmem_after"] <= more["unitmem_before"]:
            more["warnings"] = ["The unit's UnitMem did not rise. Try more --steps, or a lower --learning-rate."]
        return found.encoder, more, {"units": found.units}

    settings = {
        "data": data,
        "fingerprint": some.fingerprint(),
        "size": size,
        "point": number,
        "limit": limit,
        **training,
    }
    record = intervene("insert", source, metadata, settings, act, out=out, overwrite=overwrite)
    lines = [
        f"unit {unit} of {layer}: UnitMem {record['unitmem_before']:.4f} before, {record['unitmem_after']:.4f} after, "
        f"{'driven by this point' if record['point_after'] == number else 'still driven by another point'}",
        f"largest change among the layer's other units: {record['largest_other_change']:.1e}",
    ]
    common.emit(as_json, {"out": str(out), **record}, told(record, out, *lines))


def remove(
    run: Annotated[Path, typer.Argument(help="A folder that memloc train finished.")],
    audit: Annotated[Path, typer.Option("--audit", help="The audit of that run: SSLMem of its points.")],
    out: Annotated[Path, typer.Option(help="Folder for the new run and the record; an interrupted one is resumed.")],
    count: Annotated[int, typer.Option(help="Points to remove.")],
    order: Annotated[str, typer.Option(help="most or least memorized first, or random.")] = "most",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of the run to train again; the first by default.")
    ] = None,
    train: Train = None,
    test: Test = None,
    max_bad: MaxBad = 0,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Train an encoder again without its most memorized, least memorized or random points; probe both."""
    import pandas as pd

    from memloc.encoders import fingerprint, versions
    from memloc.interventions import RECORD, choose_points, encoder_named, remove_points
    from memloc.pretrain import images_of, load_run
    from memloc.probe import paired_difference
    from memloc.results import SCHEMA_VERSION, read_json, write_json, write_table

    keep_apart(out, run, audit, train, test)
    loaded = load_run(run)
    name = encoder_named(loaded, encoder)
    audited = audit_of(loaded.encoders[name], audit)
    gone = choose_points(loaded, audited.points, count, order=order, encoder=name, seed=seed)
    parts = labelled(train, test, loaded.record["size"], max_bad)
    measure = measured(loaded.encoders[name], parts, device, seed)
    if dry_run:
        images, _ = images_of(loaded)
        spec = loaded.record["spec"]
        slots = spec["epochs"] * int(loaded.membership[name].sum() - len(gone)) * 2
        probed = 0 if parts is None else 2 * (len(parts[0]) + len(parts[1]))
        common.show_plan(
            as_json, planned(loaded.encoders[name], images, forward=slots + probed, backward=slots, removed=gone), out
        )
        return
    again = remove_points(
        loaded, gone, encoder=name, device=device, out=out, progress=common.progress(as_json), overwrite=overwrite
    )
    settings = {
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
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "remove",
        "fingerprint_before": fingerprint(loaded.encoders[name].module),
        "fingerprint_after": fingerprint(again.encoders[name].module),
        "versions": versions(),
        "settings": settings,
        "removed": gone,
        "checkpoint": f"encoders/{name}.safetensors",
    }
    if (out / RECORD).is_file() and (kept := read_json(out / RECORD))["settings"] == settings:
        record = kept
    elif measure is not None:
        before, after = measure(loaded.encoders[name]), measure(again.encoders[name])
        record["probe"] = {"before": before.to_dict(), "after": after.to_dict(), **paired_difference(after, before)}
        write_table(out / "probe.parquet", pd.DataFrame({"right_before": before.right, "right_after": after.right}))
    write_json(out / RECORD, record)
    common.emit(
        as_json,
        {"out": str(out), **record},
        told(
            record,
            out,
            f"trained {name} again without {count} points ({order}{' memorized' if order != 'random' else ''})",
        ),
    )


def _probing(encoder: Encoder, parts: tuple[Images, Images] | None, **chosen: Any) -> dict[str, Any]:
    """The plan of a command that only probes before and after."""
    if parts is None:
        return {**chosen, "forward_passes": 0, "backward_passes": 0, "seconds": 0.0}
    return planned(encoder, parts[0], forward=2 * (len(parts[0]) + len(parts[1])), **chosen)


def _layers(
    encoder: Encoder, names: list[str] | None, audit: Path | None, by: str, order: str, count: int, seed: int
) -> tuple[list[str], dict[str, Any]]:
    """Layers by name, or by the figures of an audit; and how they were chosen, for the record."""
    from memloc.encoders import layer_parts
    from memloc.interventions import choose_layers

    if bool(names) == (audit is not None):
        raise SpecError(
            f"{'both --layers and --audit are' if names else 'neither --layers nor --audit is'} given. Expected one: names, or an audit to choose by. Pass for instance --layers conv4_2."
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
