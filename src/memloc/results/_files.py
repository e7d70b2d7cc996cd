"""Files that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from memloc.errors import OutputError, ResultsError
from memloc.results._digest import flushed
from memloc.results._lock import held_folder
from memloc.results._manifest import list_file, listed_files, verify


def make_folder(folder: Path) -> Path:
    """Make a folder and check that it can be written.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise OutputError(
            f"{str(folder)!r} cannot be written ({problem.strerror}). Expected a folder with write access. Pass another"
            " --out."
        ) from problem
    return folder


@contextmanager
def replacing(path: Path, *, listed: bool = True, growing: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its place, flushed to disk, when the block ends well, and is
    removed when it does not.

    Args:
        listed: whether the manifest of the claimed folder that it lies in, if any, lists it. growing: it will grow, so
            no checksum is kept.
    Raises:
        OutputError: the disk is full or the folder not writable. FolderInUseError: another process took the folder.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")  # others may be at it for a moment
    folder = _listing(path) if listed else held_folder(path)
    try:
        yield temporary
        flushed(temporary)
        listing, old = listed and folder is not None, path.exists()
        if listing:  # before it is there, so that whatever ends this process leaves no file of an unknown maker
            list_file(cast(Path, folder), path, None if old or growing else temporary)
        os.replace(temporary, path)
        flushed(path.parent)
        if listing and old and not growing:
            list_file(cast(Path, folder), path, path)
    except (OSError, RuntimeError) as problem:  # torch.save raises RuntimeError where a write comes short
        if (
            isinstance(problem, RuntimeError)
            and "PytorchStreamWriter" not in str(problem)
            and "unexpected pos" not in str(problem)
        ):
            raise
        reason = getattr(problem, "strerror", None) or str(problem).splitlines()[0]
        raise OutputError(
            f"{str(path)!r} cannot be written ({reason}). Expected free disk and write access. Free some, or pass"
            " another --out."
        ) from problem
    finally:
        temporary.unlink(missing_ok=True)


def _listing(path: Path) -> Path | None:
    """The folder whose manifest lists a file that is written: the nearest that has one, or that this process works on.

    Raises:
        FolderInUseError: another process took the folder that this one works on.
    """
    held = held_folder(path)
    near = next((each for each in (path.parent, path.parent.parent) if listed_files(each) is not None), None)
    return held if near is None else near


def write_table(path: Path, table: pd.DataFrame, metadata: Mapping[str, str] | None = None) -> None:
    """Write a parquet file (zstd) with text metadata."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    content = content.replace_schema_metadata(
        {**(content.schema.metadata or {}), **{key.encode(): value.encode() for key, value in (metadata or {}).items()}}
    )
    with replacing(path) as temporary:
        parquet.write_table(content, temporary, compression="zstd", write_page_checksum=True)


def read_table(path: Path) -> pd.DataFrame:
    """Read a parquet file.

    Raises:
        ResultsError: it is missing or damaged.
    """
    verify(path)
    try:
        return parquet.read_table(path, page_checksum_verification=True).to_pandas()
    except Exception as problem:  # pyarrow raises whatever the bytes lead it to
        raise ResultsError(
            f"{str(path)!r} is missing or damaged ({type(problem).__name__}). Expected a table that memloc wrote. Run"
            " the command again that wrote it."
        ) from problem


def write_json(path: Path, content: Mapping[str, Any], *, listed: bool = True) -> None:
    """Write a JSON object; NaN is written as null."""
    with replacing(path, listed=listed) as temporary:
        text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
        if not _is_text(text):  # a path whose name is no UTF-8 is kept by its numbers
            text = json.dumps(plain(content), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, checked: bool = True) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        checked: whether it must be as a manifest says.

    Raises:
        ResultsError: it is missing, damaged, or no object.
    """
    if checked:
        verify(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        return found
    except (OSError, ValueError, RecursionError) as problem:
        raise ResultsError(
            f"{str(path)!r} is missing or damaged ({type(problem).__name__}). Expected a file that memloc wrote. Run"
            " the command again that wrote it."
        ) from problem


def plain(value: Any) -> Any:
    """JSON-ready: NumPy scalars as numbers, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
