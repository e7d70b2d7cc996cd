"""What to do when memory is used up: go on with fewer points at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from memloc.errors import MemoryUsedUpError, warn

_T = TypeVar("_T")
_SAYS = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate", "alloc_failed")


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory is used up, of the machine or of a GPU.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    True
    """
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem).lower() for words in _SAYS)


class Batches:
    """Batches of rows that are halved, for good, where memory is used up; said once.

    Args:
        size: rows at once. what: is computed, for the line that says so.
    """

    def __init__(self, size: int, what: str) -> None:
        self.size, self._what, self._said = size, what, False

    def map(self, rows: slice, compute: Callable[[slice], _T]) -> Iterator[_T]:
        """What is computed of each batch, in order.

        Raises:
            MemoryUsedUpError: one row is too much.
        """
        start = rows.start
        while start < rows.stop:
            part = slice(start, min(start + self.size, rows.stop))
            found = self._tried(part, compute)
            if found is None:
                self._halve(part.stop - part.start)
                continue
            yield found[0]
            start = part.stop

    @staticmethod
    def _tried(part: slice, compute: Callable[[slice], _T]) -> tuple[_T] | None:
        try:
            return (compute(part),)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
        return None  # outside the handler, whose traceback holds what was allocated

    def _halve(self, tried: int) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if tried <= 1:
            raise MemoryUsedUpError(
                f"memory is used up while {self._what}, even for one point at a time. Expected room for its views in"
                " every encoder. Pass fewer --views, a smaller --size or fewer --layers, or free memory."
            )
        self.size = tried // 2
        if not self._said:
            warn(
                f"memory is used up while {self._what} {tried} points at a time; going on with {self.size} or fewer."
                " Figures change by no more than rounding.",
            )
            self._said = True
