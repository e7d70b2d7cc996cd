"""Two ways to run memloc in a test: in this process, which saves seconds of imports, and as installed."""

import contextlib
import io
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch

from memloc.cli import main

MEMLOC = Path(sys.executable).parent / "memloc"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(folder, *arguments):
    """Run a command in a folder, in this process; returncode, stdout and stderr as of a process."""
    before, threads = os.getcwd(), torch.get_num_threads()
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, ENVIRONMENT), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        os.chdir(folder)
        try:
            code = main(list(map(str, arguments)))
        except SystemExit as left:
            code = left.code
        except Exception:
            traceback.print_exc()
            code = 1
        finally:
            os.chdir(before)
            torch.set_num_threads(threads)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def installed(folder, *arguments, **options):
    """Run the installed command in a folder, in a process of its own."""
    return subprocess.run(
        [str(MEMLOC), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        **options,
    )
