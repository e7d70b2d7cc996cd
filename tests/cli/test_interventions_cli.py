"""probe, compare, dejavu and the interventions from the command line, on one trained pair; most in this process, which is quicker."""

import contextlib
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tests.cli.command import run as installed

from memloc.cli import main
from memloc.encoders import fingerprint, load_encoder

F = "run/encoders/f.safetensors"
PROBE = ("--train", "labelled.npz", "--test", "held-out.npz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Labelled images of two classes, a finished pair and its audit."""
    folder = tmp_path_factory.mktemp("acts")
    random = np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 20), ("labelled", 60), ("held-out", 40), ("public", 60)):
        labels = np.arange(count) % 2
        pixels = random.integers(0, 120, (count, 16, 16, 3)) + 110 * labels[:, None, None, None]
        labels = random.integers(0, 2, count) if name == "public" else labels
        np.savez(folder / f"{name}.npz", images=pixels.astype(np.uint8), labels=labels)
    np.savez(folder / "one.npz", images=pixels[:3].astype(np.uint8), labels=[0, 0, 1])
    flags = ["--epochs", "2", "--candidates", "12", "--batch-size", "32", "--external", "test.npz"]
    for arguments in (
        ("train", "train.npz", "--out", "run", *flags),
        ("audit", "run", "--out", "found", "--views", "4"),
    ):
        done = run(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


@contextlib.contextmanager
def inside(folder):
    """In a folder, as contextlib.chdir of Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(folder, *arguments):
    """What the installed command does, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(each) for each in arguments])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def asked(place, *arguments, code=0):
    done = run(place, *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_probe_of_every_layer(place):
    found = asked(
        place, "probe", F, *PROBE, "--layer", "all", "--kind", "knn", "--neighbours", "5", "--out", "probe.json"
    )
    assert [row["layer"] for row in found["layers"]][-1] == "output"
    assert len(found["layers"]) == 11
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in found["layers"])
    assert json.loads((place / "probe.json").read_text())["layers"] == found["layers"]
    text = run(place, "probe", F, *PROBE).stdout
    assert "95 % interval" in text
    assert "40 test images" in text


def test_a_dense_probe_from_files(place):
    random = np.random.default_rng(0)
    for name, count in (("train-masks", 60), ("test-masks", 40)):
        np.save(place / f"{name}.npy", random.integers(0, 2, (count, 8, 8)).repeat(2, axis=1).repeat(2, axis=2))
    masks = ("--kind", "dense", "--train-masks", "train-masks.npy", "--test-masks", "test-masks.npy")
    found = asked(place, "probe", "resnet18", *PROBE, "--layer", "conv1", *masks)
    assert found["layers"][0]["n_images"] == 40
    padded = run(place, "probe", F, *PROBE, "--layer", "conv1", *masks)
    assert "pads images below 32 pixels" in padded.stderr


@pytest.mark.parametrize("order", ["top", "low", "random"])
def test_prune_writes_a_checkpoint_that_loads_and_leaves_the_input(place, order):
    before = (place / F).read_bytes()
    found = asked(
        place, "prune", F, "--audit", "found", "--fraction", "0.1", "--order", order, "--out", f"pruned-{order}", *PROBE
    )
    assert (place / F).read_bytes() == before
    units = pd.read_parquet(place / f"pruned-{order}/units.parquet")
    assert sum(found["pruned"].values()) == len(units) == 112
    loaded = load_encoder(place / f"pruned-{order}/encoder.safetensors")
    assert fingerprint(loaded.module) == found["fingerprint_after"] != found["fingerprint_before"]
    assert loaded.augmentation == "normal"
    first = units[units["layer"] == "conv1"]["unit"].iloc[0]
    assert not loaded.module.conv1.conv.weight[first].any()
    assert not loaded.module.conv1.norm.bias[first].any()
    probe = found["probe"]
    assert probe["change"] == pytest.approx(probe["after"]["accuracy"] - probe["before"]["accuracy"])
    assert probe["low"] <= probe["change"] <= probe["high"]


def test_pruned_encoders_can_be_audited_and_pruned_again(place):
    done = installed(place, "prune", F, "--audit", "found", "--per", "network", "--out", "network")
    assert "silenced 112 units" in done.stdout, done.stderr
    audit = (
        "--f",
        "network/encoder.safetensors",
        "--data",
        "train.npz",
        "--external",
        "test.npz",
        "--views",
        "4",
        "--out",
        "network-audit",
    )
    assert run(place, "audit", *audit).returncode == 0
    again = run(place, "prune", "network/encoder.safetensors", "--audit", "network-audit", "--out", "network-2")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    "how",
    [
        ("--layers", "conv3", "--layers", "conv4_2"),
        ("--audit", "found", "--count", "2"),
        ("--audit", "found", "--by", "random", "--count", "2"),
    ],
)
def test_replace_by_name_and_by_figures(place, how):
    name = "-".join(("replaced", *(part.strip("-") for part in how)))
    found = asked(place, "replace", F, "--from", "run/encoders/g.safetensors", *how, "--out", name, *PROBE)
    assert len(found["settings"]["layers"]) == 2
    result, donor = (
        load_encoder(place / name / "encoder.safetensors"),
        load_encoder(place / "run/encoders/g.safetensors"),
    )
    for layer in found["settings"]["layers"]:
        one, two = (dict(each.module.named_modules())[layer].state_dict() for each in (result, donor))
        assert all((one[key] == two[key]).all() for key in one)
    assert "probe" in found


def test_finetune(place):
    found = asked(
        place, "finetune", F, *PROBE, "--layers", "conv4_2", "--epochs", "6", "--batch-size", "10", "--out", "tuned"
    )
    assert found["accuracy"]["accuracy"] > 0.8
    assert found["trained_parameters"] < found["parameters"] / 2
    assert (place / "tuned/head.safetensors").is_file()
    head = asked(place, "finetune", F, *PROBE, "--head-only", "--epochs", "1", "--out", "head")
    assert head["fingerprint_before"] == head["fingerprint_after"]
    chosen = asked(place, "finetune", F, *PROBE, "--audit", "found", "--epochs", "1", "--out", "chosen")
    assert len(chosen["settings"]["layers"]) == 1


def test_insert(place):
    found = asked(
        place,
        "insert",
        F,
        "--data",
        "train.npz",
        "--point",
        "train.npz[5]",
        "--layer",
        "conv2_0",
        "--unit",
        "3",
        "--steps",
        "20",
        "--limit",
        "20",
        "--out",
        "inserted",
    )
    assert found["largest_other_change"] <= 1e-6
    assert found["unitmem_after"] != found["unitmem_before"]
    units = pd.read_parquet(place / "inserted/units.parquet")
    assert len(units) == 64
    text = run(
        place,
        "insert",
        F,
        "--data",
        "train.npz",
        "--point",
        "train.npz[5]",
        "--layer",
        "conv2_0",
        "--unit",
        "3",
        "--steps",
        "20",
        "--limit",
        "20",
        "--out",
        "inserted",
    )
    assert "unit 3 of conv2_0: UnitMem" in text.stdout


def test_remove_and_audit_what_is_left(place):
    found = asked(place, "remove", "run", "--audit", "found", "--count", "4", "--out", "without", *PROBE)
    assert len(found["removed"]) == 4
    assert found["probe"]["after"]["n_test"] == 40
    again = asked(place, "remove", "run", "--audit", "found", "--count", "4", "--out", "without", *PROBE)
    assert again == found
    audited = asked(place, "audit", "without", "--out", "without-audit", "--views", "4")
    assert audited["layers"][-1]["alignment_gap"] is not None
    points = pd.read_parquet(place / "without-audit/points.parquet").set_index("point")
    assert (points.loc[found["removed"], "split"] == "external").all()


def test_compare(place):
    assert run(place, "audit", "run", "--out", "found-2", "--views", "4", "--views-seed", "7").returncode == 0
    found = asked(place, "compare", "found", "found-2", "--k", "3", "--out", "compared")
    assert found["points"] == 12
    assert {row["layer"] for row in found["between"]} >= {"conv1", "output"}
    within = pd.read_parquet(place / "compared/within.parquet")
    beside = within[within["neighbours"] & (within["audit"] == "a")]
    assert len(beside) == within["neighbours"].sum() / 2 == 12  # eleven layers and two of the head
    assert beside[["layer", "other"]].to_numpy().tolist()[-3:] == [["res6", "output"], ["output", "head.0"], ["head.0", "head"]]  # fmt: skip
    assert "loss" in within["other"].tolist()  # which follows no layer
    assert {row["other"] for row in found["splits"]} == {"shared", "independent", "external"}
    same = asked(place, "compare", "found", "found", "--k", "3")
    assert all(row["overlap"] == 1 and row["kendall"] == pytest.approx(1) for row in same["between"])


def test_dejavu(place):
    found = asked(
        place, "dejavu", "run", "--public", "public.npz", "--audit", "found", "--neighbours", "5", "--out", "dejavu.csv"
    )
    assert found["candidates"] == 12
    assert -1 <= found["kendall"] <= 1
    table = pd.read_csv(place / "dejavu.csv")
    assert set(table["split"]) == {"candidate", "independent", "external"}


def test_report_recommends_commands_that_exist(place):
    text = (place / "found/report.html").read_text()
    assert "Recommended next steps" in text
    import re

    commands = re.findall(r"<pre><code>(.*?)</code></pre>", text)
    assert commands
    for command in commands:
        name, *rest = re.sub(r"&\S+;", " ", command).split("memloc ")[1].split()
        done = run(place, name, "--help")
        assert done.returncode == 0, command
        for flag in (each for each in rest if each.startswith("--")):
            assert flag in done.stdout or name == "train", (command, flag)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("probe", F, "--train", "labelled.npz", "--test", "nowhere.npz"), "no file or folder 'nowhere.npz'"),
        (("probe", F, *PROBE, "--layer", "conv9"), "no layer 'conv9'"),
        (("probe", F, *PROBE, "--kind", "cubic"), "no probe 'cubic'"),
        (("probe", F, *PROBE, "--train-masks", "x.npy"), "only one of --train-masks and --test-masks"),
        (("prune", F, "--audit", "nowhere", "--out", "wrong"), "nowhere"),
        (("prune", F, "--audit", "found", "--fraction", "2", "--out", "wrong"), "fraction is 2.0"),
        (("prune", F, "--audit", "found", "--layers", "res6", "--out", "wrong"), "without weights"),
        (
            ("prune", F, "--audit", "found", "--train", "labelled.npz", "--out", "wrong"),
            "only one of --train and --test",
        ),
        (("replace", F, "--from", "run/encoders/g.safetensors", "--out", "wrong"), "neither --layers nor --audit"),
        (("replace", F, "--from", "resnet18", "--layers", "conv1", "--out", "wrong"), "Expected one architecture"),
        (("finetune", F, *PROBE, "--head-only", "--layers", "conv1", "--out", "wrong"), "--head-only"),
        (("finetune", F, *PROBE, "--layers", "conv1", "--policy", "wild", "--out", "wrong"), "wild"),
        (
            (
                "insert",
                F,
                "--data",
                "train.npz",
                "--point",
                "nobody",
                "--layer",
                "conv1",
                "--unit",
                "1",
                "--out",
                "wrong",
            ),
            "no image 'nobody'",
        ),
        (
            ("insert", F, "--data", "train.npz", "--point", "5", "--layer", "conv1", "--unit", "99", "--out", "wrong"),
            "Expected 0 to 31",
        ),
        (("remove", "run", "--audit", "found", "--count", "99", "--out", "wrong"), "Pass --count 12"),
        (("remove", "nowhere", "--audit", "found", "--count", "1", "--out", "wrong"), "nowhere"),
        (
            ("prune", "run/encoders/g.safetensors", "--audit", "found", "--out", "wrong"),
            "the audit 'found' is of the units of f",
        ),
        (("prune", F, "--audit", "found", "--out", "run", "--overwrite"), "which this command reads"),
        (
            ("remove", "run", "--audit", "found", "--count", "1", "--out", "found", "--overwrite"),
            "which this command reads",
        ),
        (
            (
                "remove",
                "run",
                "--audit",
                "found",
                "--count",
                "1",
                "--out",
                "wrong",
                "--train",
                "one.npz",
                "--test",
                "one.npz",
            ),
            "one training point",
        ),
        (("finetune", F, *PROBE, "--layers", "conv1", "--epochs", "0", "--out", "wrong"), "epochs is 0"),
        (("dejavu", "run", "--public", "public.npz", "--out", "scores.txt"), "no known suffix"),
        (("probe", F, *PROBE, "--device", "cuda"), "cuda"),
        (("compare", "found", "nowhere"), "no folder 'nowhere'"),
        (("compare", "found", "found", "--k", "40"), "k is 40"),
        (("compare", "found", "run"), "memloc audit run --out run-audit"),
        (("probe", F, "--train", "", "--test", "held-out.npz"), "empty text"),
        (("dejavu", "run", "--public", "train.npz"), "public images are among those"),
    ],
)
def test_wrong_calls_leave_nothing(place, arguments, message):
    done = run(place, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "wrong").exists()


def test_every_flag_can_stand_in_a_settings_file_under_its_own_name(place):
    (place / "swap.toml").write_text(
        'from = "run/encoders/g.safetensors"\nlayers = ["conv1"]\ndry-run = true\njson = true\n'
    )
    done = run(place, "replace", F, "--out", "planned", "--config", "swap.toml")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"] == ["conv1"]
    assert not (place / "planned").exists()
    (place / "swap.toml").write_text('donor = "run/encoders/g.safetensors"\n')
    assert "there is no setting 'donor'" in run(place, "replace", F, "--out", "x", "--config", "swap.toml").stderr


def test_an_intervention_of_other_settings_is_refused_with_the_difference(place):
    assert run(place, "prune", F, "--audit", "found", "--out", "twice").returncode == 0
    done = run(place, "prune", F, "--audit", "found", "--fraction", "0.2", "--out", "twice")
    assert done.returncode == 2
    assert "fraction: 0.1 there, 0.2 now" in done.stderr
    assert (
        run(place, "prune", F, "--audit", "found", "--fraction", "0.2", "--out", "twice", "--overwrite").returncode == 0
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("probe", F, *PROBE),
        ("prune", F, "--audit", "found", "--out", "planned", *PROBE),
        ("replace", F, "--from", "run/encoders/g.safetensors", "--audit", "found", "--out", "planned", *PROBE),
        ("finetune", F, "--layers", "conv3", "--epochs", "2", "--out", "planned", *PROBE),
        (
            "insert",
            F,
            "--data",
            "train.npz",
            "--point",
            "5",
            "--layer",
            "conv3",
            "--unit",
            "1",
            "--steps",
            "3",
            "--out",
            "planned",
        ),
        ("remove", "run", "--audit", "found", "--count", "2", "--out", "planned"),
    ],
)
def test_dry_run_plans_and_writes_nothing(place, arguments):
    plan = asked(place, *arguments, "--dry-run")
    passes = {
        "probe": 100,
        "prune": 200,
        "replace": 200,
        "finetune": 160,
        "insert": 3 * 200 + 2 * 10 * 60,
        "remove": 2 * 2 * 40,  # a tenth of 60 images is held out
    }
    assert plan["forward_passes"] == passes[arguments[0]]
    assert plan["seconds"] > 0
    assert plan["memory_mb"] > 0
    assert not (place / "planned").exists()
