"""What a process may use of its machine."""

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to a core")
def test_a_process_bound_to_one_core_uses_one():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from memloc.machine import cores; print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


def test_a_folder_of_sources_without_a_package_audits_and_says_its_version(tmp_path):
    """What would fail after the work fails before it, or not at all."""
    code = """
import importlib.metadata as metadata, sys
real = metadata.version
def version(name):
    if name == "memloc":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = version
from memloc.machine import own_version
import numpy as np, memloc
assert own_version() == "unpackaged"
images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
pair = memloc.train_pair(images, epochs=1, batch_size=8, candidates=6, workers=1, out=sys.argv[1])
done = memloc.audit(pair.run, views=memloc.Views(n=2), out=sys.argv[1] + "-audit")
print(done.record["versions"]["memloc"])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.stdout.strip().endswith("unpackaged"), done.stderr
