"""memloc value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._flags import WORK
from memloc.cli._options import Given, with_settings
from memloc.data import TableSpec
from memloc.errors import DataNotFoundError, SpecError, nearest_path
from memloc.valuation import PixelSpec, ValueSpec


@with_settings(ValueSpec, TableSpec, PixelSpec, common=("size", "max_bad", *WORK))
def value(
    table: Annotated[
        str,
        typer.Argument(
            help="A table (.csv, .tsv, .jsonl, .xlsx, .parquet, also packed), or labelled images: a folder, IDX, .npz,"
            " sample:train."
        ),
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
    spec = replace(
        spec,
        max_features=_share("max_features", spec.max_features, "0.5"),
        max_samples=None if spec.max_samples is None else _share("max_samples", spec.max_samples, "10000"),
    )
    if target is not None and not Path(table).expanduser().is_file() and not table.startswith("sample:"):
        where = Path(table).expanduser()
        what = f"{table!r} is a folder." if where.is_dir() else f"there is no file {table!r}.{nearest_path(where)}"
        raise DataNotFoundError(f"{what} Expected a table, since --target names a column of one. Check the path.")
    if is_table(table, target):
        clash = settings.flags("block", "region", "limit", "size")
        if clash:
            raise SpecError(
                f"{clash[0]} is for images and {table!r} is a table. Expected flags for tables. Leave {clash[0]} out."
            )
        work = table_work(table, target, spec, settings.of(TableSpec), repairing=repair, share=repair_share)
    else:
        if target is not None:
            raise SpecError(
                "--target is given for images. Expected none: images bring their labels. Leave --target out, or pass a"
                " .csv or .parquet table."
            )
        clash = settings.flags("drop", "only", "id", "categorical", "numeric", "na", "text")
        if clash:
            raise SpecError(
                f"{clash[0]} is for tables and {table!r} holds images. Expected flags for images. Leave {clash[0]} out."
            )
        if {"region", "max_features"} <= settings.named:
            raise SpecError("--region and --max-features are both given. Expected one. Leave one of them out.")
        work = image_work(
            table, spec, settings.of(PixelSpec), repairing=repair, size=settings.size, max_bad=settings.max_bad
        )
    if settings.dry_run:
        cost = work.cost()
        readings, notices = ([], []) if settings.as_json else (cost.pop("reading", []), cost.pop("notices", []))
        common.show_plan(settings.as_json, cost, out, table)
        for one in readings:
            print(f"column {one['column']}: {one['kind']} ({one['text']})")
        for notice in notices:
            print(f"notice: {notice}")
        return
    result = work.run(out, progress=settings.progress, overwrite=settings.overwrite)
    path = write_value_report(out)
    record = result.record
    found = {
        "out": str(out),
        "report": str(path),
        "oob_score": record["oob_score"],
        "learners": record["learners"],
        "suspects": [] if result.suspects is None else result.suspects.head(10).to_dict("records"),
        "checks": [] if result.checks is None else result.checks["text"].head(20).tolist(),
        "label_issues": record.get("label_issues"),
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


def _share(name: str, given: float | int | str, example: str) -> float | int | str:
    """Columns or rows of each learner, as typed."""
    text = str(given)
    if text == "sqrt" and name == "max_features":
        return text
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError as problem:
        flag = f"--{name.replace('_', '-')}"
        more = ", or sqrt" if name == "max_features" else ""
        raise SpecError(
            f"{flag} is {given!r}. Expected a share such as 0.5, or a whole number{more}. Pass {flag} {example}."
        ) from problem
