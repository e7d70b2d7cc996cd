"""Flags of commands that act on an encoder, and what a person reads of the record of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memloc.cli._flags import ENCODERS

EncoderName = Annotated[str, typer.Argument(help=ENCODERS)]
Train = Annotated[str | None, typer.Option(help="Labelled images to fit a linear probe on, before and after.")]
Test = Annotated[str | None, typer.Option(help="Labelled images to test that probe on.")]
Out = Annotated[Path, typer.Option(help="Folder for the new checkpoint and the record; the input is left as it is.")]
Layers = Annotated[list[str] | None, typer.Option(help="Layers by name; repeat for more.")]
Seed = Annotated[int, typer.Option(help="Of random choices and of training.")]
AuditFolder = Annotated[Path | None, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder.")]
By = Annotated[str, typer.Option(help="With --audit: delta, layermem or random.")]
Order = Annotated[str, typer.Option(help="With --audit: highest or lowest.")]
Count = Annotated[int, typer.Option(help="With --audit: how many layers.")]


def told(record: dict[str, Any], out: Path, *lines: str, run: Path | None = None) -> str:
    """What a person reads of an intervention's record."""
    found = [*lines, *(f"warning: {text}" for text in record.get("warnings", []))]
    if "probe" in record:
        probe = record["probe"]
        found.append(
            f"linear probe: {_figure(probe['before'])} before, {_figure(probe['after'])} after; change"
            f" {probe['change']:+.3f} (95 % interval {probe['low']:+.3f} to {probe['high']:+.3f}, over test images)"
        )
    found += [f"checkpoint: {out / record['checkpoint']}", f"record: {out / 'intervention.json'}"]
    return "\n".join(
        found
        if run is None
        else [
            *found,
            f"what it did to memorization: memloc audit {run} --f {out / record['checkpoint']} --out {out}-audit",
        ]
    )


def _figure(probe: dict[str, Any]) -> str:
    return f"{probe['accuracy']:.3f} [{probe['low']:.3f}, {probe['high']:.3f}]"
