"""Fill build/site-src, which mkdocs turns into the site: pages, and a reference made from the code. Then: make site"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "build/site-src"
ROOMS = (
    "memloc",
    "memloc.metrics",
    "memloc.views",
    "memloc.engine",
    "memloc.valuation",
    "memloc.coreset",
    "memloc.probe",
    "memloc.interventions",
    "memloc.integrations",
)
REPOSITORY = "https://github.com/memloc/memloc/blob/main/"
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def main() -> int:
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE / "docs")
    (SOURCE / "index.md").write_text((ROOT / "README.md").read_text())
    for name in PAGES:
        shutil.copy(ROOT / name, SOURCE / name)
    (SOURCE / "docs/decisions/index.md").write_text(decisions())
    (SOURCE / "reference").mkdir()
    (SOURCE / "reference/commands.md").write_text(commands())
    (SOURCE / "reference/python.md").write_text(python())
    for page in SOURCE.rglob("*.md"):
        page.write_text(linked(page))
    return 0


def linked(page: Path) -> str:
    """A page whose links to files that are no pages lead to the repository, and to folders to their first page."""
    text = page.read_text()
    home = page.parent.relative_to(SOURCE)

    def lead(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        there = (SOURCE / home / target).resolve()
        if target.startswith(("http", "mailto:")) or not target or there.is_file():
            return found[0]
        if (there / "index.md").is_file():
            return f"]({target.rstrip('/')}/index.md{anchor})"
        known = there.relative_to(SOURCE.resolve()) if there.is_relative_to(SOURCE.resolve()) else Path(target)
        if (ROOT / known).exists():
            return f"]({REPOSITORY}{known.as_posix()}{anchor})"
        return found[0]

    return re.sub(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", lead, text)


def decisions() -> str:
    """The list of decisions, by their titles."""
    lines = ["# Decisions\n"]
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        lines.append(f"- [{path.read_text().splitlines()[0].lstrip('# ')}]({path.name})")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command with its arguments and flags, from what `--help` shows."""
    from typer.main import get_command

    from memloc.cli import app

    parts = ["# Commands\n\nWritten from the commands themselves; `memloc COMMAND --help` shows the same.\n"]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        parts.append(f"## memloc {name}\n\n{' '.join((command.help or '').split())}\n\n| | what it is |\n|---|---|")
        for each in command.params:
            if each.name == "help":
                continue
            flag = (
                ", ".join(f"`{flag}`" for flag in each.opts)
                if each.param_type_name == "option"
                else f"`{(each.name or '').upper()}`"
            )
            text = " ".join((getattr(each, "help", None) or "").split()).replace("|", "\\|")
            parts.append(f"| {flag}{' **needed**' if each.required else ''} | {text} |")
        parts.append("")
    return "\n".join(parts)


def python() -> str:
    """Every public name with its signature and docstring."""
    parts = [
        "# Python\n\nWritten from the docstrings. Every public name of a room is imported from it, as in `from memloc.metrics import unitmem`.\n"
    ]
    shown: set[int] = set()
    for room in ROOMS:
        module = importlib.import_module(room)
        parts.append(f"## {room}\n\n{(inspect.getdoc(module) or '').splitlines()[0]}\n")
        for name, value in public(module):
            if id(value) in shown:
                continue
            shown.add(id(value))
            parts.append(
                f"### {name}\n\n```python\n{signature(name, value)}\n```\n\n{body(inspect.getdoc(value) or '')}\n"
            )
    return "\n".join(parts)


def public(module: object) -> Iterator[tuple[str, object]]:
    """Functions and classes of a room, in the order of their names."""
    for name in sorted(module.__all__):  # type: ignore[attr-defined]
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value


def signature(name: str, value: object) -> str:
    """A name with its arguments, one a line where they are many."""
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        text = "(...)"
    text = re.sub(r"<factory>|<function [^>]*>", "...", text).replace("'", "")
    if len(text) > 90:  # an argument a line; commas within brackets stand
        text = re.sub(r", (?=\w+:|\*|/|\w+=|\w+\))", ",\n    ", text).replace("(", "(\n    ", 1)
    return f"{'class ' if inspect.isclass(value) else ''}{name}{text}"


def body(text: str) -> str:
    """A docstring as Markdown: examples as code, argument lists as they stand."""
    plain, _, example = text.partition("\n>>> ")
    parts = [f"```text\n{plain.strip()}\n```"] if "\nArgs:" in plain or "\nAttributes:" in plain else [plain.strip()]
    if example:
        parts.append(f"```pycon\n>>> {example.strip()}\n```")
    return "\n\n".join(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main())
