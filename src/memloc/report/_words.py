"""Figures of tables as the report says them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

_SCALES = (("", 1.0), (", 10⁻³", 1e3), (", 10⁻⁶", 1e6))


def figure_text(value: object, digits: int) -> str:
    """A figure without a sign before zero; a dash where it is not known.

    >>> figure_text(-0.0001, 2), figure_text(-0.51, 1), figure_text(None, 2)
    ('0.00', '-0.5', '–')
    """
    number = as_number(value)
    if math.isnan(number):
        return "–"
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def scale_of(figures: Iterable[object]) -> tuple[str, float]:
    """A unit in which the figures of a table can be read, and what they are multiplied by.

    >>> scale_of([0.35, 0.0001]), scale_of([0.0004, None])
    (('', 1.0), (', 10⁻³', 1000.0))
    """
    known = [abs(number) for number in map(as_number, figures) if not math.isnan(number)]
    largest = max(known, default=0.0)
    return next((scale for scale in _SCALES if largest == 0 or largest * scale[1] >= 0.1), _SCALES[-1])


def as_number(value: object) -> float:
    """A figure of a table; NaN where there is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def percent(value: float) -> str:
    """A share in whole percent."""
    return f"{100 * value:.0f} %"


def rounded(value: object) -> float | None:
    """A figure to four digits; None where there is none."""
    number = as_number(value)
    return None if math.isnan(number) else float(f"{number:.4g}")


def plain(row: dict[Any, Any]) -> dict[str, Any]:
    """A row of a table as JSON holds it."""
    return {
        str(key): rounded(value) if isinstance(value, (float, np.floating)) else None if value is pd.NA else value
        for key, value in row.items()
    }
