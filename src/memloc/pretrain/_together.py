"""Several encoders trained on one GPU at the same time, in one process: each takes a step in turn, on a stream of its
own."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from memloc.errors import MemoryUsedUpError

_SHARE = 0.8  # of the free memory that further encoders may take
_MOST = 8  # at once; two keep a large GPU busy


@dataclass
class _Turn:
    name: str
    steps: Iterator[None]
    generators: Any


def train_together(names: list[str], begin: Callable[[str], Iterator[None]], *, most: int, device: torch.device) -> int:
    """Take steps of several trainings in turn until all are done; returns how many ran at once at most.

    Args:
        names: of the encoders. begin: an encoder's steps.
        most: at once; 0 for as many as fit into the device's memory.
    Raises:
        MemoryUsedUpError: one does not even fit alone.
    """
    waiting, running = list(names), list[_Turn]()
    limit, highest = most or (_MOST if device.type == "cuda" else 1), 0
    with torch.random.fork_rng():
        start = _generators(device)
        while waiting or running:
            while waiting and len(running) < limit:
                name, free = waiting.pop(0), _free(device)
                turn = _Turn(name, begin(name), start)
                try:
                    goes_on: bool | None = _step(turn, device)
                except MemoryUsedUpError:
                    if not running:
                        raise
                    goes_on = None
                if goes_on is None:  # outside the handler, whose traceback holds what was allocated
                    del turn
                    waiting.insert(0, name)  # its turn comes when another is done
                    limit = len(running)
                    _let_go(device)
                    continue
                if goes_on:
                    running.append(turn)
                highest = max(highest, len(running))
                if not most and device.type == "cuda":
                    taken = max(free - _free(device), 1)
                    more = max(_SHARE * _free(device) - taken, 0)  # as much stays free for what steps need besides
                    limit = min(limit, len(running) + int(more / taken))
            running = [turn for turn in running if _step(turn, device)]
    return max(highest, 1)


def _step(turn: _Turn, device: torch.device) -> bool:
    """One step under the training's own random numbers; False where it was the last."""
    _set_generators(turn.generators, device)
    try:
        next(turn.steps)
    except StopIteration:
        return False
    turn.generators = _generators(device)
    return True


def _generators(device: torch.device) -> Any:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_generators(states: Any, device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


def _free(device: torch.device) -> int:
    """Bytes that the device has free."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _let_go(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
