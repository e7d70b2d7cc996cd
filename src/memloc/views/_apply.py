"""Apply drawn parameters to a whole batch of images at once, with torchvision's formulas for float images.

Crop, resize (bilinear, antialiased) and both flips are two matrix products with interpolation weights; colour jitter
sorts the views by the order of its parts, so that every part works in place on contiguous slices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memloc.views._parameters import ORDERS, Parameters
from memloc.views._policies import Policy

_GRAY = (0.2989, 0.587, 0.114)  # torchvision.transforms.functional.rgb_to_grayscale
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


def apply_views(images: Tensor, source: Tensor, chosen: Parameters, policy: Policy, size: tuple[int, int]) -> Tensor:
    """Draw the chosen views.

    Args:
        images: uint8, shape (point, channel, height, width), one or three channels.
        source: which image each view is of, int64, shape (view,).
        chosen: parameters with one row per view.
        policy: what the parameters were drawn for.
        size: height and width of a view.
    Returns:
        float32 in [0, 1], shape (view, channel, height, width).
    """
    channels = images.shape[1]
    groups = _jitter_groups(policy, chosen, channels)
    order = groups.argsort(stable=True)
    chosen, source = chosen.take(order), source[order]
    views = resample(images.float().div_(255.0), source, chosen, size)
    _jitter(views, groups[order], chosen, policy)
    if channels == 3 and policy.grayscale:
        picked = chosen.grayscale.nonzero().flatten()
        views[picked] = luma(views[picked]).expand(-1, 3, -1, -1)
    if policy.blur:
        picked = chosen.blur.nonzero().flatten()
        views[picked] = blurred(views[picked], chosen.sigma[picked].float(), policy.blur_kernel)
    if policy.invert:
        picked = chosen.invert.nonzero().flatten()
        views[picked] = 1.0 - views[picked]
    if chosen.masked is not None:
        hide_patches(views, chosen.masked, policy.patch)
    out = torch.empty_like(views)
    out[order] = views
    return out


def resample(images: Tensor, source: Tensor, chosen: Parameters, size: tuple[int, int]) -> Tensor:
    """Crop, resize and flip: (view, channel, *size)."""
    channels, height, width = images.shape[1:]
    rows = _weights(chosen.top, chosen.height, chosen.vertical_flip, size[0], height)
    columns = _weights(chosen.left, chosen.width, chosen.flip, size[1], width)
    picked = images[source].view(len(source), channels * height, width)
    across = torch.bmm(picked, columns.transpose(1, 2)).view(len(source), channels, height, size[1])
    if channels == 1:
        return torch.bmm(rows, across[:, 0])[:, None]
    return torch.matmul(rows[:, None], across)


def _weights(start: Tensor, length: Tensor, flipped: Tensor, size: int, extent: int) -> Tensor:
    """Interpolation weights of one axis, shape (view, size, extent): a triangle filter, widened when shrinking."""
    device = start.device
    scale = length.float() / size
    position = torch.arange(size, device=device, dtype=torch.float32)
    position = torch.where(flipped[:, None], size - 1 - position, position)
    centre = start[:, None] + scale[:, None] * (position + 0.5)
    pixel = torch.arange(extent, device=device, dtype=torch.float32) + 0.5
    distance = (pixel[None, None] - centre[:, :, None]).abs_()
    distance.div_(scale.clamp_min(1.0)[:, None, None])
    weights = distance.neg_().add_(1.0).clamp_min_(0.0)
    inside = (pixel[None] > start[:, None]) & (pixel[None] < (start + length)[:, None])
    weights.mul_(inside[:, None])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _jitter_groups(policy: Policy, chosen: Parameters, channels: int) -> Tensor:
    """A key per view: which order of the active jitter parts it gets; -1 for none."""
    active = active_parts(policy, channels)
    restricted = [tuple(part for part in order if part in active) for order in ORDERS]
    known = sorted(set(restricted))
    key = torch.tensor([known.index(order) for order in restricted], device=chosen.order.device)
    return torch.where(chosen.jitter, key[chosen.order], -1)


def active_parts(policy: Policy, channels: int) -> list[int]:
    """Jitter parts that change anything: saturation and hue leave one-channel images as they are."""
    return [part for part in range(4) if policy.jitter[part] > 0 and (channels == 3 or part < _SATURATION)]


def _jitter(views: Tensor, groups: Tensor, chosen: Parameters, policy: Policy) -> None:
    """Colour jitter in place; `views` lie sorted by `groups`."""
    active = active_parts(policy, views.shape[1])
    known = sorted({tuple(part for part in order if part in active) for order in ORDERS})
    present, counts = groups.unique_consecutive(return_counts=True)
    start = 0
    factors = [chosen.brightness.float(), chosen.contrast.float(), chosen.saturation.float(), chosen.hue.float()]
    factors = [factor[:, None, None, None] for factor in factors]
    for group, count in zip(present.tolist(), counts.tolist(), strict=True):
        part_of = slice(start, start + count)
        start += count
        for part in known[group] if group >= 0 else ():
            _PARTS[part](views[part_of], factors[part][part_of])


def _brightness(views: Tensor, factor: Tensor) -> None:
    views.mul_(factor).clamp_(0.0, 1.0)


def _contrast(views: Tensor, factor: Tensor) -> None:
    mean = views.mean(dim=(2, 3), keepdim=True)
    if views.shape[1] == 3:
        mean = luma(mean)
    views.mul_(factor).add_((1.0 - factor) * mean).clamp_(0.0, 1.0)


def _saturation(views: Tensor, factor: Tensor) -> None:
    gray = luma(views)
    views.mul_(factor).add_(gray.mul_(1.0 - factor)).clamp_(0.0, 1.0)


def _hue(views: Tensor, shift: Tensor) -> None:
    """Rotate the hue: RGB to HSV and back in closed form, equal to torchvision's to rounding."""
    red, green, blue = views.unbind(1)
    value, low = views.amax(1), views.amin(1)
    chroma = value - low
    safe = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(value == green, (blue - red).div_(safe).add_(2.0), (red - green).div_(safe).add_(4.0))
    hue = torch.where(value == red, (green - blue).div_(safe), hue)
    hue.add_(shift[:, 0] * 6.0)
    hue.sub_(hue.div(6.0).floor_().mul_(6.0))  # into [0, 6)
    for channel, (flip, middle) in enumerate(((True, 3.0), (False, 2.0), (False, 4.0))):
        ramp = hue.sub(middle).abs_()
        ramp = ramp.sub_(1.0) if flip else ramp.neg_().add_(2.0)
        views[:, channel] = ramp.clamp_(0.0, 1.0).mul_(chroma).add_(low)


_PARTS = {_BRIGHTNESS: _brightness, _CONTRAST: _contrast, _SATURATION: _saturation, _HUE: _hue}


def jitter_part(part: int, views: Tensor, factor: Tensor) -> Tensor:
    """One part of the colour jitter by its number, of a copy."""
    changed = views.clone()
    _PARTS[part](changed, factor)
    return changed


def luma(views: Tensor) -> Tensor:
    """Gray value of three-channel views, shape (view, 1, height, width)."""
    red, green, blue = views.unbind(1)
    return (red * _GRAY[0]).add_(green, alpha=_GRAY[1]).add_(blue, alpha=_GRAY[2])[:, None]


def blurred(views: Tensor, sigma: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Gaussian blur with one sigma per view and reflected borders, as two matrix products."""
    height, width = views.shape[2:]
    rows, columns = _blur_weights(sigma, kernel[1], height), _blur_weights(sigma, kernel[0], width)
    return torch.matmul(torch.matmul(rows[:, None], views), columns[:, None].transpose(2, 3))


def _blur_weights(sigma: Tensor, kernel: int, extent: int) -> Tensor:
    reach = min(kernel // 2, extent - 1)
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    weight = torch.exp(-0.5 * (offset[None] / sigma[:, None]) ** 2)
    weight = weight / weight.sum(dim=1, keepdim=True)
    target = torch.arange(extent, device=sigma.device)[:, None] + offset[None]
    target = (extent - 1) - (target.abs() - (extent - 1)).abs()  # reflect at both ends
    matrix = torch.zeros(len(sigma), extent, extent, device=sigma.device)
    index = target[None].expand(len(sigma), -1, -1)
    return matrix.scatter_add_(2, index, weight[:, None].expand(-1, extent, -1))


def hide_patches(views: Tensor, masked: Tensor, patch: int) -> None:
    """Replace masked patches by the image's mean colour; a border smaller than a patch stays."""
    rows, columns = masked.shape[1:]
    hidden = masked.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    inner = views[:, :, : rows * patch, : columns * patch]
    inner.copy_(torch.where(hidden, views.mean(dim=(2, 3), keepdim=True), inner))
