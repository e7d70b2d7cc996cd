"""Views of images: what a point looks like to the encoder, drawn so that batch, order and device do not matter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from memloc.errors import DataError, ShapeError, SpecError
from memloc.views._apply import apply_views
from memloc.views._draws import Sampling
from memloc.views._policies import Policy, check_colour, policy_named
from memloc.views._recipe import Recipe
from memloc.views._static import draw_static

AUTO_COUNTS = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Views:
    """A recipe for views; a view is a function of (seed, point id, view number) alone.

    Args:
        policy: "weak", "normal", "strong", "independent", "mask", or a Policy.
        n: views per point, an even number with Sobol draws, or "auto" (an audit chooses).
        seed: of the draws.
        size: height and width of a view in pixels; None keeps the images' own.
        sampling: "sobol" (two scrambled Sobol nets per point, the even and the odd views) or "independent".
        patch: side of the patches that the "mask" policy hides, in pixels; None keeps the policy's own.
        original: put the image itself, resized to a view, before its n views; alignments are then of it with each of
            them.
    Source: REFERENCE A2, A6, A10.

    >>> images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    >>> views = Views("normal", n=4).draw(images, torch.arange(5))
    >>> views.shape
    torch.Size([5, 4, 3, 32, 32])
    """

    policy: str | Policy = "normal"
    n: int | Literal["auto"] = 16
    seed: int = 0
    size: int | None = None
    sampling: Sampling = "sobol"
    patch: int | None = None
    original: bool = False

    def __post_init__(self) -> None:
        policy_named(self.policy)
        if self.sampling not in ("sobol", "independent"):
            raise SpecError(f"sampling is {self.sampling!r}. Expected 'sobol' or 'independent'. Pass sampling='sobol'.")
        if self.n != "auto" and (not isinstance(self.n, int) or self.n < 1):
            raise SpecError(f"n is {self.n!r} views. Expected a whole number of at least 1, or 'auto'. Pass n=16.")
        if self.n == 1 and self.sampling == "sobol":
            raise SpecError(
                "n is 1 view. Sobol views come as two nets, so expected an even number of at least 2. Pass n=16"
                " (--views 16)."
            )
        if self.n != "auto" and self.sampling == "sobol" and self.n % 2:
            raise SpecError(
                f"n is {self.n} views. Sobol views come as two nets of n/2, so n must be even. "
                f"Pass n={self.n + 1}, or sampling='independent'."
            )
        if self.size is not None and self.size < 1:
            raise SpecError(f"size is {self.size} pixels. Expected at least 1. Pass size=32.")

    @property
    def pairs(self) -> Literal["cross", "all", "original"]:
        """Which pairs of views estimate an alignment: across the two nets, all of them, or those with the image
        itself."""
        if self.original:
            return "original"
        return "cross" if self.sampling == "sobol" else "all"

    @property
    def count(self) -> int:
        """Images that an encoder reads per point: n, and one for the image itself."""
        if self.n == "auto":
            raise SpecError("n is 'auto', which only an audit can resolve. Expected a number here. Pass n=16.")
        return self.n + self.original

    def draw(self, images: Tensor, points: Tensor, *, first: int | Tensor = 0, static: bool | None = None) -> Tensor:
        """Draw n views of every image.

        Args:
            images: uint8, shape (point, channel, height, width); of other than one or three channels for policies
                that change no colours.
            points: int64 ids, shape (point,); a view depends on its point's id, not on its place in the batch.
            first: number of the first view; `draw(..., first=4)` continues after four views. A number of int64 on the
                images' device, too.
            static: True draws without a shape that depends on what was drawn and without asking the device for a
                number, compiled on a GPU; False sorts the views into groups, which is faster on a CPU; None takes what
                suits the device. Both give the same views to 1e-5.
        Returns:
            float32 in [0, 1], shape (point, view, channel, height, width), on the images' device; n views, after the
            image itself where `original` is set.
        Raises:
            ShapeError: images of another shape or type, or ids that do not match.
            DataError: images smaller than the view.
        """
        if self.n == "auto":
            raise SpecError("n is 'auto', which only an audit can resolve. Expected a number here. Pass n=16.")
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ShapeError(
                f"images are {images.dtype} of shape {tuple(images.shape)}. Expected uint8 (point, channel, height, "
                "width). Pass (images * 255).to(torch.uint8) in that order of axes."
            )
        check_colour(policy_named(self.policy), images.shape[1])
        if points.shape != images.shape[:1]:
            raise ShapeError(
                f"there are {len(images)} images and ids of shape {tuple(points.shape)}. Expected one id per image. "
                f"Pass torch.arange({len(images)})."
            )
        height, width = images.shape[2:]
        policy = self.resolved
        size = self.view_size(height, width)
        points = points.to(images.device, torch.int64)
        recipe = Recipe(policy, self.n, self.seed, size, self.sampling)
        if static or (static is None and images.device.type == "cuda"):
            views = draw_static(recipe, images, points, first)
        else:
            views = _drawn_in_groups(recipe, images, points, first)
        if not self.original:
            return views
        whole = images.float() / 255
        if size != (height, width):
            whole = torch.nn.functional.interpolate(whole, size, mode="bilinear", antialias=True)
        return torch.cat([whole[:, None], views], dim=1)

    @property
    def resolved(self) -> Policy:
        """The policy as data, with this recipe's patch size."""
        policy = policy_named(self.policy)
        return policy if self.patch is None else replace(policy, patch=self.patch)

    def view_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a view of a (height, width) image.

        >>> Views(size=64).view_size(32, 32)
        Traceback (most recent call last):
        memloc.errors.DataError: images of 32x32 pixels are smaller than a view of 64x64. Expected images at least as \
large as the view: memloc does not enlarge them silently. Pass size=32, or resize the images first.
        """
        if self.size is None:
            return height, width
        if self.size > min(height, width):
            raise DataError(
                f"images of {height}x{width} pixels are smaller than a view of {self.size}x{self.size}. Expected images"
                " at least as large as the view: memloc does not enlarge them silently. Pass"
                f" size={min(height, width)}, or resize the images first."
            )
        return self.size, self.size


def _drawn_in_groups(recipe: Recipe, images: Tensor, points: Tensor, first: int | Tensor) -> Tensor:
    """Views of every image, those with the same order of colour jitter drawn together."""
    chosen = recipe.parameters(images, points, recipe.numbers(images, first))
    source = torch.arange(len(points), device=images.device).repeat_interleave(recipe.n)
    views = apply_views(images, source, chosen, recipe.policy, recipe.size)
    return views.unflatten(0, (len(points), recipe.n))
