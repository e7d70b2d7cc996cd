"""Shape annotations, checked once for each combination of types, element types and shapes of arguments and result.

A check depends on nothing else, and tests call the formulas hundreds of thousands of times with the same ones.
"""

from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from functools import partial, wraps
from typing import Any

import jaxtyping
import torch

PLAIN = (int, float, complex)  # of which no annotation names values


class UnknownError(Exception):
    """A container: its check depends on what it holds."""


def check(modules: list[str]) -> None:
    """From now on, functions of these modules are checked by jaxtyping and beartype as they are imported."""
    real = jaxtyping.jaxtyped

    def jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
        if function is None:
            return partial(jaxtyped, typechecker=typechecker)
        checked = real(function, typechecker=typechecker)
        return (
            checked if isinstance(function, type | classmethod | staticmethod | property) else once(function, checked)
        )

    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook(modules, "beartype.beartype")


def once(function: Callable, checked: Callable) -> Callable:
    """The checked function where kinds of arguments or of the result are new, else the function itself."""
    passed = set()

    @wraps(function)
    def found(*arguments: Any, **named: Any) -> Any:
        try:
            kinds = (*map(kind, arguments), *named, *map(kind, named.values()))
            if kinds in passed:
                result = function(*arguments, **named)
                if (kinds, kind(result)) in passed:
                    return result
        except UnknownError:
            return checked(*arguments, **named)
        result = checked(*arguments, **named)
        if not jaxtyping.config.jaxtyping_disable:
            with suppress(UnknownError):
                passed.update({(kinds, kind(result)), kinds})
        return result

    return found


def kind(value: Any) -> Hashable:
    """All that a check of a value depends on."""
    cls = type(value)
    if cls is torch.Tensor:
        return value.dtype, value.shape
    if value is None or cls in PLAIN:
        return cls
    if isinstance(value, tuple):
        return cls, *map(kind, value)
    if cls in (str, bool):
        return value
    if isinstance(value, Collection):
        raise UnknownError
    return cls
