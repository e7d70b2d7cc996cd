"""Check the documents: links lead somewhere, pages say what the figures say, commands named in them exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from render import renderings

ROOT = Path(__file__).parents[1]


def problems() -> list[str]:
    """What is wrong, one line each."""
    found = []
    for each in renderings(ROOT):
        if each.refused is not None:
            found.append(f"{each.target}: {each.refused}")
        elif each.text != each.now:
            found.append(f"{each.target} is not what the figures say: run make docs")
        for line in each.kept:
            print(f"{each.target}: stands on no figure of benchmarks/: {line}", file=sys.stderr)
    from memloc.cli import app

    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text()
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not link.startswith("http") and not (path.parent / link).exists():
                found.append(f"{path.relative_to(ROOT)}: link to {link} leads nowhere")
        for block in re.findall(r"```console\n(.*?)```", text, flags=re.S):
            for command in re.findall(r"^memloc (\w+)", block, flags=re.M):
                if command not in commands:
                    found.append(f"{path.relative_to(ROOT)}: there is no command memloc {command}")
    return found


if __name__ == "__main__":
    listed = problems()
    print("\n".join(listed) or "documents are in order")
    sys.exit(1 if listed else 0)
