"""A lower bound of epsilon from one training, in which fair coins decided which point of each pair the encoder saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from memloc.engine._job import Job
from memloc.engine._reading import default_reading
from memloc.engine._scores import Scores
from memloc.metrics import epsilon_lower_bound, log_reading

GUESSED = 0.5  # share of the pairs that are guessed, those whose readings lie farthest apart; fixed before looking


def guess_coins(job: Job, scores: Scores, coins: Mapping[str, Any], repeats: Mapping[int, int]) -> dict[str, Any]:
    """Guess from the first encoder's own reading which point of each pair it saw, and bound epsilon by how many guesses
    are right.

    The reading is the default's whatever the audit finds, and g, which saw the other point of each pair, has no say.
    Pairs of planted points are guessed apart: they bound a group.

    Args:
        coins: `pair`, the pair of each point by id, and `delta` of the training. repeats: times a point was shown.
    """
    row = default_reading(job, scores.deciding(job))
    own = log_reading(scores.align[:, row, 0])
    place = {point: number for number, point in enumerate(job.images.ids.tolist())}
    pairs: dict[int, list[int]] = {}
    for point, pair in sorted(coins["pair"].items()):
        if point in place:
            pairs.setdefault(pair, []).append(place[point])
    both = torch.tensor([rows for rows in pairs.values() if len(rows) == 2], dtype=torch.int64).reshape(-1, 2)
    shown = torch.tensor([repeats.get(point, 1) for point in job.images.ids.tolist()])
    planted = shown[both].amax(dim=1) > 1
    found = _guessed(job, own, both[~planted], coins["delta"]) | {
        "reading": job.layers[row].name,
        "delta": coins["delta"],
        "adjacency": "replace-one",
    }
    if planted.any():
        found["planted"] = _guessed(job, own, both[planted], coins["delta"]) | {"repeats": int(shown.max())}
    return found


def _guessed(job: Job, own: Tensor, pairs: Tensor, delta: float) -> dict[str, Any]:
    apart = own[pairs[:, 0]] - own[pairs[:, 1]]
    guesses = math.ceil(GUESSED * len(pairs))
    chosen = apart.abs().argsort(descending=True, stable=True)[:guesses]
    first = apart[chosen] < 0  # the point that is read as closer was seen, is guessed
    seen = job.membership[0, pairs[chosen, 0]]
    right = int((first == seen).sum())
    bound = epsilon_lower_bound(right, guesses, delta=delta, points=len(pairs))
    return {"pairs": len(pairs), "guesses": guesses, "right": right, "epsilon_low": bound}


def with_bound(separation: pd.DataFrame, coins: Mapping[str, Any]) -> pd.DataFrame:
    """The separation table with the bound beside the reading that gave it."""
    of_reading = separation["reading"] == coins["reading"]
    return separation.assign(epsilon_low=of_reading.map({True: float(coins["epsilon_low"]), False: float("nan")}))
