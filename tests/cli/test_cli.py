"""The command line as installed, in a temporary folder: results, exit codes, messages, interruption."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.cli.command import MEMLOC, run

import memloc


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two sets of images and a finished pair."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    np.savez(
        folder / "train.npz", images=random.integers(0, 256, (60, 16, 16), dtype=np.uint8), labels=np.arange(60) % 3
    )
    np.savez(
        folder / "test.npz", images=random.integers(0, 256, (20, 16, 16), dtype=np.uint8), labels=np.arange(20) % 3
    )
    flags = ["--epochs", "2", "--candidates", "10", "--batch-size", "32", "--external", "test.npz"]
    done = run(folder, "train", "train.npz", "--out", "run", *flags)
    assert done.returncode == 0, done.stderr
    return folder


def test_audit_of_a_run_writes_tables_and_a_report(place):
    done = run(place, "audit", "run", "--out", "found", "--views", "4", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema_version"] == 1
    assert len(result["answer"]) == 3
    points = pd.read_parquet(place / "found/points.parquet")
    assert points["split"].value_counts().to_dict() == {
        "shared": 34,
        "external": 26,
        "candidate": 10,
        "independent": 10,
    }
    assert points.loc[0, "name"] == "train.npz[0]"
    assert (place / "found/report.html").stat().st_size > 10_000
    record = json.loads((place / "found/audit.json").read_text())
    assert record["training"]["epochs"] == 2
    assert not any("augmentation" in text for text in record["warnings"])
    again = run(place, "report", "found", "--out", "other.html")
    assert again.stdout.strip() == "other.html"
    assert (place / "other.html").read_text() == (place / "found/report.html").read_text()


def test_audit_of_encoders_and_images(place):
    flags = [
        "--f",
        "run/encoders/f.safetensors",
        "--g",
        "run/encoders/g.safetensors",
        "--data",
        "train.npz",
        "--external",
        "test.npz",
    ]
    done = run(place, "audit", *flags, "--out", "direct", "--views", "4")
    assert done.returncode == 0, done.stderr
    assert "report: direct/report.html" in done.stdout
    alone = run(
        place,
        "audit",
        "--f",
        "run/encoders/f.safetensors",
        "--data",
        "train.npz",
        "--external",
        "test.npz",
        "--out",
        "alone",
        "--views",
        "4",
    )
    assert alone.returncode == 0, alone.stderr
    assert "warning: There is one encoder and no reference." in alone.stderr
    assert pd.read_parquet(place / "alone/layers.parquet")["alignment_gap"].notna().all()


def test_an_ensemble_from_training_to_report(place):
    done = run(place, "train", "train.npz", "--out", "many", "--ensemble", "4", "--epochs", "1", "--batch-size", "32")
    assert done.returncode == 0, done.stderr
    done = run(place, "audit", "many", "--external", "test.npz", "--out", "many-found", "--views", "4")
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(place / "many-found/layers.parquet")["layermem_calibrated"].notna().all()


def test_dry_run_promises_and_writes_nothing(place):
    done = run(place, "audit", "run", "--out", "never", "--views", "4", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["points"] == 80
    assert plan["forward_passes"] == 80 * 4 * 2
    assert plan["memory_mb"] > 0
    assert not (place / "never").exists()
    done = run(place, "train", "train.npz", "--out", "never", "--dry-run", "--json")
    plan = json.loads(done.stdout)
    assert plan["splits"] == {"shared": 42, "external": 6, "candidate": 6, "independent": 6}
    assert plan["seconds"] > 0
    assert json.loads(run(place, "demo", "--quick", "--dry-run", "--json").stdout)["training"]["seconds"] > 0
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    "command", [("audit", "run", "--views", "4"), ("train", "train.npz"), ("demo", "--quick")], ids=lambda each: each[0]
)
def test_dry_run_looks_at_the_folder_too_and_speaks_plainly(place, command):
    (place / "foreign").mkdir(exist_ok=True)
    (place / "foreign/thesis.tex").write_text("mine")
    done = run(place, *command, "--out", "foreign", "--dry-run")
    assert done.returncode == 2, done.stdout
    assert "is not empty and was not made by memloc" in done.stderr
    said = run(place, *command, "--out", "never", "--dry-run").stdout
    assert "views" in said or "memory mb: " in said
    assert not set("{}[]'") & set(said)


def test_settings_from_toml_and_flags_over_them(place):
    (place / "audit.toml").write_text("views = 4\nlayers = ['conv1', 'conv3']\nsampling = 'independent'\n")
    done = run(place, "audit", "run", "--out", "toml", "--config", "audit.toml", "--sampling", "sobol")
    assert done.returncode == 0, done.stderr
    record = json.loads((place / "toml/audit.json").read_text())
    assert (record["views"]["n"], record["views"]["sampling"]) == (4, "sobol")
    behind = ["output", "head.0", "head", "loss"]  # which are read whatever is chosen
    assert pd.read_parquet(place / "toml/layers.parquet")["layer"].tolist() == ["conv1", "conv3", *behind]
    (place / "wrong.toml").write_text("veiws = 4\n")
    done = run(place, "audit", "run", "--out", "x", "--config", "wrong.toml")
    assert done.returncode == 2
    assert "there is no setting 'veiws' in wrong.toml. Nearest: 'views'" in done.stderr


def test_gate(place):
    assert run(place, "audit", "run", "--out", "gate", "--views", "4", "--fail-above", "0.9").returncode == 0
    done = run(place, "audit", "run", "--out", "gate", "--views", "4", "--fail-above", "-0.9")
    assert done.returncode == 3
    assert "gate failed" in done.stderr


def test_layers_doctor_and_version(place):
    done = run(place, "layers", "resnet9", "--json")
    assert json.loads(done.stdout)["layers"][0]["layer"] == "conv1"
    assert "Δ subtracts" in run(place, "layers", "run/encoders/f.safetensors", "--fine").stdout
    doctor = run(place, "doctor", "--json")
    assert json.loads(doctor.stdout)["torch"]
    assert run(place, "--version").stdout.startswith("memloc ")


def test_exports(place):
    run(place, "audit", "run", "--out", "found", "--views", "4")
    done = run(place, "export", "found", "--out", "issues.csv")
    assert done.returncode == 0, done.stderr
    issues = pd.read_csv(place / "issues.csv")
    assert {"is_memorized_issue", "memorized_score", "name"} <= set(issues)
    assert issues["memorized_score"].between(0, 1).all()
    assert issues["memorized_score"].is_monotonic_increasing
    run(place, "export", "found", "--table", "points", "--out", "points.jsonl")
    lines = (place / "points.jsonl").read_text().splitlines()
    assert len(lines) == 80
    assert json.loads(lines[0])["name"] == "train.npz[0]"
    assert run(place, "export", "found", "--out", "issues.xlsx").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["audit", "nowhere", "--out", "x"], 2, "'nowhere' holds no run"),
        (["audit", "--out", "x"], 2, "there is nothing to audit"),
        (["audit", "run", "--f", "resnet9", "--out", "x"], 2, "which already says which encoders"),
        (["audit", "run", "--size", "9", "--out", "x"], 2, "--size is given beside the run"),
        (
            ["audit", "--f", "resnet9", "--data", "train.npz", "--fail-above", "0.1", "--out", "x"],
            2,
            "no figure to look at",
        ),
        (["train", "train.npz", "--policy", "weka", "--out", "x"], 2, "no view policy 'weka'"),
        (["audit", "run", "--out", "x", "--layers", "conv9"], 2, "has no layer 'conv9'"),
        (["audit", "run", "--out", "x", "--views", "many"], 2, "n is 'many' views"),
        (["audit", "run", "--out", "x", "--policy", "norml"], 2, "no policy 'norml'"),
        (["audit", "run", "--out", "x", "--nonsense"], 2, "No such option"),
        (["audit", "--f", "resnet9", "--data", "nothing", "--out", "x"], 2, "no file or folder 'nothing'"),
        (["audit", "--f", "resnet9", "--data", "empty", "--out", "x"], 2, "holds no images"),
        (
            ["audit", "--f", "resnet9", "--f-weights", "train.npz", "--data", "train.npz", "--out", "x"],
            2,
            "CheckpointError",
        ),
        (
            ["audit", "--f", "resnet9", "--data", "train.npz", "--mean", "a,b", "--std", "1", "--out", "x"],
            2,
            "no list of numbers",
        ),
        (["train", "train.npz", "--out", "x", "--candidates", "40"], 2, "do not fit 60 images"),
        (["train", "train.npz", "--out", "x", "--size", "64"], 2, "smaller than a view of 64x64"),
        (["report", "nowhere"], 2, "holds no finished audit"),
        (["layers", "resnet99"], 2, "no encoder 'resnet99'"),
        ([], 2, "Usage"),
    ],
)
def test_wrong_calls(place, arguments, code, message):
    (place / "empty").mkdir(exist_ok=True)
    done = run(place, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (place / "x").exists()


def test_unreadable_images_are_listed(place):
    folder = place / "pictures"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(
            folder / f"{number}.png"
        )
    (folder / "bad.png").write_bytes(b"")
    flags = ["audit", "--f", "resnet9", "--data", "pictures", "--out", "pictured", "--views", "2"]
    assert run(place, *flags).returncode == 2
    done = run(place, *flags, "--max-bad", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads((place / "pictured/audit.json").read_text())["skipped"][0][0] == "bad.png"


def test_a_folder_that_cannot_be_written(place):
    (place / "file").write_text("x")
    done = run(place, "audit", "run", "--out", "file/below", "--views", "2")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


def test_a_full_disk_leaves_nothing_half_written(place):
    """A tmpfs of 100 kB stands for a full disk; without the right to mount one the limit on file size does."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from memloc.cli import main; sys.exit(main(['audit', 'run', '--out', 'full', '--views', '2']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "full/audit.json").exists()
    assert not list((place / "full").glob("*.parquet"))
    assert run(place, "audit", "run", "--out", "full", "--views", "2").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("command", [pytest.param("train", marks=pytest.mark.slow), "audit"])
def test_ctrl_c_exits_130_and_resumes(place, command):
    if command == "train":
        arguments = [
            "train",
            "train.npz",
            "--out",
            "stopped-run",
            "--epochs",
            "30",
            "--candidates",
            "10",
            "--batch-size",
            "32",
            "--checkpoint-every",
            "1",
        ]
        marker = place / "stopped-run/checkpoints"
    else:
        arguments = ["audit", "run", "--out", "stopped-audit", "--views", "32", "--shard-size", "8"]
        marker = place / "stopped-audit/.shards/00000.pt"
    process = subprocess.Popen(
        [str(MEMLOC), *arguments],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 90
    while not marker.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "repeat the command" in said
    folder = place / arguments[arguments.index("--out") + 1]
    assert not list(folder.glob("*.partial"))
    assert not (folder / "audit.json").exists()
    done = run(place, *arguments)
    assert done.returncode == 0, done.stderr


def test_runs_trained_from_arrays_keep_labels_and_names(place, monkeypatch):
    monkeypatch.chdir(place)
    images = memloc.open_images("sample:train").take(torch.arange(40))
    memloc.train_pair(images, epochs=1, candidates=8, batch_size=16, out="from-python")
    done = run(place, "audit", "from-python", "--out", "from-python-found", "--views", "2")
    assert done.returncode == 0, done.stderr
    points = pd.read_parquet(place / "from-python-found/points.parquet")
    assert points["name"].str.startswith("sample:train[").all()
    assert (points["label"] >= 0).all()


def test_folders_with_the_same_layout_and_other_shapes(place):
    for name, seed in (("left", 0), ("right", 9)):
        (place / name / "cat").mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(seed + number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"cat/{number}.png")
    done = run(
        place,
        "train",
        "left",
        "--external",
        "right",
        "--out",
        "oblong",
        "--epochs",
        "1",
        "--candidates",
        "2",
        "--batch-size",
        "8",
    )
    assert done.returncode == 0, done.stderr
    done = run(place, "audit", "../" + place.name + "/oblong", "--out", "oblong-found", "--views", "2")
    assert done.returncode == 0, done.stderr
