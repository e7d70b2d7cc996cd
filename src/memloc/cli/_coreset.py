"""memloc coreset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._flags import IMAGES, WORK
from memloc.cli._options import Given, with_settings
from memloc.coreset import CoresetSpec, RobustSpec, SelectionSpec
from memloc.data import TableSpec
from memloc.errors import SpecError

_IMAGES = (
    "encoder", "weights", "epochs", "warmup", "every", "batch_size", "learning_rate", "momentum", "weight_decay",
    "schedule", "mixup", "augmentation", "precision", "size",
)  # fmt: skip
_TABLES = (
    "truth", "learner", "rounds", "folds", "drop", "only", "id", "categorical", "numeric", "na", "text",
)  # fmt: skip


@with_settings(
    CoresetSpec,
    SelectionSpec,
    RobustSpec,
    TableSpec,
    leave_out=("device", "momentum", "weight_decay"),
    defaults={"precision": "auto"},
    common=(*IMAGES, *WORK),
)
def coreset(
    data: Annotated[
        str,
        typer.Argument(
            help="Labelled images: a folder, .parquet, IDX, .npz, sample:train; or a table (.csv, .tsv, .jsonl, .xlsx,"
            " .parquet, also packed) with --target."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables, model and report; an interrupted run is continued.")],
    settings: Given,
    target: Annotated[str | None, typer.Option(help="Tables: the column to predict.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="centrality (by default, by gradient) or facility_location (by representation; picks more wrong labels"
            " than chance)."
        ),
    ] = None,
    group_by: Annotated[str | None, typer.Option(help="prediction (by default), label or none.")] = None,
    test: Annotated[str | None, typer.Option(help="Images or a table for accuracy, never trained on.")] = None,
    scores: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of an audit or of memloc value of the same points, to compare with; repeat for more."
        ),
    ] = None,
) -> None:
    """Train on the points whose labels can be trusted (CRUST), and list those whose labels cannot."""
    from memloc.coreset import CoresetWork
    from memloc.data import is_table
    from memloc.report import write_coreset_report

    spec = settings.of(CoresetSpec)
    crust = spec.crust(objective, group_by, **settings.kept(SelectionSpec), random_state=settings["seed"])
    table = target is not None or is_table(data, target)
    clash = settings.flags(*(_IMAGES if table else _TABLES))
    if clash:
        kinds = ("images", "a table") if table else ("tables", "images")
        raise SpecError(
            f"{clash[0]} is for {kinds[0]} and {data!r} is {kinds[1]}. Expected other flags. Leave {clash[0]} out."
        )
    robust = RobustSpec(**settings.kept(RobustSpec), device=settings.device)
    work = CoresetWork(
        data,
        spec,
        robust,
        crust,
        table=table,
        target=target,
        columns=settings.of(TableSpec),
        test=test,
        scores=scores or [],
        size=settings.size,
        max_bad=settings.max_bad,
    )
    if settings.dry_run:
        cost = work.cost()
        common.show_plan(settings.as_json, cost, out, data, test, *(scores or []))
        return
    found = work.run(out, progress=settings.progress, overwrite=settings.overwrite)
    path = write_coreset_report(out)
    record, epochs = found.record, found.tables.get("epochs")
    result = {
        "out": str(out),
        "report": str(path),
        "points": record["points"],
        "selected": len(found.tables["coreset"]),
        "suspected": found.suspected(),
        "model": str(out / record["saved"]) if "saved" in record else None,
        "agreement": record["agreement"],
        "warnings": record["warnings"],
        "last": None if epochs is None else epochs.iloc[-1].to_dict(),
    }
    for warning in [] if settings.as_json else record["warnings"]:
        common.say(f"warning: {warning}")
    common.emit(settings.as_json, result, "\n".join([*record["answer"], f"report: {path}"]))
