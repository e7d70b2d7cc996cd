"""Figures of tables as the report says them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd


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
