"""docs/settings.md, from the settings dataclasses."""

from __future__ import annotations

from memloc.coreset import CoresetSpec, RobustSpec, SelectionSpec
from memloc.engine import Options, ViewOptions
from memloc.pretrain import TrainSpec
from memloc.settings import KnownSetting, settings_of
from memloc.valuation import PixelSpec, ValueSpec

COMMANDS = {
    "train": (TrainSpec,),
    "audit": (ViewOptions, Options),
    "value": (ValueSpec, PixelSpec),
    "coreset": (CoresetSpec, SelectionSpec, RobustSpec),
}


def page() -> str:
    """The page, as text."""
    lines = [
        "# Settings",
        "",
        "Written from the settings dataclasses by `make docs`. A flag's name without dashes is its key in a TOML file (`--config`), and with",
        "underscores the argument of the Python function. `memloc COMMAND --help` shows the flags that are no settings, such as `--out`.",
        "",
    ]
    for command, kinds in COMMANDS.items():
        lines += [f"## memloc {command}", "", "| flag | default | limits | what it is |", "|---|---|---|---|"]
        seen: set[str] = set()
        for known in (each for kind in kinds for each in settings_of(kind)):
            if known.name not in seen:
                seen.add(known.name)
                lines.append(f"| `{known.flag}` | {_default(known)} | {known.limits} | {known.setting.text} |")
        lines.append("")
    return "\n".join(lines)


def _default(known: KnownSetting) -> str:
    return "" if known.default is None else f"{known.default}"
