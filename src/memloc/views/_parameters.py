"""The parameters of a view that one uniform draw turns into, by its policy."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memloc.views._draws import words
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
    seed: int,
    point: Tensor,
    view: Tensor,
) -> Parameters:
    """Turn uniforms into parameters with torchvision's sampling rules.

    Args:
        policy: what may happen.
        uniform: shape (draw, number), at least len(COLUMNS) numbers, then one per patch where the policy masks.
        extent: height and width of the images, in pixels.
        size: height and width of a view, in pixels.
        seed, point, view: of each draw, shape (draw,); a rejected crop draws again from them.
    """
    column = {name: uniform[:, number] for number, name in enumerate(COLUMNS)}
    top, left, crop_height, crop_width = _crops(policy, column, *extent, seed, point, view)
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
    policy: Policy, column: dict[str, Tensor], height: int, width: int, seed: int, point: Tensor, view: Tensor
) -> tuple[Tensor, ...]:
    """RandomResizedCrop's rejection sampling: up to ten attempts, then the largest central crop of allowed ratio."""
    if policy.crop_scale is None:
        zero = torch.zeros_like(point)
        return zero, zero, zero + height, zero + width

    def attempt(area: Tensor, aspect: Tensor, up: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        (low, high), (narrow, wide) = policy.crop_scale or (1.0, 1.0), policy.crop_ratio
        target = height * width * (low + area * (high - low))
        ratio = torch.exp(math.log(narrow) + aspect * (math.log(wide) - math.log(narrow)))
        crop_width, crop_height = (target * ratio).sqrt().round().long(), (target / ratio).sqrt().round().long()
        fits = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)
        top = (up * (height - crop_height + 1)).long()
        left = (across * (width - crop_width + 1)).long()
        return torch.stack([top, left, crop_height, crop_width]), fits

    box, fits = attempt(column["area"], column["aspect"], column["top"], column["left"])
    for number in range(1, _CROP_ATTEMPTS):
        again = (~fits).nonzero().flatten()
        if not len(again):
            return tuple(box)
        bits = words(seed, point[again], view[again], 4, stream=_RETRY + number)
        retry, fits_now = attempt(*((bits.double() + 0.5) / 2.0**32).unbind(-1))
        box[:, again] = retry
        fits[again] = fits_now
    narrow, wide = policy.crop_ratio
    central_width = width if width / height <= wide else round(height * wide)
    central_height = height if width / height >= narrow else round(width / narrow)
    central = torch.tensor(
        [(height - central_height) // 2, (width - central_width) // 2, central_height, central_width]
    )
    box[:, ~fits] = central.to(box.device)[:, None]
    return tuple(box)
