"""Whatever ends a command, at whatever moment: nothing is lost or half-written, and the command repeated ends as if it had
not been ended."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from memloc.cli import main
from memloc.results import MANIFEST, listed_files
from tests.conftest import LEARNS, two_classes
from tests.fuzz.inputs import old_pickle  # noqa: F401  # the modules that a child needs are loaded before it is forked

COMMANDS = {
    "train": ("train", "few.npz", "--epochs", "2", "--candidates", "6", "--batch-size", "16", "--workers", "1", "--checkpoint-every", "1"),
    "audit": ("audit", "pair", "--views", "2", "--shard-size", "12", "--layers", "conv1", "--layers", "conv3"),
    "value": ("value", "table.csv", "--target", "kind", "--learners", "20"),
    "coreset": ("coreset", "few.npz", *LEARNS),
    "prune": ("prune", "pair/encoders/f.safetensors", "--audit", "found"),
}  # fmt: skip
SAME = {"audit": ("audit.json",), "value": ("value.json",), "coreset": ("coreset.json",), "prune": ("intervention.json",), "train": ("run.json",)}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ends")
    rng = np.random.default_rng(0)
    np.savez(folder / "few.npz", **two_classes(24))
    table = pd.DataFrame(rng.normal(size=(40, 3)), columns=list("abc"))
    table.assign(kind=np.where(table["a"] > 0, "x", "y")).to_csv(folder / "table.csv", index=False)
    assert ended(folder, (*COMMANDS["train"], "--out", "pair")) == 0
    assert ended(folder, ("audit", "pair", "--views", "2", "--out", "found")) == 0
    shutil.copytree(folder / "pair", folder / "whole-train")
    return folder


def ended(folder, arguments, *, at=None, how=signal.SIGKILL, after=None, said="said.txt"):
    """Run a command in a child process, which is sent a signal just before its `at`-th rename, or after some seconds.

    Returns:
        Its exit status, negative where a signal ended it.
    """
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.stdout, sys.stderr = open(os.devnull, "w"), open(folder / said, "w")  # noqa: SIM115
        torch.set_num_threads(1)
        if at is not None:
            real, left = os.replace, [at]

            def replace(*paths):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), how)
                    time.sleep(1)
                return real(*paths)

            os.replace = replace
        code = 99
        try:
            code = main(list(arguments))
        finally:
            sys.stderr.flush()
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, how)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def renames(folder, arguments):
    """How many renames a command makes: those counted by a child that writes the count."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        torch.set_num_threads(1)
        real, count = os.replace, [0]

        def replace(*paths):
            count[0] += 1
            return real(*paths)

        os.replace = replace
        try:
            main(list(arguments))
        finally:
            Path(folder / "count").write_text(str(count[0]))
            os._exit(0)
    os.waitpid(child, 0)
    return int((folder / "count").read_text())


def check(place, name, out):
    """The folder is as that of the command that was not ended."""
    folder, whole = place / out, place / f"whole-{name}"
    if not whole.exists():
        assert ended(place, (*COMMANDS[name], "--out", whole.name)) == 0
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    assert names == {*listed_files(folder), MANIFEST}
    for each in names:
        if each.endswith(".parquet"):
            pd.testing.assert_frame_equal(pd.read_parquet(folder / each), pd.read_parquet(whole / each), check_exact="seconds" not in pd.read_parquet(whole / each))  # fmt: skip
        elif each.endswith((".safetensors", ".npz")):
            assert (folder / each).read_bytes() == (whole / each).read_bytes(), each
    assert set(SAME[name]) <= names


def moments(count, every):
    return range(1, count + 1) if every else sorted(random.Random(count).sample(range(1, count + 1), 3))


def at_renames(place, name, every):
    arguments = COMMANDS[name]
    count = renames(place, (*arguments, "--out", f"counted-{name}"))
    assert count > 4
    for at in moments(count, every):
        out = f"killed-{name}-{at}"
        assert ended(place, (*arguments, "--out", out), at=at) == -signal.SIGKILL
        inputs = {
            path.name: path.read_bytes()
            for path in place.iterdir()
            if path.is_file() and path.suffix in (".npz", ".csv")
        }
        assert ended(place, (*arguments, "--out", out)) == 0, (place / "said.txt").read_text()
        check(place, name, out)
        assert all((place / each).read_bytes() == content for each, content in inputs.items())
    return count


@pytest.mark.parametrize("name", ["train", "audit", "value"])
def test_killed_just_before_a_rename(place, name):
    at_renames(place, name, every=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_just_before_every_rename(place, name):
    at_renames(place, name, every=True)


@pytest.mark.parametrize(
    ("name", "how"), [("train", signal.SIGTERM), ("train", signal.SIGHUP), ("audit", signal.SIGINT)]
)
def test_asked_to_end_at_some_moment(place, name, how):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so it would be by the command
    out = f"asked-{name}-{how.name}"
    code = ended(place, (*COMMANDS[name], "--out", out), at=6, how=how)
    assert code == 128 + how
    said = (place / "said.txt").read_text()
    assert "nothing is half-written" in said
    assert "Traceback" not in said
    left = [path.name for path in (place / out).rglob("*")]
    assert ".lock" not in left
    assert not [each for each in left if each.endswith(".partial")]
    assert ended(place, (*COMMANDS[name], "--out", out)) == 0
    check(place, name, out)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("name", COMMANDS)
def test_ended_at_random_moments(place, name, how):
    draw = random.Random(f"{name} {how}")
    for number in range(6):
        out = f"random-{name}-{how.name}-{number}"
        ended(place, (*COMMANDS[name], "--out", out), how=how, after=draw.uniform(0.02, 1.5))
        assert ended(place, (*COMMANDS[name], "--out", out)) == 0, (place / "said.txt").read_text()
        check(place, name, out)


def test_overwriting_that_is_killed_can_be_repeated(place):
    """Between the first file removed and the last: what is left is still known to be memloc's."""
    arguments = ("value", "table.csv", "--target", "kind", "--learners", "20", "--out", "again")
    assert ended(place, arguments) == 0
    for at in (1, 2, 3, 6):
        assert ended(place, (*arguments, "--seed", str(at), "--overwrite"), at=at) == -signal.SIGKILL
        code = ended(place, (*arguments, "--seed", str(at), "--overwrite"))
        assert code == 0, (place / "said.txt").read_text()
    assert ended(place, (*arguments, "--overwrite")) == 0
    check(place, "value", "again")


def test_two_at_once_on_one_folder(place):
    arguments = (*COMMANDS["train"], "--epochs", "6", "--out", "twice")
    first = os.fork()
    if first == 0:
        os._exit(ended(place, arguments, said="first.txt"))
    while not (place / "twice/.lock").is_file():
        time.sleep(0.01)
    began = time.monotonic()
    assert ended(place, arguments) == 1
    assert time.monotonic() - began < 5  # the refusal itself within one; the rest is opening the images
    assert "is in use by process" in (place / "said.txt").read_text()
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
