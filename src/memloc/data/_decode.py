"""One image from bytes or a file: upright, 8-bit RGB, of one size."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from memloc.data._limits import check_limit
from memloc.errors import DataError

FORMATS_READ = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")
"""What Pillow may take an image's bytes for, whatever its name: formats that start no other program."""


def decode_one(content: Path | bytes | None, size: int | None, name: str) -> torch.Tensor:
    """An image as uint8 (3, height, width), resized and cropped to `size` where that is given."""
    picture = read_picture(content, name)
    return to_tensor(picture if size is None else fitted(picture, size, name))


def read_picture(content: Path | bytes | None, name: str = "the image") -> Image.Image:
    """Decode one image as 8-bit RGB: first frame, upright by its EXIF orientation, transparency over white, 16 bits
    scaled.

    Raises:
        OSError: truncated, empty or no image. DataError: more pixels than the limit.
    """
    if content is None:
        raise OSError("no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a palette with transparency given as bytes; converted below
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(source, formats=FORMATS_READ) as opened:
            check_limit("PIXELS", opened.width * opened.height, name)
            opened.seek(0)
            opened.load()
            return as_rgb(ImageOps.exif_transpose(opened))


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit RGB: transparency over white, 16 bits scaled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if picture.mode.startswith("I") or picture.mode == "F":
            values = np.asarray(picture, dtype=np.float64)
            deep = picture.mode.startswith("I;16") or values.max() > 255
            picture = Image.fromarray(np.clip(np.round(values / 257 if deep else values), 0, 255).astype(np.uint8))
        if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return picture.convert("RGB")


def fitted(picture: Image.Image, size: int, name: str) -> Image.Image:
    """Shorter side resized to `size`, centre cropped; never enlarged."""
    width, height = picture.size
    if min(width, height) < size:
        raise DataError(
            f"{name} has {height}x{width} pixels, smaller than a view of {size}x{size}. Expected images at least that "
            f"large: memloc does not enlarge them. Pass --size {min(width, height)}, or leave small images out."
        )
    return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    array = np.asarray(picture)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array if array.ndim == 3 else array[..., None], 2, 0)))
