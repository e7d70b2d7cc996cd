"""Shards computed one after the other in this process; those that are there and can be used are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

State = TypeVar("State")


def compute_shards(
    shards: Sequence[slice],
    *,
    load: Callable[[int], State | None],
    compute: Callable[[slice], State],
    store: Callable[[int, State], None],
    show: Callable[[int], None],
) -> list[State]:
    """The state of every shard, in order.

    Args:
        shards: ranges of points. load: what was stored of a shard by its number, None where it must be computed.
        compute: one shard. store: keep its state. show: called with the first point before each shard.

    >>> kept = {1: "two"}
    >>> compute_shards([slice(0, 2), slice(2, 4)], load=kept.get, compute=str, store=kept.__setitem__, show=print)
    0
    2
    ['slice(0, 2, None)', 'two']
    """
    states = []
    for number, shard in enumerate(shards):
        show(shard.start)
        state = load(number)
        if state is None:
            store(number, compute(shard))
            state = load(number)  # what was stored, which may be less than what was computed
            assert state is not None, "it was stored a moment ago"
        states.append(state)
    return states
