"""One encoder of a run, trained in a process of its own: python -m memloc.pretrain._worker RUN NAME."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import torch

from memloc.errors import MemlocError
from memloc.pretrain._one import train_one

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Train the encoder; stop when the parent process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when an interrupt ends its workers
    if sys.platform == "linux":  # the kernel ends this process with its parent, whatever ends that
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    parent = os.getppid()

    def still_wanted(_text: str, _done: float, _total: float) -> None:
        if os.getppid() != parent:
            sys.exit(1)

    try:
        train_one(Path(sys.argv[1]), sys.argv[2], progress=still_wanted)
    except MemlocError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
