"""The parameters of a view that one uniform draw turns into, by its policy."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memloc.views._draws import retries, words
from memloc.views._policies import Policy

COLUMNS = (  # one uniform number each, the widest-reaching first: a Sobol sequence is best in its first dimensions
    "area",
    "aspect",
    "top",
    "left",
    "flip",
    "vertical_flip",
    "jitter",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "order",
    "grayscale",
    "blur",
    "sigma",
    "invert",
)
ORDERS = tuple(itertools.permutations(range(4)))  # brightness, contrast, saturation, hue
_CROP_ATTEMPTS = 10  # torchvision.transforms.RandomResizedCrop.get_params
_RETRY = 2  # stream of the crop's further attempts


@dataclass(frozen=True)
class Parameters:
    """What happens to each view; every field has the shape (view,) with one row per drawn view, but `masked`."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    vertical_flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    order: Tensor  # index into ORDERS
    grayscale: Tensor
    blur: Tensor
    sigma: Tensor
    invert: Tensor
    masked: Tensor | None  # bool, (view, patch row, patch column)

    def take(self, index: Tensor) -> Parameters:
        """The same parameters for some of the views, in another order."""
        picked: dict[str, Any] = {name: None if value is None else value[index] for name, value in vars(self).items()}
        return Parameters(**picked)


def parameters(
    policy: Policy,
    uniform: Tensor,
    extent: tuple[int, int],
    size: tuple[int, int],
    *,
    seed: int | Tensor,
    point: Tensor,
    view: Tensor,
    static: bool = False,
) -> Parameters:
    """Turn uniforms into parameters with torchvision's sampling rules.

    Args:
        policy: what may happen.
        uniform: shape (draw, number), at least len(COLUMNS) numbers, then one per patch where the policy masks.
        extent: height and width of the images, in pixels.
        size: height and width of a view, in pixels.
        seed, point, view: of each draw, shape (draw,); a rejected crop draws again from them.
        static: make all attempts at a crop at once, so that no shape depends on what was drawn.
    """
    column = {name: uniform[:, number] for number, name in enumerate(COLUMNS)}
    draw_crops = _static_crops if static else _crops
    top, left, crop_height, crop_width = draw_crops(policy, column, *extent, seed, point, view)
    brightness, contrast, saturation = (
        max(0.0, 1.0 - strength) + column[name] * (1.0 + strength - max(0.0, 1.0 - strength))
        for name, strength in zip(("brightness", "contrast", "saturation"), policy.jitter[:3], strict=True)
    )
    low, high = policy.blur_sigma
    masked = None
    if policy.mask:
        rows, columns = size[0] // policy.patch, size[1] // policy.patch
        noise = uniform[:, len(COLUMNS) : len(COLUMNS) + rows * columns]
        keep = rows * columns - round(policy.mask * rows * columns)
        rank = noise.argsort(dim=1).argsort(dim=1)
        masked = (rank >= keep).view(-1, rows, columns)
    return Parameters(
        top,
        left,
        crop_height,
        crop_width,
        flip=column["flip"] < policy.flip,
        vertical_flip=column["vertical_flip"] < policy.vertical_flip,
        jitter=column["jitter"] < policy.jitter_probability,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=(2 * column["hue"] - 1) * policy.jitter[3],
        order=(column["order"] * len(ORDERS)).long(),
        grayscale=column["grayscale"] < policy.grayscale,
        blur=column["blur"] < policy.blur,
        sigma=low + column["sigma"] * (high - low),
        invert=column["invert"] < policy.invert,
        masked=masked,
    )


def columns_needed(policy: Policy, height: int, width: int) -> int:
    """Uniform numbers that one view of a (height, width) view uses."""
    return len(COLUMNS) + ((height // policy.patch) * (width // policy.patch) if policy.mask else 0)


def _crops(
    policy: Policy, column: dict[str, Tensor], height: int, width: int, seed: int | Tensor, point: Tensor, view: Tensor
) -> tuple[Tensor, ...]:
    """RandomResizedCrop's rejection sampling: up to ten attempts, then the largest central crop of allowed ratio."""
    if policy.crop_scale is None:
        return _whole(point, height, width)
    first = torch.stack([column["area"], column["aspect"], column["top"], column["left"]], dim=-1)
    box, fits = _attempt(policy, first, height, width)
    for number in range(1, _CROP_ATTEMPTS):
        again = (~fits).nonzero().flatten()
        if not len(again):
            return tuple(box)
        bits = words(seed, point[again], view[again], 4, stream=_RETRY + number)
        retry, fits_now = _attempt(policy, (bits.double() + 0.5) / 2.0**32, height, width)
        box[:, again] = retry
        fits[again] = fits_now
    box[:, ~fits] = torch.tensor(_central(policy, height, width), device=box.device)[:, None]
    return tuple(box)


def _static_crops(
    policy: Policy, column: dict[str, Tensor], height: int, width: int, seed: int | Tensor, point: Tensor, view: Tensor
) -> tuple[Tensor, ...]:
    """The boxes of `_crops`, with all ten attempts made at once and the first that fits chosen."""
    if policy.crop_scale is None:
        return _whole(point, height, width)
    first = torch.stack([column["area"], column["aspect"], column["top"], column["left"]], dim=-1)
    bits = retries(seed, point, view, _RETRY + 1, _CROP_ATTEMPTS - 1)
    tries = torch.cat([first[:, None], (bits.double() + 0.5) / 2.0**32], dim=1)  # (draw, attempt, 4)
    boxes, fits = _attempt(policy, tries, height, width)
    chosen = fits.to(torch.int8).argmax(dim=1, keepdim=True)  # the first of the highest
    found = fits.any(dim=1)
    return tuple(
        torch.where(found, box.gather(1, chosen)[:, 0], central)
        for box, central in zip(boxes, _central(policy, height, width), strict=True)
    )


def _whole(point: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    zero = torch.zeros_like(point)
    return zero, zero, zero + height, zero + width


def _attempt(policy: Policy, uniform: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Boxes (top, left, height, width) from four uniform numbers each, along the last axis, and whether they fit."""
    area, aspect, up, across = uniform.unbind(-1)
    (low, high), (narrow, wide) = policy.crop_scale or (1.0, 1.0), policy.crop_ratio
    target = height * width * (low + area * (high - low))
    ratio = torch.exp(math.log(narrow) + aspect * (math.log(wide) - math.log(narrow)))
    crop_width, crop_height = (target * ratio).sqrt().round().long(), (target / ratio).sqrt().round().long()
    fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)
    top = (up * (height - crop_height + 1)).long()
    left = (across * (width - crop_width + 1)).long()
    return torch.stack([top, left, crop_height, crop_width]), fits


def _central(policy: Policy, height: int, width: int) -> tuple[int, int, int, int]:
    """The largest central box of an allowed ratio."""
    narrow, wide = policy.crop_ratio
    across = width if width / height <= wide else round(height * wide)
    down = height if width / height >= narrow else round(width / narrow)
    return (height - down) // 2, (width - across) // 2, down, across
