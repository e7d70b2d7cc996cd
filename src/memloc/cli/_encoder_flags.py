"""Flags of commands that act on an encoder, and what a person reads of the record of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._flags import ENCODERS
from memloc.cli._options import Given

if TYPE_CHECKING:
    from memloc.probe import Named

EncoderName = Annotated[str, typer.Argument(help=ENCODERS)]
Train = Annotated[str | None, typer.Option(help="Labelled images to fit a linear probe on, before and after.")]
Test = Annotated[str | None, typer.Option(help="Labelled images to test that probe on.")]
Out = Annotated[Path, typer.Option(help="Folder for the new checkpoint and the record; the input is left as it is.")]
AuditFolder = Annotated[Path | None, typer.Option("--audit", help="A folder that memloc audit wrote for this encoder.")]


def named(settings: Given, encoder: str, train: str | None = None, test: str | None = None) -> Named:
    """The encoder and the probe's images as the flags say."""
    from memloc.probe import Named

    return Named(
        encoder,
        settings.weights,
        settings.state_key,
        settings.strip_prefix,
        train,
        test,
        settings.size,
        settings.max_bad,
        settings.device,
        settings.output,
    )


def show(settings: Given, record: dict[str, Any], out: Path, *lines: str, run: Path | None = None) -> None:
    """The record of an act on standard output: as JSON, or what a person reads of it."""
    common.emit(settings.as_json, {"out": str(out), **record}, _told(record, out, *lines, run=run))


def _told(record: dict[str, Any], out: Path, *lines: str, run: Path | None = None) -> str:
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
