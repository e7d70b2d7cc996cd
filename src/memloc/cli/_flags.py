"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.encoders import ENCODER_NAMES

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else there.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan, forward passes, expected memory and time; do nothing.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Begin anew in --out: what memloc wrote there is removed, everything else stays."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", is_eager=True, callback=common.settings_from, help="TOML file with flags as keys."),
]
Size = Annotated[int | None, typer.Option(help="Bring every image to this many pixels (resize, centre crop).")]
MaxBad = Annotated[int, typer.Option(help="Unreadable images to accept; they are skipped and listed.")]
ENCODERS = f"{ENCODER_NAMES}."
StateKey = Annotated[
    str | None,
    typer.Option(help="Dictionary in the checkpoint that holds the weights, such as teacher; found by default."),
]
StripPrefix = Annotated[str | None, typer.Option(help="What the weights' names begin with; found by default.")]
Output = Annotated[
    str,
    typer.Option(
        help="Which tensor the encoder's output is: auto (the embedding it is used by), pooled, cls, tokens, or a name"
        " of what it returns."
    ),
]
Weights = Annotated[str | None, typer.Option(help="Checkpoint of ENCODER, or random.")]

Trust = Annotated[
    bool, typer.Option("--trust", help="Run the function that the folder names as its encoder: you know who made it.")
]

COMMON: dict[str, tuple[Any, Any]] = {  # options of several commands: their annotation and default
    "weights": (Weights, None),
    "state_key": (StateKey, None),
    "strip_prefix": (StripPrefix, None),
    "output": (Output, "auto"),
    "size": (Size, None),
    "max_bad": (MaxBad, 0),
    "device": (Device, "auto"),
    "trust": (Trust, False),
    "dry_run": (DryRun, False),
    "as_json": (Json, False),
    "overwrite": (Overwrite, False),
    "config": (Config, None),
}
ENCODER = ("weights", "state_key", "strip_prefix")
IMAGES = ("size", "max_bad", "device")
WORK = ("dry_run", "as_json", "overwrite", "config")
