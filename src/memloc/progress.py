"""Progress of long work: what is done, how much there is, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Report = Callable[[str, float, float], None]
"""Called with what is going on, units done and units in all."""


def silent(_text: str, _done: float, _total: float) -> None:
    """Report nothing; the default from Python."""


class Console:
    """Reports to standard error: one line that is rewritten on a terminal, elsewhere a plain line every few
    seconds in which something was done.

    >>> Console.left(2.0, 25.0, 100.0)
    '6 s left'
    """

    def __init__(self, *, every: float = 10.0) -> None:
        self._live = sys.stderr.isatty()
        self._every = 0.2 if self._live else every
        self._text, self._began, self._first, self._shown = "", 0.0, 0.0, 0.0
        self._done = -1.0  # when a line was last written

    def __call__(self, text: str, done: float, total: float) -> None:
        """Show progress; a new text begins a new task."""
        now = time.monotonic()
        if text != self._text:
            self._text, self._began, self._first, self._shown, self._done = text, now, done, 0.0, -1.0
        if (now - self._shown < self._every and done < total) or (done == self._done and not self._live):
            return
        self._shown, self._done = now, done
        spent, fresh = now - self._began, done - self._first
        rest = f"{spent:.0f} s" if done >= total else self.left(spent, fresh, total - self._first)
        line = f"{text}: {100 * done / max(total, 1e-9):.0f} %, {rest}"
        if self._live:
            sys.stderr.write(f"\r\033[K{line}" + ("\n" if done >= total else ""))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    @staticmethod
    def left(spent: float, done: float, total: float) -> str:
        """Time left, from the time spent so far."""
        if done <= 0:
            return "starting"
        seconds = spent * (total - done) / done
        return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"


def roughly(amount: float) -> float:
    """An estimate to two significant digits, so that a small one is not shown as none.

    >>> roughly(0.0312), roughly(1234.0)
    (0.031, 1200.0)
    """
    return float(f"{amount:.2g}")
