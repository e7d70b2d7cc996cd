"""Images that are rows of one array: the embedded sample, npz, IDX, and the published sets."""

from __future__ import annotations

import gzip
import math
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from memloc.data._archives import Found
from memloc.data._images import Images
from memloc.data._labels import number_labels
from memloc.data._limits import check_limit, readable
from memloc.errors import DataError


def open_sample(part: str) -> Images:
    """The embedded sample's "train" or "test"."""
    if part not in ("train", "test"):
        raise DataError(f"the sample has no part {part!r}. Expected 'train' or 'test'. Pass sample:train.")
    with files("memloc.data").joinpath("sample/fashion_mnist.npz").open("rb") as file, np.load(file) as stored:
        pixels, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
        names = tuple(str(name) for name in stored["class_names"])
    return _numbered(pixels, labels, prefix=f"sample:{part}", class_names=names)


def open_npz(path: Path) -> Images:
    """Arrays `images` and perhaps `labels` that numpy.savez wrote."""
    with readable(path, "arrays saved by numpy.savez. Save it again."):
        with zipfile.ZipFile(path) as zipped:
            check_limit("BYTES", sum(info.file_size for info in zipped.infolist()), path)
            for info in zipped.infolist():
                _check_array(zipped, info, path)
        with np.load(path, allow_pickle=False) as stored:
            held = ", ".join(sorted(stored.files))
            content = {name: stored[name] for name in ("images", "labels") if name in stored.files}
    if "images" not in content or content["images"].dtype != np.uint8 or content["images"].ndim not in (3, 4):
        raise DataError(
            f"{path} holds {held or 'nothing'}. Expected `images`, uint8 of shape (N, H, W, C) or"
            " (N, H, W), and optionally `labels`. Save it with numpy.savez(path, images=..., labels=...)."
        )
    return _numbered(content["images"], content.get("labels"), prefix=path.name)


def _check_array(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Raise where the header of an array asks for more than the file holds."""
    with zipped.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        wanted = math.prod(shape) * kind.itemsize
        if wanted > info.file_size:
            raise ValueError(f"{info.filename} says that it holds {wanted} bytes and has {info.file_size}")


def open_idx(path: Path) -> Images:
    """An IDX file of images, and of labels where one lies beside it."""
    pixels = _read_idx(path)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    labels = _read_idx(beside) if beside != path and beside.is_file() else None
    return _numbered(pixels, labels, prefix=path.name)


def _read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: two zero bytes, the type 8, the number of axes, big-endian sizes, then the
    data."""
    with (
        readable(path, "one. Fetch it again.", state="is no complete IDX file of unsigned bytes"),
        gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file,
    ):
        _, _, kind, axes = file.read(4)
        if kind != 8:
            raise ValueError("not unsigned bytes")
        shape = [int.from_bytes(file.read(4), "big") for _ in range(axes)]
        count = math.prod(shape)
        check_limit("BYTES", count, path)
        content = file.read(count + 1)
        if len(content) != count:
            raise ValueError(f"{'more' if len(content) > count else 'fewer'} bytes than its header says")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape).copy()


def published(found: Found, prefix: str) -> Images:
    """Images of a published set; class numbers stay as they are there."""
    pixels, labels, names = found
    if labels is not None and len(labels):
        check_limit("CLASSES", int(labels.max()), prefix)
        if names and int(labels.max()) >= len(names):
            raise DataError(
                f"{prefix} has the class number {int(labels.max())} and {len(names)} names of classes. Expected a name"
                " for every number. Fetch the files again."
            )
    if labels is not None and not names:
        names = tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))
    return _numbered(pixels, labels, prefix=prefix, class_names=names)


def _numbered(
    pixels: np.ndarray, labels: np.ndarray | None, *, prefix: str, class_names: tuple[str, ...] = ()
) -> Images:
    """Images that are rows of an array (N, H, W) or (N, H, W, C)."""
    channels = pixels.shape[3] if pixels.ndim == 4 else 1
    if pixels.size == 0 or pixels.ndim not in (3, 4) or not (channels in (1, 3) or channels < min(pixels.shape[1:3])):
        raise DataError(
            f"{prefix} holds images of shape {pixels.shape}. Expected at least one, of at least one pixel, as (N, H, W)"
            " or (N, H, W, C) with the channels last, fewer than rows and columns. Move the axis of channels before"
            " saving."
        )
    array = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
    numbers = None
    if labels is not None:
        numbers, class_names = number_labels(labels, len(pixels), prefix, class_names)
    names = tuple(f"{prefix}[{row}]" for row in range(len(array)))
    return Images(torch.from_numpy(np.ascontiguousarray(array)), torch.arange(len(array)), names, numbers, class_names)
