"""One HTML page that works without a network: template, style and script in one file."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


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
    return environment.get_template(template).render(**content, css=css, script=javascript)


def _figure(value: object, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
