"""memloc statement: what a release may say of an audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memloc.cli import _common as common
from memloc.cli._options import Given, with_settings


@with_settings(common=("as_json", "overwrite"))
def statement(
    folder: Annotated[Path, typer.Argument(help="A folder that memloc audit wrote.")],
    settings: Given,
    out: Annotated[
        Path | None, typer.Option(help="The page, .html; .json beside it. FOLDER-statement.html by default.")
    ] = None,
) -> None:
    """Write one page for a release: what was audited, inference at fixed error rates, layers, points, assumptions."""
    from memloc.report import write_statement

    path = out or folder.with_name(f"{folder.resolve().name}-statement.html")
    path = write_statement(folder, path, overwrite=settings.overwrite)
    found = {"statement": str(path), "json": str(path.with_suffix(".json"))}
    common.emit(settings.as_json, found, f"statement: {path}")
