"""memloc compare: whether two audits name the same points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._options import Given, with_settings
from memloc.errors import DataNotFoundError, SpecError


@with_settings(common=("as_json", "overwrite"))
def compare(
    first: Annotated[Path, typer.Argument(help="A folder that memloc audit wrote.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same images.")],
    settings: Given,
    k: Annotated[int | None, typer.Option(help="How many of the most memorized points; a tenth by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables between, within, splits and extremes.")
    ] = None,
) -> None:
    """Do two audits name the same points: overlap and Kendall's tau per layer, and t-tests between splits."""
    from memloc.engine import compare as compared
    from memloc.results import Audit, claim_folder, write_json, write_table

    for folder in (first, second):
        if not folder.exists():
            raise DataNotFoundError(
                f"there is no folder {str(folder)!r}. Expected one that memloc audit wrote. Check the path."
            )
    if k is not None and k < 1:
        raise SpecError(f"k is {k}. Expected at least 1. Pass --k 10.")
    audits = [Audit.load(folder) for folder in (first, second)]
    found = compared(*audits, k=k)
    tables = {name: getattr(found, name) for name in ("between", "within", "splits", "extremes")}
    if out is not None:
        claim_folder(
            out,
            {
                "first": audits[0].record.get("spec_hash"),
                "second": audits[1].record.get("spec_hash"),
                "k": found.record["k"],
            },
            overwrite=settings.overwrite,
        )
        for name, table in tables.items():
            write_table(out / f"{name}.parquet", table)
        write_json(out / "compare.json", {**found.record, "first": str(first), "second": str(second)})
    lines = [
        f"{found.record['points']} points in common, the {found.record['k']} most memorized of each"
        f" ({found.record['by_chance']:.0%} would be shared by chance)"
    ]
    if len(found.between):
        width = max(map(len, found.between["layer"])) + 2
        lines.append(f"{'layer':{width}}{'overlap':>8}  Kendall's tau")
        lines += [
            f"{row['layer']:{width}}{row['overlap']:8.0%}  {row['kendall']:+.3f}  95 % interval"
            f" {row['kendall_low']:+.3f} to {row['kendall_high']:+.3f}"
            for row in found.between.to_dict("records")
        ]
    lines += found.record["notes"]
    if out is not None:
        lines.append(str(out))
    common.emit(
        settings.as_json,
        {**found.record, **{name: table.to_dict("records") for name, table in tables.items()}},
        "\n".join(lines),
    )
