"""Two runs of one command write the same bytes, but for times."""

import json

import numpy as np
import pandas as pd
import pytest
from tests.cli.command import run
from tests.conftest import LEARNS, few_trees, two_classes

pytestmark = pytest.mark.long  # all commands are run twice before the first of these tests

COMMANDS = {
    "train": ("train", "few.npz", "--epochs", "1", "--candidates", "6", "--batch-size", "16", "--workers", "1"),
    "audit": ("audit", "one-train", "--views", "4"),
    "value": ("value", "table.csv", "--target", "kind", "--learners", "20", "--repair", "median"),
    "coreset": ("coreset", "few.npz", *LEARNS),
    "logistic": ("coreset", "table.csv", "--target", "kind", "--learner", "logistic"),
    "forest": ("coreset", "table.csv", "--target", "kind", "--learner", "forest"),
    "prune": ("prune", "one-train/encoders/f.safetensors", "--audit", "one-audit"),
}
TIMES = {"seconds", "images_per_second", "timings", "versions", "run", "out"}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeats")
    random = np.random.default_rng(0)
    np.savez(folder / "few.npz", **two_classes(24))
    table = pd.DataFrame(random.normal(size=(60, 3)), columns=list("abc"))
    table.assign(kind=np.where(table["a"] > 0, "x", "y")).to_csv(folder / "table.csv", index=False)
    with few_trees():
        for name, arguments in COMMANDS.items():
            for number in ("one", "two"):
                done = run(folder, *arguments, "--out", f"{number}-{name}")
                assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_files_are_the_same_to_the_byte(place, name):
    one, two = place / f"one-{name}", place / f"two-{name}"
    files = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(two).as_posix() for path in two.rglob("*") if path.is_file())
    for each in files:
        first, second = (one / each).read_bytes(), (two / each).read_bytes()
        if each.endswith(".json"):
            assert each == "manifest.json" or without_times(json.loads(first)) == without_times(json.loads(second)), (
                each
            )
        elif each == "metrics.jsonl":
            assert [without_times(json.loads(line)) for line in first.splitlines()] == [without_times(json.loads(line)) for line in second.splitlines()]  # fmt: skip
        elif each == "epochs.parquet":
            tables = [pd.read_parquet(folder / each).drop(columns="seconds", errors="ignore") for folder in (one, two)]
            pd.testing.assert_frame_equal(*tables, check_exact=True)
        elif each != "report.html":
            assert first == second, each
