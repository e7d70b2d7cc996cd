"""Settings as they identify work: their hash, and what differs between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SHOWN = 60  # characters of a setting in a message


def spec_hash(spec: Mapping[str, Any]) -> str:
    """A short hash of settings.

    >>> spec_hash({"a": 1, "b": 2}) == spec_hash({"b": 2, "a": 1})
    True
    """
    return hashlib.blake2b(json.dumps(spec, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _flat(spec: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Settings of settings by their path."""
    found: dict[str, Any] = {}
    for key, value in spec.items():
        found |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
    return found


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between settings, in words.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c: 2 there, 3 now']
    """
    one, two = _flat(there), _flat(now)
    return [
        f"{key}: {_short(one.get(key))} there, {_short(two.get(key))} now"
        for key in sorted({*one, *two})
        if one.get(key) != two.get(key)
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
