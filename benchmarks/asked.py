"""What a benchmark is asked for on its command line; `--help` prints its own first lines and does nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence


def parser(text: str | None) -> argparse.ArgumentParser:
    """A parser that shows the docstring of a script as it stands."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def names(text: str | None, known: Iterable[str], given: Sequence[str] | None = None) -> list[str]:
    """The names that are asked for, all if none is; another name ends the script before anything runs."""
    found, known = parser(text), list(known)
    listed = ", ".join(known).replace("%", "%%")
    found.add_argument("names", nargs="*", metavar="NAME", help=f"{listed}; all by default")
    return checked(found, found.parse_args(given).names, known) or known


def checked(found: argparse.ArgumentParser, given: list[str], known: Iterable[str]) -> list[str]:
    """The names, if each is known."""
    expected = list(known)
    strange = [name for name in given if name not in expected]
    if strange:
        found.error(f"there is no {strange[0]}. Expected: {', '.join(expected)}")
    return given
