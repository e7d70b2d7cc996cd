"""Encoded images in rows of parquet files, or in tar and zip archives, one file or several shards of a set."""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from memloc.data._archives import opened_tar
from memloc.data._files import Encoded, decoded, labels_of_folders
from memloc.data._images import Images, name_id
from memloc.data._labels import LABEL_COLUMNS, number_labels
from memloc.data._limits import check_limit, read_parquet, readable
from memloc.data._listing import READ, UNREAD, is_hidden
from memloc.errors import DataError
from memloc.fit import Fit

_SHARD = re.compile(r"^(?P<set>.*?)[-_.]?(?P<number>\d+)(?:-of-(?P<all>\d+))?$")  # a name without its suffix
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LABEL_FILES = ("cls", "cls.txt", "label", "label.txt")
_JSON = ("json",)


def open_parquet(paths: Sequence[Path], fit: Fit, max_bad: int) -> Images:
    """A column of encoded images, and perhaps one of labels, from one file or the shards of a set."""
    where = paths[0].name if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} shards)"
    encoded: Encoded = []
    values: list[Any] = []
    label: str | None = None
    known: tuple[str, ...] = ()
    for path in paths:
        with readable(path, "one. Write or fetch it again.", state="is no readable parquet file"):
            table = read_parquet(path)
        column = next((name for name in ("image", "img") if name in table.column_names), None)
        if column is None:
            raise DataError(
                f"{path} has the columns {', '.join(table.column_names)}. Expected `image` or `img` with encoded bytes."
                " Rename the column that holds them."
            )
        cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in table.column(column).to_pylist()]
        encoded += [
            (f"{path.name}[{row}]", cell if isinstance(cell, bytes) else None) for row, cell in enumerate(cells)
        ]
        label = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
        known = known or _names_of(table, label)
        values += [None] * len(cells) if label is None else table.column(label).to_pylist()
    kept, pixels, skipped = decoded(encoded, fit, max_bad, where)
    labels: torch.Tensor | None = None
    names: tuple[str, ...] = ()
    if label is not None:
        labels, names = number_labels([values[row] for row in kept], len(kept), where, known)
    return Images(pixels, torch.tensor(kept), tuple(encoded[row][0] for row in kept), labels, names, skipped)


def open_archive(paths: Sequence[Path], fit: Fit, max_bad: int) -> Images:
    """Images of tar or zip archives: samples of WebDataset (`0001.jpg`, `0001.cls`), or files in folders of classes."""
    where = paths[0].name if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} shards)"
    encoded: Encoded = []
    places: list[str] = []
    beside: dict[str, Any] = {}
    for path in paths:
        with readable(path, "one. Fetch it again.", state="is no complete archive"):
            for name, content in _members(path):
                key, _, end = _sample(name)
                sample = key if len(paths) == 1 else f"{path.name}/{key}"
                if end.endswith(tuple(each[1:] for each in (*READ, *UNREAD))):
                    places.append(sample)
                    encoded.append((name if len(paths) == 1 else f"{path.name}/{name}", content))
                elif (found := _label(end, content, name)) is not None:
                    beside[sample] = found
    if not encoded:
        raise DataError(
            f"{where} holds no images that memloc knows. Expected a published set, samples of WebDataset such as"
            " 0001.jpg and 0001.cls, or folders of images. Pass another archive, or the folder it was made from."
        )
    kept, pixels, skipped = decoded(encoded, fit, max_bad, where)
    names = [encoded[row][0] for row in kept]
    if beside:
        labels, classes = number_labels([beside.get(places[row]) for row in kept], len(kept), where)
    else:
        found_labels, classes = labels_of_folders(names if len(paths) == 1 else [places[row] for row in kept])
        return Images(pixels, _ids(names), tuple(names), found_labels, classes, skipped)
    return Images(pixels, _ids(names), tuple(names), labels, classes, skipped)


def shards_of(folder: Path, suffix: str, part: str | None) -> list[Path]:
    """The shards of a set in a folder, sorted: of files that end so, those of one set.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
    ...         _ = (Path(folder) / f"{name}.parquet").write_text("")
    ...     [path.name for path in shards_of(Path(folder), ".parquet", "train")]
    ['train-00000-of-00002.parquet', 'train-00001-of-00002.parquet']

    Raises:
        DataError: several sets of which none is named, or no such set.
    """
    sets: dict[str, list[Path]] = {}
    for path in sorted(each for each in folder.rglob(f"*{suffix}") if not _is_system(each.relative_to(folder))):
        name = path.name.removesuffix(suffix)
        match = _SHARD.match(name)
        sets.setdefault(match["set"].lower() if match else name.lower(), []).append(path)
    for shards in sets.values():
        _check_whole([path.name.removesuffix(suffix) for path in shards], folder)
    if len(sets) < 2 and part is None:
        return next(iter(sets.values()), [])
    if part is not None and part in sets:
        return sets[part]
    listed = ", ".join(sorted(name or "files without a name" for name in sets))
    step = f"Pass {folder}:{'train' if 'train' in sets else min(sets)}, or one of the files."
    raise DataError(
        f"the folder {str(folder)!r} holds tables or archives of {len(sets)} sets: {listed}. Expected"
        f" {'one set' if part is None else repr(part) + ' among them'}. {step}"
    )


def _check_whole(names: list[str], folder: Path) -> None:
    """Raise DataError where a shard is missing between others, or of the number that their names tell."""
    found = [match for match in map(_SHARD.match, names) if match]
    if len(found) < 2 and not any(match["all"] for match in found):
        return
    numbers = {int(match["number"]) for match in found}
    told = [int(match["all"]) for match in found if match["all"]]
    least = min(numbers) if not told else min(min(numbers), 0 if 0 in numbers or max(numbers) < max(told) else 1)
    wanted = range(least, least + max(told)) if told else range(least, max(numbers) + 1)
    missing = sorted(set(wanted) - numbers)
    if missing and (told or len(missing) < len(numbers)):  # else they are no running numbers
        raise DataError(
            f"the folder {str(folder)!r} lacks {len(missing)} of {len(wanted)} shards, such as number {missing[0]}"
            f" beside {names[0]!r}. Expected all of them. Fetch the others, or pass single files."
        )


def braced(text: str) -> list[Path]:
    """The files that a name with {000..123} in it stands for, as WebDataset's users write it; [] without one.

    >>> [path.name for path in braced("train-{08..10}.tar")]
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    match = _BRACES.search(text)
    if match is None:
        return []
    first, last = int(match[1]), int(match[2])
    check_limit("ROWS", last - first, text)
    width = len(match[1])
    return [
        Path(f"{text[: match.start()]}{number:0{width}d}{text[match.end() :]}") for number in range(first, last + 1)
    ]


def _is_system(path: Path) -> bool:
    return path.name.startswith(".") or any(is_hidden(part) for part in path.parts[:-1])


def _names_of(table: Any, label: str | None) -> tuple[str, ...]:
    """The names of class numbers where the datasets library left them in a table."""
    try:
        stored = json.loads((table.schema.metadata or {})[b"huggingface"])
        names = stored["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an archive's files, those of systems left out."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and not _is_system(Path(info.filename)):
                    check_limit("BYTES", info.file_size, f"{info.filename} in {path}")
                    yield info.filename, zipped.read(info)
        return
    with opened_tar(path) as archive:
        for member in archive:
            if member.isfile() and not _is_system(Path(member.name)):
                check_limit("BYTES", member.size, f"{member.name} in {path}")
                yield member.name.removeprefix("./"), _content(archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "only files are listed"
    return file.read()


def _sample(name: str) -> tuple[str, str, str]:
    """The key of a sample and the end of the file: WebDataset parts names at the first dot after the folder.

    >>> _sample("a/0001.seg.png")
    ('a/0001', '.', 'seg.png')
    """
    folder, slash, file = name.rpartition("/")
    key, dot, end = file.partition(".")
    return f"{folder}{slash}{key}", dot, end.lower()


def _label(end: str, content: bytes, name: str) -> Any:
    """The label in a file of a sample; None in files of other kinds."""
    if end in _LABEL_FILES:
        text = content.decode("utf-8", "replace").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else text
    if end not in _JSON:
        return None
    with readable(name, "JSON. Write it again."):
        stored = json.loads(content)
    return next((stored[key] for key in LABEL_COLUMNS if key in stored), None) if isinstance(stored, dict) else None


def _ids(names: list[str]) -> torch.Tensor:
    return torch.tensor([name_id(name) for name in names])
