"""What an image processor of transformers does to an image, as the one resizing and the one affine map that it is."""

from __future__ import annotations

from typing import Any

from memloc.encoders._built import Recipe
from memloc.errors import EncoderError
from memloc.fit import Fit

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_FOLLOWED = (
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_flip_channel_order", "do_convert_rgb"),
    *("do_reduce_labels", "do_pan_and_scan"),
)
_SQUASHED_FROM = 384  # pixels from which ConvNeXt's processor no longer crops


def recipe_of(processor: Any, size: int | None, name: str) -> Recipe:
    """Mean, deviation, order of channels, and how images are brought to the size of the model.

    Args:
        processor: of transformers. size: height and width that the model takes, where its configuration says so.
    Raises:
        EncoderError: a step that is not followed, such as letterboxing to a fixed shape.
    """
    given = vars(processor)
    unknown = [key for key, value in given.items() if key.startswith("do_") and value and key not in _FOLLOWED]
    if unknown:
        raise EncoderError(
            f"the image processor of {name} asks for {unknown[0]}, which memloc does not do. Expected resizing, a crop"
            " of the centre, rescaling, normalization and the order of channels. Prepare the images yourself and pass"
            " --mean and --std (and --size)."
        )
    mean, std = _affine(given)
    return Recipe(
        mean, std, bool(given.get("do_flip_channel_order")), _fit(given, size, name, type(processor).__name__)
    )


def _affine(given: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is subtracted from values in [0, 1], and what they are divided by: rescaling and normalization as one."""
    scale = 255 * float(given["rescale_factor"]) if given.get("do_rescale", True) else 255.0
    offset = 1.0 if given.get("do_rescale", True) and given.get("rescale_offset") else 0.0
    means, stds = (0.0,) * 3, (1.0,) * 3
    if given.get("do_normalize", True):
        means, stds = tuple(given["image_mean"]), tuple(given["image_std"])
    again = tuple(given["image_std"]) if given.get("include_top") else (1.0,) * 3  # EfficientNet divides once more
    mean = tuple((offset + each) / scale for each in means)
    std = tuple(each * more / scale for each, more in zip(stds, again, strict=True))
    plain = all(abs(each) < 1e-6 for each in mean) and all(abs(each - 1) < 1e-6 for each in std)
    return ((), ()) if plain else (mean, std)


def _fit(given: dict[str, Any], size: int | None, name: str, kind: str) -> Fit:
    if not given.get("do_resize", True):
        return Fit(_side(given.get("crop_size"), name) if given.get("do_center_crop") else size)
    wanted = given.get("size")
    short = _of(wanted, "shortest_edge")
    squash = short is None
    edge = short if short is not None else _side(wanted, name)
    if edge is None:
        raise EncoderError(
            f"the image processor of {name} resizes to {wanted}, which memloc does not do. Expected a height and width,"
            " or the shortest edge. Prepare the images yourself and pass --mean, --std and --size."
        )
    cropped = _side(given.get("crop_size"), name) if given.get("do_center_crop") else None
    kept = 1.0
    if kind.startswith("ConvNext") and not squash:
        final, squash = edge, edge >= _SQUASHED_FROM
        kept = 1.0 if squash else float(given.get("crop_pct") or 224 / 256)
    else:
        edge = int(256 / 224 * edge) if kind.startswith("Levit") and not squash else edge
        final = cropped or edge
        kept = final / edge
    resample = given.get("resample")
    return Fit(final, kept, squash, _RESAMPLE[int(resample)] if resample is not None else "bilinear", rounds=False)


def _side(extent: Any, name: str) -> int | None:
    """Height and width of a square; None where there is none."""
    if isinstance(extent, int):
        return extent
    height, width = _of(extent, "height"), _of(extent, "width")
    if height != width:
        raise EncoderError(
            f"the image processor of {name} makes images of {height}x{width} pixels. Expected squares. Prepare the"
            " images yourself and pass --mean, --std and --size."
        )
    return height


def _of(extent: Any, key: str) -> int | None:
    found = extent.get(key) if isinstance(extent, dict) else getattr(extent, key, None)
    return None if found is None else int(found)
