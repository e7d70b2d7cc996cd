"""manifest.json: which files of a folder memloc wrote, with their checksums."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memloc.errors import ResultsError
from memloc.results._digest import digest_of, flushed, new_digest

MANIFEST = "manifest.json"
_GUARD = threading.RLock()
_READ: dict[Path, tuple[bytes, dict[str, Any]]] = {}  # manifests by path, as text and read


def listed_files(folder: Path) -> dict[str, Any] | None:
    """The files of a folder by their path within it, with length and checksum; None without a manifest.

    Raises:
        ResultsError: the manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with _GUARD:
        known = _READ.get(path)
        if known is None or known[0] != content:
            known = _READ[path] = (content, _read(path, content))
        return known[1]


def _read(path: Path, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
        files: dict[str, Any] = found["files"]
        whole = found["checksum"] == _checksum(files) and all(
            set(each) == {"bytes", "blake2b"} for each in files.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole, files = False, {}
    if not whole:
        raise ResultsError(
            f"{str(path)!r} is damaged: its checksum does not hold. Expected the list of files that memloc wrote."
            " Restore it, or run the command again that wrote the folder, into another one."
        )
    return files


def _checksum(files: dict[str, Any]) -> str:
    found = new_digest()
    found.update(json.dumps(files, sort_keys=True).encode())
    return found.hexdigest()


def list_files(folder: Path, paths: Iterable[Path], *, growing: bool = False) -> None:
    """Add files to the manifest of a folder, as they are now.

    Args:
        growing: they still grow, so no checksum is kept.
    """
    with _GUARD:
        files = dict(listed_files(folder) or {})
        for path in paths:
            if path.is_file():
                entry: dict[str, Any] = {"bytes": None, "blake2b": None}
                if not growing:
                    entry = {"bytes": path.stat().st_size, "blake2b": digest_of(path)}
                place = path.parent.resolve() / path.name
                files[place.relative_to(folder.resolve()).as_posix()] = entry
        _write(folder, files)


def _write(folder: Path, files: dict[str, Any]) -> None:
    path = folder / MANIFEST
    files = dict(sorted(files.items()))
    temporary = path.with_name(f".{MANIFEST}.partial")
    try:
        temporary.write_text(json.dumps({"files": files, "checksum": _checksum(files)}, indent=1) + "\n")
        flushed(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_there(path: Path) -> bool:
    """Whether there is a file that not every folder has.

    Raises:
        ResultsError: the manifest lists it, and it is gone or damaged.
    """
    verify(path)
    return path.is_file()


def verify(path: Path) -> None:
    """Raise ResultsError where a file is not as the manifest of its folder, or of the one above, says; what no manifest
    lists is not looked at."""
    path = path.absolute()
    for folder in (path.parent, path.parent.parent):
        entry = (listed_files(folder) or {}).get(path.relative_to(folder).as_posix())
        if entry is None:
            continue
        if entry["blake2b"] is not None and (
            not path.is_file() or path.stat().st_size != entry["bytes"] or digest_of(path) != entry["blake2b"]
        ):
            raise ResultsError(
                f"{str(path)!r} is missing or damaged (its checksum is not the one in {MANIFEST}). Expected the file as"
                " memloc wrote it. Restore it, or run the command again that wrote it, into another folder; if you"
                f" changed it yourself, remove {MANIFEST}."
            )
        return
