"""Open images by what a user types: the embedded sample, a folder, parquet, IDX or npz."""

from __future__ import annotations

import gzip
import io
import warnings
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from memloc.data._images import Images, name_id
from memloc.errors import DataError, DataNotFoundError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_MEMORY_LIMIT = 8 * 2**30  # bytes of decoded pixels


def open_images(where: str | Path, *, size: int | None = None, max_bad: int = 0) -> Images:
    """Open a set of images.

    Args:
        where: "sample:train" or "sample:test" (embedded Fashion-MNIST), a folder of images (nested folders are
            classes), a .parquet file with image bytes, an IDX image file (labels beside it are found), or a .npz file
            with `images` and optionally `labels`.
        size: height and width to bring every image to (shorter side resized, centre cropped); needed for a folder of
            mixed sizes.
        max_bad: unreadable images to accept; they are skipped and listed in `Images.skipped`.
    Returns:
        Images, in memory as uint8.
    Raises:
        DataNotFoundError: no such file or folder. DataError: nothing readable, too many bad images, mixed sizes, images
        smaller than `size`.

    >>> open_images("sample:test").pixels.shape
    torch.Size([1000, 1, 28, 28])
    """
    text = str(where)
    if text.startswith("sample:"):
        images = _open_sample(text.removeprefix("sample:"))
    else:
        path = Path(where).expanduser()
        if not path.exists():
            raise DataNotFoundError(
                f"there is no file or folder {text!r}. Expected images: a folder, .parquet, IDX or .npz, or sample:train. "
                "Check the path, or try: memloc demo"
            )
        if path.is_dir():
            return replace(_open_folder(path, size, max_bad), source=_source(text), size=size)
        if path.suffix == ".parquet":
            return replace(_open_parquet(path, size, max_bad), source=_source(text), size=size)
        if path.suffix == ".npz":
            images = _open_npz(path)
        elif "idx3-ubyte" in path.name or "idx3" in path.suffix:
            images = _open_idx(path)
        else:
            raise DataError(
                f"{text!r} is of no kind that memloc reads. Expected a folder, .parquet, .npz or an IDX file "
                "(…-images-idx3-ubyte, also .gz). Pass one of these."
            )
    if size is not None and tuple(images.pixels.shape[2:]) != (size, size):
        pictures = [Image.fromarray(_to_array(pixels)) for pixels in images.pixels]
        images = replace(images, pixels=torch.stack([_to_tensor(_fitted(picture, size, text)) for picture in pictures]))
    return replace(images, source=_source(text), size=size)


def _source(text: str) -> str:
    """What opens the same images from any folder."""
    return text if text.startswith("sample:") else str(Path(text).expanduser().resolve())


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
            f"{prefix} holds images of shape {pixels.shape}. Expected at least one, as (N, H, W) or (N, H, W, C) with 1 or 3 "
            "channels last. Move the axis of channels before saving."
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
        return torch.from_numpy(values.astype(np.int64)), class_names
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
    """An IDX file of unsigned bytes: two zero bytes, the type 8, the number of axes, big-endian sizes, then the data."""
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
    except (OSError, ValueError, EOFError) as problem:
        raise DataError(
            f"{path} cannot be read ({problem}). Expected arrays saved by numpy.savez. Save it again."
        ) from problem
    if "images" not in content or content["images"].dtype != np.uint8 or content["images"].ndim not in (3, 4):
        raise DataError(
            f"{path} holds {', '.join(sorted(content)) or 'nothing'}. Expected `images`, uint8 of shape (N, H, W, C) or (N, H, W), and "
            "optionally `labels`. Save it with numpy.savez(path, images=..., labels=...)."
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
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise DataError(
            f"the folder {str(folder)!r} holds no images. Expected files that end in {', '.join(SUFFIXES)}. Pass the folder "
            "that holds them, at any depth."
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    kept, pixels, skipped = _decode(list(zip(names, paths, strict=True)), size, max_bad, str(folder))
    classes = sorted({names[row].rsplit("/", 1)[0] for row in kept if "/" in names[row]})
    number = {name: index for index, name in enumerate(classes)}
    labels = (
        torch.tensor([number.get(names[row].rsplit("/", 1)[0] if "/" in names[row] else "", -1) for row in kept])
        if classes
        else None
    )
    ids = torch.tensor([name_id(names[row]) for row in kept])
    return Images(pixels, ids, tuple(names[row] for row in kept), labels, tuple(classes), skipped)


def _decode(
    encoded: list[tuple[str, Path | bytes | None]], size: int | None, max_bad: int, where: str
) -> tuple[list[int], torch.Tensor, tuple[tuple[str, str], ...]]:
    """Decode every image: rows kept, pixels, and what was skipped."""
    pictures: list[torch.Tensor] = []
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for row, (name, content) in enumerate(encoded):
        try:
            picture = read_picture(content)
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            UnidentifiedImageError,
            Image.DecompressionBombError,
        ) as problem:
            skipped.append((name, str(problem) or type(problem).__name__))
            continue
        pictures.append(_to_tensor(picture if size is None else _fitted(picture, size, name)))
        kept.append(row)
        if len(pictures) * pictures[0].numel() > _MEMORY_LIMIT:
            raise DataError(
                f"{where} needs more than {_MEMORY_LIMIT // 2**30} GiB decoded. Expected a set that fits in memory. "
                "Pass a smaller --size, or a part of the images."
            )
    if len(skipped) > max_bad:
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise DataError(
            f"{len(skipped)} of {len(encoded)} images in {where} cannot be read ({listed}). Expected at most {max_bad}. "
            f"Mend or remove them, or accept their loss with --max-bad {len(skipped)}."
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


def read_picture(content: Path | bytes | None) -> Image.Image:
    """Decode one image as 8-bit RGB: first frame, upright by its EXIF orientation, transparency over white, 16 bits scaled.

    Raises:
        OSError: truncated, empty or no image.
    """
    if content is None:
        raise OSError("no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a palette with transparency given as bytes; converted below
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as opened:
            opened.seek(0)
            opened.load()
            picture: Image.Image = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I") or picture.mode == "F":
                values = np.asarray(picture, dtype=np.float64)
                deep = picture.mode.startswith("I;16") or values.max() > 255
                picture = Image.fromarray(np.clip(np.round(values / 257 if deep else values), 0, 255).astype(np.uint8))
            if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
                layer = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            return picture.convert("RGB")


def _fitted(picture: Image.Image, size: int, name: str) -> Image.Image:
    """Shorter side resized to `size`, centre cropped; never enlarged."""
    width, height = picture.size
    if min(width, height) < size:
        raise DataError(
            f"{name} has {height}x{width} pixels, smaller than a view of {size}x{size}. Expected images at least that "
            f"large: memloc does not enlarge them. Pass --size {min(width, height)}, or leave small images out."
        )
    return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)


def _to_tensor(picture: Image.Image) -> torch.Tensor:
    array = np.asarray(picture)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array if array.ndim == 3 else array[..., None], 2, 0)))
