"""How far apart an encoder places two views of one point: the alignment of SSLMem Eq. 1."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from memloc.errors import ShapeError, SpecError

Distance = Literal["l2", "l1", "cosine", "angular"]
Pairs = Literal["all", "cross", "original"]
DISTANCES: tuple[Distance, ...] = ("l2", "l1", "cosine", "angular")

_CLOSE = 2e-3  # squared distances below it are taken again from centred views: the Gram matrix rounds at about 3e-7


def view_distances(
    representations: Float[Tensor, "point view *feature"], *, distance: Distance = "l2", normalize: bool = True
) -> Float[Tensor, "point view view"]:
    """Distances between all views of each point.

    Args:
        representations: flattened over their feature axes; half precision is raised to float32.
        distance: "l2", "l1", "cosine" (1 - cos) or "angular" (arccos(cos) / pi).
        normalize: scale every representation to unit l2 norm first, as the published code does.
    Returns:
        Symmetric distances with a zero diagonal, shape (point, view, view).
    Raises:
        ShapeError: fewer than two views. SpecError: an unknown distance.
    Source: REFERENCE A2.

    >>> quarter = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> [round(float(view_distances(quarter, distance=d)[0, 0, 1]), 4) for d in ("l2", "l1", "cosine", "angular")]
    [1.4142, 2.0, 1.0, 0.5]
    """
    if distance not in DISTANCES:
        raise SpecError(
            f"there is no distance {distance!r}. Expected one of {', '.join(DISTANCES)}. Pass distance='l2'."
        )
    if representations.ndim < 2 or representations.shape[1] < 2:
        raise ShapeError(
            f"representations have shape {tuple(representations.shape)}. Expected (point, view, feature...) with at "
            "least two views. Encode two or more views per point."
        )
    flat = _flatten_features(representations)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    if distance == "l1":
        flat = torch.nn.functional.normalize(flat, dim=2) if normalize else flat
        return torch.cdist(flat, flat, p=1.0)
    squared = _squared_distances(flat, unit=normalize or distance in ("cosine", "angular"))
    if distance == "l2":
        return squared.sqrt()
    if distance == "cosine":
        return squared / 2
    return 2 / math.pi * torch.asin((squared.sqrt() / 2).clamp(max=1.0))  # arccos is ill-conditioned near 0


def pair_distances(distances: Float[Tensor, "point view view"], pairs: Pairs = "all") -> Float[Tensor, "point pair"]:
    """The distances that estimate an alignment: of all V(V-1)/2 pairs, of pairs across the even and the odd views, or
    of the first view, which is the image itself, with every other.

    >>> pair_distances(torch.arange(16.0).view(1, 4, 4), "cross")     # views 0, 2 against 1, 3
    tensor([[ 1.,  3.,  9., 11.]])
    """
    views = distances.shape[1]
    if pairs == "cross":
        if views % 2:
            raise ShapeError(f"there are {views} views. Pairs across two nets need an even number. Pass pairs='all'.")
        return distances[:, 0::2, 1::2].flatten(1)
    if pairs == "all":
        row, column = torch.triu_indices(views, views, 1, device=distances.device)
        return distances[:, row, column]
    if pairs == "original":
        return distances[:, 0, 1:]
    raise SpecError(f"there are no pairs {pairs!r}. Expected 'all', 'cross' or 'original'. Pass pairs='all'.")


def half_distances(
    distances: Float[Tensor, "point view view"], pairs: Pairs = "all"
) -> tuple[Float[Tensor, "point pair"], Float[Tensor, "point other"]]:
    """All pairs within the even views, and all within the odd ones: two scores of one point from other views.

    With pairs "original", the image against every second view, and against the others.
    """
    if pairs == "original":
        return distances[:, 0, 1::2], distances[:, 0, 2::2]
    return pair_distances(distances[:, 0::2, 0::2], "all"), pair_distances(distances[:, 1::2, 1::2], "all")


def pairwise_alignment(
    representations: Float[Tensor, "point view *feature"],
    *,
    distance: Distance = "l2",
    normalize: bool = True,
    pairs: Pairs = "all",
) -> Float[Tensor, " point"]:
    """Mean distance between views of a point; small means well aligned.

    align_h(x) = E d(h(x'), h(x'')). With plain draws take all pairs (unbiased); with two Sobol nets the pairs across
    them, since those within a net are not independent.

    Args:
        representations: of V views per point, shape (point, view, feature...).
        distance, normalize: as in `view_distances`.
        pairs: "all", "cross" (even views against odd ones) or "original" (the first view, the image itself, against the
            others).
    Returns:
        Alignment, shape (point,), in units of the distance.
    Source: SSLMem Eq. 1, REFERENCE A2.

    >>> pairwise_alignment(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0], [6.0, 8.0]]]))
    tensor([1.4142, 0.0000])
    """
    return pair_distances(view_distances(representations, distance=distance, normalize=normalize), pairs).mean(dim=1)


def _flatten_features(representations: Tensor) -> Tensor:
    """(point, view, feature) without a copy for channels-last maps: distances do not mind the order of features."""
    axes = sorted(range(2, representations.ndim), key=lambda axis: -representations.stride()[axis])
    return representations.permute(0, 1, *axes).flatten(2) if axes else representations[:, :, None]


def _squared_distances(flat: Tensor, *, unit: bool) -> Tensor:
    """Squared Euclidean distances, one matrix product per point; where views are close, of their differences from the
    mean."""
    gram = torch.bmm(flat, flat.transpose(1, 2))
    square = gram.diagonal(dim1=1, dim2=2)
    scale = square.clamp_min(0).sqrt().clamp_min(1e-12).reciprocal() if unit else torch.ones_like(square)
    own = square * scale**2
    squared = own[:, :, None] + own[:, None, :] - 2 * gram * scale[:, :, None] * scale[:, None, :]
    views = torch.arange(flat.shape[1], device=flat.device)
    squared[:, views, views] = torch.inf
    close = (squared < _CLOSE * own.amax(dim=1)[:, None, None]).flatten(1).any(dim=1).nonzero().flatten()
    squared[:, views, views] = 0.0
    if len(close):
        rows = flat[close] * scale[close][:, :, None]
        rows = rows - rows.mean(dim=1, keepdim=True)
        gram = torch.bmm(rows, rows.transpose(1, 2))
        square = gram.diagonal(dim1=1, dim2=2)
        exact = square[:, :, None] + square[:, None, :] - 2 * gram
        exact[:, views, views] = 0.0
        squared[close] = exact
    return squared.clamp_min_(0.0)
