"""The published files of CIFAR, SVHN and STL-10: folders, tar archives or single files, read without running what they
hold."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np

from memloc.data._limits import Capped, check_limit, readable
from memloc.data._mat import read_mat
from memloc.data._plain_pickle import unpickled
from memloc.errors import DataError, nearest

Read = Callable[[], bytes]
Files = Mapping[str, Read]
Found = tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]  # images (N, H, W, C), labels, class names
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def members(path: Path) -> dict[str, Read]:
    """Files of a folder (not of its subfolders) or of a tar or zip archive, by their own name."""
    if path.is_dir():
        return {file.name: partial(_from_folder, file) for file in path.iterdir() if file.is_file()}
    with readable(path, "one. Fetch it again.", state="is no complete archive"):
        if path.name.endswith(".zip"):
            with zipfile.ZipFile(path) as zipped:
                held = [info for info in zipped.infolist() if not info.is_dir()]
            check_limit("ROWS", len(held), path)
            return {Path(info.filename).name: partial(_from_zip, path, info.filename) for info in held}
        with opened_tar(path) as archive:
            names: list[str] = []
            for member in archive:
                check_limit("ROWS", len(names), path)
                names += [member.name] if member.isfile() else []
    return {Path(name).name: partial(_from_tar, path, name) for name in names}


def _from_folder(path: Path) -> bytes:
    check_limit("BYTES", path.stat().st_size, path)
    return path.read_bytes()


def _from_zip(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as opened:
        check_limit("BYTES", opened.getinfo(name).file_size, f"{name} in {path}")
        return opened.read(name)


def _from_tar(path: Path, name: str) -> bytes:
    with opened_tar(path) as opened:
        member = opened.getmember(name)
        check_limit("BYTES", member.size, f"{name} in {path}")
        file = opened.extractfile(member)
        assert file is not None, "only files are listed"
        return file.read()


@contextmanager
def opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar archive, perhaps compressed by gzip, that unpacks to no more than the limit."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        with tarfile.open(fileobj=Capped(cast("IO[bytes]", stream), path), mode="r:") as archive:
            yield archive


def read_archive(files: Files, part: str, where: str) -> Found | None:
    """Images of CIFAR-10, CIFAR-100 or STL-10 from the files that make them up; None where these are other files.

    Args:
        part: train, test, or unlabeled (STL-10).
    """
    known = _parts(files)
    if known is None:
        return None
    if part not in known:
        raise DataError(
            f"{where} has no part {part!r}. {nearest(part, known)} Expected one of {', '.join(known)}. Pass"
            f" {where}:train."
        )
    with readable(where, "the published files. Fetch them again.", state="is damaged"):
        try:
            return known[part]()
        except KeyError as problem:
            raise DataError(f"{where} lacks {problem}. Expected all files of the set. Fetch it again.") from problem


def _parts(files: Files) -> dict[str, Callable[[], Found]] | None:
    """How to read each part of the set that the files make up."""
    names = set(files)
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    if batches[0] in names:
        parts = {"train": batches, "test": ["test_batch"]}
        return {
            part: partial(_cifar, files, of, b"labels", ("batches.meta", "label_names")) for part, of in parts.items()
        }
    if {"train", "test", "meta"} <= names:
        return {
            part: partial(_cifar, files, [part], b"fine_labels", ("meta", "fine_label_names"))
            for part in ("train", "test")
        }
    if f"{batches[0]}.bin" in names:
        parts = {"train": [f"{name}.bin" for name in batches], "test": ["test_batch.bin"]}
        return {part: partial(_binary, files, of, 1, "batches.meta.txt") for part, of in parts.items()}
    if {"train.bin", "test.bin"} <= names:
        return {part: partial(_binary, files, [f"{part}.bin"], 2, "fine_label_names.txt") for part in ("train", "test")}
    if "train_X.bin" in names:
        return {
            part: partial(_stl10_part, files, part)
            for part in ("train", "test", "unlabeled")
            if f"{part}_X.bin" in names
        }
    return None


def _stl10_part(files: Files, part: str) -> Found:
    labels = files[f"{part}_y.bin"]() if f"{part}_y.bin" in files else None
    return stl10(files[f"{part}_X.bin"](), labels, _lines(files, "class_names.txt"))


def stl10(images: bytes, labels: bytes | None, names: tuple[str, ...]) -> Found:
    """STL-10's binary files: 3x96x96 bytes an image, column by column; labels from 1."""
    pixels = np.frombuffer(images, dtype=np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    known = None if labels is None else np.frombuffer(labels, dtype=np.uint8).astype(np.int64) - 1
    return np.ascontiguousarray(pixels), known, (names or _STL10) if known is not None else ()


def svhn(path: Path) -> Found:
    """SVHN's cropped digits: a MATLAB file with X (32, 32, 3, N) and y from 1 to 10, where 10 is the digit 0."""
    with readable(path, "SVHN's train_32x32.mat or test_32x32.mat. Fetch it again."):
        content = read_mat(path)
    if "X" not in content or content["X"].ndim != 4 or content["X"].dtype != np.uint8:
        held = ", ".join(sorted(content))
        raise DataError(
            f"{path} holds {held or 'nothing'}. Expected X, uint8 of shape (32, 32, 3, N), and y. Pass SVHN's cropped"
            " digits (format 2)."
        )
    labels = content["y"].reshape(-1).astype(np.int64) % 10 if "y" in content else None
    return (
        np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2)),
        labels,
        tuple(map(str, range(10))) if labels is not None else (),
    )


def _cifar(files: Files, batches: list[str], label: bytes, meta: tuple[str, str]) -> Found:
    """CIFAR's Python version."""
    loaded = [unpickled(files[name]()) for name in batches]
    if not all(isinstance(batch[b"data"], np.ndarray) for batch in loaded):
        raise ValueError("images that are no array")
    pixels = np.concatenate([np.asarray(batch[b"data"], dtype=np.uint8) for batch in loaded]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.asarray(batch[label], dtype=np.int64) for batch in loaded])
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels, _meta(files, *meta)


def _binary(files: Files, batches: list[str], label_bytes: int, names: str) -> Found:
    """CIFAR's binary version: label bytes (the last is the fine one), then 3x32x32."""
    rows = np.concatenate(
        [np.frombuffer(files[name](), dtype=np.uint8).reshape(-1, label_bytes + 3072) for name in batches]
    )
    pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), rows[:, label_bytes - 1].astype(np.int64), _lines(files, names)


def _meta(files: Files, name: str, key: str) -> tuple[str, ...]:
    if name not in files:
        return ()
    return tuple(
        each.decode() if isinstance(each, bytes) else str(each) for each in unpickled(files[name]())[key.encode()]
    )


def _lines(files: Files, name: str) -> tuple[str, ...]:
    return tuple(files[name]().decode().split()) if name in files else ()
