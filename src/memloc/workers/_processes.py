"""Python commands run at the same time, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from memloc.errors import TrainingError
from memloc.machine import cores

_POLL = 0.3  # seconds between looks at the workers


def run_apart(
    commands: Mapping[str, Sequence[str]], *, workers: int, logs: Path, what: str, show: Callable[[], None]
) -> None:
    """Run Python with each command's arguments, some at a time, with a share of the processor's threads each.

    Args:
        commands: arguments by name. workers: processes at once.
        logs: folder for what each says. what: they do, for messages. show: called between looks at the workers.
    Raises:
        TrainingError: one of them stopped; the others are ended.
    """
    threads = str(max(cores() // workers, 1))
    path = os.pathsep.join(part for part in sys.path if part)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": path}
    waiting, running = list(commands), dict[str, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                name = waiting.pop(0)
                with (logs / f"{name}.err").open("w") as said:
                    running[name] = subprocess.Popen(
                        [sys.executable, *commands[name]],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=said,
                        stderr=said,
                    )
            time.sleep(_POLL)
            show()
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode:
                        lines = (logs / f"{name}.err").read_text().strip().splitlines()
                        reason = lines[-1] if lines else f"exit code {process.returncode}"
                        raise TrainingError(
                            f"{what} {name} stopped: {reason}. Expected it to finish. Repeat the command to resume from"
                            " its checkpoint."
                        )
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
