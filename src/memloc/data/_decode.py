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
from memloc.fit import Fit

FORMATS_READ = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What Pillow may take an image's bytes for, whatever its name: formats that start no other program."""


def decode_one(content: Path | bytes | None, fit: Fit, name: str) -> torch.Tensor:
    """An image as uint8 (3, height, width), resized and cropped where a size is given."""
    picture = read_picture(content, name)
    return to_tensor(picture if fit.size is None else fitted(picture, fit, name))


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
            return as_rgb(ImageOps.exif_transpose(opened), opened.format)


def as_rgb(picture: Image.Image, kind: str | None = None) -> Image.Image:
    """A picture of any mode as 8-bit RGB: transparency over white, the 65 536 values of 16 bits and floats from 0 to 1
    scaled.

    Args:
        kind: the format that it was read from.
    Raises:
        OSError: values whose range is not known: 32-bit integers, and floats beyond 0 to 1.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if picture.mode.startswith("I") or picture.mode == "F":
            picture = Image.fromarray(_eight_bits(picture, kind))
        if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return picture.convert("RGB")


def _eight_bits(picture: Image.Image, kind: str | None) -> np.ndarray:
    """Values of 16 bits or floats from 0 to 1 as 8 bits, by one rule for all images."""
    values = np.asarray(picture, dtype=np.float64)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
        return np.clip(np.round(values / 257), 0, 255).astype(np.uint8)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if picture.mode == "F" and 0 <= low <= high <= 1:  # NaN is no such value
        return np.round(values * 255).astype(np.uint8)
    what = "floats" if picture.mode == "F" else "32-bit integers"
    wanted = "floats from 0 to 1" if picture.mode == "F" else "8 or 16 bits, whose range is known"
    raise OSError(f"its pixels are {what} from {low:g} to {high:g}, not {wanted}; scale and save it so")


def fitted(picture: Image.Image, fit: Fit, name: str) -> Image.Image:
    """A picture of `fit.size` pixels a side, by default the shorter side resized to it and the centre cropped; never
    enlarged, but for what an encoder's own preprocessing crops off."""
    assert fit.size is not None, "it was looked at"
    (width, height), size = picture.size, fit.size
    if min(width, height) < size:
        raise DataError(
            f"{name} has {height}x{width} pixels, smaller than a view of {size}x{size}. Expected images at least that "
            f"large: memloc does not enlarge them. Pass --size {min(width, height)}, or leave small images out."
        )
    if fit.is_plain or width == height == size:
        return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    edge = max(fit.edge, size)
    if fit.squash:
        extent = (edge, edge)
    else:
        extent = (edge, edge * height // width) if width < height else (edge * width // height, edge)
    resized = picture.resize(extent, Image.Resampling[fit.resample.upper()])
    over = [(whole - size) / 2 for whole in extent]
    left, top = (round(each) if fit.rounds else int(each) for each in over)
    return resized.crop((left, top, left + size, top + size))


def fitted_pixels(pixels: torch.Tensor, fit: Fit, name: str) -> torch.Tensor:
    """An image in memory, uint8 (channel, height, width), resized and cropped as `fitted` does, each band alike."""
    if len(pixels) == 3:
        return to_tensor(fitted(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()), fit, name))
    return torch.cat([to_tensor(fitted(Image.fromarray(band.contiguous().numpy()), fit, name)) for band in pixels])


def to_tensor(picture: Image.Image) -> torch.Tensor:
    array = np.array(picture)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array if array.ndim == 3 else array[..., None], 2, 0)))
