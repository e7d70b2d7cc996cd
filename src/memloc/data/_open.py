"""Open images by what a user types: the embedded sample, a folder, parquet, IDX, npz, a published archive, or a set of
the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from memloc.data._formats import Asked, format_of
from memloc.data._images import Images, in_size
from memloc.data._limits import check_limit, readable
from memloc.errors import SpecError
from memloc.fit import Fit

_PARTS = ("train", "training", "test", "testing", "unlabeled", "val", "valid", "validation", "dev", "extra")


def open_images(where: str | Path, *, size: int | Fit | None = None, max_bad: int = 0) -> Images:
    """Open a set of images.

    Args:
        where: "sample:train" or "sample:test" (embedded Fashion-MNIST); a folder of images (nested folders are
            classes, unless a metadata.csv, .jsonl or .parquet beside the images names labels; hidden and system folders
            are left out); a .parquet file with image bytes, or a folder of such shards; a .tar or .zip archive of
            images or of WebDataset's samples, or a folder of such shards; an IDX image file (labels beside it are
            found); a .npz file with `images` and optionally `labels`; the folder or archive of CIFAR-10, CIFAR-100 or
            STL-10, or a file of SVHN or STL-10; or "hf:NAME" for a set of the datasets library. ":test" after the name
            takes another part than train, or the folder or the shards of that set.
        size: height and width to bring every image to (shorter side resized, centre cropped); needed for a folder of
            mixed sizes. An encoder's `fit` brings them to its size as its own preprocessing does.
        max_bad: unreadable images to accept; they are skipped and listed in `Images.skipped`.
    Returns:
        Images, as uint8: in memory, or for folders that need more than 2 GiB at `size` read from their files as they
            are used.
    Raises:
        DataNotFoundError: no such file or folder. DataError: nothing readable, too many bad images, mixed sizes, images
        smaller than `size`.

    >>> open_images("sample:test").pixels.shape
    torch.Size([1000, 1, 28, 28])
    """
    text = str(where)
    if not text.strip():
        raise SpecError(
            "the images are named by an empty text. Expected a folder or a file. Pass its path, or sample:train."
        )
    fit = size if isinstance(size, Fit) else Fit(size)
    if fit.size is not None and fit.size < 1:
        raise SpecError(f"size is {fit.size}. Expected at least 1 pixel. Pass --size 32.")
    path, part = _path_and_part(text)
    asked = Asked(text, path, part, fit, max_bad)
    with readable(text, "images that are whole. Fetch or save them again."):
        images = format_of(asked).open(asked)
        check_limit("ROWS", len(images), text)
    return replace(in_size(images, fit, text), source=_source(text), size=fit.size)


def _path_and_part(text: str) -> tuple[Path, str | None]:
    """A path, and the part of the set that stands after a colon."""
    before, colon, part = text.rpartition(":")
    known = part in _PARTS or (bool(part) and Path(before).expanduser().is_dir())
    if colon and known and not Path(text).expanduser().exists():
        return Path(before).expanduser(), part
    return Path(text).expanduser(), None


def _source(text: str) -> str:
    """What opens the same images from any folder."""
    if text.startswith(("sample:", "hf:")):
        return text
    path, part = _path_and_part(text)
    return f"{path.resolve()}:{part}" if part else str(path.resolve())
