"""Memorization of points and layers: SSLMem, LayerMem, and the membership effect that calibrates them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from memloc.errors import NonFiniteError, ShapeError
from memloc.metrics._bootstrap import bootstrap_sums, bootstrap_weights, percentile_interval
from memloc.metrics._two_way import two_way_spread
from memloc.streams import Stream

_ROUNDING = 1e-7  # of a reading, relative to the largest


def sslmem(
    align_f: Float[Tensor, "*point"], align_g: Float[Tensor, "*point"], *, normalize: bool = True
) -> Float[Tensor, "*point"]:
    """How much better f aligns a point's views than a reference g that never saw the point.

    SSLMem'(x) = (align_g - align_f) / (align_g + align_f), in [-1, 1], 0 where both are 0. With `normalize=False` the
    difference align_g - align_f alone.

    Args:
        align_f, align_g: alignments of the same points, any shape.
    Returns:
        Scores of that shape; above 0 means memorized by f.
    Source: SSLMem Eq. 2.

    >>> sslmem(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    if align_f.shape != align_g.shape:
        raise ShapeError(
            f"align_f has shape {tuple(align_f.shape)} and align_g {tuple(align_g.shape)}. Expected one alignment per "
            "point in both. Score the same points with both encoders."
        )
    raw = align_g - align_f
    if not normalize:
        return raw
    total = align_g + align_f
    return torch.where(total == 0, 0.0, raw / torch.where(total == 0, 1.0, total))


def sslmem_pairwise(
    distances_f: Float[Tensor, "point pair"], distances_g: Float[Tensor, "point pair"]
) -> Float[Tensor, " point"]:
    """SSLMem as a mean over pairs of views of (d_g - d_f) / (d_g + d_f); less noisy than the ratio of means.

    >>> sslmem_pairwise(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]]))
    tensor([0.2500])
    """
    return sslmem(distances_f, distances_g).mean(dim=-1)


def sslmem_range(raw: Float[Tensor, " point"], among: Bool[Tensor, " point"] | None = None) -> Float[Tensor, " point"]:
    """Raw scores over their range (max - min), the scaling of the published figures.

    It depends on which points are scored together; NaN marks points without a score.

    Args:
        among: the points whose range counts, such as candidates, the only ones that the published script scores; all by
            default.

    >>> sslmem_range(torch.tensor([0.1, 0.3, -0.1]))
    tensor([ 0.2500,  0.7500, -0.2500])
    """
    known = raw[~raw.isnan() if among is None else ~raw.isnan() & among]
    span = known.max() - known.min() if len(known) else torch.zeros(())
    return raw / span if span > 0 else torch.where(raw.isnan(), raw, torch.zeros_like(raw))


def layermem(scores: Float[Tensor, "*layer point"]) -> Float[Tensor, "*layer"]:
    """LayerMem: the mean SSLMem' of the points at each layer (LocMem Eq. 3).

    >>> layermem(torch.tensor([[0.2, 0.4], [0.0, 0.5]]))
    tensor([0.3000, 0.2500])
    """
    return scores.mean(dim=-1)


def delta_layermem(values: Float[Tensor, " layer"], predecessor: list[int | None]) -> Float[Tensor, " layer"]:
    """ΔLayerMem: a layer's LayerMem less its predecessor's; NaN for the first layer (LocMem Eq. 4).

    >>> delta_layermem(torch.tensor([0.1, 0.3, 0.2]), [None, 0, 1])
    tensor([    nan,  0.2000, -0.1000])
    """
    before = torch.stack([values.new_tensor(torch.nan) if row is None else values[row] for row in predecessor])
    return values - before


@dataclass(frozen=True)
class Effect:
    """The membership effect of the two-way model: by how much, relative to its own size, training lowers alignment.

    Attributes:
        value: the effect; 0 if being trained on a point changes nothing.
        se: standard error over points, and over training runs where `runs_resampled`.
        low, high: 95 % interval over the same.
        n_points: points that some encoders saw and others did not.
        runs_resampled: whether error and interval speak of other training runs too.
        draws: around the value, of which the interval is made, shape (repeat,).
    """

    value: float
    se: float
    low: float
    high: float
    n_points: int
    runs_resampled: bool
    draws: Tensor = field(repr=False, compare=False)


def membership_effect(
    align: Float[Tensor, "encoder point"],
    membership: Bool[Tensor, "encoder point"],
    *,
    paired: bool = False,
    repeats: int = 1000,
    seed: int = 0,
) -> Effect:
    """Calibrated memorization: least-squares effect of membership on alignment, net of encoder and point.

    With more than two encoders log alignment = encoder effect + point effect - β x membership, and the effect is
    tanh(β / 2), on the scale of SSLMem' and unbiased whatever share of the encoders saw a point. For two, each point's
    alignments are divided by their sum instead: for a pair f, g with candidates and independent points this is (mean
    SSLMem' of candidates - mean of independents) / 2. Points seen by all or by no encoder do not enter.

    Args:
        align: alignment of every point by every encoder.
        membership: which encoder was trained on which point.
        paired: whether runs of two sides were trained in pairs, the first of either side together, and are resampled
            so.
        repeats, seed: of the draws.
    Returns:
        Effect, NaN where no point distinguishes the encoders.
    Raises:
        ShapeError: shapes differ. NonFiniteError: an alignment is NaN or infinite.
    Source: REFERENCE A9 and A12; Feldman and Zhang, NeurIPS 2020, for subset ensembles.

    >>> align = torch.tensor([[1.0, 1.0, 3.0, 3.0], [3.0, 3.0, 1.0, 1.0]])
    >>> seen = torch.tensor([[True, True, False, False], [False, False, True, True]])
    >>> membership_effect(align, seen).value
    0.5
    """
    if align.shape != membership.shape or align.ndim != 2:
        raise ShapeError(
            f"alignments have shape {tuple(align.shape)} and membership {tuple(membership.shape)}. Expected both as "
            "(encoder, point). Pass one row per encoder."
        )
    if not align.isfinite().all():
        raise NonFiniteError(
            "alignments hold NaN or Inf. Expected finite numbers. Check the encoder's weights and the images."
        )
    seen = membership.double()
    split = (membership.any(dim=0) & ~membership.all(dim=0)).nonzero().flatten()
    seen, align = seen[:, split], align.double()[:, split]
    if not len(split):
        nan = float("nan")
        return Effect(nan, nan, nan, nan, 0, False, torch.full((repeats,), nan, dtype=torch.float64))
    encoders, points = align.shape
    logs = encoders > 2
    relative = log_reading(align) if logs else relative_alignment(align, seen.bool())
    slope = _slope(relative, seen)
    varying = run_clusters(membership[:, split], paired=paired)
    influence = _influence(relative, seen, slope)
    spread = two_way_spread(influence, clusters=varying, repeats=repeats, seed=seed, strata=_patterns(seen))
    value, error, draws = slope, spread.se, slope + spread.draws
    if logs:
        value, draws = math.tanh(slope / 2), (draws / 2).tanh()
        error *= (1 - value**2) / 2
    low, high = percentile_interval(draws)
    return Effect(value, error, low, high, points, varying is not None, draws)


def log_reading(align: Float[Tensor, "*cell"]) -> Float[Tensor, "*cell"]:
    """Logarithm of readings that are not negative; those below a ten-millionth of the largest, where single precision
    ends, are taken as that.

    >>> log_reading(torch.tensor([1.0, 0.0]))
    tensor([  0.0000, -16.1181])
    """
    floor = align.max() * _ROUNDING if align.numel() else align.new_zeros(())
    return align.clamp_min(floor.clamp_min(torch.finfo(align.dtype).tiny)).log()


def relative_alignment(
    align: Float[Tensor, "encoder point"], membership: Bool[Tensor, "encoder point"]
) -> Float[Tensor, "encoder point"]:
    """Alignments over (mean of encoders that saw the point + mean of those that did not); twice its mean where one is
    empty.

    >>> relative_alignment(torch.tensor([[1.0], [3.0]]), torch.tensor([[True], [False]]))
    tensor([[0.2500],
            [0.7500]])
    """
    seen = membership.to(align.dtype)
    inside, outside = seen.sum(dim=0), (1 - seen).sum(dim=0)
    mean = align.mean(dim=0)
    mean_in = torch.where(inside > 0, (align * seen).sum(dim=0) / inside.clamp_min(1), mean)
    mean_out = torch.where(outside > 0, (align * (1 - seen)).sum(dim=0) / outside.clamp_min(1), mean)
    total = mean_in + mean_out
    return torch.where(total == 0, 0.5, align / torch.where(total == 0, 1.0, total))


def _net(values: Tensor) -> Tensor:
    """Values net of encoder and point."""
    return values - values.mean(dim=1, keepdim=True) - values.mean(dim=0) + values.mean()


def _slope(relative: Tensor, seen: Tensor) -> float:
    """Least-squares effect of membership, net of encoder and point, with minus sign."""
    member = _net(seen)
    size = float(member.square().sum())
    return -float((_net(relative) * member).sum()) / size if size > 1e-12 else float("nan")


def _influence(relative: Tensor, seen: Tensor, slope: float) -> Tensor:
    """What each cell adds to the error of the effect: (encoder, point)."""
    member = _net(seen)
    return -(_net(relative) + slope * member) * member / member.square().sum()


def _patterns(seen: Tensor) -> Tensor | None:
    """Strata for the bootstrap: points with the same membership, unless nearly every point has its own."""
    _, pattern, counts = seen.T.unique(dim=0, return_inverse=True, return_counts=True)
    return pattern if int(counts.min()) >= 2 else None


def run_clusters(membership: Bool[Tensor, "encoder point"], *, paired: bool = False) -> Int[Tensor, " encoder"] | None:
    """The cluster of each encoder, over which a figure varies between trainings: itself, or its pair.

    None where there are too few to tell: fewer than three a side, or fewer than four with training sets of their own.

    >>> run_clusters(torch.eye(4).bool())
    tensor([0, 1, 2, 3])
    """
    encoders = len(membership)
    _, side, counts = membership.unique(dim=0, return_inverse=True, return_counts=True)
    if int(counts.min()) >= 3:
        if not (paired and len(counts) == 2 and counts[0] == counts[1]):
            return torch.arange(encoders)
        place = torch.zeros(encoders, dtype=torch.int64)
        for number in (0, 1):
            place[side == number] = torch.arange(int(counts[number]))
        return place
    return torch.arange(encoders) if len(counts) == encoders >= 4 else None


def run_weights(membership: Tensor, repeats: int = 1000, seed: int = 0, *, paired: bool = False) -> Tensor | None:
    """Multinomial weights of encoders: within sides where encoders share a training set, else over all; None if too
    few."""
    _, side, counts = membership.unique(dim=0, return_inverse=True, return_counts=True)
    encoders = len(membership)
    if int(counts.min()) >= 3 and paired and len(counts) == 2 and counts[0] == counts[1]:
        pairs = bootstrap_weights(int(counts[0]), repeats, seed, stream=Stream.RUN_BOOTSTRAP)
        weights = torch.zeros(repeats, encoders, dtype=torch.float64)
        for number in (0, 1):
            weights[:, side == number] = pairs
        return weights
    if int(counts.min()) >= 3:
        return bootstrap_weights(encoders, repeats, seed, strata=side, stream=Stream.RUN_BOOTSTRAP)
    trained, untrained = membership.sum(dim=0), (~membership).sum(dim=0)
    if len(counts) == encoders and int(torch.minimum(trained, untrained).min()) >= 3:
        return bootstrap_weights(encoders, repeats, seed, stream=Stream.RUN_BOOTSTRAP)
    return None


def mean_interval(
    values: Float[Tensor, " point"], *, repeats: int = 1000, seed: int = 0
) -> tuple[float, float, float, float]:
    """Mean, standard error and bootstrap 95 % interval of a sample of points; NaN values are left out.

    >>> mean, se, low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    >>> mean, round(se, 3), low < mean < high
    (2.5, 0.645, True)
    """
    values = values[~values.isnan()].double()
    if not len(values):
        return (float("nan"),) * 4
    se = float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
    low, high = percentile_interval(mean_draws(values, repeats=repeats, seed=seed))
    return float(values.mean()), se, low, high


def mean_draws(
    values: Float[Tensor, " point"], *, repeats: int = 1000, seed: int = 0, stream: Stream = Stream.BOOTSTRAP
) -> Float[Tensor, " repeat"]:
    """Bootstrap means of a sample of points; equal seeds, streams and numbers of points draw the same points, so
    differences pair up. NaN for fewer than two points.

    >>> mean_draws(torch.tensor([1.0, 1.0], dtype=torch.float64), repeats=3)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    known = values[~values.isnan()].double()
    if len(known) < 2:  # one point says nothing of how points vary
        return torch.full((repeats,), torch.nan, dtype=torch.float64)
    sums, sizes = bootstrap_sums(known[:, None], repeats=repeats, seed=seed, stream=stream)
    return sums[:, 0] / sizes
