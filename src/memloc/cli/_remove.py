"""memloc remove: train an encoder again without some of its points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._acting import (
    Test,
    Train,
    audit_of,
    keep_apart,
    labelled,
    measured,
    planned,
    prints,
    told,
)
from memloc.cli._flags import Config, Device, DryRun, Json, MaxBad, Overwrite

if TYPE_CHECKING:
    pass


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
    from memloc.probe import paired_difference
    from memloc.results import SCHEMA_VERSION, read_json, write_json, write_table
    from memloc.runs import images_of, open_run

    keep_apart(out, run, audit, train, test)
    loaded = open_run(run)
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
