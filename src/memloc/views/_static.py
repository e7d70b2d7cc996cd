"""Views whose shapes follow from the shapes of the inputs alone, so that a GPU draws them in a few kernels and a whole
training step can be one graph: nothing is sorted into groups, every choice is made by selection, and the device is
never asked for a number.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from memloc.errors import warn
from memloc.machine import own_code
from memloc.views._apply import active_parts, blurred, hide_patches, jitter_part, luma, resample
from memloc.views._parameters import ORDERS, Parameters
from memloc.views._recipe import Recipe

_FEW = 32  # images that are drawn as they are: compiling for them takes longer
_APART = 1e-4  # most that compiled views may differ from plain ones, of pixels in [0, 1]

_Draw = Callable[[Tensor, Tensor, Tensor, "Tensor | None", "int | Tensor"], Tensor]


def draw_static(recipe: Recipe, images: Tensor, points: Tensor, first: int | Tensor) -> Tensor:
    """Views of every image, (point, view, channel, height, width): compiled on a GPU, as they are elsewhere.

    Args:
        images: uint8, shape (point, channel, height, width). points: int64 ids on the same device.
        first: number of the first view.
    """
    number = recipe.numbers(images, first)
    sequence = recipe.sequence(first, images.device)
    if images.device.type != "cuda" or len(images) < _FEW:
        return _plain(recipe)(images, points, number, sequence, recipe.seed)
    # one compiled form for all seeds, which lie on the device
    return _compiled(replace(recipe, seed=0))(images, points, number, sequence, _on_device(recipe.seed, images.device))


@cache
def _on_device(seed: int, device: torch.device) -> Tensor:
    """A seed on the device, put there once and for ever: graphs read it where it lies."""
    return torch.tensor((seed + (1 << 63)) % (1 << 64) - (1 << 63), dtype=torch.int64, device=device)


def _plain(recipe: Recipe) -> _Draw:
    """The views of a recipe as a function of tensors alone; the seed may be a number."""

    def draw(images: Tensor, points: Tensor, number: Tensor, sequence: Tensor | None, seed: int | Tensor) -> Tensor:
        chosen = recipe.parameters(images, points, number, sequence=sequence, static=True, seed=seed)
        return _applied(recipe, images, chosen).unflatten(0, (len(points), recipe.n))

    return draw


@lru_cache(maxsize=64)
def _compiled(recipe: Recipe) -> _Draw:
    """The same, compiled where this machine can and the compiled form gives the same; else as it is, which is said."""
    plain = _plain(recipe)
    fast = torch.compile(own_code(plain), dynamic=False)
    shapes: dict[torch.Size, bool] = {}  # whether the compiled form is used

    def draw(images: Tensor, *others: Any) -> Tensor:
        if images.shape in shapes:
            return (fast if shapes[images.shape] else plain)(images, *others)
        shapes[images.shape] = _agrees(fast, plain(images, *others), images, *others)
        return draw(images, *others)

    return draw


def _agrees(fast: Any, shown: Tensor, *inputs: Any) -> bool:
    """Whether the compiled form can be used; why not is said."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on settings that are the caller's
            apart = float((fast(*inputs) - shown).abs().max())
    except Exception as problem:
        if "out of memory" in str(problem).lower() or isinstance(problem, torch.OutOfMemoryError):
            raise
        first = next(iter(str(problem).strip().splitlines()), "")
        warn(f"Views are drawn uncompiled, which is slower: {type(problem).__name__}: {first}")
        return False
    if not apart <= _APART:
        warn(f"Views are drawn uncompiled, which is slower: the compiler's differ from them by {apart:.2g}.")
    return apart <= _APART


def _applied(recipe: Recipe, images: Tensor, chosen: Parameters) -> Tensor:
    """What `apply_views` gives, view by view: (view, channel, *size)."""
    policy = recipe.policy
    source = torch.arange(len(images), device=images.device)[:, None].expand(-1, recipe.n).flatten()
    views = resample(images.float() / 255.0, source, chosen, recipe.size)
    views = _jittered(views, chosen, active_parts(policy, images.shape[1]))
    if images.shape[1] == 3 and policy.grayscale:
        views = torch.where(_each(chosen.grayscale), luma(views).expand(-1, 3, -1, -1), views)
    if policy.blur:
        views = torch.where(_each(chosen.blur), blurred(views, chosen.sigma.float(), policy.blur_kernel), views)
    if policy.invert:
        views = torch.where(_each(chosen.invert), 1.0 - views, views)
    if chosen.masked is not None:
        hide_patches(views, chosen.masked, policy.patch)
    return views


def _jittered(views: Tensor, chosen: Parameters, active: list[int]) -> Tensor:
    """Colour jitter: at each of four places, every view takes the part that its order has there."""
    if not active:
        return views
    factors = [chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue]
    for place in range(4):
        # which part stands here, as a sum over the orders: no table is copied to the device
        part = sum(((chosen.order == number) * order[place] for number, order in enumerate(ORDERS)), chosen.order * 0)
        after = views
        for kind in active:
            here = _each(chosen.jitter & (part == kind))
            after = torch.where(here, jitter_part(kind, views, _each(factors[kind].float())), after)
        views = after
    return views


def _each(values: Tensor) -> Tensor:
    """A number per view as something that broadcasts over its pixels."""
    return values[:, None, None, None]
