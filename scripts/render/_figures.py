"""Figures as text: None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def shown(value: float | None, form: str = ".2f") -> str | None:
    """A number as text."""
    return None if value is None else format(value, form)


def interval(values: Iterable[float | None] | None, digits: int = 2) -> str | None:
    """An estimate with its interval."""
    if values is None:
        return None
    numbers = list(values)
    if len(numbers) != 3 or None in numbers:
        return None
    value, low, high = numbers
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def listed(values: Iterable[float | None], form: str, between: str) -> str | None:
    """Several numbers in one cell; None if one of them is missing."""
    texts = [shown(value, form) for value in values]
    return None if None in texts or not texts else between.join(text for text in texts if text is not None)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the numbers that are there."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


def at(found: Mapping[str, Any], *path: str) -> Any:
    """What lies at a path of keys, None where it ends before."""
    here: Any = found
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here
