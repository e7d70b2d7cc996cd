"""Which candidates are named as memorized: evidence of several readings, p-values against unseen points, decoys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memloc.encoders import HEAD
from memloc.engine._guard import guarded
from memloc.engine._job import Job
from memloc.engine._own_loss import LOSS
from memloc.engine._scores import Scores, candidates, sides_of
from memloc.errors import SpecError
from memloc.metrics import auroc, empirical_p_values, log_reading, q_values
from memloc.streams import Stream, generator

LEVEL = 0.05  # of the false discovery rate
FEWEST = 20  # calibration points, below which no point can be named
_DECOYS, _FOR_DECOYS = 0.2, 100  # share of the held-out points, where there are so many
_RIDGE = 0.01  # penalty per point, of readings in deviations
_RAREST = 1e-5  # rates below which no number of held-out points is advised


@dataclass(frozen=True)
class Naming:
    """What is said of single points.

    Attributes:
        evidence, p_value, q_value: of each point, NaN where unknown. named, decoy: bool (point,).
        calibration: points that candidates were compared with, bool (point,).
        record: counts, readings and reasons, for audit.json.
    """

    evidence: Tensor
    p_value: Tensor
    q_value: Tensor
    named: Tensor
    decoy: Tensor
    calibration: Tensor
    record: dict[str, Any]


def check_decoys(job: Job) -> None:
    """Raise SpecError where --decoys leaves too few points to compare candidates with."""
    share = job.options.decoys
    if not share:
        return
    unseen = int(_reference(job)[0].sum())
    left = unseen - round(share * unseen)
    if left < FEWEST:
        raise SpecError(
            f"decoys are {share} of {unseen} held-out points, which leaves {left} to compare candidates with. Expected"
            f" at least {FEWEST}. Pass a smaller share (--decoys 0), or more points that no encoder saw (--external)."
        )


def name_points(job: Job, scores: Scores) -> Naming:
    """Compare candidates with points that no encoder saw, by evidence that those had no part in."""
    points = len(job.images)
    unknown = torch.full((points,), torch.nan, dtype=torch.float64)
    none = torch.zeros(points, dtype=torch.bool)
    reference, by_design = _reference(job)
    record: dict[str, Any] = {"level": LEVEL, "by_design": by_design, "reason": None}
    if int(reference.sum()) < 2:
        record["reason"] = (
            "there are no points that the encoder never saw to compare with (memloc train --held-out, or --external)"
        )
        return Naming(unknown, unknown, unknown, none, none, none, record | _counts(job, none, none, none))
    decoy = _decoys(job, reference)
    calibration = reference & ~decoy
    readings = _readings(job, scores)
    evidence = _evidence(job, scores, readings, calibration, candidates(job) | reference)
    record |= {"readings": [job.layers[number].name for number in readings], "calibration": int(calibration.sum())}
    if int(calibration.sum()) < FEWEST:
        record["reason"] = (
            f"there are {int(calibration.sum())} points that no encoder saw, and with fewer than {FEWEST} no p-value"
            " can be small enough (memloc train --held-out, or --external)"
        )
    p_value = unknown.clone()
    compared = candidates(job) | reference
    p_value[compared] = empirical_p_values(evidence[compared], evidence[calibration])
    # a calibration point is compared with the others
    others = int(calibration.sum())
    p_value[calibration] = (p_value[calibration] * (1 + others) - 1) / max(others, 1)
    # fewer name nobody anyway
    guard = None if by_design or int(calibration.sum()) < FEWEST else guarded(job, candidates(job), reference)
    if guard is not None:
        record["guard"] = guard.record
        if guard.withholds:
            record["reason"] = guard.reason
            p_value = unknown.clone()
    if job.earlier:
        record["reason"] = "the reference is an earlier checkpoint, which has seen the candidates, too"
        p_value = unknown.clone()
    q_value = _q_values(p_value, candidates(job), reference)
    named = candidates(job) & (q_value < LEVEL)
    record |= _counts(job, named, decoy, decoy & (q_value < LEVEL)) | {"unseen": int(reference.sum())}
    if not named.any() and record["reason"] is None:
        record |= _power(job, evidence, calibration)
    return Naming(evidence, p_value, q_value, named, decoy, calibration, record)


def _reference(job: Job) -> tuple[Tensor, bool]:
    """Points that no encoder saw, those held out of the same set where there are enough, and whether they are such."""
    unseen = job.never & torch.from_numpy(job.split == "external") & ~job.chosen
    held_out = unseen & job.held_out
    return (held_out, True) if int(held_out.sum()) >= FEWEST else (unseen, False)


def _decoys(job: Job, reference: Tensor) -> Tensor:
    rows = reference.nonzero().flatten().numpy()
    share = job.options.decoys
    if share is None:
        share = _DECOYS if len(rows) >= _FOR_DECOYS else 0.0
    drawn = generator(Stream.DECOYS, job.options.seed, len(rows)).permutation(rows)[: round(share * len(rows))]
    decoy = torch.zeros_like(reference)
    decoy[torch.from_numpy(drawn)] = True
    return decoy


def _readings(job: Job, scores: Scores) -> list[int]:
    """The readings of the evidence: those behind the encoder, its head and loss; without them its output."""
    known = [number for number in range(len(job.layers)) if not scores.regressed[:, number].isnan().all()]
    return [number for number in known if job.layers[number].kind in (HEAD, LOSS)] or [job.output]


def _evidence(job: Job, scores: Scores, readings: list[int], calibration: Tensor, alike: Tensor) -> Tensor:
    """By how many deviations a point's readings, on average, lie below what is foretold of it: by every reading of the
    reference, and by the encoder's own first half of layers, which tell how easy a point is and memorize little.

    What is foretold is found over candidates and held-out points alike. None of them is treated otherwise than another,
    so a candidate may be compared with all of them, without folds (decision 18).
    """
    sides = [sides_of(job, _logs(scores.align[:, number], alike)) for number in range(len(job.layers))]
    layers = [number for number, layer in enumerate(job.layers) if layer.kind not in (HEAD, LOSS)]
    first = [number for number in layers[: len(layers) // 2] if number not in readings]
    by = [sides[number][0] for number in first] + [other for _, other in sides if other is not None]
    known = _standardized(torch.stack(by, dim=1), alike) if by else torch.zeros(len(alike), 0, dtype=torch.float64)
    found = torch.stack([_beyond(sides[number][0], known, alike) for number in readings]).mean(dim=0)
    return (found - found[calibration].mean()) / found[calibration].std()


def _beyond(reading: Tensor, known: Tensor, alike: Tensor) -> Tensor:
    """How far a reading lies below its ridge regression on others, in deviations of what is left."""
    inside, along = known[alike], reading - reading[alike].mean()
    penalty = _RIDGE * len(inside) * torch.eye(known.shape[1], dtype=torch.float64)
    slope = torch.linalg.solve(inside.T @ inside + penalty, inside.T @ along[alike])
    left = known @ slope - along
    return left / left[alike].std()


def _standardized(columns: Tensor, alike: Tensor) -> Tensor:
    spread = columns[alike].std(dim=0)
    return (columns - columns[alike].mean(dim=0)) / torch.where(spread > 0, spread, 1.0)


def _logs(align: Tensor, among: Tensor) -> Tensor:
    """Log readings net of what each encoder has on some points: (point, encoder)."""
    logs = log_reading(align)
    return logs - logs[among].mean(dim=0)


def _q_values(p_value: Tensor, candidate: Tensor, reference: Tensor) -> Tensor:
    """Benjamini-Hochberg over candidates; of another point, that of the candidate with the next larger p-value, so that
    it is below the level where the point would be named."""
    found = torch.full_like(p_value, torch.nan)
    found[candidate] = q_values(p_value[candidate])
    known = candidate & ~found.isnan()
    others = reference & ~p_value.isnan()
    if known.any() and others.any():
        ordered, order = p_value[known].sort()
        place = torch.searchsorted(ordered, p_value[others].contiguous(), right=False)
        of_candidates = torch.cat([found[known][order], torch.ones(1, dtype=torch.float64)])
        found[others] = of_candidates[place]
    return found


def _counts(job: Job, named: Tensor, decoy: Tensor, false: Tensor) -> dict[str, Any]:
    count = int(named.sum())
    return {
        "candidates": int(candidates(job).sum()),
        "named": count,
        "expected_false": round(LEVEL * count, 2),
        "decoys": int(decoy.sum()),
        "decoys_named": int(false.sum()),
    }


def _power(job: Job, evidence: Tensor, calibration: Tensor) -> dict[str, Any]:
    """How many held-out points would name something: were those that stand out from all that are there to stand out
    from more, too; with none such, were the evidence Gaussian. None where trained points are not surely separated, or
    where more would not help."""
    known = evidence[candidates(job)]
    found = auroc(known, evidence[calibration])
    above = int((known > evidence[calibration].max()).sum())
    # the chance that the highest so many are all candidates
    by_chance = math.prod((len(known) - rank) / (len(known) + int(calibration.sum()) - rank) for rank in range(above))
    if not (found.low > 0.5 or by_chance < LEVEL):
        return {"needs": None, "separates": False}
    rate = LEVEL * above / len(known) if above else _rate_that_names(found.value)
    if rate is None:
        return {"needs": None, "separates": True}
    share = job.options.decoys if job.options.decoys is not None else _DECOYS
    needed = math.ceil((1 / rate - 1) / (1 - share))
    return {"needs": needed if needed * (1 - share) > int(calibration.sum()) else None, "separates": True}


def _rate_that_names(area: float) -> float | None:
    """The share of points never seen above a threshold at which Gaussian evidence of that AUROC names points; None
    where that is too small to be reached."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    apart = math.sqrt(2) * float(norm.ppf(min(area, 1 - 1e-6)))

    def lacking(log_rate: float) -> float:
        return log_rate - math.log(LEVEL) - float(norm.logsf(norm.isf(math.exp(log_rate)) - apart))

    lowest = math.log(_RAREST)
    return None if lacking(lowest) > 0 else math.exp(brentq(lacking, lowest, math.log(0.5)))
