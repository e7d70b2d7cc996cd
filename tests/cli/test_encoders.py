"""Audits from the command line: encoders of other libraries, checkpoints of others, and pairs trained by every objective."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from memloc.cli import main
from memloc.encoders import load_encoder

DINOV2 = "hf:dinov2,hidden_size=24,num_hidden_layers=2,num_attention_heads=3,image_size=28,patch_size=7"
TIMM = "timm:vit_tiny_patch16_224,img_size=32,patch_size=8,depth=2"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    random = np.random.default_rng(0)
    for name, count in (("images", 48), ("others", 16)):
        labels = np.arange(count) % 3
        pixels = random.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8) + (
            60 * labels[:, None, None, None]
        ).astype(np.uint8)
        np.savez(folder / f"{name}.npz", images=pixels, labels=labels)
    return folder


@pytest.mark.vision
@pytest.mark.parametrize(("name", "layers"), [("torchvision:resnet18", 29), (TIMM, 10), (DINOV2, 10)])
def test_encoders_of_other_libraries(torchvision, place, monkeypatch, capsys, name, layers):
    monkeypatch.chdir(place)
    assert main(["layers", name, "--weights", "random", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["layers"]) == layers
    out = name.split(":")[0]
    flags = ["--data", "images.npz", "--external", "others.npz", "--views", "4", "--json"]
    assert (
        main(
            ["audit", "--f", name, "--f-weights", "random", "--g", name, "--g-weights", "random", *flags, "--out", out]
        )
        == 0
    )
    said = capsys.readouterr()
    assert [row["layer"] for row in json.loads(said.out)["layers"]] == [row["layer"] for row in listed["layers"]]
    table = pd.read_parquet(place / out / "layers.parquet")
    assert table["layermem"].notna().all()
    record = json.loads((place / out / "audit.json").read_text())
    assert record["spec"]["preprocess"][0][0] == listed["mean"]
    assert (place / out / "report.html").is_file()


@pytest.mark.parametrize("objective", ["simclr", "simsiam", "vicreg", "dino", "mae", "supervised"])
def test_pairs_of_every_objective(place, monkeypatch, capsys, objective):
    monkeypatch.chdir(place)
    small = [
        "--encoder",
        "hf:vit,hidden_size=24,num_hidden_layers=2,num_attention_heads=3,intermediate_size=48,image_size=32,patch_size=8",
    ]
    flags = [
        "--epochs",
        "1",
        "--batch-size",
        "16",
        "--candidates",
        "8",
        "--workers",
        "1",
        *(small if objective == "mae" else []),
    ]
    assert (
        main(
            [
                "train",
                "images.npz",
                "--external",
                "others.npz",
                "--objective",
                objective,
                *flags,
                "--out",
                f"run-{objective}",
            ]
        )
        == 0
    )
    assert main(["audit", f"run-{objective}", "--views", "4", "--out", f"found-{objective}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    names, own = [row["layer"] for row in result["layers"]], 10 if objective == "mae" else 11
    behind = {"simclr": 2, "simsiam": 5, "vicreg": 3, "dino": 4, "mae": 0, "supervised": 1}[objective]
    assert names[own - 1] == "output"
    assert len(names) == own + behind + 1
    assert all(name.split(".")[0] == "head" for name in names[own:-1])
    assert names[-1] == "loss"
    record = json.loads((place / f"found-{objective}/audit.json").read_text())
    assert record["training"]["objective"] == objective
    assert record["views"]["policy"] == "normal"
    assert main(["layers", f"run-{objective}/encoders/f.safetensors"]) == 0
    assert "mean" in capsys.readouterr().out


@pytest.mark.long
def test_a_checkpoint_of_another_training(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    torch.manual_seed(0)
    one, two = (load_encoder("resnet18").module.state_dict() for _ in range(2))
    torch.save(
        {
            "state_dict": {
                **{f"module.encoder_q.{k}": v for k, v in one.items()},
                **{f"module.encoder_k.{k}": v for k, v in two.items()},
            }
        },
        "moco.pth.tar",
    )
    flags = [
        "--f",
        "resnet18",
        "--f-weights",
        "moco.pth.tar",
        "--data",
        "images.npz",
        "--external",
        "others.npz",
        "--views",
        "2",
        "--size",
        "16",
    ]
    assert main(["audit", *flags, "--out", "moco"]) == 0
    said = capsys.readouterr().err
    assert "resnet18: MoCo layout: 'state_dict' without the prefix 'module.encoder_q.'" in said
    assert "no normalization" in said
    assert main(["audit", *flags, "--strip-prefix", "module.encoder_k.", "--out", "key"]) == 0
    tables = [pd.read_parquet(place / f"{name}/units.parquet")["unitmem"] for name in ("moco", "key")]
    assert not np.allclose(*tables)
    assert main(["audit", *flags, "--state-key", "teacher", "--out", "none"]) == 2
    assert "no weights under 'teacher'" in capsys.readouterr().err
    assert not (place / "none").exists()
    earlier = ["--g", "resnet18", "--g-weights", "random", "--earlier"]
    assert main(["audit", *flags, *earlier, "--out", "earlier"]) == 0
    assert "earlier checkpoint of f" in capsys.readouterr().err
    assert main(["audit", *flags, *earlier, "--independent", "others.npz", "--out", "wrong"]) == 2


def test_protocols_from_the_command_line(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    flags = ["--f", "resnet9", "--g", "resnet9", "--data", "images.npz", "--external", "others.npz", "--size", "16"]
    assert main(["audit", *flags, "--protocol", "published-code", "--out", "code"]) == 0
    record = json.loads((place / "code/audit.json").read_text())
    assert (record["views"]["n"], record["views"]["original"], record["spec"]["options"]["scale"]) == (5, True, "range")
    assert main(["audit", *flags, "--protocol", "paper", "--views", "4", "--out", "paper"]) == 0
    record = json.loads((place / "paper/audit.json").read_text())
    assert (record["views"]["n"], record["views"]["policy"]) == (4, "normal-paper")
    for wrong, message in (
        (["--protocol", "papre"], "no protocol 'papre'"),
        (["--pairs", "some"], "no pairs 'some'"),
        (["--scale", "log"], "no scale 'log'"),
    ):
        assert main(["audit", *flags, *wrong, "--out", "wrong"]) == 2
        assert message in capsys.readouterr().err
    assert not (place / "wrong").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--objective", "simclar"], 2, "no objective 'simclar'. Nearest: 'simclr'"),
        (["--objective", "mae", "--encoder", "resnet9"], 2, "resnet9 is no plain ViT of transformers"),
        (["--dp-epsilon", "8"], 2, "the ε would be false"),
        (["--encoder", "resnet10"], 2, "no encoder 'resnet10'"),
        (["--recipe", "big"], 2, "no recipe 'big'"),
        (["--optimizer", "adam"], 2, "no optimizer 'adam'"),
        (["--encoder", "images.npz:make"], 2, "no encoder"),
    ],
)
def test_wrong_calls_of_train(place, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(place)
    assert main(["train", "images.npz", *arguments, "--out", "refused"]) == code
    assert message in capsys.readouterr().err
    assert not (place / "refused").exists()


def test_random_audits_can_be_repeated_and_protocols_hold_for_runs(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    flags = [
        "audit",
        "--f",
        "resnet9",
        "--data",
        "images.npz",
        "--external",
        "others.npz",
        "--views",
        "2",
        "--out",
        "again",
    ]
    assert main(flags) == 0
    assert main(flags) == 0  # the same weights, so the same audit
    if not (place / "run-simclr").exists():
        assert (
            main(
                [
                    "train",
                    "images.npz",
                    "--epochs",
                    "1",
                    "--batch-size",
                    "16",
                    "--candidates",
                    "8",
                    "--workers",
                    "1",
                    "--out",
                    "run-simclr",
                ]
            )
            == 0
        )
    assert main(["audit", "run-simclr", "--protocol", "paper", "--views", "4", "--out", "paper-run"]) == 0
    assert json.loads((place / "paper-run/audit.json").read_text())["views"]["policy"] == "normal-paper"
    assert main(["audit", *flags[1:-4], "--state-key", "teacher", "--out", "key-without"]) == 2
    assert "given without a checkpoint" in capsys.readouterr().err
