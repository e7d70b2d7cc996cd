"""memloc coreset: images, tables, representations, scores to compare with, messages, resuming; and its report in a browser."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_wine
from tests.cli.command import run
from tests.conftest import few_trees

from memloc.cli import main

FAST = ["--encoder", "net.py:net", "--epochs", "8", "--warmup", "4", "--batch-size", "32", "--learning-rate", "0.5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with labelled images of two patterns, the same bare, and a table with verified labels."""
    folder = tmp_path_factory.mktemp("coreset")
    random = np.random.default_rng(0)
    labels = np.arange(160) % 2
    images = random.integers(0, 90, (160, 8, 8), dtype=np.uint8)
    images[labels == 1, 2:5, 2:5] += 120
    np.savez(folder / "images.npz", images=images, labels=labels)
    np.savez(folder / "bare.npz", images=images)
    np.savez(folder / "one.npz", images=images, labels=labels * 0)
    (folder / "net.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())\n"
    )
    X, y = load_wine(return_X_y=True, as_frame=True)
    names = y.map({0: "barolo", 1: "grignolino", 2: "barbera"})
    given = names.copy()
    flipped = random.permutation(len(y))[:30]
    given.iloc[flipped] = names.iloc[flipped].map(
        {"barolo": "barbera", "grignolino": "barolo", "barbera": "grignolino"}
    )
    X.assign(cellar=np.where(np.arange(len(X)) % 2, "<b>north</b>", "south"), verified=names, kind=given).to_csv(
        folder / "wine.csv", index=False
    )
    X.assign(cellar="south", kind=names).to_csv(folder / "tested.csv", index=False)
    return folder


def call(place, monkeypatch, capsys, *arguments):
    """Exit code, standard output, standard error, in this process."""
    monkeypatch.chdir(place)
    code = main(["coreset", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_images_with_wrong_labels(place, monkeypatch):
    done = run(
        place, "coreset", "images.npz", *FAST, "--noise", "0.2", "--test", "images.npz", "--out", "found", "--json"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["last"]["clean_fraction"] == 1.0
    assert result["last"]["test_accuracy"] > 0.95
    labels, picks, epochs = (
        pd.read_parquet(place / f"found/{name}.parquet") for name in ("labels", "coreset", "epochs")
    )
    assert list(picks) == ["point", "class", "rank", "gain", "weight"]
    assert sorted(picks["point"]) == sorted(labels[labels["kept"] == 1]["point"])
    assert (picks.groupby("class")["weight"].sum() == labels.groupby("predicted")["point"].count()).all()
    wrong = labels["label"] != labels["true_label"]
    assert wrong.sum() == 32
    assert set(result["suspected"]) == set(labels[labels["suspected"] == 1]["name"])
    assert wrong[labels["suspected"] == 1].mean() > 0.95
    assert len(epochs) == 8
    weights = load_file(place / "found/model.safetensors")
    assert weights["head.weight"].shape == (2, 16)
    from memloc.coreset import load_classifier
    from memloc.data import open_images

    monkeypatch.chdir(place)  # the factory's file is named as it was given
    model = load_classifier("found", trust=True)
    images = open_images(place / "images.npz")
    guessed = model(images.pixels.float() / 255).argmax(dim=1).numpy()
    assert (guessed == labels["predicted"].to_numpy()).all()
    assert len(pd.read_parquet(place / "found/thumbnails.parquet")) == min(len(result["suspected"]), 60)
    assert not (place / "found/training").exists()
    record = json.loads((place / "found/coreset.json").read_text())
    again = run(place, "coreset", "images.npz", *FAST, "--noise", "0.2", "--test", "images.npz", "--out", "found")
    assert again.returncode == 0
    assert json.loads((place / "found/coreset.json").read_text()) == record  # what is there is kept
    assert "The truth is known" in again.stdout
    other = run(place, "coreset", "images.npz", *FAST, "--noise", "0.3", "--test", "images.npz", "--out", "found")
    assert other.returncode == 2
    assert "noise: 0.2 there, 0.3 now" in other.stderr
    rewritten = run(place, "report", "found", "--out", "again.html")
    assert rewritten.returncode == 0
    assert (place / "again.html").read_text() == (place / "found/report.html").read_text()


def test_an_interrupted_command_goes_on_to_the_same_tables(place, monkeypatch, capsys):
    from memloc.coreset import _train

    flags = ["images.npz", *FAST, "--noise", "0.2", "--mixup", "cluster", "--group-by", "label"]
    assert call(place, monkeypatch, capsys, *flags, "--out", "straight")[0] == 0
    real = _train._Training.epoch

    def interrupted(self, epoch):
        if epoch == 6:
            raise KeyboardInterrupt
        real(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(_train._Training, "epoch", interrupted)
        code, _, said = call(place, monkeypatch, capsys, *flags, "--out", "stopped")
    assert (code, "repeat the command to go on" in said) == (130, True)
    assert not (place / "stopped/coreset.json").exists()
    assert call(place, monkeypatch, capsys, *flags, "--out", "stopped")[0] == 0
    for name in ("labels", "coreset", "epochs"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(place / f"straight/{name}.parquet"), pd.read_parquet(place / f"stopped/{name}.parquet")
        )


@pytest.mark.parametrize("learner", ["forest", "boosting", "logistic", "mlp"])
def test_a_table_with_verified_labels(place, monkeypatch, capsys, learner):
    code, said, err = call(
        place, monkeypatch, capsys, "wine.csv", "--target", "kind", "--truth", "verified", "--learner", learner, "--rounds", "2", "--test", "tested.csv",
        "--out", f"table-{learner}", "--json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(said)
    assert result["last"]["clean_fraction"] > 0.93  # of .83
    labels = pd.read_parquet(place / f"table-{learner}/labels.parquet")
    assert (labels["label"] != labels["true_label"])[labels["suspected"] == 1].mean() > 0.6
    assert "verified" not in json.dumps(json.loads((place / f"table-{learner}/coreset.json").read_text())["spec"])
    from memloc.coreset import load_classifier

    table = pd.read_csv(place / "wine.csv")
    predicted = load_classifier(Path(result["model"]).parent).predict(table.drop(columns=["kind", "verified"]))
    assert (predicted == table["verified"]).mean() > 0.8


def test_values_of_the_same_rows_are_compared(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    pd.read_csv(place / "wine.csv").drop(columns="verified").to_csv(place / "given.csv", index=False)
    assert main(["value", "given.csv", "--target", "kind", "--learners", "200", "--out", "values"]) == 0
    capsys.readouterr()
    with few_trees():
        code, said, err = call(place, monkeypatch, capsys, "wine.csv", "--target", "kind", "--truth", "verified", "--scores", "values", "--out", "compared", "--json")  # fmt: skip
    assert code == 0, err
    line = json.loads(said)["agreement"][0]
    assert line["score"] == "2D-OOB row value, negated"
    assert line["points"] == 178
    assert line["dropped_low"] > 0.6
    assert line["wrong_low"] > 0.9
    assert "2D-OOB row value, negated" in (place / "compared/report.html").read_text()


def test_representations_need_no_labels(place, monkeypatch, capsys):
    code, said, err = call(
        place, monkeypatch, capsys, "bare.npz", "--by", "representation", "--encoder", "net.py:net", "--weights", "random", "--fraction", "0.1", "--out",
        "represented",
    )  # fmt: skip
    assert code == 0, err
    assert "16 of 160 images stand for all" in said
    picks = pd.read_parquet(place / "represented/coreset.parquet")
    assert picks["weight"].sum() == 160
    assert (np.diff(picks["gain"]) <= 0).all()
    page = (place / "represented/report.html").read_text()
    assert "The first picks" in page
    assert "Which images stand for all of bare.npz" in page
    assert "random" in json.loads((place / "represented/coreset.json").read_text())["warnings"][0]
    assert page.count("data:image/png") == 16


def test_truth_may_be_known_of_some_rows(place, monkeypatch, capsys):
    table = pd.read_csv(place / "wine.csv")
    number = {"barolo": 0, "grignolino": 1, "barbera": 2}
    table["kind"], table["verified"] = (
        table["kind"].map(number),
        table["verified"].map(number).where(table.index % 3 > 0),
    )
    table.to_csv(place / "partly.csv", index=False)
    with few_trees():
        code, said, err = call(place, monkeypatch, capsys, "partly.csv", "--target", "kind", "--truth", "verified", "--rounds", "1", "--out", "partly", "--json")  # fmt: skip
    assert code == 0, err
    labels = pd.read_parquet(place / "partly/labels.parquet")
    assert (labels["true_label"] == -1).sum() == (table.index % 3 == 0).sum()
    known = labels[(labels["true_label"] >= 0) & (labels["kept"] == 1)]
    assert json.loads(said)["last"]["clean_fraction"] == pytest.approx((known["label"] == known["true_label"]).mean())


def test_scores_of_other_data_are_refused_before_training(place, monkeypatch, capsys):
    other = place / "elsewhere"
    other.mkdir()
    pd.DataFrame({"row": [0, 1], "value": [0.5, 0.2], "stderr": [0.1, 0.1], "n_draws": [3, 3]}).to_parquet(
        other / "rows.parquet"
    )
    (other / "value.json").write_text(json.dumps({"names": ["a", "b"]}))
    code, _, err = call(place, monkeypatch, capsys, "images.npz", *FAST, "--scores", "elsewhere", "--out", "unmatched")
    assert (code, (place / "unmatched").exists()) == (2, False)
    assert "0 of 160 points are in both tables by name" in err


def test_dry_run_writes_nothing(place, monkeypatch, capsys):
    done = run(place, "coreset", "images.npz", *FAST, "--dry-run", "--json", "--out", "never")
    cost = json.loads(done.stdout)
    assert done.returncode == 0
    assert cost["points"] == 160
    assert cost["picks"] == [40, 40]
    assert cost["seconds"] > 0
    assert cost["memory_mb"] > 0
    _, said, _ = call(
        place, monkeypatch, capsys, "wine.csv", "--target", "kind", "--dry-run", "--json", "--out", "never"
    )
    assert json.loads(said)["fits"] == 21
    _, said, _ = call(place, monkeypatch, capsys, "bare.npz", "--by", "representation", "--encoder", "net.py:net", "--weights", "random", "--dry-run", "--json", "--out", "never")  # fmt: skip
    assert json.loads(said)["picks"] == [80]
    assert json.loads(said)["seconds"] >= 0
    _, said, _ = call(
        place, monkeypatch, capsys, "images.npz", *FAST, "--budget", "100", "--dry-run", "--json", "--out", "never"
    )
    assert json.loads(said)["picks"] == [80, 80]  # a predicted class of fewer is taken whole
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images.npz", "--fraction", "0"], "fraction is 0.0. Expected a share"),
        (["images.npz", "--budget", "500"], "budget is 500 and the"),
        (["images.npz", "--objective", "central"], "Nearest: 'centrality'"),
        (["images.npz", "--metric", "euklid"], "metric is 'euklid'"),
        (["images.npz", "--by", "gradients"], "there is no by 'gradients'. Nearest: 'gradient'"),
        (["images.npz", "--warmup", "40"], "warmup is 40 of 40 epochs"),
        (["images.npz", "--noise", "1.5"], "the noise rate is 1.5"),
        (["images.npz", "--noise", "0.4", "--noise-kind", "odd"], "there is no noise_kind 'odd'"),
        (["images.npz", "--truth", "label"], "--truth is for tables"),
        (["images.npz", "--rounds", "2"], "--rounds is for tables"),
        (["wine.csv", "--target", "kind", "--epochs", "9"], "--epochs is for images"),
        (["images.npz", "--optimizer", "stochastic"], "the objective is centrality, which is a sort"),
        (
            ["images.npz", "--noise", "0.4", "--noise-kind", "asymmetric"],
            "the pairs name class 9 and the classes go from 0 to 1",
        ),
        (["bare.npz", "--by", "representation", "--group-by", "label"], "looks at no labels"),
        (
            ["bare.npz", "--by", "representation", "--encoder", "net.py:net", "--weights", "random", "--budget", "500"],
            "the budget is 500 and the 160 points",
        ),
        (["images.npz", "--augmentation", "crob"], "there is no view policy 'crob'"),
        (["images.npz", "--scores", "nowhere"], "holds no scores of points"),
        (["bare.npz"], "'bare.npz' has no labels"),
        (["one.npz", *FAST], "all 160 labels are 0"),
        (["images.npz", "--by", "representation", "--noise", "0.2"], "looks at no labels"),
        (["wine.csv"], "given without a target"),
        (["wine.csv", "--target", "kind", "--truth", "verifed"], "Nearest: 'verified'"),
        (["wine.csv", "--target", "alcohol"], "column 'alcohol' holds numbers"),
        (["wine.csv", "--target", "kind", "--learner", "tree"], "there is no learner 'tree'"),
        (["wine.csv", "--target", "kind", "--by", "representation"], "is for images"),
        (["missing.npz"], "missing.npz"),
    ],
)
def test_wrong_calls(place, monkeypatch, capsys, arguments, message):
    code, said, err = call(place, monkeypatch, capsys, *arguments, "--out", "wrong")
    assert (code, said) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.skipif(not os.environ.get("CI") and not shutil.which("chromedriver"), reason="no browser on this machine")
def test_the_report_in_a_browser(place, browser):
    if not (place / "found/report.html").exists():
        run(place, "coreset", "images.npz", *FAST, "--noise", "0.2", "--test", "images.npz", "--out", "found")
    browser.get(f"file://{place / 'found/report.html'}")
    assert browser.find_element("css selector", "h1").text == "Which points of images.npz to train on"
    assert len(browser.find_elements("css selector", "#epochs svg path")) >= 3
    assert len(browser.find_elements("css selector", ".gallery img")) == len(
        pd.read_parquet(place / "found/thumbnails.parquet")
    )
    table = browser.find_element("id", "suspected-table")
    table.find_elements("css selector", "thead button")[3].click()
    table.find_elements("css selector", "thead button")[3].click()
    chances = [
        float(row.find_elements("css selector", "td")[2].text)
        for row in table.find_elements("css selector", "tbody tr")
    ]
    assert chances == sorted(chances, reverse=True)
    browser.find_element("id", "filter").send_keys("no such point")
    assert browser.find_element("id", "shown").text == "0 points"
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_second_headers_of_the_table_and_the_test_table_are_left_out(place):
    rng = np.random.default_rng(0)
    for name, count in (("asked", 80), ("asked-test", 40)):
        age, size = rng.integers(20, 60, count), rng.integers(150, 200, count)
        rows = [[str(a), str(s), "yes" if a > 40 else "no"] for a, s in zip(age, size, strict=True)]
        lines = [["How old?", "How tall?", "Would you buy?"], *rows]
        pd.DataFrame(lines, columns=["age", "size", "y"]).to_csv(place / f"{name}.csv", index=False)
    done = run(place, "coreset", "asked.csv", "--target", "y", "--test", "asked-test.csv", "--learner", "logistic", "--out", "asked")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet(place / "asked/labels.parquet")) == 80
