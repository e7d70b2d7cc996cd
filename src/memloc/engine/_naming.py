"""Which candidates are named as memorized: evidence of several readings, p-values against unseen points, decoys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
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
_FOR_MODEL, _PER_FOLD, _MOST_FOLDS = 80, 400, 5  # calibration points for folds, and for more than two
_FEWEST_CANDIDATES = 10  # for a model
_PENALTY = 0.1  # scikit-learn's C of the model
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
            f" at least {FEWEST}. Pass a smaller share (--decoys 0.2), or more points that no encoder saw (--external)."
        )


def name_points(job: Job, scores: Scores) -> Naming:
    """Compare candidates with points that no encoder saw, by evidence that those had no part in."""
    points = len(job.images)
    unknown = torch.full((points,), torch.nan, dtype=torch.float64)
    none = torch.zeros(points, dtype=torch.bool)
    reference, by_design = _reference(job)
    record: dict[str, Any] = {"level": LEVEL, "by_design": by_design, "reason": None}
    if not reference.any():
        record["reason"] = (
            "there are no points that the encoder never saw to compare with (memloc train --held-out, or --external)"
        )
        return Naming(unknown, unknown, unknown, none, none, none, record | _counts(job, none, none, none))
    decoy = _decoys(job, reference)
    calibration = reference & ~decoy
    behind, layers = _readings(job, scores)
    folds = 1 if behind else _folds(calibration, candidates(job))
    fold = _dealt(job, folds, calibration, decoy)
    readings = behind or (layers if folds > 1 else [job.output])
    if folds > 1:
        evidence = _by_model(job, scores, readings, fold, folds, calibration)
    else:
        evidence = _together(job, scores, readings, calibration, candidates(job) | reference)
    record |= {"folds": folds, "readings": [job.layers[number].name for number in readings]}
    record |= _calibration_in_words(calibration, fold, folds)
    p_value = unknown.clone()
    for number in range(folds):
        inside = fold == number
        known = evidence[calibration & inside]
        rows = inside & (candidates(job) | reference)
        p_value[rows] = empirical_p_values(evidence[rows], known)
        # a calibration point is compared with the others
        own = calibration & inside
        p_value[own] = ((p_value[own] * (1 + len(known)) - 1) / max(len(known), 1)).clamp(max=1)
    guard = None if by_design else guarded(job, candidates(job), reference)
    if guard is not None:
        record["guard"] = guard.record
        if guard.differs:
            record["reason"] = guard.reason
            p_value = unknown.clone()
    q_value = _q_values(p_value, candidates(job), reference)
    named = candidates(job) & (q_value < LEVEL)
    record |= _counts(job, named, decoy, decoy & (q_value < LEVEL))
    if not named.any() and record["reason"] is None:
        record |= _power(job, evidence, calibration, folds)
    return Naming(evidence, p_value, q_value, named, decoy, calibration, record)


def _reference(job: Job) -> tuple[Tensor, bool]:
    """Points that no encoder saw, those held out of the same set where there are enough, and whether they are such."""
    unseen = job.never & torch.from_numpy(job.split == "external")
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


def _readings(job: Job, scores: Scores) -> tuple[list[int], list[int]]:
    """The readings behind the encoder, its head and loss, and those of the encoder itself, that differ between
    points."""
    known = [number for number in range(len(job.layers)) if not scores.regressed[:, number].isnan().all()]
    behind = [number for number in known if job.layers[number].kind in (HEAD, LOSS)]
    return behind, [number for number in known if number not in behind]


def _folds(calibration: Tensor, candidate: Tensor) -> int:
    """In how many folds the points are dealt for a model of the layers: a candidate is compared with the calibration
    points of its own fold alone, whose model knew none of them, so few folds let p-values be small."""
    held = int(calibration.sum())
    if held < _FOR_MODEL or int(candidate.sum()) < _FEWEST_CANDIDATES:
        return 1
    return min(max(held // _PER_FOLD, 2), _MOST_FOLDS)


def _dealt(job: Job, folds: int, calibration: Tensor, decoy: Tensor) -> Tensor:
    """The fold of each point; candidates, calibration points, decoys and the others are dealt out evenly."""
    groups = torch.zeros(len(calibration), dtype=torch.int64)
    for number, rows in enumerate((candidates(job), calibration, decoy), start=1):
        groups[rows] = number
    fold = torch.zeros_like(groups)
    for number in range(4):
        member = (groups == number).nonzero().flatten().numpy()
        order = generator(Stream.EVIDENCE_FOLDS, job.options.seed, number, len(member)).permutation(member)
        fold[torch.from_numpy(order)] = torch.arange(len(order)) % folds
    return fold


def _by_model(job: Job, scores: Scores, readings: list[int], fold: Tensor, folds: int, calibration: Tensor) -> Tensor:
    """Log odds that a point was trained on, by a logistic model fitted without the points of its fold."""
    from sklearn.linear_model import LogisticRegression

    evidence = torch.full((len(fold),), torch.nan, dtype=torch.float64)
    for number in range(folds):
        inside = fold == number
        unseen, seen = calibration & ~inside, candidates(job) & ~inside
        columns = torch.stack([_free(job, scores, reading, unseen) for reading in readings], dim=1)
        columns = torch.nan_to_num(columns)  # a reading that no point differs in
        rows = torch.cat([unseen.nonzero().flatten(), seen.nonzero().flatten()])
        label = np.repeat([0, 1], [int(unseen.sum()), int(seen.sum())])
        model = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=1000)
        model.fit(columns[rows].numpy(), label)
        evidence[inside] = torch.from_numpy(model.decision_function(columns[inside].numpy()))
    return evidence


def _together(job: Job, scores: Scores, readings: list[int], calibration: Tensor, alike: Tensor) -> Tensor:
    """Mean of readings, each in its deviations, regressed on the reference's over candidates and held-out points
    alike: none is treated otherwise than another, so all of them can be compared (decision 18)."""
    found = torch.stack([_free(job, scores, reading, alike) for reading in readings]).mean(dim=0)
    return (found - found[calibration].mean()) / found[calibration].std()


def _logs(align: Tensor, among: Tensor) -> Tensor:
    """Log readings net of what each encoder has on some points: (point, encoder)."""
    logs = log_reading(align)
    return logs - logs[among].mean(dim=0)


def _free(job: Job, scores: Scores, reading: int, among: Tensor) -> Tensor:
    """A reading in deviations of some points, regressed on the reference's over those alone."""
    seen, other = sides_of(job, _logs(scores.align[:, reading], among))
    if other is None:
        return (seen[among].mean() - seen) / seen[among].std()
    across, along = other[among] - other[among].mean(), seen[among] - seen[among].mean()
    slope = (across * along).sum() / across.square().sum().clamp_min(1e-300)
    left = along - slope * across
    return (seen[among].mean() + slope * (other - other[among].mean()) - seen) / left.std()


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


def _calibration_in_words(calibration: Tensor, fold: Tensor, folds: int) -> dict[str, Any]:
    smallest = min(int((calibration & (fold == number)).sum()) for number in range(folds))
    found: dict[str, Any] = {"calibration": int(calibration.sum()), "calibration_per_fold": smallest, "reason": None}
    if int(calibration.sum()) < FEWEST:
        found["reason"] = (
            f"there are {int(calibration.sum())} points that no encoder saw, and with fewer than {FEWEST} no p-value"
            " can be small enough (memloc train --held-out, or --external)"
        )
    return found


def _power(job: Job, evidence: Tensor, calibration: Tensor, folds: int) -> dict[str, Any]:
    """How many held-out points would name something: were those that stand out from all that are there to stand out
    from more, too; with none such, were the evidence Gaussian. None where trained points are not surely separated, or
    where more would not help."""
    known = evidence[candidates(job)]
    found = auroc(known, evidence[calibration])
    if not found.low > 0.5:
        return {"needs": None, "separates": False}
    above = int((known > evidence[calibration].max()).sum())
    rate = LEVEL * above / len(known) if above else _rate_that_names(found.value)
    if rate is None:
        return {"needs": None, "separates": True}
    share = job.options.decoys if job.options.decoys is not None else _DECOYS
    needed = math.ceil((1 / rate - 1) * folds / (1 - share))
    return {"needs": needed if needed > int(calibration.sum()) else None, "separates": True}


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
