"""Encoded images in rows of parquet files, or in tar and zip archives, one file or several shards of a set."""

from __future__ import annotations

import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from memloc.data._archives import opened_tar
from memloc.data._files import chosen_set, decoded, labels_of_folders
from memloc.data._images import Images, name_id
from memloc.data._labels import TABLE_LABELS, WEAK_LABELS, number_labels
from memloc.data._limits import check_limit, read_parquet, readable
from memloc.data._listing import READ, UNREAD, is_hidden
from memloc.errors import DataError, warn
from memloc.fit import Fit

_SHARD = re.compile(r"^(?P<set>.*?[-_.])?(?P<number>\d+)(?:-of-(?P<all>\d+))?$")  # a name without its suffix
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LABEL_FILES = ("cls", "cls.txt", "label", "label.txt")
_PICTURES = tuple(each[1:] for each in (*READ, *UNREAD))
_LARGEST = 1 << 24  # bytes of a file of labels


def open_parquet(paths: Sequence[Path], fit: Fit, max_bad: int) -> Images:
    """A column of encoded images, and perhaps one of labels, from one file or the shards of a set."""
    where = _where(paths)
    names: list[str] = []
    values: list[Any] = []
    labelled: str | None = None
    known: tuple[str, ...] = ()

    def rows() -> Iterator[tuple[str, bytes | None]]:
        nonlocal labelled, known
        for path in paths:
            with readable(path, "one. Write or fetch it again.", state="is no readable parquet file"):
                table = read_parquet(path)
            column = next((name for name in ("image", "img") if name in table.column_names), None)
            if column is None:
                raise DataError(
                    f"{path} has the columns {', '.join(table.column_names)}. Expected `image` or `img` with encoded"
                    " bytes. Rename the column that holds them."
                )
            label = next((name for name in TABLE_LABELS if name in table.column_names), None)
            labelled, known = labelled or label, known or _names_of(table, label)
            values.extend([None] * len(table) if label is None else table.column(label).to_pylist())
            for row, cell in enumerate(table.column(column).to_pylist()):
                content = cell.get("bytes") if isinstance(cell, dict) else cell
                names.append(f"{path.name}[{row}]")
                yield names[-1], content if isinstance(content, bytes) else None

    kept, pixels, skipped = decoded(rows(), fit, max_bad, where)
    labels, classes = _numbered([values[row] for row in kept], where, labelled, known)
    return Images(pixels, torch.tensor(kept), tuple(names[row] for row in kept), labels, classes, skipped)


def open_archive(paths: Sequence[Path], fit: Fit, max_bad: int, part: str | None = None) -> Images:
    """Images of tar or zip archives: samples of WebDataset (`0001.jpg`, `0001.cls`), or files in folders of classes.

    Args:
        part: the folder of a set within it, such as train.
    """
    where = _where(paths)
    plain: list[str] = []  # names within their archive
    names: list[str] = []
    samples: list[str] = []
    beside: dict[str, Any] = {}

    def pictures() -> Iterator[tuple[str, bytes | None]]:
        for path in paths:
            with readable(path, "one. Fetch it again.", state="is no complete archive"):
                listed = [name for name, _ in _members(path, None)]
            within, wanted = _pictures_of(listed, part, where)
            shard = "" if len(paths) == 1 else f"{path.name}/"
            with readable(path, "one. Fetch it again.", state="is no complete archive"):
                for name, content in _members(path, {*wanted, *_label_names(listed)}):
                    sample = f"{shard}{_sample(name)[0]}"
                    if name in wanted:
                        plain.append(name.removeprefix(within))
                        names.append(f"{shard}{plain[-1]}")
                        samples.append(sample)
                        yield names[-1], content
                    elif (found := _label(_sample(name)[1], content, name)) is not None:
                        beside[sample] = found

    kept, pixels, skipped = decoded(pictures(), fit, max_bad, where)
    labels, classes = (
        number_labels([beside.get(samples[row]) for row in kept], len(kept), where)
        if beside
        else labels_of_folders([plain[row] for row in kept])
    )
    chosen = tuple(names[row] for row in kept)
    if len(set(chosen)) < len(chosen):
        twice = next(name for number, name in enumerate(chosen) if name in chosen[:number])
        raise DataError(f"{where} holds {twice!r} twice. Expected different names. Write the archive again.")
    return Images(pixels, torch.tensor([name_id(name) for name in chosen]), chosen, labels, classes, skipped)


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
        match = _SHARD.match(path.name.removesuffix(suffix))
        stem = path.name.removesuffix(suffix) if match is None else (match["set"] or "").rstrip("-_.")
        within = path.parent.relative_to(folder).as_posix()
        key = "/".join(each for each in ("" if within == "." else within, stem) if each)
        sets.setdefault(key.lower(), []).append(path)
    for shards in sets.values():
        _check_whole([path.name.removesuffix(suffix) for path in shards], folder)
    if len(sets) < 2 and part is None:
        return next(iter(sets.values()), [])
    meant = [key for key in sets if part is not None and (key == part or re.split(r"[-_./]", key)[-1] == part)]
    if len(meant) == 1:
        return sets[meant[0]]
    listed = ", ".join(sorted(name or "files without a name" for name in sets))
    example = next((key for key in sorted(sets) if key.endswith("train")), min(sets))
    ends = [re.split(r"[-_./]", key)[-1] for key in sets]
    example = end if ends.count(end := re.split(r"[-_./]", example)[-1]) == 1 else example
    raise DataError(
        f"the folder {str(folder)!r} holds tables or archives of {len(sets)} sets: {listed}. Expected"
        f" {'one set' if part is None else repr(part) + ' to be one of them'}. Pass {folder}:{example or 'NAME'}, or"
        " one of the files."
    )


def braced(text: str) -> list[Path]:
    """The files that a name with {000..123} in it stands for, as WebDataset's users write it; [] without one.

    >>> [path.name for path in braced("train-{08..10}.tar")]
    ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    match = _BRACES.search(text)
    if match is None or Path(text).exists():
        return []
    first, last = int(match[1]), int(match[2])
    check_limit("ROWS", last - first, text)
    before, after, width = text[: match.start()], text[match.end() :], len(match[1])
    return [Path(f"{before}{number:0{width}d}{after}") for number in range(first, last + 1)]


def _where(paths: Sequence[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} shards)"


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


def _numbered(
    values: list[Any], where: str, label: str | None, known: tuple[str, ...]
) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Class numbers of a column; none of one that only may be of labels and holds no classes, which is said."""
    if label is None:
        return None, ()
    try:
        return number_labels(values, len(values), where, known)
    except DataError as problem:
        if label not in WEAK_LABELS:
            raise
        warn(f"The column {label!r} is not read as labels ({str(problem).split('. ')[0]}).")
        return None, ()


def _members(path: Path, wanted: set[str] | None) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an archive's files, those of systems left out; names alone where nothing is wanted."""
    held = 0
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and not _is_system(Path(info.filename)):
                    take = wanted is not None and info.filename in wanted
                    held += info.file_size if take else 0
                    check_limit("BYTES", held, path)
                    yield info.filename, zipped.read(info) if take else b""
        return
    with opened_tar(path) as archive:
        for member in archive:
            name = os.fsencode(member.name).decode("utf-8", "backslashreplace").removeprefix("./")
            if member.isfile() and not _is_system(Path(name)):
                check_limit("BYTES", member.size, f"{name} in {path}")
                yield name, _content(archive, member) if wanted is not None and name in wanted else b""


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "only files are listed"
    return file.read()


def _sample(name: str) -> tuple[str, str]:
    """The key of a sample and the end of the file: WebDataset parts names at the first dot after the folder.

    >>> _sample("a/0001.seg.png")
    ('a/0001', 'seg.png')
    """
    folder, slash, file = name.rpartition("/")
    key, _, end = file.partition(".")
    return f"{folder}{slash}{key}", end.lower()


def _pictures_of(names: list[str], part: str | None, where: str) -> tuple[str, set[str]]:
    """The folder of the set that is meant, and the images in it: of a sample with several the one that is named
    plainly, since the others, such as 1.seg.png, are masks of it."""
    images = [name for name in names if f".{_sample(name)[1]}".endswith((*READ, *UNREAD))]
    if not images:
        raise DataError(
            f"{where} holds no images that memloc knows. Expected a published set, samples of WebDataset such as"
            " 0001.jpg and 0001.cls, or folders of images. Pass another archive, or the folder it was made from."
        )
    within = chosen_set(where, images, part)
    images = [name for name in images if name.startswith(within)]
    plain = {_sample(name)[0] for name in images if _sample(name)[1] in _PICTURES}
    kept = {name for name in images if _sample(name)[1] in _PICTURES or _sample(name)[0] not in plain}
    if len(kept) < len(set(images)):
        other = next(name for name in images if name not in kept)
        warn(f"{len(set(images)) - len(kept)} further images of samples in {where}, such as {other}, are left out.")
    return within, kept


def _label_names(names: list[str]) -> set[str]:
    return {name for name in names if _sample(name)[1] in (*_LABEL_FILES, "json")}


def _label(end: str, content: bytes, name: str) -> Any:
    """The label in a file of a sample; None in files of other kinds."""
    if len(content) > _LARGEST:
        raise DataError(f"{name} holds {len(content)} bytes. Expected a label. Write it again.")
    if end in _LABEL_FILES:
        text = content.decode("utf-8", "replace").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else text
    if end != "json":
        return None
    with readable(name, "JSON. Write it again."):
        stored = json.loads(content)
    return next((stored[key] for key in TABLE_LABELS if key in stored), None) if isinstance(stored, dict) else None
