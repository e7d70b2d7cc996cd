"""memloc value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._flags import WORK
from memloc.cli._options import Given, with_settings
from memloc.errors import SpecError
from memloc.valuation import PixelSpec, ValueSpec


@with_settings(ValueSpec, PixelSpec, common=("size", "max_bad", *WORK))
def value(
    table: Annotated[
        str,
        typer.Argument(help="A .csv, .tsv or .parquet table, or labelled images: a folder, IDX, .npz, sample:train."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the report.")],
    settings: Given,
    target: Annotated[str | None, typer.Option(help="The column to predict; images bring their labels.")] = None,
    repair: Annotated[str | None, typer.Option(help="Also repair the lowest cells: median or model.")] = None,
    repair_share: Annotated[float, typer.Option(help="Share of cells to repair.")] = 0.05,
) -> None:
    """Value every cell and row of a labelled table (2D-OOB): which help a model and which hurt it."""
    from memloc.data import is_table
    from memloc.report import write_value_report
    from memloc.valuation import image_work, table_work

    spec = settings.of(ValueSpec)
    spec = replace(spec, max_features=_share(spec.max_features))
    if is_table(table, target):
        clash = settings.flags("block", "region", "limit", "size")
        if clash:
            raise SpecError(
                f"{clash[0]} is for images and {table!r} is a table. Expected flags for tables. Leave {clash[0]} out."
            )
        work = table_work(table, target, spec, repairing=repair, share=repair_share)
    else:
        if target is not None:
            raise SpecError(
                "--target is given for images. Expected none: images bring their labels. Leave --target out, or pass a"
                " .csv or .parquet table."
            )
        if {"region", "max_features"} <= settings.named:
            raise SpecError("--region and --max-features are both given. Expected one. Leave one of them out.")
        work = image_work(
            table, spec, settings.of(PixelSpec), repairing=repair, size=settings.size, max_bad=settings.max_bad
        )
    if settings.dry_run:
        cost = work.cost()
        common.show_plan(settings.as_json, cost, out, table)
        return
    result = work.run(out, progress=settings.progress, overwrite=settings.overwrite)
    path = write_value_report(out)
    record = result.record
    found = {
        "out": str(out),
        "report": str(path),
        "oob_score": record["oob_score"],
        "learners": record["learners"],
        "worst_rows": record["worst_rows"][:10],
        "worst_cells": record["worst_cells"][:10],
        "repair": record.get("repair"),
        "repaired": str(out / "repaired.parquet") if repair else None,
        "warnings": record["warnings"],
    }
    for warning in [] if settings.as_json else record["warnings"]:
        common.say(f"warning: {warning}")
    lines = [*record["answer"], *([f"repaired table: {found['repaired']}"] if repair else []), f"report: {path}"]
    common.emit(settings.as_json, found, "\n".join(lines))


def _share(given: float | int | str) -> float | int | str:
    """The columns of each learner, as typed."""
    text = str(given)
    if text == "sqrt":
        return text
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError as problem:
        raise SpecError(
            f"--max-features is {given!r}. Expected a share such as 0.5, a whole number, or sqrt. Pass --max-features"
            " 0.5."
        ) from problem
