"""Memory that is used up: fewer points at a time, the same figures, one line; or one clear error."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from tests.cli.command import run
from tests.conftest import tiny_net

import memloc
from memloc.encoders import Batches, is_out_of_memory, represent
from memloc.errors import MemlocWarning, MemoryUsedUpError

FULL = [
    lambda: MemoryError(),
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]  # fmt: skip


def full_above(most, problem, module):
    """The module, which raises where more rows come than there is memory for."""

    def look(_module, inputs):
        if len(inputs[0]) > most:
            raise problem()

    module.register_forward_pre_hook(look)
    return module


@pytest.fixture(scope="module")
def whole(gray, four_splits):
    """What an audit is given besides f and g, and what it finds with memory enough."""
    arguments = {"images": gray, "splits": four_splits, "views": memloc.Views(n=4), "labels": np.arange(40) % 2}
    return arguments, memloc.audit(tiny_net(0), tiny_net(1), **arguments)


@pytest.mark.parametrize(
    ("most", "problem"),
    [
        pytest.param(most, problem, marks=[] if place == turn % len(FULL) or most == 60 else pytest.mark.slow)
        for turn, most in enumerate((4, 12, 60))
        for place, problem in enumerate(FULL)
    ],
)
def test_an_audit_goes_on_with_smaller_batches(tiny, whole, most, problem):
    arguments, whole = whole
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = memloc.audit(full_above(most, problem, tiny(0)), tiny(1), **arguments)
    lines = [str(one.message) for one in said if "memory is used up" in str(one.message)]
    assert len(lines) == 1
    assert "scoring points 40 points at a time; going on with 20 or fewer" in lines[0]
    for name in ("points", "layers", "units", "point_layers"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(whole, name), rtol=0, atol=1e-5)


def test_one_point_that_is_too_much_is_an_error(tiny, gray, four_splits):
    with pytest.raises(MemoryUsedUpError, match="even for one point at a time"):
        memloc.audit(
            full_above(3, MemoryError, tiny(0)), tiny(1), images=gray, splits=four_splits, views=memloc.Views(n=4)
        )


def test_representing_goes_on_too(tiny):
    pixels = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    encoder, small = memloc.load_encoder(tiny(0)), memloc.load_encoder(tiny(0))
    full_above(7, MemoryError, small.module)
    with pytest.warns(MemlocWarning, match="representing images 30 points at a time"):
        found = represent(small, pixels, device="cpu")
    assert torch.allclose(found, represent(encoder, pixels, device="cpu"), atol=1e-5)


def test_other_errors_are_none_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(ValueError, match="wrong"):
        list(Batches(4, "x").map(slice(0, 8), lambda rows: int("wrong")))
    assert list(Batches(3, "x").map(slice(2, 10), lambda rows: (rows.start, rows.stop))) == [(2, 5), (5, 8), (8, 10)]


def test_training_says_what_to_do(tmp_path, monkeypatch):
    from memloc.pretrain import _one

    def full(*_arguments, **_settings):
        raise FULL[2]()

    monkeypatch.setattr(_one, "steps_of", full)
    np.savez(
        tmp_path / "few.npz",
        images=np.zeros((24, 8, 8, 1), np.uint8) + np.arange(24, dtype=np.uint8)[:, None, None, None],
    )
    done = run(tmp_path, "train", "few.npz", "--candidates", "6", "--epochs", "1", "--workers", "1", "--out", "x")
    assert done.returncode == 1
    assert "memory is used up while training f with batches of" in done.stderr
    assert "Traceback" not in done.stderr


LIMITED = """
import resource, sys, warnings
import numpy as np, torch
torch.set_num_threads(1)
import memloc
from memloc.encoders import ResNet9
net = ResNet9()
pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
memloc.audit(net, images=pixels[:8], views=memloc.Views(n=2), device="cpu")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20,) * 2)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = memloc.audit(net, images=pixels, views=memloc.Views(n=16), batch_size=64, device="cpu")
assert any("memory is used up" in str(one.message) for one in said), said
print(len(found.points))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of address space")
def test_with_real_limits_of_memory():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "64", done.stderr[-800:]
