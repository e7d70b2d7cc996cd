"""One HTML page that works without a network: template, style and script in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

from memloc.errors import SpecError
from memloc.report._words import as_number, figure_text
from memloc.results import as_memloc_wrote, listed_files, locked, make_folder, replacing


def page(template: str, script: str, **content: Any) -> str:
    """Fill a template of this room; everything but Markup is escaped, and a missing name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("memloc", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    css, javascript = (
        Markup(files("memloc.report").joinpath(name).read_text("utf-8")) for name in ("report.css", script)
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hashed(css)}; script-src {_hashed(javascript)};"
        " base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(**content, css=css, script=javascript, policy=Markup(policy))


def _hashed(text: str) -> str:
    """What a Content-Security-Policy lets run or style the page: this text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write_page(path: str | Path, make: Callable[[], str], *, folder: str | Path | None = None) -> Path:
    """Write what `make` returns to an HTML file, whole or not at all; the folder is looked at first.

    Args:
        folder: where its figures were read from.
    Raises:
        SpecError: it is a folder. OutputError: the file cannot be written. ResultsError: the figures are none that
            memloc wrote.
    """
    path = Path(path)
    if path.is_dir():
        raise SpecError(f"{str(path)!r} is a folder. Expected a file to write. Pass --out {path / 'report.html'}.")
    if path.suffix.lower() not in (".html", ".htm"):
        raise SpecError(f"{str(path)!r} is no name of a page. Expected .html. Pass --out {path.with_suffix('.html')}.")
    make_folder(path.parent)
    content = _made(make, folder)
    ours = listed_files(path.parent) is not None  # a folder of memloc's lists the page, one process at a time
    with locked(path.parent) if ours else nullcontext(), replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
    return path


def _made(make: Callable[[], str], folder: str | Path | None) -> str:
    """The page; of figures that no manifest vouches for, whatever is wrong with them is one error."""
    if folder is None:
        return make()
    with as_memloc_wrote(folder):
        return make()


def _figure(value: object, digits: int = 3, by: float = 1) -> str:
    return figure_text(value if by == 1 else as_number(value) * by, digits)
