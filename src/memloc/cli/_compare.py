"""memloc compare: whether two audits name the same points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._options import Given, with_settings


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
    from memloc.engine import compare_folders

    found = compare_folders(first, second, k=k, out=out, overwrite=settings.overwrite)
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
        {**found.record, **{name: table.to_dict("records") for name, table in found.tables().items()}},
        "\n".join(lines),
    )
