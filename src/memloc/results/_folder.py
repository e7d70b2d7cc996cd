"""A folder as the place of one piece of work: claimed, continued or replaced; what memloc did not write stays."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memloc.errors import OutputError, ResultsError, SpecError, warn
from memloc.results._files import make_folder, read_json, write_json
from memloc.results._lock import LOCK, held_folder, locked
from memloc.results._manifest import MANIFEST, list_file, list_files, listed_files, reset_files, unlist_files
from memloc.results._schema import TABLES
from memloc.results._seal import is_sealed
from memloc.results._spec import differences

_SPEC = "spec.json"
_WITHIN = ("checkpoints", ".shards", ".work", "encoders", "heads", "training")  # folders that memloc makes in folders
_TABLES = "|".join((*TABLES, "membership", "repaired", "probe", "series", "between", "within", "splits", "extremes"))
_RESULT = re.compile(  # files that memloc would take for its own, or write over
    rf"({_TABLES})\.parquet|(run|audit|value|coreset|intervention|compare)\.json|(encoder|head|model)\.safetensors"
    r"|model\.skops|images\.npz|\.sums\.npz|metrics\.jsonl|report\.html|(encoders|heads|checkpoints)/[a-z]\d*\..*"
    r"|(training|\.work|\.shards)/.*"
)
_SHOWN = 5  # differences, or files, in a message


def keep_apart(out: Path, *inputs: str | Path | None) -> None:
    """Raise SpecError where the output folder is, or holds, something that the command reads."""
    place = out.resolve()
    for each in inputs:
        if each is None:
            continue
        path = _path_of(str(each))
        with contextlib.suppress(OSError):  # a name that is no path
            if path.exists() and _is_or_holds(place, path.resolve()):
                raise SpecError(
                    f"--out {str(out)!r} is or holds {str(each)!r}, which this command reads. Expected another folder:"
                    " inputs are left as they are. Pass another --out."
                )


def _is_or_holds(place: Path, path: Path) -> bool:
    """Whether a folder is a path or holds it, however their names are written."""
    if place == path or place in path.parents:
        return True
    return place.exists() and any(each.samefile(place) for each in (path, *path.parents) if each.exists())


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
    return path.name in (LOCK, f"{LOCK}.takeover") or _is_partial(path)


def _is_partial(path: Path) -> bool:
    return re.fullmatch(r"\..+\.\d+\.partial", path.name) is not None and not path.is_symlink()


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
    around = held_folder(folder.absolute() / _SPEC)
    with locked(folder):
        if around is not None:  # work within work: it goes with what it is part of
            list_file(around, folder / MANIFEST, None)
        wanted = json.loads(json.dumps(spec, sort_keys=True, default=str))
        if (folder / _SPEC).is_file():
            _settle(folder, wanted, overwrite)
        else:
            if set(listed_files(folder) or {}) - {_SPEC}:
                raise ResultsError(
                    f"{str(folder)!r} has no {_SPEC}, which says of which settings its work is. Expected it beside what"
                    " memloc wrote. Restore it, or pass another --out."
                )
            reset_files(folder)  # before anything else, so that what is written from now on is known
            write_json(folder / _SPEC, wanted)
        _sweep(folder)
        yield folder


def _sweep(folder: Path) -> None:
    """Remove what writes of memloc's left that were cut off, here and in its own folders within."""
    for place in (folder, *(folder / name for name in _WITHIN)):
        if place.is_dir() and not place.is_symlink() and (place == folder or not (place / LOCK).exists()):
            for path in place.iterdir():
                if _is_partial(path):
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
    taken = [path for path in _left(folder) if _RESULT.fullmatch(path.relative_to(folder).as_posix())]
    if taken:
        raise ResultsError(
            f"{str(folder)!r} holds {taken[0].relative_to(folder).as_posix()!r}, which its {MANIFEST} does not list and"
            " memloc would take for its own. Expected a folder with nothing of that name. Move it away, or pass"
            " another --out."
        )
    left = clear_folder(folder, keep=(_SPEC, MANIFEST))
    reset_files(folder)
    write_json(folder / _SPEC, wanted)
    if left:
        names = ", ".join(path.relative_to(folder).as_posix() for path in left[:_SHOWN])
        warn(
            f"{len(left)} files in {str(folder)!r} were not written by memloc and are left alone: {names}"
            f"{', ...' if len(left) > _SHOWN else ''}.",
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

    What memloc wrote is what a manifest lists, or what carries memloc's own checksum. Work of its own within the folder
    stays, unless it is a part of this work.

    Args:
        keep: names of files that stay all the same.
    Raises:
        FolderInUseError: another process works on a part of it.
    """
    return _cleared(folder, _known(folder), {folder / name for name in keep}, remove=True)


def _left(folder: Path) -> list[Path]:
    """What clearing would leave."""
    return _cleared(folder, _known(folder), set(), remove=False)


def _known(folder: Path) -> set[Path]:
    return {folder / name for name in listed_files(folder) or {}}


def remove_folder(folder: Path) -> None:
    """Remove a folder that memloc worked in, if it is there: what memloc wrote, and itself unless something is left."""
    if folder.is_dir():
        clear_folder(folder)
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
            unlist_files(folder.parent, folder)


def _cleared(folder: Path, known: set[Path], keep: set[Path], *, remove: bool) -> list[Path]:
    left: list[Path] = []
    last = [folder / name for name in (_SPEC, MANIFEST)]  # a clearing that is cut off can be gone on with
    if listed_files(folder) is not None:
        known = known | set(last)
    for path in (*sorted(set(folder.iterdir()) - set(last)), *last):
        if path in keep or path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            left += _cleared_within(path, known, remove=remove)
        elif path.is_symlink() or not path.is_file():
            left += [path] if path.is_symlink() or path.exists() else []
        elif path in known or _marked(path) or _passing(path):
            if remove:
                path.unlink()
        else:
            left.append(path)
    return left


def _cleared_within(folder: Path, known: set[Path], *, remove: bool) -> list[Path]:
    """As `_cleared`, of a folder within another one; work of its own is left as a whole."""
    if listed_files(folder) is None:
        empty = not any(folder.iterdir())
        left = _cleared(folder, known, set(), remove=remove)
    elif folder / MANIFEST in known:
        empty = False
        with locked(folder):
            left = _cleared(folder, known | _known(folder), set(), remove=remove)
    else:
        return [folder]
    if remove and not empty and not any(folder.iterdir()):
        folder.rmdir()
    return left


def _marked(path: Path) -> bool:
    """Whether a file says itself that memloc wrote it."""
    place = path.parent.name
    if path.suffix == ".damaged":
        return place in _WITHIN or path.name in (".sums.npz.damaged", "training.pt.damaged")
    in_work = place == ".work" and (path.suffix == ".err" or path.name == "preprocess.json")
    return in_work or is_sealed(path)
