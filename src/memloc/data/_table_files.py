"""Files of tables as they are: separated text, JSON lines, Excel, parquet and Arrow, also packed; cells of text stay
text."""

from __future__ import annotations

import bz2
import csv
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
from memloc.errors import DataError, DataNotFoundError, MemlocError

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
_SEPARATORS = (",", ";", "\t", "|")
_SPACES = r"\s+"  # where fields are separated by any number of spaces
_LOOKED_AT = 60  # lines that say which sign separates fields
_TOP = 12  # lines above the header, at most
_SHARE = 0.9  # of those lines that must agree
_PART = 1 << 20  # bytes that are unpacked at once
_LONG = 100_000  # characters of a line that is looked at


@dataclass(frozen=True)
class RawTable:
    """A table as its file has it.

    Attributes:
        frame: cells, text where the file is text; columns named by text. notices: what was done to the file, to say.
        is_text: whether all cells are text.
    """

    frame: pd.DataFrame
    notices: tuple[str, ...] = ()
    is_text: bool = False


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
            f"there is no file {str(path)!r}. Expected a table as .csv or .parquet. Check the path."
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
                raise DataError(
                    f"{str(path)!r} holds {len(held)} files. Expected one table. Unpack it and pass the table."
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
    lines = [line for line in text.splitlines() if line.strip()]
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
    book = CalamineWorkbook.from_filelike(io.BytesIO(content))
    notices: list[str] = []
    chosen = None
    for name in book.sheet_names:
        rows = [list(row) for row in book.get_sheet_by_name(name).to_python()]
        rows = [row for row in rows if any(cell != "" for cell in row)]
        check_limit("ROWS", len(rows), path)
        top = _header_of([[str(cell) for cell in row] for row in rows[: _TOP + 1]], target)
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
    text, between, above = _cut_to_header(text, target)
    if above:
        notices += (f"{_count(above, 'line')} above the header left out.",)
    if between != _SPACES:
        _check_fields(text, between, path.name)
    form: dict[str, Any] = {"sep": between, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
    header = pd.read_csv(io.StringIO(text), header=None, nrows=1, **form)
    names = _named(header.iloc[0].tolist())
    if len(set(names)) < len(names):  # which pandas would rename
        name = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"the table has two columns named {name!r}. Expected different names. Rename or drop one.")
    unnamed = [name for name in names if name.startswith("Unnamed: ")]
    if unnamed:
        notices += (f"columns without a name are called {', '.join(unnamed[:5])}.",)
    with warnings.catch_warnings():  # of separators at the ends of lines, which were looked at
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        frame = pd.read_csv(
            io.StringIO(text), header=0, names=names, index_col=False, na_filter=False, low_memory=False, **form
        )
    return RawTable(frame, notices, is_text=True)


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


def _cut_to_header(text: str, target: str) -> tuple[str, str, int]:
    """Text from its header on, the sign between its fields, and how many lines stood above."""
    lines, places = _first_lines(text)
    found: list[tuple[int, int, int]] = []
    for order, between in enumerate(_SEPARATORS):
        rows = [
            next(csv.reader([line], delimiter=between, skipinitialspace=True), []) if len(line) < _LONG else []
            for line in lines
        ]
        top = _header_of(rows[: _TOP + 1], target)
        if top is not None:
            found.append((len(rows[top]), -order, top))
    if found:
        _, order, top = max(found)
        cut = text[places[top] :]
        return cut.lstrip("# ") if not target.startswith("#") else cut, _SEPARATORS[-order], top
    if _by_spaces(lines, target):
        return text, _SPACES, 0
    return text, max(_SEPARATORS, key=(lines or [""])[0].count), 0


def _first_lines(text: str) -> tuple[list[str], list[int]]:
    """Some lines, and where each begins."""
    lines: list[str] = []
    places = [0]
    while len(lines) < _LOOKED_AT and places[-1] < len(text):
        end = text.find("\n", places[-1])
        end = len(text) if end < 0 else end + 1
        lines.append(text[places[-1] : end].rstrip("\r\n"))
        places.append(end)
    return lines, places


def _by_spaces(lines: list[str], target: str) -> bool:
    """Whether fields are separated by spaces."""
    try:
        rows = [next(csv.reader([" ".join(line.split())], delimiter=" "), []) for line in lines if line.strip()]
    except csv.Error:
        return False
    if not rows or target not in rows[0] or len(rows[0]) < 2:
        return False
    return sum(len(row) == len(rows[0]) for row in rows) >= _SHARE * len(rows)


def _header_of(rows: list[list[str]], target: str) -> int | None:
    """Which of the first rows names the target among others, the rows above it being shorter; None where none does."""
    for place, row in enumerate(rows):
        names = [cell.strip() for cell in row]
        if len(names) > 1 and (target in names or names[0].lstrip("# ") == target):
            shorter = all(sum(cell.strip() != "" for cell in above) < len(row) for above in rows[:place])
            return place if shorter else None
    return None


def _named(header: list[str]) -> list[str]:
    """Names of columns; those without are named by their place, as pandas does."""
    return [name.strip() or f"Unnamed: {place}" for place, name in enumerate(header)]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _check_fields(text: str, between: str, name: str) -> None:
    """Raise DataError for a line with more or fewer fields than the header, which would shift or empty its columns;
    empty ones at its end aside."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=between, skipinitialspace=True)
    try:
        wanted = len(next(lines, []))
        for fields in lines:
            if fields and len(fields) != wanted and (len(fields) < wanted or any(fields[wanted:])):
                raise DataError(
                    f"line {lines.line_num} of {name} has {len(fields)} fields and the header {wanted}."
                    f" Expected as many in every line. Correct it, or put text that holds {between!r} between"
                    " quotation marks."
                )
    except csv.Error as problem:
        raise DataError(
            f"line {lines.line_num} of {name} cannot be read ({problem}). Expected fields separated by"
            f" {between!r}. Correct it."
        ) from problem
