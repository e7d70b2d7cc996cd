"""Memorization of units: UnitMem, its controls, ClassMem and class selectivity."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from memloc.errors import DataError, ShapeError, SpecError
from memloc.metrics._bootstrap import Z95


class UnitMem(NamedTuple):
    """Per unit: the score in [0, 1], the memorized point, its mean activation and that of the rest."""

    value: Float[Tensor, " unit"]
    point: Int[Tensor, " unit"]
    mu_max: Float[Tensor, " unit"]
    mu_rest: Float[Tensor, " unit"]


class ClassMem(NamedTuple):
    """Per unit: the score, the class it answers to, that class's mean activation and the mean of the other classes."""

    value: Float[Tensor, " unit"]
    label: Int[Tensor, " unit"]
    mu_max: Float[Tensor, " unit"]
    mu_rest: Float[Tensor, " unit"]


def contrast(mu_max: Float[Tensor, " unit"], mu_rest: Float[Tensor, " unit"]) -> Float[Tensor, " unit"]:
    """(max - rest) / (max + rest): 0 for a unit that nothing activates, NaN unless max >= rest >= 0.

    >>> contrast(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, -2.0]))
    tensor([0.5000, 0.0000,    nan])
    """
    total = mu_max + mu_rest
    value = torch.where(total == 0, 0.0, (mu_max - mu_rest) / torch.where(total == 0, 1.0, total))
    # the mean of equal activations may exceed them in the last bit
    return torch.where((mu_rest >= 0) & (mu_max >= 0), value.clamp_min(0.0), torch.nan)


def rectified(mu: Tensor, signed: Literal["rectify", "raw"]) -> Tensor:
    """Activations as UnitMem takes them: max(a, 0), or as they are.

    >>> rectified(torch.tensor([-1.0, 2.0]), "rectify")
    tensor([0., 2.])
    """
    if signed not in ("rectify", "raw"):
        raise SpecError(f"signed is {signed!r}. Expected 'rectify' or 'raw'. Pass signed='rectify'.")
    return mu.clamp_min(0) if signed == "rectify" else mu


def unitmem(
    mu: Float[Tensor, "point unit"],
    *,
    rest: Literal["mean", "median"] = "mean",
    signed: Literal["rectify", "raw"] = "rectify",
) -> UnitMem:
    """How much of each unit's response belongs to a single point.

    UnitMem(u) = (mu_max - mu_rest) / (mu_max + mu_rest): 1, one point alone drives the unit; 0, all drive it alike.

    Args:
        mu: mean activation over views, shape (point, unit), non-negative after `signed` is applied.
        rest: "mean" (Eq. 7) or "median" over the other points.
        signed: "rectify" takes max(mu, 0); "raw" keeps signed means and gives NaN where mu_rest < 0.
    Returns:
        UnitMem with value in [0, 1], shape (unit,), and the row of the memorized point of each unit (the first of
        ties).
    Raises:
        ShapeError: fewer than two points.
    Source: Wang et al., Localizing Memorization in SSL Vision Encoders, NeurIPS 2024, Eq. 5-8.

    >>> unitmem(torch.tensor([[3.0, 2.0], [1.0, 2.0]])).value
    tensor([0.5000, 0.0000])
    """
    if mu.ndim != 2 or len(mu) < 2:
        raise ShapeError(
            f"mu has shape {tuple(mu.shape)}. Expected (point, unit) with at least two points, since a unit's maximum"
            " is compared with the rest. Pass more points."
        )
    mu = rectified(mu, signed)
    mu_max = mu.amax(dim=0)
    point = (mu == mu_max).to(torch.uint8).argmax(dim=0)  # the first maximum, on every device
    if rest == "mean":
        mu_rest = mean_of_rest(mu_max.double(), mu.double().sum(dim=0), len(mu)).to(mu.dtype)
    elif rest == "median":
        mu_rest = median_of_rest(mu)
    else:
        raise SpecError(f"rest is {rest!r}. Expected 'mean' or 'median'. Pass rest='mean'.")
    return UnitMem(contrast(mu_max, mu_rest), point, mu_max, mu_rest)


def mean_of_rest(mu_max: Float[Tensor, " unit"], total: Float[Tensor, " unit"], points: int) -> Float[Tensor, " unit"]:
    """Mean of every unit's activations without its largest, from their sum.

    >>> mean_of_rest(torch.tensor([9.0]), torch.tensor([12.0]), 3)
    tensor([1.5000])
    """
    return (total - mu_max) / (points - 1)


def median_of_rest(mu: Float[Tensor, "point unit"]) -> Float[Tensor, " unit"]:
    """Median of every unit's activations without its largest; the mean of the middle two of an even number.

    >>> median_of_rest(torch.tensor([[1.0], [9.0], [2.0]]))
    tensor([1.5000])
    """
    ordered = mu.sort(dim=0).values[:-1]
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def classmem(mu: Float[Tensor, "point unit"], labels: Int[Tensor, " point"]) -> ClassMem:
    """How much of each unit's response belongs to a single class; on test data this is class selectivity.

    ClassMem(u) = (mu_max - mu_rest) / (mu_max + mu_rest) over class means, mu_rest the unweighted mean of the others.

    Args:
        mu: mean activation over views, rectified where signed, shape (point, unit).
        labels: class of every point, shape (point,).
    Returns:
        ClassMem with the label each unit answers to (the smallest of ties).
    Raises:
        ShapeError: labels of another length. DataError: fewer than two classes.
    Source: LocMem App. D; Morcos et al., ICLR 2018.

    >>> classmem(torch.tensor([[3.0], [1.0], [1.0]]), torch.tensor([0, 0, 7]))[:2]
    (tensor([0.3333]), tensor([0]))
    """
    if labels.shape != mu.shape[:1]:
        raise ShapeError(
            f"there are {len(mu)} points and labels of shape {tuple(labels.shape)}. Expected one label per point. "
            "Pass labels=, one whole number for each image."
        )
    classes, index = labels.unique(return_inverse=True)
    count = torch.bincount(index).to(mu.device)
    total = torch.zeros(len(classes), mu.shape[1], dtype=torch.float64, device=mu.device).index_add_(
        0, index, mu.double()
    )
    found = class_contrast(total, count, classes)
    return ClassMem(found.value.to(mu.dtype), found.label, found.mu_max.to(mu.dtype), found.mu_rest.to(mu.dtype))


def class_contrast(
    total: Float[Tensor, "label unit"], count: Int[Tensor, " label"], classes: Int[Tensor, " label"]
) -> ClassMem:
    """ClassMem from sums and counts per class; classes without points are left out."""
    known = count > 0
    if int(known.sum()) < 2:
        raise DataError(
            f"there is {int(known.sum())} class with points. Expected at least two, since a unit's best class is"
            " compared with the others. Pass labels= of two or more classes, or leave labels out."
        )
    mean = total[known] / count[known][:, None]
    mu_max = mean.amax(dim=0)
    label = classes[known][(mean == mu_max).to(torch.uint8).argmax(dim=0)]
    mu_rest = (mean.sum(dim=0) - mu_max) / (len(mean) - 1)
    return ClassMem(contrast(mu_max, mu_rest), label, mu_max, mu_rest)


class Share(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def member_share(
    members: Float[Tensor, " unit"],
    external: Float[Tensor, " unit"],
    point: Int[Tensor, " unit"],
) -> Share:
    """Share of units whose strongest point is a member, when as many members as external points are pooled; 1/2 means
    chance.

    Units driven by one point are won or lost together, so the interval is Wilson's for Kish's effective number of
    winning points, (sum of s)^2 / sum of s^2 with s the units that each drives, not for the number of units.

    Args:
        members, external: largest mean activation of each unit over equally many points of either kind.
        point: which point reaches the larger of the two.
    Returns:
        Share; ties count one half; units that nothing activates are left out.
    Source: REFERENCE A4.

    >>> member_share(torch.tensor([2.0, 3.0, 1.0]), torch.tensor([1.0, 1.0, 2.0]), torch.tensor([4, 5, 6])).value
    0.6666666666666666
    """
    active = torch.maximum(members, external) > 0
    if not active.any():
        return Share(float("nan"), float("nan"), float("nan"))
    won = (members > external).double() + 0.5 * (members == external).double()
    _, sizes = point[active].unique(return_counts=True)
    value, count = float(won[active].mean()), float(sizes.sum() ** 2 / (sizes**2).sum())
    centre = (value + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
    reach = Z95 / (1 + Z95**2 / count) * math.sqrt(value * (1 - value) / count + Z95**2 / (4 * count**2))
    return Share(value, max(centre - reach, 0.0), min(centre + reach, 1.0))
