"""manifest.json: which files of a folder memloc wrote, with their checksums."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memloc.errors import MemlocError, ResultsError
from memloc.results._digest import digest_of, flushed, new_digest

MANIFEST = "manifest.json"
_RECORDS = ("spec.json", "run.json", "audit.json", "value.json", "coreset.json", "intervention.json", "compare.json")
_GUARD = threading.RLock()
_READ: dict[Path, tuple[bytes, dict[str, Any] | None]] = {}  # manifests by path, as text and read


def listed_files(folder: Path) -> dict[str, Any] | None:
    """The files of a folder by their path within it, with length and checksum; None without a manifest of memloc's.

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


def _read(path: Path, content: bytes) -> dict[str, Any] | None:
    found, files = None, {}
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(content)
    shaped = isinstance(found, dict) and set(found) == {"files", "checksum"} and isinstance(found["files"], dict)
    if not shaped and not any((path.parent / name).is_file() for name in _RECORDS):
        return None  # another program's file of that name
    if shaped and found is not None:
        files = found["files"]
        entries = all(isinstance(each, dict) and set(each) == {"bytes", "blake2b"} for each in files.values())
        if entries and found["checksum"] == _checksum(files):
            return files
    raise ResultsError(
        f"{str(path)!r} is damaged: its checksum does not hold. Expected the list of files that memloc wrote. Restore"
        " it, or run the command again that wrote the folder, into another one."
    )


def _checksum(files: dict[str, Any]) -> str:
    found = new_digest()
    found.update(json.dumps(files, sort_keys=True).encode())
    return found.hexdigest()


def list_files(folder: Path, paths: Iterable[Path]) -> None:
    """Add files to the manifest of a folder, as they are now."""
    _add(folder, {path: path for path in paths if path.is_file()})


def list_file(folder: Path, path: Path, content: Path | None) -> None:
    """Add a file to the manifest of a folder.

    Args:
        content: a file with what it will hold; None keeps no checksum, while it changes or grows.
    """
    _add(folder, {path: content})


def _add(folder: Path, contents: Mapping[Path, Path | None]) -> None:
    with _GUARD:
        files = dict(listed_files(folder) or {})
        for path, content in contents.items():
            entry: dict[str, Any] = {"bytes": None, "blake2b": None}
            if content is not None:
                entry = {"bytes": content.stat().st_size, "blake2b": digest_of(content)}
            place = path.parent.resolve() / path.name
            files[place.relative_to(folder.resolve()).as_posix()] = entry
        _write(folder, files)


def unlist_files(folder: Path, within: Path) -> None:
    """Take what lay in a folder within it out of the manifest of a folder."""
    with _GUARD:
        files = listed_files(folder)
        if files is not None:
            inside = f"{within.name}/"
            _write(folder, {name: entry for name, entry in files.items() if not name.startswith(inside)})


def reset_files(folder: Path) -> None:
    """Make the manifest of a folder anew, of no file."""
    with _GUARD:
        _write(folder, {})


def _write(folder: Path, files: dict[str, Any]) -> None:
    path = folder / MANIFEST
    files = dict(sorted(files.items()))
    temporary = path.with_name(f".{MANIFEST}.{os.getpid()}.partial")
    try:
        temporary.write_text(json.dumps({"files": files, "checksum": _checksum(files)}, indent=1) + "\n")
        flushed(temporary)
        os.replace(temporary, path)
        flushed(folder)
    finally:
        temporary.unlink(missing_ok=True)


def is_there(path: Path) -> bool:
    """Whether there is a file that not every folder has.

    Raises:
        ResultsError: the manifest lists it, and it is gone or damaged.
    """
    verify(path)
    return path.is_file()


@contextmanager
def as_memloc_wrote(folder: str | Path) -> Iterator[None]:
    """Where no manifest vouches for a folder, turn what its content leads a reader to raise into one ResultsError."""
    try:
        yield
    except MemlocError:
        raise
    except Exception as problem:
        if listed_files(Path(folder)) is not None:
            raise
        raise ResultsError(
            f"{str(folder)!r} holds something that memloc does not write ({type(problem).__name__}:"
            f" {str(problem)[:200]}). Expected a folder as memloc wrote it. Run the command again that wrote it, into"
            " another folder."
        ) from problem


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
