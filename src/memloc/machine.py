"""What of this machine a process may use, and how it runs here."""

from __future__ import annotations

import types
from typing import Any


def cores() -> int:
    """Processor cores that this process may use: those of its affinity and its container, where they are fewer.

    >>> cores() >= 1
    True
    """
    from joblib import cpu_count

    return int(cpu_count())


def own_version() -> str:
    """The version of memloc; "unpackaged" where it runs from a folder of sources, beside which no version lies.

    >>> bool(own_version())
    True
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("memloc")
    except PackageNotFoundError:
        return "unpackaged"


def own_code(function: Any) -> Any:
    """A function with a code object of its own, by which a compiler keeps its results: each has room for as many
    shapes as any function.

    >>> def double(x):
    ...     return 2 * x
    >>> own_code(double)(4), own_code(double).__code__ is double.__code__
    (8, False)
    """
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
