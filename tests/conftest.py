"""Fixtures shared by all tests; shape annotations of the formulas are checked while tests run."""

import contextlib
import functools
import gc
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

from tests import shapes

# as long as tests run: rooms open lazily
shapes.check(["memloc.metrics", "memloc.stats"])
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
OPTIONAL = Path(os.environ.get("MEMLOC_OPTIONAL", Path(__file__).parents[1] / ".optional"))


def _one_core():
    """Give each of pytest-xdist's workers a core of its own, so that what it starts does not crowd the others."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        known = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {known[int(worker.removeprefix("gw")) % len(known)]})


_one_core()


def pytest_collection_modifyitems(items):
    """Long tests first, so that no worker ends alone with one."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish():
    """What is imported and collected by now stays, so that no collection of garbage walks through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """One thread for every test and, unlike a fixture of a test, for fixtures of modules: the number of threads decides the
    order of sums, hence the last digit of trained weights."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def torchvision():
    """torchvision beside a CPU torch: its two missing operator schemas are declared first."""
    if not (OPTIONAL / "torchvision").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"the optional environment is missing at {OPTIONAL}; make test makes it")
        pytest.skip("the optional environment is missing; make test makes it")
    if "torchvision" not in sys.modules:
        sys.path.insert(0, str(OPTIONAL))
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_library"] = library
    import torchvision

    return torchvision


class TinyNet(nn.Module):
    """Two convolutions and a linear layer on 8x8 gray images: every kind of tap at little cost."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.act2 = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.act2(self.conv2(x))
        return self.head(x.mean(dim=(2, 3)))


def tiny_net(seed: int, channels: int = 1) -> TinyNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet(channels)


@pytest.fixture
def tiny():
    """A function that makes a small net from a seed."""
    return tiny_net


@pytest.fixture(scope="session")
def gray():
    """40 gray images of 8x8 pixels, as numpy (N, H, W, C)."""
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="session")
def four_splits():
    return ["candidate"] * 12 + ["independent"] * 12 + ["external"] * 10 + ["shared"] * 6


LEARNS = ("--epochs", "8", "--warmup", "1", "--batch-size", "4", "--learning-rate", "0.005", "--mixup", "none", "--augmentation", "none")  # fmt: skip
"""Flags of a coreset with which ResNet9 learns which of `two_classes` an image is of."""


def two_classes(count):
    """Gray images of 8x8 pixels, every second one dark, and which are."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    images[1::2] //= 8
    return {"images": images, "labels": np.arange(count) % 2}


@contextlib.contextmanager
def few_draws():
    """A hundred bootstrap samples where memloc draws a thousand, for tests that ask only whether there is an interval."""
    from memloc.engine import _layer_rows, _scores, _separation, _unit_rows

    with pytest.MonkeyPatch.context() as patched:
        for module in (_layer_rows, _scores, _separation, _unit_rows):
            patched.setattr(module, "REPEATS", 100)
        yield


@contextlib.contextmanager
def few_trees(count: int = 20):
    """Forests of few trees where memloc grows hundreds, for tests of what is done with them."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    with pytest.MonkeyPatch.context() as patched:
        for kind in (RandomForestClassifier, RandomForestRegressor):
            patched.setattr(kind, "fit", _with_few_trees(kind.fit, count))
        yield


@pytest.fixture
def short_forests():
    """`few_trees` for a whole test."""
    with few_trees():
        yield


def _with_few_trees(fit, count):
    @functools.wraps(fit)
    def fewer(self, *arguments, **named):
        self.n_estimators = min(self.n_estimators, count)
        return fit(self, *arguments, **named)

    return fewer


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with images, a table, and a finished run, audit, value, coreset and model of them; tests write into copies."""
    import memloc
    from tests.cli.command import run

    folder = tmp_path_factory.mktemp("finished")
    random = np.random.default_rng(0)
    images = two_classes(40)["images"]
    np.savez(folder / "few.npz", **two_classes(40))
    table = pd.DataFrame(random.normal(size=(60, 3)), columns=list("abc"))
    table.assign(kind=np.where(table["a"] > 0, "x", "y")).to_csv(folder / "table.csv", index=False)
    pair = memloc.train_pair(images, epochs=1, candidates=8, batch_size=16, workers=1, out=folder / "run")
    memloc.audit(pair.run, views=memloc.Views(n=4), out=folder / "audit")
    for arguments in (
        ("value", "table.csv", "--target", "kind", "--learners", "20", "--out", "value"),
        ("coreset", "table.csv", "--target", "kind", "--learner", "logistic", "--out", "coreset"),
        ("coreset", "few.npz", *LEARNS, "--out", "model"),
    ):
        done = run(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def unchecked():
    """Without shape annotations being checked, as users run it: for tests of our own messages."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        if os.environ.get("CI"):
            pytest.fail("chromium and chromedriver are missing; .ci/run installs them")
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = [
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
    ]
    flags += [
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        "window-size=1280,1000",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()
