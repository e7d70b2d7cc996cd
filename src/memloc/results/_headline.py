"""The one choice of the figure that decides what an audit found in its layers."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import pandas as pd

_TAIL = 0.025  # beyond either end of a 95 % interval


@dataclass(frozen=True)
class Headline:
    """A figure of layers.parquet with its columns.

    Attributes:
        figure, se, low, high: the columns of its value, error and interval. name: in words.
        needs: by the mode of an audit, the splits of which one must be there.
    """

    figure: str
    se: str
    low: str
    high: str
    name: str
    needs: dict[str, tuple[str, ...]]


HEADLINES = (  # the first that is known decides
    Headline(
        "layermem_calibrated",
        "calibrated_se",
        "calibrated_low",
        "calibrated_high",
        "membership effect",
        {"pair": ("independent",), "ensemble": ("candidate",)},
    ),
    Headline(
        "layermem_own", "own_se", "own_low", "own_high", "LayerMem above external points", {"pair": ("external",)}
    ),
    Headline("alignment_gap", "gap_se", "gap_low", "gap_high", "alignment gap", {"alone": ("external",)}),
)


def headline(layers: pd.DataFrame) -> Headline | None:
    """The figure that decides for these layers; None where none is known.

    >>> headline(pd.DataFrame({"layermem_calibrated": [float("nan")], "alignment_gap": [0.1]})).name
    'alignment gap'
    """
    return next((each for each in HEADLINES if each.figure in layers and layers[each.figure].notna().any()), None)


def lower_bounds(layers: pd.DataFrame) -> pd.Series:
    """What the figure that decides lies above in each layer, right for all layers at once; NaN where nothing is known.

    The column `simultaneous_low`; of folders of memloc 0.1, which lack it, the lower half of each 95 % interval widened
    by Bonferroni's rule.

    >>> layers = pd.DataFrame({"alignment_gap": [0.1, 0.1], "gap_low": [0.02, 0.005]})
    >>> lower_bounds(layers).round(3).tolist()
    [0.009, -0.009]
    """
    if "simultaneous_low" in layers:
        return pd.to_numeric(layers["simultaneous_low"], errors="coerce")
    found = headline(layers)
    if found is None:
        return pd.Series(float("nan"), index=layers.index)
    one, all_of_them = (NormalDist().inv_cdf(1 - _TAIL / count) for count in (1, max(len(layers), 1)))
    value, low = (pd.to_numeric(layers[name], errors="coerce") for name in (found.figure, found.low))
    return value - (value - low) * all_of_them / one


def shown_in(layers: pd.DataFrame) -> pd.Series:
    """Whether memorization shows in each layer, all of them looked at: the one rule of the answer, the next steps and
    the gate.

    >>> shown_in(pd.DataFrame({"alignment_gap": [0.1, 0.1], "gap_low": [0.02, 0.005]})).tolist()
    [True, False]
    """
    return lower_bounds(layers) > 0


def comparable(mode: str) -> tuple[str, ...]:
    """The splits of which an audit of this mode needs one, to have a figure that decides.

    >>> comparable("pair")
    ('independent', 'external')
    """
    return tuple(split for each in HEADLINES for split in each.needs.get(mode, ()))
