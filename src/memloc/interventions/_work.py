"""Acts on an encoder that a user named, from settings to a record in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from memloc.data import Images, open_images
from memloc.encoders import fingerprint, save_weights
from memloc.errors import SpecError
from memloc.interventions._finetune import check_finetune, finetune_layers
from memloc.interventions._inputs import audit_of, prints, run_of
from memloc.interventions._insert import INSERT_SCORED, INSERT_VIEWS, check_insert, images_around, insert_point
from memloc.interventions._layers import layers_asked, replace_layers
from memloc.interventions._plans import measured, probing
from memloc.interventions._prune import choose_units, prune_units
from memloc.interventions._remove import choose_points, encoder_named, remove_and_record
from memloc.interventions._specs import FinetuneSpec, InsertSpec, LayerSpec, PruneSpec, RemoveSpec
from memloc.interventions._write import Result, intervene
from memloc.probe import Named, opened, planned
from memloc.progress import Report
from memloc.results import keep_apart
from memloc.runs import images_of, open_run


@dataclass(frozen=True)
class Work:
    """An act whose inputs were opened and checked, and of which nothing is done yet.

    Attributes:
        cost: passes, expected seconds and memory, and what was chosen.
        do: does it, given a folder, a progress report and whether other work in the folder is replaced; returns the
            record, also written as intervention.json.
        run: the training run that the encoder is f of, if any.
    """

    cost: Callable[[], dict[str, Any]]
    do: Callable[[Path, Report, bool], dict[str, Any]]
    run: Path | None = None


def replace_work(
    named: Named, donor: str, spec: LayerSpec, *, donor_weights: str | None = None, audit: Path | None = None, out: Path
) -> Work:
    """Layers of another encoder in place of an encoder's own, with a probe before and after.

    Args:
        donor: the other encoder's name. audit: the audit that layers are chosen by, where none are named.
    """
    keep_apart(out, *named.paths, donor, donor_weights, audit)
    source, metadata, parts = named.opened_with_probe()
    other, _ = opened(donor, donor_weights, images=parts and parts[0])
    chosen, how = layers_asked(source, spec, audit)
    measure = measured(source, parts, named.device, spec.seed)
    result = replace_layers(source, other, chosen)  # cheap, and finds what does not fit before any folder is made
    asked = {
        "layers": chosen,
        "from": donor,
        "from_fingerprint": fingerprint(other.module),
        **how,
        "seed": spec.seed,
        **_probed(named, parts),
    }
    return Work(
        lambda: probing(source, parts, layers=chosen),
        lambda folder, _, overwrite: intervene(
            "replace",
            source,
            metadata,
            asked,
            lambda: (result, {}, {}),
            out=folder,
            measure=measure,
            overwrite=overwrite,
        ),
        run_of(named.encoder),
    )


def finetune_work(
    named: Named,
    layers: LayerSpec,
    spec: FinetuneSpec,
    *,
    audit: Path | None = None,
    head_only: bool = False,
    out: Path,
) -> Work:
    """Chosen layers and a linear head trained on labelled images.

    Args:
        named: with images to train and to test on. head_only: whether the head is trained alone.
    """
    keep_apart(out, *named.paths, audit)
    source, metadata, parts = named.opened_with_probe()
    if parts is None:
        raise SpecError("there are no labelled images. Expected some to train and to test on. Pass --train and --test.")
    if head_only and (layers.layers or audit is not None):
        raise SpecError("--head-only is given with layers to train. Expected one or the other. Leave --head-only out.")
    chosen, how = ([], {}) if head_only else layers_asked(source, layers, audit)
    training = asdict(spec)
    check_finetune(source, *parts, layers=chosen, policy=spec.policy)

    def cost() -> dict[str, Any]:
        trained = spec.epochs * len(parts[0])
        return planned(source, parts[0], forward=trained + len(parts[1]), backward=trained, layers=chosen)

    def do(folder: Path, progress: Report, overwrite: bool) -> dict[str, Any]:
        def act() -> Result:
            tuned = finetune_layers(source, *parts, layers=chosen, device=named.device, progress=progress, **training)
            save_weights(folder / "head.safetensors", tuned.head, {"format": "memloc"})
            more = {"accuracy": tuned.accuracy.to_dict(), "history": tuned.history, "head": "head.safetensors"}
            return tuned.encoder, {**more, "trained_parameters": tuned.trained[0], "parameters": tuned.trained[1]}, {}

        asked = {"layers": chosen, **how, **training, **_probed(named, parts)}
        return intervene("finetune", source, metadata, asked, act, out=folder, overwrite=overwrite)

    return Work(cost, do, run_of(named.encoder))


def prune_work(named: Named, audit: Path, spec: PruneSpec, *, out: Path) -> Work:
    """Units of top, low or random UnitMem silenced, with a probe before and after."""
    keep_apart(out, *named.paths, audit)
    source, metadata, parts = named.opened_with_probe()
    audited = audit_of(source, audit, units=True)
    chosen = asdict(spec)
    units = choose_units(source, audited.units, **chosen)
    counts = units.groupby("layer", sort=False).size().to_dict()
    measure = measured(source, parts, named.device, spec.seed)
    asked = {"audit": audited.record.get("spec_hash"), **chosen, **_probed(named, parts)}

    def do(folder: Path, _: Report, overwrite: bool) -> dict[str, Any]:
        def act() -> Result:
            return prune_units(source, units), {"pruned": counts}, {"units": units}

        return intervene("prune", source, metadata, asked, act, out=folder, measure=measure, overwrite=overwrite)

    return Work(lambda: probing(source, parts, units=counts), do, run_of(named.encoder))


def insert_work(named: Named, data: str, spec: InsertSpec, *, point: str, layer: str, unit: int, out: Path) -> Work:
    """One unit trained on one point.

    Args:
        data: images, the point among them. point: its name or id, as text.
    """
    keep_apart(out, *named.paths, data)
    images = open_images(data, size=named.fit(), max_bad=named.max_bad)
    some, number = images_around(images, point, limit=spec.limit, seed=spec.seed, where=data)
    source, metadata = named.opened(some)
    training = {"layer": layer, "unit": unit, **spec.training()}
    check_insert(source, some, number, layer=layer, unit=unit, policy=spec.policy)

    def cost() -> dict[str, Any]:
        trained = spec.steps * INSERT_VIEWS
        forward = trained + 2 * INSERT_SCORED * len(some)
        return planned(source, some, forward=forward, backward=trained, point=number, layer=layer, unit=unit)

    def do(folder: Path, progress: Report, overwrite: bool) -> dict[str, Any]:
        def act() -> Result:
            found = insert_point(source, some, number, device=named.device, progress=progress, **training)
            return found.encoder, _inserted(found.units, unit, found.loss), {"units": found.units}

        asked = {
            "data": data,
            "fingerprint": some.fingerprint(),
            "size": named.size,
            "point": number,
            "limit": spec.limit,
            **training,
        }
        return intervene("insert", source, metadata, asked, act, out=folder, overwrite=overwrite)

    return Work(cost, do)


def _inserted(units: pd.DataFrame, unit: int, loss: tuple[float, float]) -> dict[str, Any]:
    """What a record says of an insertion."""
    table = units.set_index("unit")
    change = (table["unitmem_after"] - table["unitmem_before"]).abs()
    line = table.loc[unit]
    found = {
        "unitmem_before": line["unitmem_before"],
        "unitmem_after": line["unitmem_after"],
        "point_before": int(line["point_before"]),
        "point_after": int(line["point_after"]),
        "largest_other_change": float(change.drop(index=unit).max()) if len(change) > 1 else 0.0,
        "loss": list(loss),
    }
    if found["unitmem_after"] <= found["unitmem_before"]:
        found["warnings"] = ["The unit's UnitMem did not rise. Try more --steps, or a lower --learning-rate."]
    return found


def remove_work(
    run: Path,
    audit: Path,
    count: int,
    spec: RemoveSpec,
    *,
    train: str | None = None,
    test: str | None = None,
    max_bad: int = 0,
    device: str = "auto",
    trust: bool = False,
    out: Path,
) -> Work:
    """An encoder of a run trained again without some points, with a probe of both.

    Args:
        audit: of that run. count: points to remove. train, test: labelled images of the probe; both or neither.
        trust: as in `open_run`.
    """
    keep_apart(out, run, audit, train, test)
    loaded = open_run(run, trust=trust)
    name = encoder_named(loaded, spec.encoder)
    audited = audit_of(loaded.encoders[name], audit)
    gone = choose_points(loaded, audited.points, count, order=spec.order, encoder=name, seed=spec.seed)
    named = Named(name, train=train, test=test, size=loaded.record["size"], max_bad=max_bad, device=device)
    parts = named.labelled(named.size)
    measure = measured(loaded.encoders[name], parts, device, spec.seed)
    asked = {
        "run": str(run),
        "audit": audited.record.get("spec_hash"),
        "count": count,
        "order": spec.order,
        "encoder": name,
        "seed": spec.seed,
        "train": train,
        "test": test,
        **prints(parts),
    }

    def cost() -> dict[str, Any]:
        images, _ = images_of(loaded)
        slots = loaded.record["spec"]["epochs"] * int(loaded.membership[name].sum() - len(gone)) * 2
        probed = 0 if parts is None else 2 * (len(parts[0]) + len(parts[1]))
        return planned(loaded.encoders[name], images, forward=slots + probed, backward=slots, removed=gone)

    def do(folder: Path, progress: Report, overwrite: bool) -> dict[str, Any]:
        return remove_and_record(
            loaded,
            gone,
            asked,
            encoder=name,
            out=folder,
            measure=measure,
            device=device,
            progress=progress,
            overwrite=overwrite,
        )

    return Work(cost, do)


def _probed(named: Named, parts: tuple[Images, Images] | None) -> dict[str, Any]:
    """What a record says of the images of a probe."""
    return {"size": named.size, "train": named.train, "test": named.test, **prints(parts)}
