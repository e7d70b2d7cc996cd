"""How far one group of scores stands out from another: AUROC, excess fraction, empirical p-values, q-values."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memloc.metrics._bootstrap import Z95, percentile_interval
from memloc.metrics._two_way import two_way_spread


class Auroc(NamedTuple):
    """Area under the ROC curve with its 95 % interval."""

    value: float
    low: float
    high: float


def auroc(positive: Float[Tensor, " point"], negative: Float[Tensor, " other"]) -> Auroc:
    """Chance that a positive scores above a negative, ties counting one half; 1/2 if they cannot be told apart.

    The interval is DeLong's (Biometrics 1988) on the logit scale, so it stays within (0, 1).

    >>> auroc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])).value
    0.875
    """
    positive, negative = positive[~positive.isnan()].double(), negative[~negative.isnan()].double()
    if not len(positive) or not len(negative):
        return Auroc(float("nan"), float("nan"), float("nan"))
    above_negative = _placement(positive, negative)
    below_positive = 1 - _placement(negative, positive)
    value = float(above_negative.mean())
    if len(positive) < 2 or len(negative) < 2:
        return Auroc(value, float("nan"), float("nan"))
    variance = float(above_negative.var() / len(positive) + below_positive.var() / len(negative))
    if not 0 < value < 1 or variance == 0:  # no overlap: the exact one-sided bound for the smaller sample
        slack = 1 - 0.025 ** (1 / min(len(positive), len(negative)))
        return Auroc(value, max(value - slack, 0.0), min(value + slack, 1.0))
    logit, se = math.log(value / (1 - value)), math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-(logit + sign * Z95 * se))) for sign in (-1, 1))
    return Auroc(value, low, high)


def auroc_of_cells(
    closeness: Float[Tensor, "encoder point"],
    seen: Bool[Tensor, "encoder point"],
    *,
    clusters: Int[Tensor, " encoder"] | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> Auroc:
    """AUROC of (encoder, point) cells, those trained on against the others, with an interval over points, and over
    training runs where their clusters are given.

    Args:
        closeness: what orders the cells. seen: which encoder was trained on which point.
        clusters: the training run of each encoder.

    >>> closeness = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.5]])
    >>> auroc_of_cells(closeness, closeness == 1).value
    1.0
    """
    positive, negative = closeness[seen].double(), closeness[~seen].double()
    if not len(positive) or not len(negative):
        return Auroc(float("nan"), float("nan"), float("nan"))
    above, below = _placement(positive, negative), 1 - _placement(negative, positive)
    value = float(above.mean())
    points = closeness.shape[1]
    if not 0 < value < 1:
        slack = 1 - 0.025 ** (1 / points)
        return Auroc(value, max(value - slack, 0.0), min(value + slack, 1.0))
    influence = torch.empty(closeness.shape, dtype=torch.float64)
    influence[seen], influence[~seen] = (above - value) / len(positive), (below - value) / len(negative)
    influence /= value * (1 - value)  # of its logit
    draws = two_way_spread(influence, clusters=clusters, repeats=repeats, seed=seed).draws
    low, high = percentile_interval(torch.special.expit(math.log(value / (1 - value)) + draws))
    return Auroc(value, low, high)


def excess_fraction(
    candidate: Float[Tensor, " point"], external: Float[Tensor, " other"], *, level: float = 0.95
) -> tuple[float, float]:
    """How large a share of candidates must score higher than chance: sup_t (F_E(t) - F_C(t)) and its lower bound.

    The bound holds at the given level for any distributions: Dvoretzky-Kiefer-Wolfowitz with Massart's constant for
    each sample at half the error (REFERENCE A9).

    >>> excess_fraction(torch.arange(100.0) + 50, torch.arange(100.0))[0]
    0.5
    """
    candidate, external = (
        candidate[~candidate.isnan()].double().sort().values,
        external[~external.isnan()].double().sort().values,
    )
    if not len(candidate) or not len(external):
        return float("nan"), float("nan")
    grid = torch.cat([candidate, external])
    gap = torch.searchsorted(external, grid, right=True) / len(external) - torch.searchsorted(
        candidate, grid, right=True
    ) / len(candidate)
    value = max(float(gap.max()), 0.0)
    slack = sum(math.sqrt(math.log(2 / (1 - level)) / (2 * count)) for count in (len(candidate), len(external)))
    return value, max(value - slack, 0.0)


def empirical_p_values(scores: Float[Tensor, " point"], external: Float[Tensor, " other"]) -> Float[Tensor, " point"]:
    """One-sided p-values against points never seen: (1 + how many external scores reach it) / (1 + how many there are).

    >>> empirical_p_values(torch.tensor([0.5, 3.0]), torch.tensor([1.0, 2.0, 0.0]))
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    external = external[~external.isnan()].sort().values
    reached = len(external) - torch.searchsorted(external, scores.contiguous(), right=False)
    p_value = (1 + reached).double() / (1 + len(external))
    return torch.where(scores.isnan(), torch.nan, p_value)


def q_values(p_values: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """Benjamini-Hochberg q-values: calling all points with q <= 5 % keeps the expected share of false calls at 5 %.

    >>> q_values(torch.tensor([0.01, 0.04, 0.03, 0.5], dtype=torch.float64))
    tensor([0.0400, 0.0533, 0.0533, 0.5000], dtype=torch.float64)
    """
    from scipy.stats import false_discovery_control

    known = ~p_values.isnan()
    q_value = torch.full_like(p_values, torch.nan)
    if known.any():
        q_value[known] = torch.from_numpy(false_discovery_control(p_values[known].numpy())).to(p_values.dtype)
    return q_value


def _placement(points: Tensor, others: Tensor) -> Tensor:
    """For each point the share of others below it, ties one half."""
    ordered = others.sort().values
    below = torch.searchsorted(ordered, points, right=False)
    up_to = torch.searchsorted(ordered, points, right=True)
    return (below + up_to).double() / (2 * len(others))
