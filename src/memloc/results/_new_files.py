"""Files that a command writes beside results: none that is there is replaced without a word."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from memloc.errors import OutputError
from memloc.results._files import read_json
from memloc.results._manifest import listed_files


def check_new(paths: Iterable[Path], folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError where writing would replace a file that nobody said may be, or one that the results in a folder
    were made from, or are."""
    kept = {(folder / name).resolve() for name in listed_files(folder) or ()} if folder.is_dir() else set()
    for path in paths:
        target = path.resolve()
        if target in kept or target == _data_of(folder):
            raise OutputError(
                f"{str(path)!r} is {'of' if target in kept else 'what was read for'} the results in {str(folder)!r}."
                " Expected a file apart from them. Pass another --out."
            )
        if path.exists() and not overwrite:
            raise OutputError(f"{str(path)!r} is there. Expected a new file. Pass --overwrite, or another --out.")


def _data_of(folder: Path) -> Path | None:
    """The file that a valuation read; None where none is known."""
    if not (folder / "value.json").is_file():
        return None
    data = read_json(folder / "value.json").get("data")
    return Path(data).expanduser().resolve() if isinstance(data, str) else None
