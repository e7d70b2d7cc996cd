"""Scores of points: per point and layer, from all views and from either half of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from memloc.engine._job import Job
from memloc.engine._shard import ShardState
from memloc.errors import NonFiniteError
from memloc.metrics import (
    FEWEST_REFERENCES,
    Regression,
    bootstrap_sums,
    log_reading,
    mean_draws,
    regress_readings,
    run_weights,
    sslmem,
)
from memloc.streams import Stream

REPEATS = 1_000  # bootstrap samples


class Scores:
    """Per point and layer: alignments of both sides and SSLMem', from all views and from either half of them."""

    def __init__(self, job: Job, state: ShardState) -> None:
        columns = state.points.columns
        self.align = columns["align"]  # (point, layer, encoder)
        if not self.align.isfinite().all():
            raise NonFiniteError(
                "some alignments are NaN or Inf. Expected finite numbers. Check the encoder's weights and the images."
            )
        self.pairwise = columns["pairwise"]
        self.align_f, self.align_g = (self.mean(self.align, side) for side in (job.target, job.reference))
        self.ratio = sslmem(self.align_f, self.align_g)
        raw = (self.align_g - self.align_f)[candidates(job)]
        low, high = (
            torch.nan_to_num(raw, nan=fill).aminmax(dim=0)[side] for side, fill in ((0, torch.inf), (1, -torch.inf))
        )
        spread = torch.where(high > low, high - low, 1.0) if job.options.scale == "range" else None
        self.spread = spread  # of the raw scores, per layer; None for SSLMem'
        self.score = score_of(self.align_f, self.align_g, spread=spread)
        half = columns["half"]
        self.half = torch.stack(
            [
                score_of(
                    self.mean(half[..., number], job.target), self.mean(half[..., number], job.reference), spread=spread
                )
                for number in (0, 1)
            ],
            dim=2,
        )
        self.align_in, self.align_out = (self.mean(self.align, side) for side in (job.membership, ~job.membership))
        self._regress(job, half, columns["log_variance"])

    def _regress(self, job: Job, half: Tensor, variance: Tensor) -> None:
        """Scores free of encoder effects, from all views and from either half, with their errors: (point, layer)."""
        logs = [log_readings(job, self.align[:, number]) for number in range(self.align.shape[1])]
        halves = [
            [log_readings(job, half[:, number, :, part]) for part in (0, 1)] for number in range(self.align.shape[1])
        ]
        self.regressions = [_regression(job, each) for each in logs]
        scores, errors, of_halves = [], [], []
        for number, (found, reading) in enumerate(zip(self.regressions, logs, strict=True)):
            scores.append(found.score(*sides_of(job, reading)))
            of_halves.append(torch.stack([found.score(*sides_of(job, each)) for each in halves[number]], dim=1))
            f, g, both = variance[:, number].unbind(dim=1)
            slope = torch.zeros_like(f) if job.mode == "alone" else found.slope
            g, both = (torch.zeros_like(f),) * 2 if job.mode == "alone" else (g, both)
            over_views = (f + slope**2 * g - 2 * slope * both).clamp_min(0)
            errors.append((over_views + log_run_variance(job, reading, slope)).sqrt() / found.spread)
        self.regressed, self.error = torch.stack(scores, dim=1), torch.stack(errors, dim=1)
        self.regressed_half = torch.stack(of_halves, dim=1)

    def deciding(self, job: Job) -> Tensor:
        """What orders the points at each layer, (point, layer): the regressed score; the published scaling orders them
        by itself."""
        return self.score if job.options.scale == "range" else self.regressed

    def ranking(self, job: Job) -> Tensor:
        """The same from either half of the views: (point, layer, 2)."""
        return self.half if job.options.scale == "range" else self.regressed_half

    @staticmethod
    def mean(align: Tensor, side: Tensor) -> Tensor:
        """Mean over the encoders of a side, NaN where it has none: (point, layer)."""
        weight = side.T.double()
        return torch.einsum("ple,pe->pl", align, weight) / weight.sum(dim=1)[:, None]


def score_of(align_f: Tensor, align_g: Tensor, *, spread: Tensor | None) -> Tensor:
    """SSLMem', or the raw difference over the range of the points scored, where that is given."""
    return sslmem(align_f, align_g) if spread is None else sslmem(align_f, align_g, normalize=False) / spread


def candidates(job: Job) -> Tensor:
    """Which points are candidates, bool (point,)."""
    return torch.from_numpy(job.split == "candidate")


def log_readings(job: Job, align: Tensor) -> Tensor:
    """Log readings of a layer, net of what each encoder has on points that nobody saw (on all, where those are few):
    (point, encoder)."""
    logs = log_reading(align)
    rows = job.never if int(job.never.sum()) >= FEWEST_REFERENCES else torch.ones_like(job.never)
    return logs - logs[rows].mean(dim=0)


def sides_of(job: Job, logs: Tensor, used: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Mean log reading of the encoders that stand for f and for g at each point; None for a side that is not there.

    Args:
        used: encoders to take, bool (encoder,); all by default.
    """
    taken = torch.ones(len(job.membership), dtype=torch.bool) if used is None else used
    f, g = ((side & taken[:, None]).T.double() for side in (job.target, job.reference))
    seen = (logs * f).sum(dim=1) / f.sum(dim=1)
    return seen, None if job.mode == "alone" else (logs * g).sum(dim=1) / g.sum(dim=1)


def _regression(job: Job, logs: Tensor) -> Regression:
    """The regression of a layer; the spread of an ensemble's point follows how many encoders saw it."""
    found = regress_readings(*sides_of(job, logs), job.never, seed=job.options.seed)
    if job.mode != "ensemble":
        return found
    noise = 1 / job.target.sum(dim=0) + found.slope**2 / job.reference.sum(dim=0)
    among = job.never if job.never.any() else torch.ones_like(job.never)
    return replace(found, spread=found.spread * (noise / noise[among].mean()).sqrt())


def difference(job: Job, logs: Tensor, used: Tensor) -> Tensor:
    """How far every point's reading by some of the encoders lies below that of the others among them, in logarithms.

    What a slope below 1 leaves of a point's own difficulty would repeat in every run, memorized or not.
    """
    seen, unseen = sides_of(job, logs, used)
    return torch.full_like(seen, torch.nan) if unseen is None else unseen - seen


def log_run_variance(job: Job, logs: Tensor, slope: Tensor) -> Tensor:
    """Variance over training runs of what a point lies below what its reference foretells, before it is divided by
    the spread, where there are three or more a side; else 0 (unknown)."""
    f, g = job.target.T, job.reference.T
    total = torch.zeros(len(logs), dtype=torch.float64)
    if int(f.sum(dim=1).min()) < 3 or int(g.sum(dim=1).min()) < 3:
        return total
    if job.paired:  # f's and g's runs vary together
        apart = logs[:, : job.f_count] - slope[:, None] * logs[:, job.f_count :]
        return apart.var(dim=1) / job.f_count
    for side, weight in ((f, torch.ones_like(slope)), (g, slope**2)):
        count = side.sum(dim=1)
        mean = (logs * side).sum(dim=1) / count
        total += weight * (((logs - mean[:, None]) ** 2) * side).sum(dim=1) / (count - 1) / count
    return total


def run_variance(job: Job, align: Tensor) -> Tensor:
    """Variance of a point's score over training runs, where there are three or more a side; else 0 (unknown).

    The ratio's linear part: each side's mean alignment varies by the variance over its encoders over their number.
    """
    total = torch.zeros(len(align), dtype=torch.float64)
    f, g = job.target.T, job.reference.T
    if int(f.sum(dim=1).min()) < 3 or int(g.sum(dim=1).min()) < 3:
        return total
    means = [(align * side).sum(dim=1) / side.sum(dim=1) for side in (f, g)]
    whole = means[0] + means[1]
    if job.paired:  # f's and g's runs vary together
        scale = torch.where(whole > 0, 2 / whole.clamp_min(1e-300) ** 2, 0.0)[:, None]
        influence = scale * (means[0][:, None] * align[:, job.f_count :] - means[1][:, None] * align[:, : job.f_count])
        return influence.var(dim=1) / job.f_count
    for side, other, mean in ((f, means[1], means[0]), (g, means[0], means[1])):
        count = side.sum(dim=1)
        variance = (((align - mean[:, None]) ** 2) * side).sum(dim=1) / (count - 1) / count
        total += torch.where(whole > 0, (2 * other / whole.clamp_min(1e-300) ** 2) ** 2 * variance, 0.0)
    return total


def score_draws(
    job: Job, align: Tensor, member: Tensor, spread: Tensor | None, *, stream: Stream = Stream.BOOTSTRAP
) -> Tensor:
    """Bootstrap means of the score over some points, and over runs where there are three or more a side: (repeat,).

    Layers draw the same samples, and so do groups of points with equal numbers unless their streams differ.
    """
    seed = job.options.seed
    target, reference = job.target[:, member].double(), job.reference[:, member].double()
    varying = job.membership.any(dim=0) & ~job.membership.all(dim=0)
    sides_of_runs = job.membership[:, varying] if varying.any() else job.target
    runs = None if job.mode == "alone" else run_weights(sides_of_runs, REPEATS, seed, paired=job.paired)
    align = align[:, member]
    if runs is None or not member.any():
        means = [(align * side).sum(dim=0) / side.sum(dim=0) for side in (target, reference)]
        return mean_draws(score_of(means[0], means[1], spread=spread), repeats=REPEATS, seed=seed, stream=stream)
    draws = []
    for row, run in enumerate(runs):
        sides = [run[:, None] * side for side in (target, reference)]
        score = score_of(*[(align * side).sum(dim=0) / side.sum(dim=0) for side in sides], spread=spread)
        known = torch.stack([score.nan_to_num(), (~score.isnan()).double()], dim=1)
        sums, _ = bootstrap_sums(known, repeats=REPEATS, seed=seed, only=row, stream=stream)
        draws.append(sums[0, 0] / sums[0, 1])
    return torch.stack(draws)


def mean_of(values: Tensor) -> float:
    """Mean of the values that are known, NaN where none is."""
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else float("nan")
