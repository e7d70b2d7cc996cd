"""The command line: parse, call one function, print a path."""

from __future__ import annotations

from typing import Annotated

import typer

from memloc.cli import (
    _audit,
    _common,
    _compare,
    _coreset,
    _dejavu,
    _demo,
    _finetune,
    _insert,
    _inspect,
    _probe,
    _prune,
    _remove,
    _replace,
    _statement,
    _train,
    _value,
)

app = typer.Typer(
    name="memloc",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find which data points a vision encoder has memorized, in which layers and units, and what to do about it.",
)
for command in (
    _demo.demo,
    _train.train,
    _audit.audit,
    _audit.report,
    _statement.statement,
    _value.value,
    _coreset.coreset,
    _probe.probe,
    _compare.compare,
    _dejavu.dejavu,
    _replace.replace,
    _finetune.finetune,
    _prune.prune,
    _insert.insert,
    _remove.remove,
    _inspect.layers,
    _inspect.convert,
    _inspect.doctor,
    _inspect.export,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from memloc.machine import own_version

        typer.echo(f"memloc {own_version()}")
        raise typer.Exit


@app.callback()
def _root(
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    >>> main(["--version"])  # doctest: +ELLIPSIS
    memloc ...
    0
    """
    return _common.run(app, arguments)
