"""How an audit is done by default, by the papers' text, and by their published code (REFERENCE A2, A7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memloc.errors import SpecError, nearest

PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "memloc": {
        "views": 16,
        "sampling": "sobol",
        "original": False,
        "rest": "mean",
        "scale": "ratio",
        "policy": "normal",
    },
    # Ten independent augmentations, all pairs of them, Eq. 1-8; every image flipped, as the papers list it.
    "paper": {
        "views": 10,
        "sampling": "independent",
        "original": False,
        "rest": "mean",
        "scale": "ratio",
        "policy": "normal-paper",
    },
    # Five (original, view) pairs, scores over the range of the candidates'; UnitMem from ten views of its own, with the
    # median of the other points.
    "published-code": {
        "unit_views": 10,
        "unit_policy": "published-units",
        "views": 5,
        "sampling": "independent",
        "original": True,
        "rest": "median",
        "scale": "range",
        "policy": "normal",
    },
}


def protocol_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a protocol, with those that were given (not None) in their place.

    >>> settings = protocol_settings("paper", {"views": None, "rest": "median"})
    >>> settings["views"], settings["rest"]
    (10, 'median')
    """
    if name not in PROTOCOLS:
        raise SpecError(
            f"there is no protocol {name!r}. {nearest(name, PROTOCOLS)} Expected one of {', '.join(PROTOCOLS)}. Pass"
            " --protocol memloc."
        )
    return {**PROTOCOLS[name], **{key: value for key, value in given.items() if value is not None}}
