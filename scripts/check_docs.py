"""Check the documents: links lead somewhere, docs/tables.md is current, commands named in them exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from make_docs import TARGET, page

ROOT = Path(__file__).parents[1]


def problems() -> list[str]:
    """What is wrong, one line each."""
    found = [] if TARGET.read_text() == page() else ["docs/tables.md is not what the schema says: run make docs"]
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
