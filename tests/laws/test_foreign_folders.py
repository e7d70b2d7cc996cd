"""A folder from elsewhere runs nothing: neither functions that it names nor pickles, until it is trusted."""

import json
import pickle
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
from tests.cli.command import run
from tests.conftest import LEARNS, few_trees, two_classes

import memloc
from memloc.coreset import TableClassifier, load_classifier
from memloc.errors import ResultsError, TrustError
from memloc.results import MANIFEST

MODEL = """
from pathlib import Path
Path({trace!r}).write_text("run")
from tests.conftest import TinyNet
def build():
    return TinyNet()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of a user's own function, its audit, and a coreset of a table."""
    folder = tmp_path_factory.mktemp("foreign")
    random = np.random.default_rng(0)
    np.savez(folder / "few.npz", **two_classes(30))
    np.savez(
        folder / "public.npz", images=random.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8), labels=np.arange(30) % 2
    )
    (folder / "models.py").write_text(MODEL.format(trace=str(folder / "trace")))
    table = pd.DataFrame(random.normal(size=(60, 3)), columns=list("abc"))
    table.assign(kind=np.where(table["a"] > 0, "x", "y")).to_csv(folder / "table.csv", index=False)
    flags = ("--candidates", "6", "--epochs", "1", "--batch-size", "16", "--workers", "1")
    for arguments in (
        ("train", "few.npz", "--encoder", "models.py:build", "--out", "run", *flags),
        ("audit", "run", "--trust", "--out", "found", "--views", "2"),
        ("coreset", "few.npz", "--encoder", "models.py:build", *LEARNS, "--out", "model"),
        ("coreset", "table.csv", "--target", "kind", "--learner", "forest", "--out", "table"),
    ):
        with few_trees(60):
            done = run(folder, *arguments)
        assert done.returncode == 0, done.stderr
    (folder / "trace").unlink()
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "run", "--out", "again"),
        ("audit", "run", "--out", "again", "--dry-run"),
        ("remove", "run", "--audit", "found", "--count", "1", "--out", "again"),
        ("remove", "run", "--audit", "found", "--count", "1", "--out", "again", "--dry-run"),
        ("dejavu", "run", "--public", "public.npz"),
    ],
)
def test_no_command_runs_what_a_folder_names(place, arguments):
    done = run(place, *arguments)
    assert done.returncode == 2
    assert "names the function 'models.py:build' as its encoder" in done.stderr
    assert "repeat the command with --trust" in done.stderr
    assert not (place / "trace").exists()
    assert not (place / "again").exists()


def test_a_trusted_folder_is_opened(place, tmp_path):
    for arguments in (("audit", "run", "--trust", "--dry-run", "--out", tmp_path / "x"), ("audit", "run", "--trust", "--views", "2", "--out", tmp_path / "y")):  # fmt: skip
        done = run(place, *arguments)
        assert done.returncode == 0, done.stderr
    (place / "trace").unlink()


def test_from_python_too(place, monkeypatch):
    monkeypatch.chdir(place)
    for opening in (memloc.open_run, lambda folder: memloc.audit(folder, views=memloc.Views(n=2))):
        with pytest.raises(TrustError, match="trust=True"):
            opening("run")
    with pytest.raises(TrustError, match="names the function"):
        load_classifier("model")
    assert not (place / "trace").exists()
    assert list(memloc.open_run("run", trust=True).encoders) == ["f", "g"]
    assert load_classifier("model", trust=True)(__import__("torch").zeros(1, 1, 8, 8)).shape == (1, 2)
    (place / "trace").unlink()


@pytest.mark.parametrize("name", ["models.py:build", "./models.py:build", "deep/../models.py:build", "a b.py:x", "x.py:y.py:build"])  # fmt: skip
def test_however_the_function_is_named(place, tmp_path, name):
    shutil.copytree(place / "run", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["spec"]["encoder"] = name
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    (tmp_path / "run" / MANIFEST).unlink()
    with pytest.raises(TrustError):
        memloc.open_run(tmp_path / "run")


def test_the_models_of_tables_are_data(place):
    table = pd.read_csv(place / "table.csv")
    model = load_classifier(place / "table")
    assert isinstance(model, TableClassifier)
    assert (model.predict(table.drop(columns="kind")) == table["kind"]).mean() > 0.9
    assert not list((place / "table").glob("*.joblib"))


class Evil:
    def __reduce__(self):
        return (open, (Evil.trace, "w"))


def test_no_pickle_is_opened(place, tmp_path):
    Evil.trace = str(tmp_path / "trace")
    shutil.copytree(place / "table", tmp_path / "table")
    folder = tmp_path / "table"
    (folder / MANIFEST).unlink()
    (folder / "model.skops").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ResultsError, match=r"model.skops' is missing or damaged"):
        load_classifier(folder)
    (folder / "model.skops").unlink()
    joblib.dump(Evil(), folder / "model.joblib")
    with pytest.raises(TrustError, match="is a pickle"):
        load_classifier(folder)
    assert not (tmp_path / "trace").exists()


def test_a_model_of_other_types_is_refused(place, tmp_path):
    from skops.io import dump

    shutil.copytree(place / "table", tmp_path / "table")
    (tmp_path / "table" / MANIFEST).unlink()
    dump(TableClassifier(None, pytest.approx, ["a"]), tmp_path / "table/model.skops")
    with pytest.raises(TrustError, match="which memloc does not write"):
        load_classifier(tmp_path / "table")


@pytest.mark.parametrize(
    "option", ["checkpoint_path=/x/evil.pth", "pretrained_cfg=x", "cache_dir=y", "name=../../evil"]
)
def test_options_that_load_files_are_refused(place, tmp_path, option):
    from memloc.encoders import ResNet9, load_encoder, save_weights
    from memloc.errors import CheckpointError

    save_weights(tmp_path / "m.safetensors", ResNet9(), {"encoder": f"timm:resnet18,{option}"})
    with pytest.raises(CheckpointError, match="whose options could load other files"):
        load_encoder(tmp_path / "m.safetensors")
    shutil.copytree(place / "run", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["spec"]["encoder"] = f"timm:resnet18,{option}"
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    (tmp_path / "run" / MANIFEST).unlink()
    with pytest.raises(TrustError, match="whose options could load other files"):
        memloc.open_run(tmp_path / "run")
