"""Whether a folder holds the work of the same settings, and what differs if not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memloc.errors import OutputError, ResultsError
from memloc.results._files import make_folder, read_json, write_json

_SHOWN = 60  # characters of a setting in a message
_SPEC = "spec.json"


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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def check_folder(folder: Path) -> None:
    """Raise what `claim_folder` would raise of a folder for any work, and change nothing.

    Raises:
        ResultsError: it holds files of others. OutputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{str(folder)!r} is a file. Expected a folder to write to. Pass another --out.")
    if _used(folder) and not (folder / _SPEC).is_file():
        raise ResultsError(
            f"{str(folder)!r} is not empty and was not made by memloc. Expected a new or empty folder. Pass another"
            " --out."
        )


def _used(folder: Path) -> bool:
    return folder.exists() and any(
        path.name != ".writable" and not path.name.endswith(".partial") for path in folder.iterdir()
    )


def claim_folder(folder: Path, spec: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Make a folder the place of this spec: new, continued if it holds the same spec, else refused unless `overwrite`.

    Raises:
        ResultsError: it holds another spec, with the difference. OutputError: it cannot be written.
    """
    check_folder(folder)
    stored_at = folder / _SPEC
    wanted = json.loads(json.dumps(spec, sort_keys=True, default=str))
    if _used(folder):
        stored = read_json(stored_at)
        there, now = _flat(stored), _flat(wanted)
        different = [key for key in sorted({*there, *now}) if there.get(key) != now.get(key)]
        if different and not overwrite:
            listed = "; ".join(
                f"{key}: {_short(there.get(key))} there, {_short(now.get(key))} now" for key in different[:5]
            )
            raise ResultsError(
                f"{str(folder)!r} holds the work of other settings ({listed}). Expected the same, to continue it. "
                "Pass another --out, or --overwrite to replace it."
            )
        if overwrite:
            shutil.rmtree(folder)
    make_folder(folder)
    if not stored_at.is_file():
        write_json(stored_at, wanted)
    return folder
