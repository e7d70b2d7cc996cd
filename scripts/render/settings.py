"""docs/settings.md, from the settings dataclasses."""

from __future__ import annotations

from typer.main import get_command

from memloc.cli import app
from memloc.coreset import CoresetSpec, RobustSpec, SelectionSpec
from memloc.engine import Options, ViewOptions
from memloc.interventions import FinetuneSpec, InsertSpec, LayerSpec, PruneSpec, RemoveSpec
from memloc.pretrain import TrainSpec
from memloc.probe import DejavuSpec, ProbeSpec
from memloc.settings import settings_of
from memloc.valuation import PixelSpec, ValueSpec

COMMANDS = {
    "train": (TrainSpec,),
    "audit": (ViewOptions, Options),
    "value": (ValueSpec, PixelSpec),
    "coreset": (CoresetSpec, SelectionSpec, RobustSpec),
    "probe": (ProbeSpec,),
    "dejavu": (DejavuSpec,),
    "replace": (LayerSpec,),
    "finetune": (LayerSpec, FinetuneSpec),
    "prune": (PruneSpec,),
    "insert": (InsertSpec,),
    "remove": (RemoveSpec,),
}


def page() -> str:
    """The page, as text."""
    lines = [
        "# Settings",
        "",
        "Written from the settings dataclasses by `make docs`. A flag's name without dashes is its key in a TOML file (`--config`), and with",
        "underscores the field of the dataclass. `memloc COMMAND --help` shows the flags that are no settings, such as `--out`.",
        "",
    ]
    parsed = get_command(app).commands
    options = {name: {each.name: each.default for each in parsed[name].params} for name in COMMANDS}
    for command, kinds in COMMANDS.items():
        lines += [f"## memloc {command}", "", "| flag | default | limits | what it is |", "|---|---|---|---|"]
        seen: set[str] = set()
        for known in (each for kind in kinds for each in settings_of(kind)):
            if known.name not in seen and known.name in options[command]:
                seen.add(known.name)
                lines.append(
                    f"| `{known.flag}` | {_default(options[command][known.name])} | {known.limits} | {known.setting.text} |"
                )
        lines.append("")
    return "\n".join(lines)


def _default(usual: object) -> str:
    return "" if usual is None else f"{usual}"
