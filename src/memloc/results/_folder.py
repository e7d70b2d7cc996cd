"""A folder as the place of one piece of work: claimed, continued or replaced; what memloc did not write stays."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memloc.errors import MemlocWarning, OutputError, ResultsError, SpecError
from memloc.results._files import make_folder, read_json, write_json
from memloc.results._lock import LOCK, locked
from memloc.results._manifest import MANIFEST, list_files, listed_files, reset_files
from memloc.results._seal import is_sealed
from memloc.results._spec import differences

_SPEC = "spec.json"
_SHOWN = 5  # differences, or files, in a message


def keep_apart(out: Path, *inputs: str | Path | None) -> None:
    """Raise SpecError where the output folder is, or holds, something that the command reads."""
    place = out.resolve()
    for each in inputs:
        if each is None:
            continue
        path = _path_of(str(each))
        with contextlib.suppress(OSError):  # a name that is no path
            if path.exists() and (place == path.resolve() or place in path.resolve().parents):
                raise SpecError(
                    f"--out {str(out)!r} is or holds {str(each)!r}, which this command reads. Expected another folder:"
                    " inputs are left as they are. Pass another --out."
                )


def _path_of(text: str) -> Path:
    """The path in what a user names: what stands before a last colon may be one, as in FILE.py:FACTORY or SET:train."""
    before, _, _ = text.rpartition(":")
    path = Path(text).expanduser()
    return Path(before).expanduser() if before not in ("", "sample", "hf") and not path.exists() else path


def check_folder(folder: Path) -> None:
    """Raise what `claimed` would raise of a folder for any work, and change nothing.

    Raises:
        ResultsError: it holds files of others. OutputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{str(folder)!r} is a file. Expected a folder to write to. Pass another --out.")
    if _used(folder) and not (folder / _SPEC).is_file() and listed_files(folder) is None:
        raise ResultsError(
            f"{str(folder)!r} is not empty and was not made by memloc. Expected a new or empty folder. Pass another"
            " --out."
        )


def _used(folder: Path) -> bool:
    return folder.exists() and any(not _passing(path) for path in folder.iterdir())


def _passing(path: Path) -> bool:
    """Whether a file is one that memloc writes for a moment."""
    return path.name in (".writable", LOCK) or (path.name.startswith(".") and path.name.endswith(".partial"))


@contextmanager
def claimed(
    folder: Path, spec: Mapping[str, Any], *, overwrite: bool = False, inputs: tuple[str | Path | None, ...] = ()
) -> Iterator[Path]:
    """Make a folder the place of this spec while the block runs: new, continued if it holds the same spec, else refused
    unless `overwrite`, which removes what memloc wrote there.

    Args:
        inputs: what the work reads; none of it may be the folder, or lie in it.
    Raises:
        SpecError: an input lies in it. ResultsError: it holds another spec, with the difference, or files of others.
            FolderInUseError: another process works on it. OutputError: it cannot be written.
    """
    keep_apart(folder, *inputs)
    check_folder(folder)
    make_folder(folder)
    with locked(folder):
        _sweep(folder)
        wanted = json.loads(json.dumps(spec, sort_keys=True, default=str))
        if (folder / _SPEC).is_file():
            _settle(folder, wanted, overwrite)
        else:
            reset_files(folder)  # before anything else, so that what is written from now on is known
            write_json(folder / _SPEC, wanted)
        yield folder


def _sweep(folder: Path) -> None:
    """Remove what writes left that were cut off, here and one folder down."""
    for place in (folder, *(each for each in folder.iterdir() if each.is_dir() and not (each / LOCK).exists())):
        for path in place.glob(".*.partial"):
            path.unlink(missing_ok=True)


def _settle(folder: Path, wanted: dict[str, Any], overwrite: bool) -> None:
    """Continue the work in a folder, replace it, or raise ResultsError."""
    ours = listed_files(folder) is not None
    different = differences(_stored(folder, ours), wanted)
    if not different and not overwrite:
        if ours and _SPEC not in (listed_files(folder) or {}):  # an end came between its two writes
            list_files(folder, [folder / _SPEC])
        return
    if not ours:
        raise ResultsError(
            f"{str(folder)!r} holds work without a {MANIFEST}: of a memloc that kept none, or of another program, so"
            f" it is not known which of its files may be removed{_listed(different)}. Expected a new or empty folder."
            " Pass another --out, or remove the folder yourself."
        )
    if not overwrite:
        raise ResultsError(
            f"{str(folder)!r} holds the work of other settings{_listed(different)}. Expected the same, to continue it."
            " Pass another --out, or --overwrite to replace it."
        )
    left = clear_folder(folder, keep=(_SPEC, MANIFEST))
    reset_files(folder)
    write_json(folder / _SPEC, wanted)
    if left:
        names = ", ".join(path.relative_to(folder).as_posix() for path in left[:_SHOWN])
        warnings.warn(
            f"{len(left)} files in {str(folder)!r} were not written by memloc and are left alone: {names}"
            f"{', ...' if len(left) > _SHOWN else ''}.",
            MemlocWarning,
            stacklevel=4,
        )


def _stored(folder: Path, ours: bool) -> dict[str, Any]:
    """The settings of the work in a folder; none where another program's file is unreadable."""
    try:
        return read_json(folder / _SPEC)
    except ResultsError:
        if ours:
            raise
        return {}


def _listed(different: list[str]) -> str:
    return f" ({'; '.join(different[:_SHOWN])})" if different else ""


def clear_folder(folder: Path, *, keep: tuple[str, ...] = ()) -> list[Path]:
    """Remove the files of a folder that memloc wrote, and folders that are empty then; returns what it left.

    What memloc wrote is what a manifest lists, or what carries memloc's own checksum.

    Args:
        keep: names of files that stay all the same.
    """
    known = {folder / name for name in listed_files(folder) or {}}
    return _cleared(folder, known, {folder / name for name in keep})


def remove_folder(folder: Path) -> None:
    """Remove a folder that memloc worked in, if it is there: what memloc wrote, and itself unless something is left."""
    if folder.is_dir():
        clear_folder(folder)
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _cleared(folder: Path, known: set[Path], keep: set[Path]) -> list[Path]:
    left: list[Path] = []
    last = [folder / name for name in (_SPEC, MANIFEST)]  # a clearing that is cut off can be gone on with
    if listed_files(folder) is not None:
        known = known | set(last)
    for path in (*sorted(set(folder.iterdir()) - set(last)), *last):
        if path in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            left += _cleared(path, known | {path / name for name in listed_files(path) or {}}, set())
            if not any(path.iterdir()):
                path.rmdir()
        elif path.is_symlink() or not path.is_file():
            left += [path] if path.is_symlink() or path.exists() else []
        elif path in known or _marked(path):
            path.unlink()
        elif path.name == LOCK:
            continue
        elif _passing(path):
            path.unlink()
        else:
            left.append(path)
    return left


def _marked(path: Path) -> bool:
    """Whether a file says itself that memloc wrote it."""
    in_work = path.parent.name == ".work" and (path.suffix == ".err" or path.name == "preprocess.json")
    return path.suffix == ".damaged" or in_work or is_sealed(path)
