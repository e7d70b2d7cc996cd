"""Progress as it is read: a line that is rewritten on a terminal, a line per change in a file."""

import io
import sys

from memloc.progress import Console


def test_a_file_holds_a_line_per_change(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    console = Console(every=0.0)
    for done in (0, 0, 0, 1, 1, 2, 2, 2):
        console("training", done, 2)
    console("scoring", 0, 4)
    console("scoring", 0, 4)
    assert [line.split(",")[0] for line in said.getvalue().splitlines()] == [
        "training: 0 %",
        "training: 50 %",
        "training: 100 %",
        "scoring: 0 %",
    ]
