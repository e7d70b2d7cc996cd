"""Files that rot: a flipped byte anywhere is refused by name, or what it was of is computed again."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from tests.cli.command import run

import memloc
from memloc.coreset import load_classifier
from memloc.encoders import load_encoder
from memloc.engine import audit_shard
from memloc.errors import CheckpointError, MemlocError, MemlocWarning, ResultsError
from memloc.report import summarize_coreset
from memloc.results import MANIFEST, Audit, listed_files
from memloc.runs import images_of
from memloc.valuation import Valuation


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A folder of each kind, finished."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("damage") / "place")


READ = {
    "run": lambda folder: images_of(memloc.open_run(folder)),
    "audit": Audit.load,
    "value": Valuation.load,
    "coreset": lambda folder: (summarize_coreset(folder), load_classifier(folder)),
    "model": lambda folder: (summarize_coreset(folder), load_classifier(folder)),
}
NOT_READ = {"metrics.jsonl", "spec.json", "report.html"}


@pytest.mark.parametrize("kind", READ)
def test_every_file_of_a_finished_folder_is_listed_and_looked_at(place, kind):
    folder = place / kind
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*listed_files(folder), MANIFEST}
    READ[kind](folder)
    looked = 0
    for name in sorted(found):
        if name in NOT_READ or name.startswith("heads/"):
            continue
        path = folder / name
        sound = path.read_bytes()
        for place_of in np.linspace(0, len(sound) - 1, 3).astype(int):
            broken = bytearray(sound)
            broken[place_of] ^= 4
            path.write_bytes(broken)
            with pytest.raises((ResultsError, CheckpointError)) as said:
                READ[kind](folder)
            assert path.name in str(said.value)
            looked += 1
        for cut in (sound[: len(sound) // 2], b""):
            path.write_bytes(cut)
            with pytest.raises((ResultsError, CheckpointError), match=path.name):
                READ[kind](folder)
        path.unlink()
        if name == MANIFEST:
            with pytest.warns(MemlocWarning, match="has no manifest.json"):
                READ[kind](folder)
        else:
            with pytest.raises(MemlocError):
                READ[kind](folder)
        path.write_bytes(sound)
    READ[kind](folder)
    assert looked >= 9


def test_weights_carry_their_checksum_wherever_they_lie(place, tmp_path):
    sound = (place / "run/encoders/f.safetensors").read_bytes()
    copy = tmp_path / "f.safetensors"
    copy.write_bytes(sound)
    load_encoder(copy)
    header = int.from_bytes(sound[:8], "little")
    text = sound.index(b'"augmentation":"') + len('"augmentation":"')
    for place_of in (text, header + 8, header + 5000, len(sound) - 1):
        broken = bytearray(sound)
        broken[place_of] ^= 1
        copy.write_bytes(broken)
        with pytest.raises(CheckpointError, match="do not have the checksum"):
            load_encoder(copy)


def interrupted(monkeypatch, arguments, out, after):
    """An audit that is stopped after so many shards; how often shards are computed from then on."""
    from memloc.engine import _run

    calls = []

    def stopping(job, shard):
        calls.append(shard)
        if len(calls) == after + 1:
            raise KeyboardInterrupt
        return audit_shard(job, shard)

    monkeypatch.setattr(_run, "audit_shard", stopping)
    with pytest.raises(KeyboardInterrupt):
        memloc.audit(**arguments, out=out)
    return calls


@pytest.mark.parametrize("rest", ["mean", "median"])
@pytest.mark.parametrize("how", ["flip", "empty", "zeros", "cut"])
def test_a_damaged_shard_is_computed_again(tiny, gray, four_splits, tmp_path, monkeypatch, how, rest):
    arguments = {
        "f": tiny(0), "g": tiny(1), "images": gray, "splits": four_splits, "views": memloc.Views(n=4), "shard_size": 10,
        "rest": rest,
    }  # fmt: skip
    whole = memloc.audit(**arguments)
    calls = interrupted(monkeypatch, arguments, tmp_path / "out", 3)
    stored = sorted((tmp_path / "out/.shards").iterdir())
    assert {path.suffix for path in stored} == ({".pt", ".npy"} if rest == "median" else {".pt"})
    for path in (next(path for path in stored if path.suffix == kind) for kind in {path.suffix for path in stored}):
        sound = path.read_bytes()
        middle = len(sound) // 2
        changed = {
            "flip": sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :],
            "empty": b"",
            "zeros": bytes(len(sound)),
            "cut": sound[:middle],
        }[how]
        path.write_bytes(changed)
    with pytest.warns(MemlocWarning, match="the shard .* set aside; it is computed again"):
        resumed = memloc.audit(**arguments, out=tmp_path / "out")
    assert len(calls) == 4 + 2  # the damaged one, and the one that was stopped
    for name in ("points", "layers", "units", "point_layers"):
        pd.testing.assert_frame_equal(getattr(resumed, name), getattr(whole, name))
    assert not (tmp_path / "out/.shards").exists()


IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
TRAINING = {"epochs": 3, "candidates": 6, "batch_size": 16, "workers": 1, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A finished training, and the folder of the same one stopped within f."""
    from memloc.pretrain import _loop

    folder = tmp_path_factory.mktemp("stopped")
    whole = memloc.train_pair(IMAGES, **TRAINING, out=folder / "whole").run
    saved = _loop.save_checkpoint

    def stopping(path, module, head, optimizer, epoch, *rest):
        saved(path, module, head, optimizer, epoch, *rest)
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_loop, "save_checkpoint", stopping)
        with pytest.raises(KeyboardInterrupt):
            memloc.train_pair(IMAGES, **TRAINING, out=folder / "broken")
    return whole, folder / "broken"


@pytest.mark.parametrize("how", ["flip", "empty", "zeros"])
def test_a_damaged_checkpoint_is_trained_again(stopped, tmp_path, how):
    whole, broken = stopped
    shutil.copytree(broken, tmp_path / "broken")
    path = tmp_path / "broken/checkpoints/f.pt"
    sound = path.read_bytes()
    middle = len(sound) // 2
    path.write_bytes({"empty": b"", "zeros": bytes(len(sound)), "flip": sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]}[how])  # fmt: skip
    with pytest.warns(MemlocWarning, match="the checkpoint .* set aside; its encoder is trained from the start"):
        again = memloc.train_pair(IMAGES, **TRAINING, out=tmp_path / "broken").run
    for name, encoder in whole.encoders.items():
        other = again.encoders[name].module.state_dict()
        assert all(torch.equal(value, other[key]) for key, value in encoder.module.state_dict().items())
    lines = [json.loads(line) for line in (tmp_path / "broken/metrics.jsonl").read_text().splitlines()]
    assert sorted((line["encoder"], line["epoch"]) for line in lines) == [(name, epoch) for name in "fg" for epoch in (1, 2, 3)]  # fmt: skip
    assert not (tmp_path / "broken/checkpoints").exists()


@pytest.mark.parametrize("content", [b"", bytes(1000), None])
def test_a_damaged_encoder_of_an_unfinished_run_is_trained_again(stopped, tmp_path, content):
    whole, _ = stopped
    shutil.copytree(whole.folder, tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    path = tmp_path / "run/encoders/f.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55" if content is None else content)
    with pytest.warns(MemlocWarning, match="the encoder .* set aside; it is trained again"):
        again = memloc.train_pair(IMAGES, **TRAINING, out=tmp_path / "run").run
    for name, value in whole.encoders["f"].module.state_dict().items():
        assert torch.equal(again.encoders["f"].module.state_dict()[name], value)


def test_outputs_are_never_inputs(place):
    before = {path: path.read_bytes() for path in (place / "few.npz", place / "audit/points.parquet")}
    for arguments, message in (
        (
            ("probe", "resnet9", "--train", "few.npz", "--test", "few.npz", "--out", "few.npz"),
            "which this command reads",
        ),
        (("report", "audit", "--out", "audit/points.parquet"), "Expected .html"),
    ):
        done = run(place, *arguments)
        assert done.returncode == 2
        assert message in done.stderr
    assert {path: path.read_bytes() for path in before} == before
