"""Files of tables as they are: separated text, JSON lines, Excel, parquet and Arrow, also packed; cells of text stay
text."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from memloc.data._limits import Capped, check_limit, read_parquet
from memloc.data._separated import SPACES, TOP, check_fields, cut_to_header, header_lines, header_of
from memloc.errors import DataError, DataNotFoundError, MemlocError, nearest_path

TEXT_TABLES = (".csv", ".tsv", ".tab", ".psv", ".txt", ".dat", ".data")
"""How files of separated text end."""
SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
LINES = (".jsonl", ".ndjson", ".json")
ARROW = (".feather", ".arrow", ".ipc")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_ONLY_TABLES = (*TEXT_TABLES, *SHEETS, *LINES, *ARROW)
_KINDS = "csv, .tsv, .txt, .jsonl, .xlsx, .ods, .feather or .parquet, also packed as .gz, .bz2, .xz, .zst or .zip"
_MARKS = {
    b"\x1f\x8b": "gzip (.gz)",
    b"PK\x03\x04": "a zip archive or an Excel workbook (.zip, .xlsx)",
    b"PAR1": "parquet (.parquet)",
    b"\x28\xb5\x2f\xfd": "Zstandard (.zst)",
    b"ARROW1": "Arrow (.arrow or .feather)",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
}
_CELL = 8  # bytes that a cell of a sheet takes at least
_PART = 1 << 20  # bytes that are unpacked at once


@dataclass(frozen=True)
class RawTable:
    """A table as its file has it.

    Attributes:
        frame: cells, text where the file is text; columns named by text. notices: what was done to the file, to say.
    """

    frame: pd.DataFrame
    notices: tuple[str, ...] = ()


def is_table(path: str | Path, target: str | None) -> bool:
    """Whether a path is to be read as a table rather than as images: by its suffix; parquet and zip where a target is
    named.

    >>> is_table("patients.csv", None), is_table("images.parquet", None), is_table("rows.parquet", "price")
    (True, False, True)
    >>> is_table("patients.csv.gz", None), is_table("train-images-idx3-ubyte.gz", None)
    (True, False)
    """
    suffix, packed = _suffixes(Path(path))
    return suffix in _ONLY_TABLES or (target is not None and (suffix == ".parquet" or packed == ".zip"))


def _suffixes(path: Path) -> tuple[str, str]:
    """What a file is, and how it is packed: .csv and .gz of x.csv.gz."""
    last = path.suffix.lower()
    if last in PACKED:
        return path.with_suffix("").suffix.lower(), last
    return last, ""


def read_raw(path: str | Path, target: str) -> RawTable:
    """A table's cells from a file.

    Args:
        target: a column that it has, which tells the header, and the sheet, from what is around them.
    Raises:
        DataNotFoundError: no such file. DataError: no table.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataNotFoundError(
            f"there is no file {str(path)!r}.{nearest_path(path)} Expected a table as .{_KINDS}. Check the path."
        )
    suffix, packed = _suffixes(path)
    reader = _reader(suffix)
    if reader is None and packed != ".zip":
        raise DataError(f"{str(path)!r} is no table that memloc reads. Expected .{_KINDS}. Convert it first.")
    try:
        check_limit("BYTES", path.stat().st_size, path)
        name, content = _unpacked(path, packed)
        reader = _reader(Path(name).suffix.lower())
        if reader is None:
            raise DataError(f"{str(path)!r} holds {name!r}, which is no table. Expected .{_KINDS}. Convert it first.")
        raw = reader(path, content, target)
        check_limit("ROWS", len(raw.frame), path)
    except MemlocError:
        raise
    except Exception as problem:  # readers raise whatever the bytes lead them to
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
        raise DataError(
            f"{str(path)!r} cannot be read as a table ({reason}). Expected a header and rows. Open it and check."
        ) from problem
    frame = raw.frame
    frame.columns = pd.Index([str(name).strip() for name in frame.columns], dtype=object)
    if frame.columns.duplicated().any():
        raise DataError(
            f"the table has two columns named {frame.columns[frame.columns.duplicated()][0]!r}. Expected different"
            " names. Rename or drop one."
        )
    return raw


_Reader = Callable[[Path, "bytes | None", str], RawTable]


def _reader(suffix: str) -> _Reader | None:
    if suffix == ".parquet":
        return _parquet
    for suffixes, reader in ((TEXT_TABLES, _text), (LINES, _lines), (SHEETS, _sheets), (ARROW, _arrow)):
        if suffix in suffixes:
            return reader
    return None


def _unpacked(path: Path, packed: str) -> tuple[str, bytes | None]:
    """The name of what a file holds, and its content; None of a parquet file, which is read in parts."""
    if not packed:
        return path.name, None if path.suffix.lower() == ".parquet" else path.read_bytes()
    if packed == ".zip":
        with zipfile.ZipFile(path) as archive:
            held = [one for one in archive.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
            if len(held) != 1:
                listed = ", ".join(repr(one.filename) for one in held[:5])
                raise DataError(
                    f"{str(path)!r} holds {len(held)} files{f' ({listed})' if held else ''}. Expected one table. Unpack"
                    " it and pass the table."
                )
            with archive.open(held[0]) as stream:
                return held[0].filename, Capped(stream, path).read()
    openers: dict[str, Callable[[Path], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": _zstandard,
    }
    with openers[packed](path) as stream:
        return path.with_suffix("").name, Capped(stream, path).read()


def _zstandard(path: Path) -> Any:
    import pyarrow as pa

    parts: list[bytes] = []
    held = 0
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
        while part := stream.read(_PART):
            held += len(part)
            check_limit("BYTES", held, path)
            parts.append(part)
    return io.BytesIO(b"".join(parts))


def _parquet(path: Path, content: bytes | None, target: str) -> RawTable:
    if content is not None:
        raise DataError(f"{str(path)!r} is a packed parquet file. Expected parquet as it is. Unpack it first.")
    return RawTable(_with_index(read_parquet(path).to_pandas()))


def _arrow(path: Path, content: bytes | None, target: str) -> RawTable:
    import pyarrow as pa

    assert content is not None, "only parquet is read in parts"
    source = pa.BufferReader(content)
    try:
        table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        table = pa.ipc.open_stream(pa.BufferReader(content)).read_all()
    check_limit("BYTES", table.nbytes, path)
    return RawTable(_with_index(table.to_pandas()))


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame whose index, where it has a name, is a column."""
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index() if len(named) == frame.index.nlevels else frame.reset_index(drop=True)


def _lines(path: Path, content: bytes | None, target: str) -> RawTable:
    """JSON: an object a line, or one list of objects."""
    assert content is not None, "only parquet is read in parts"
    text, notices = _decoded(content)
    if text.lstrip().startswith("["):
        return RawTable(pd.DataFrame(_objects(json.loads(text))), notices)
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        return RawTable(pd.DataFrame(_objects([json.loads(line) for line in lines])), notices)
    except json.JSONDecodeError:
        whole = json.loads(text)
    if not isinstance(whole, dict) or not all(isinstance(each, (list, dict)) for each in whole.values()):
        raise ValueError("JSON that is no list of objects, nor columns")
    return RawTable(pd.DataFrame(whole).reset_index(drop=True), notices)


def _objects(rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("JSON that holds other values than objects")
    if len(rows) == 1 and rows[0] and all(isinstance(cell, (list, dict)) for cell in rows[0].values()):
        raise json.JSONDecodeError("columns in one object", "", 0)
    return rows


def _sheets(path: Path, content: bytes | None, target: str) -> RawTable:
    """The sheet of a workbook that has the target; the first where none has."""
    from python_calamine import CalamineWorkbook

    assert content is not None, "only parquet is read in parts"
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            check_limit("BYTES", sum(one.file_size for one in packed.infolist()), path)
    book = CalamineWorkbook.from_filelike(io.BytesIO(content))
    notices: list[str] = []
    chosen = None
    for name in book.sheet_names:
        sheet = book.get_sheet_by_name(name)
        check_limit("ROWS", sheet.total_height, path)
        check_limit("BYTES", sheet.total_height * sheet.total_width * _CELL, path)
        rows = [list(row) for row in sheet.to_python()]
        rows = [row for row in rows if any(cell != "" for cell in row)]
        check_limit("ROWS", len(rows), path)
        top = header_of([[str(cell) for cell in row] for row in rows[: TOP + 1]], target)
        if rows and (chosen is None or top is not None):
            chosen = (name, rows, top)
            if top is not None:
                break
    if chosen is None:
        raise DataError(f"{str(path)!r} has no sheet with cells. Expected a header and rows. Pass another file.")
    name, rows, top = chosen
    if len(book.sheet_names) > 1:
        notices.append(f"the sheet {name!r} is read, of {len(book.sheet_names)}.")
    if top:
        notices.append(f"{_count(top, 'line')} above the header left out.")
    rows = rows[top or 0 :]
    names = _named([str(cell) for cell in rows[0]])
    frame = pd.DataFrame(rows[1:], columns=names, dtype=object)
    return RawTable(frame.where(frame != "", None), tuple(notices))


def _text(path: Path, content: bytes | None, target: str) -> RawTable:
    """Separated text, its encoding, separator and header found."""
    assert content is not None, "only parquet is read in parts"
    text, notices = _decoded(content)
    del content
    if re.match(r"\s*<(?:!doctype|html|\?xml|table|head)\b", text, re.IGNORECASE):
        raise DataError(f"{path.name} holds HTML or XML. Expected separated text. Save the table itself as .csv.")
    if "\n" not in text and "\r" in text:
        text = text.replace("\r", "\n")
    text = re.sub(r"(?m)^ +$", "", text) if re.search(r"(?m)^ +$", text) else text
    text, between, above = cut_to_header(text, target)
    if above:
        notices += (f"{_count(above, 'line')} above the header left out.",)
    unnamed_first = between != SPACES and check_fields(text, between, path.name)
    form: dict[str, Any] = {"sep": between, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
    header = pd.read_csv(io.StringIO(text), header=None, nrows=1, **form)
    names = _named([*([""] if unnamed_first else []), *header.iloc[0].tolist()])
    if len(set(names)) < len(names):  # which pandas would rename
        name = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"the table has two columns named {name!r}. Expected different names. Rename or drop one.")
    unnamed = [name for name in names if name.startswith("Unnamed: ")]
    if unnamed_first:
        notices += (
            f"every line has one field more than the header: the first, called {names[0]}, is taken for names of rows."
            " Separators within cells that are not quoted would shift columns so, too.",
        )
    elif unnamed:
        notices += (f"columns without a name are called {', '.join(unnamed[:5])}.",)
    with warnings.catch_warnings():  # of separators at the ends of lines, which were looked at
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        frame = pd.read_csv(
            io.StringIO(text),
            header=None,
            skiprows=header_lines(text, between),
            names=names,
            index_col=False,
            na_filter=False,
            low_memory=False,
            **form,
        )
    return RawTable(frame, notices)


def _decoded(content: bytes) -> tuple[str, tuple[str, ...]]:
    """A file's text, by its mark or as UTF-8, else as Windows-1252, which is said."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16"), ()
    try:
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError as problem:
        for mark, what in _MARKS.items():
            if content.startswith(mark):
                raise DataError(
                    f"the file holds {what}, which its name does not say. Expected a name that does. Rename it."
                ) from problem
        if b"\0" in content:
            raise DataError(
                f"the file is no text (byte {problem.start} is no UTF-8, and others are 0). Expected a table. Save it"
                " as UTF-8."
            ) from problem
        place = problem.start
        text = content.decode("cp1252", "replace")
        said = f"the text is no UTF-8 (byte {place}) and is read as Windows-1252 (Latin-1)."
        return text, (said,)


def _named(header: list[str]) -> list[str]:
    """Names of columns; those without are named by their place, as pandas does."""
    return [name.strip() or f"Unnamed: {place}" for place, name in enumerate(header)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
