"""Open images by what a user types: the embedded sample, a folder, parquet, IDX, npz, a published archive, or a set of
the hub."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from memloc.data._archives import ARCHIVES, Found, members, read_archive, stl10, svhn
from memloc.data._decode import decode_one, fitted, to_tensor
from memloc.data._images import Images, name_id
from memloc.data._lazy import ImageFiles, LazyPixels
from memloc.errors import DataError, DataNotFoundError, MissingExtraError, SpecError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MEMORY_LIMIT = 2 * 2**30  # bytes of decoded pixels: a folder that needs more is read as it is used
_PARTS = ("train", "test", "unlabeled", "validation", "extra")


def open_images(where: str | Path, *, size: int | None = None, max_bad: int = 0) -> Images:
    """Open a set of images.

    Args:
        where: "sample:train" or "sample:test" (embedded Fashion-MNIST); a folder of images (nested folders are
            classes); a .parquet file with image bytes; an IDX image file (labels beside it are found); a .npz file
            with `images` and optionally `labels`; the folder or archive of CIFAR-10, CIFAR-100 or STL-10, or a file of
            SVHN or
            STL-10; or "hf:NAME" for a set of the datasets library. ":test" after the name takes another part than
            train.
        size: height and width to bring every image to (shorter side resized, centre cropped); needed for a folder of
            mixed sizes.
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
    if size is not None and size < 1:
        raise SpecError(f"size is {size}. Expected at least 1 pixel. Pass --size 32.")
    if text.startswith("sample:"):
        images = _open_sample(text.removeprefix("sample:"))
    elif text.startswith("hf:"):
        return replace(_open_hub(text.removeprefix("hf:"), size, max_bad), source=text, size=size)
    else:
        path, part = _path_and_part(text)
        if not path.exists():
            raise DataNotFoundError(
                f"there is no file or folder {text!r}. Expected images: a folder, .parquet, IDX or .npz, an archive, or"
                " sample:train. Check the path, or try: memloc demo"
            )
        found = _open_path(path, part, size, max_bad, text)
        if found.pixels.shape[2:] == (size, size) or isinstance(found.pixels, LazyPixels):
            return replace(found, source=_source(text), size=size)
        images = found
    if size is not None and tuple(images.pixels.shape[2:]) != (size, size):
        pictures = [Image.fromarray(_to_array(pixels)) for pixels in images.pixels]
        images = replace(images, pixels=torch.stack([to_tensor(fitted(picture, size, text)) for picture in pictures]))
    return replace(images, source=_source(text), size=size)


def _path_and_part(text: str) -> tuple[Path, str | None]:
    """A path, and the part of the set that stands after a colon."""
    before, colon, part = text.rpartition(":")
    if colon and part in _PARTS and not Path(text).expanduser().exists():
        return Path(before).expanduser(), part
    return Path(text).expanduser(), None


def _open_path(path: Path, part: str | None, size: int | None, max_bad: int, text: str) -> Images:
    if path.is_dir() or path.name.endswith(ARCHIVES):
        archive = read_archive(members(path), part or "train", str(path))
        if archive is not None:
            return _published(archive, f"{path.name}:{part or 'train'}")
        if not path.is_dir():
            raise DataError(
                f"{text!r} holds no set that memloc knows. Expected CIFAR-10, CIFAR-100 or STL-10. Unpack it and pass"
                " the folder."
            )
    if part is not None:
        raise DataError(
            f"{text!r} has no parts. Expected an archive of CIFAR or STL-10 before ':{part}'. Leave ':{part}' out."
        )
    if path.is_dir():
        return _open_folder(path, size, max_bad)
    if path.suffix == ".parquet":
        return _open_parquet(path, size, max_bad)
    if path.suffix == ".npz":
        return _open_npz(path)
    if path.suffix == ".mat":
        return _published(svhn(path), path.name)
    if path.name.endswith("_X.bin"):
        labels = path.with_name(path.name.replace("_X.bin", "_y.bin"))
        return _published(stl10(path.read_bytes(), labels.read_bytes() if labels.exists() else None, ()), path.name)
    if "idx3-ubyte" in path.name or "idx3" in path.suffix:
        return _open_idx(path)
    raise DataError(
        f"{text!r} is of no kind that memloc reads. Expected a folder, .parquet, .npz, an IDX file"
        " (…-images-idx3-ubyte, also .gz), an archive of CIFAR or STL-10, or a .mat file of SVHN. Pass one of these."
    )


def _published(found: Found, prefix: str) -> Images:
    """Images of a published set; class numbers stay as they are there."""
    pixels, labels, names = found
    if labels is not None and not names:
        names = tuple(str(number) for number in range(int(labels.max()) + 1))
    return _numbered(pixels, labels, prefix=prefix, class_names=names)


def _open_hub(text: str, size: int | None, max_bad: int) -> Images:
    """A set of the datasets library: NAME or NAME:SPLIT, from the hub, its cache, or a folder."""
    try:
        import datasets
    except ImportError as problem:
        raise MissingExtraError(
            "datasets is not installed. Expected it for hf: images. Install it with: pip install 'memloc[datasets]'"
        ) from problem
    name, _, split = text.rpartition(":") if ":" in text else (text, "", "train")
    try:
        on_disk = (Path(name) / "dataset_info.json").is_file() or (Path(name) / "dataset_dict.json").is_file()
        loaded: Any = datasets.load_from_disk(name) if on_disk else datasets.load_dataset(name, split=split)
        table = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        if on_disk and ":" in text and not isinstance(loaded, datasets.DatasetDict):
            raise ValueError(f"it has no splits, so none is {split!r}; leave ':{split}' out")
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetNotFoundError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise DataNotFoundError(
            f"'hf:{text}' cannot be opened ({reason}). Expected a set on the hub and a network, one in the cache, or a"
            " folder. Check its name and split."
        ) from problem
    column = next((key for key, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise DataError(
            f"'hf:{text}' has the columns {', '.join(table.features)}. Expected one of images. Pass another set."
        )
    table = table.cast_column(column, datasets.Image(decode=False))
    encoded: list[tuple[str, Path | bytes | None]] = []
    for row, cell in enumerate(table[column]):
        encoded.append((f"{name}[{row}]", cell["bytes"] if cell["bytes"] is not None else Path(cell["path"])))
    kept, pixels, skipped = _decode(encoded, size, max_bad, f"hf:{text}")
    label = next((key for key in ("label", "labels", "fine_label") if key in table.features), None)
    labels: torch.Tensor | None = None
    names: tuple[str, ...] = ()
    if label is not None:
        known = tuple(getattr(table.features[label], "names", None) or ())
        labels, names = _labels(np.array(table[label], dtype=object)[kept], len(kept), f"hf:{text}", known)
    return Images(pixels, torch.tensor(kept), tuple(encoded[row][0] for row in kept), labels, names, skipped)


def _source(text: str) -> str:
    """What opens the same images from any folder."""
    if text.startswith("sample:"):
        return text
    path, part = _path_and_part(text)
    return f"{path.resolve()}:{part}" if part else str(path.resolve())


def _to_array(pixels: torch.Tensor) -> np.ndarray:
    return pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()


def _open_sample(part: str) -> Images:
    if part not in ("train", "test"):
        raise DataError(f"the sample has no part {part!r}. Expected 'train' or 'test'. Pass sample:train.")
    with files("memloc.data").joinpath("sample/fashion_mnist.npz").open("rb") as file, np.load(file) as stored:
        pixels, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
        names = tuple(str(name) for name in stored["class_names"])
    return _numbered(pixels, labels, prefix=f"sample:{part}", class_names=names)


def _numbered(
    pixels: np.ndarray, labels: np.ndarray | None, *, prefix: str, class_names: tuple[str, ...] = ()
) -> Images:
    """Images that are rows of an array (N, H, W) or (N, H, W, C)."""
    if len(pixels) == 0 or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3)):
        raise DataError(
            f"{prefix} holds images of shape {pixels.shape}. Expected at least one, as (N, H, W) or (N, H, W, C) with 1"
            " or 3 channels last. Move the axis of channels before saving."
        )
    array = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
    numbers = None
    if labels is not None:
        numbers, class_names = _labels(labels, len(pixels), prefix, class_names)
    names = tuple(f"{prefix}[{row}]" for row in range(len(array)))
    return Images(torch.from_numpy(np.ascontiguousarray(array)), torch.arange(len(array)), names, numbers, class_names)


def _labels(
    labels: np.ndarray, count: int, prefix: str, class_names: tuple[str, ...] = ()
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Class numbers from 0 and their names, from numbers or text; missing ones are -1."""
    values = np.asarray(labels).reshape(-1)
    if len(values) != count:
        raise DataError(
            f"{prefix} has {len(values)} labels for {count} images. Expected one per image. Save as many of both."
        )
    if class_names:
        return torch.tensor([-1 if value is None else int(value) for value in values]), class_names
    missing = np.array(
        [value is None or value != value or (isinstance(value, (int, np.integer)) and value < 0) for value in values]
    )
    known = np.array(
        [str(int(value)) if isinstance(value, (int, float, np.number)) else str(value) for value in values[~missing]]
    )
    names = sorted(
        set(known.tolist()), key=lambda name: (0, int(name), "") if name.lstrip("-").isdigit() else (1, 0, name)
    )
    number = {name: place for place, name in enumerate(names)}
    found = np.full(count, -1, dtype=np.int64)
    found[~missing] = [number[name] for name in known]
    return torch.from_numpy(found), tuple(names)


def _open_idx(path: Path) -> Images:
    pixels = _read_idx(path)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    labels = _read_idx(beside) if beside != path and beside.exists() else None
    return _numbered(pixels, labels, prefix=path.name)


def _read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes: two zero bytes, the type 8, the number of axes, big-endian sizes, then the
    data."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        axes = content[3]
        shape = np.frombuffer(content[4 : 4 + 4 * axes], dtype=">u4").astype(int)
        if content[2] != 8:
            raise ValueError("not unsigned bytes")
        return np.frombuffer(content[4 + 4 * axes :], dtype=np.uint8).reshape(shape).copy()
    except (OSError, EOFError, ValueError, IndexError) as problem:
        raise DataError(
            f"{path} is no complete IDX file of unsigned bytes ({problem}). Expected one. Fetch it again."
        ) from problem


def _open_npz(path: Path) -> Images:
    try:
        with np.load(path, allow_pickle=False) as stored:
            content = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(
            f"{path} cannot be read ({problem}). Expected arrays saved by numpy.savez. Save it again."
        ) from problem
    if "images" not in content or content["images"].dtype != np.uint8 or content["images"].ndim not in (3, 4):
        raise DataError(
            f"{path} holds {', '.join(sorted(content)) or 'nothing'}. Expected `images`, uint8 of shape (N, H, W, C) or"
            " (N, H, W), and optionally `labels`. Save it with numpy.savez(path, images=..., labels=...)."
        )
    return _numbered(content["images"], content.get("labels"), prefix=path.name)


def _open_parquet(path: Path, size: int | None, max_bad: int) -> Images:
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as problem:
        raise DataError(
            f"{path} is no readable parquet file ({problem}). Expected one. Write or fetch it again."
        ) from problem
    column = next((name for name in ("image", "img") if name in table.column_names), None)
    if column is None:
        raise DataError(
            f"{path} has the columns {', '.join(table.column_names)}. Expected `image` or `img` with encoded bytes. "
            "Rename the column that holds them."
        )
    cells = table.column(column).to_pylist()
    encoded = [
        (f"{path.name}[{row}]", cell["bytes"] if isinstance(cell, dict) else cell) for row, cell in enumerate(cells)
    ]
    kept, pixels, skipped = _decode(encoded, size, max_bad, str(path))
    label = next((name for name in ("label", "labels", "fine_label") if name in table.column_names), None)
    labels: torch.Tensor | None = None
    names: tuple[str, ...] = ()
    if label:
        values = np.array(table.column(label).to_pylist(), dtype=object)[kept]
        labels, names = _labels(values, len(kept), path.name)
    return Images(pixels, torch.tensor(kept), tuple(encoded[row][0] for row in kept), labels, names, skipped)


def _open_folder(folder: Path, size: int | None, max_bad: int) -> Images:
    names = sorted(_listed(folder))
    tables = [] if names else sorted(path.name for path in folder.glob("*.parquet"))
    if tables:
        raise DataError(
            f"the folder {str(folder)!r} holds no images but {len(tables)} tables. Expected one table, or a folder of"
            f" image files. Pass {folder / tables[-1]}."
        )
    if not names:
        raise DataError(
            f"the folder {str(folder)!r} holds no images. Expected files that end in {', '.join(SUFFIXES)}. Pass the"
            " folder that holds them, at any depth."
        )
    if size is not None and len(names) * 3 * size * size > MEMORY_LIMIT:
        if 0 < max_bad < len(names):
            raise SpecError(
                f"max_bad is {max_bad} for {len(names)} images that do not fit in memory. Expected 0: they are read as"
                " they are used, so bad ones cannot be left out beforehand. Remove those, or pass a smaller --size."
            )
        kept = list(range(len(names)))
        skipped: tuple[tuple[str, str], ...] = ()
        pixels = cast(torch.Tensor, LazyPixels.of_files(ImageFiles(folder, names, size)))
    else:
        kept, pixels, skipped = _decode([(name, folder / name) for name in names], size, max_bad, str(folder))
    classes = sorted({names[row].rsplit("/", 1)[0] for row in kept if "/" in names[row]})
    number = {name: index for index, name in enumerate(classes)}
    labels = (
        torch.tensor([number.get(names[row].rsplit("/", 1)[0] if "/" in names[row] else "", -1) for row in kept])
        if classes
        else None
    )
    ids = torch.tensor([name_id(names[row]) for row in kept])
    return Images(pixels, ids, tuple(names[row] for row in kept), labels, tuple(classes), skipped)


def _listed(folder: Path, within: str = "") -> Iterator[str]:
    """Paths of image files at any depth, relative to the folder, without looking into the files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _listed(Path(entry.path), f"{within}{entry.name}/")
            elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(
                "._"
            ):  # macOS keeps notes of its own
                yield f"{within}{entry.name}"


def _decode(
    encoded: list[tuple[str, Path | bytes | None]], size: int | None, max_bad: int, where: str
) -> tuple[list[int], torch.Tensor, tuple[tuple[str, str], ...]]:
    """Decode every image: rows kept, pixels, and what was skipped."""
    pictures: list[torch.Tensor] = []
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for row, (name, content) in enumerate(encoded):
        try:
            picture = decode_one(content, size, name)
        except DataError:  # too small: a wrong size rather than a bad file
            raise
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            TypeError,
            AttributeError,
            UnidentifiedImageError,
            Image.DecompressionBombError,
        ) as problem:
            skipped.append((name, str(problem) or type(problem).__name__))
            continue
        pictures.append(picture)
        kept.append(row)
        if len(pictures) * pictures[0].numel() > 4 * MEMORY_LIMIT:
            raise DataError(
                f"{where} needs more than {4 * MEMORY_LIMIT // 2**30} GiB decoded. Expected a set that fits in memory,"
                " or a folder and a size, which is read as it is used. Pass --size 224, or a part of the images."
            )
    if len(skipped) > max_bad:
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise DataError(
            f"{len(skipped)} of {len(encoded)} images in {where} cannot be read ({listed}). Expected at most {max_bad}."
            f" Mend or remove them, or accept their loss with --max-bad {len(skipped)}."
        )
    if not pictures:
        raise DataError(f"no image in {where} can be read. Expected at least two. Pass other images.")
    sizes = {tuple(picture.shape[1:]) for picture in pictures}
    if len(sizes) > 1:
        smallest = min(min(height, width) for height, width in sizes)
        raise DataError(
            f"the images in {where} have {len(sizes)} sizes, from {smallest} pixels up. Expected one size. "
            f"Pass --size {smallest} (or less) to resize and crop them all."
        )
    return kept, torch.stack(pictures), tuple(skipped)
