"""Runs, audits, values and coresets that memloc 0.1 wrote open, with a line of what they lack; those of today without."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch

import memloc
from memloc.coreset import CoresetRun
from memloc.engine import audit_shard, prepare
from memloc.errors import MemlocWarning
from memloc.results import Audit, sealing
from memloc.stats import UnitState
from memloc.valuation import Valuation

OLD = Path(__file__).parents[1] / "written_by_0_1"
SAID = "was written by an older memloc.*it does not say the versions of its stored states"


@pytest.fixture
def old(tmp_path):
    """A copy whose run finds its images."""
    shutil.copytree(OLD, tmp_path / "old")
    for name in ("run.json", "spec.json"):
        path = tmp_path / "old/run" / name
        record = json.loads(path.read_text())
        record |= {"data": str(tmp_path / "old/some.npz"), "external": str(tmp_path / "old/unseen.npz")}
        path.write_text(json.dumps(record))
    return tmp_path / "old"


def test_an_old_audit_opens(old, tmp_path):
    with pytest.warns(MemlocWarning, match=SAID):
        found = Audit.load(old / "audit")
    assert len(found.layers) == 6
    found.save(tmp_path / "again")
    with pytest.warns(MemlocWarning, match=SAID):  # saving it again does not make it newer
        again = Audit.load(tmp_path / "again")
    assert again.points.equals(found.points)


def test_old_values_and_an_old_coreset_open(old):
    with pytest.warns(MemlocWarning, match=SAID):
        assert len(Valuation.load(old / "value").rows) == 40
    with pytest.warns(MemlocWarning, match=SAID):
        found = CoresetRun.load(old / "coreset")
    assert len(found.tables["labels"]) == 40
    classifier = joblib.load(old / "coreset/model.joblib")  # names modules by where they were
    assert classifier.encoder.numbers == ["a", "b", "c"]


def test_an_old_run_opens_and_is_audited(old):
    with pytest.warns(MemlocWarning, match=SAID):
        run = memloc.open_run(old / "run")
    assert list(run.encoders) == ["f", "g"]
    with pytest.warns(MemlocWarning):
        found = memloc.audit(old / "run", views=memloc.Views(n=4), thumbnails=False)
    assert found.points["split"].value_counts().to_dict() == {
        "external": 12, "candidate": 8, "independent": 8, "shared": 8
    }  # fmt: skip


@pytest.mark.parametrize("folder", ["audit", "value", "coreset", "run"])
def test_only_old_folders_lack_something(folder, old):
    names = {"audit": "audit.json", "value": "value.json", "coreset": "coreset.json", "run": "run.json"}
    assert "writes" not in json.loads((old / folder / names[folder]).read_text())


def of_another_version(content, version):
    content["version"] = version - 1


def without_a_field(content, _version):
    del content["units"]["trained"]["conv1"]["total"]


def with_a_field(content, _version):
    content["classes"] = {"trained": {"conv1": {"squares": torch.zeros(1)}}}


@pytest.mark.parametrize("spoil", [of_another_version, without_a_field, with_a_field])
def test_a_shard_of_another_version_is_computed_again(tiny, gray, four_splits, tmp_path, monkeypatch, spoil):
    from memloc.engine import _run, _stored

    arguments = {"images": gray, "splits": four_splits, "views": memloc.Views(n=4), "shard_size": 20}
    whole = memloc.audit(tiny(0), tiny(1), **arguments)
    calls = []

    def stop_at_second(job, shard):
        calls.append(shard)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return audit_shard(job, shard)

    monkeypatch.setattr(_run, "audit_shard", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        memloc.audit(tiny(0), tiny(1), **arguments, out=tmp_path / "out")
    path = tmp_path / "out/.shards/00000.pt"
    content = torch.load(path, weights_only=True)
    assert set(content["units"]["trained"]["conv1"]) == {each.name for each in fields(UnitState)}  # by name
    spoil(content, _stored.SHARD_VERSION)
    with sealing(path) as temporary:
        torch.save(content, temporary)
    with pytest.warns(MemlocWarning, match="stored by another version of memloc.*it is computed again"):
        resumed = memloc.audit(tiny(0), tiny(1), **arguments, out=tmp_path / "out")
    assert len(calls) == 2 + 2
    assert resumed.layers.equals(whole.layers)


def test_a_checkpoint_of_another_version_is_trained_again(tmp_path):
    from memloc.pretrain._checkpoints import epochs_of, resume_checkpoint, save_checkpoint

    module, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD([*module.parameters(), *head.parameters()], lr=0.1)
    path = tmp_path / "f.pt"
    save_checkpoint(path, module, head, optimizer, 7)
    assert (epochs_of(path), resume_checkpoint(path, module, head, optimizer)) == (7, 7)
    content = torch.load(path, weights_only=True)
    del content["version"]
    with sealing(path) as temporary:
        torch.save(content, temporary)
    kept = module.weight.detach().clone()
    with pytest.warns(MemlocWarning, match="stored by another version of memloc, and was set aside; its encoder is"):
        assert resume_checkpoint(path, torch.nn.Linear(2, 2), head, optimizer) == 0
    assert torch.equal(module.weight, kept)


def test_merged_states_do_not_depend_on_where_they_were_stored(tiny, gray, four_splits, tmp_path):
    from memloc.engine._stored import load_shard, save_shard

    job = prepare(tiny(0), tiny(1), images=gray, splits=four_splits, views=memloc.Views(n=4), labels=np.arange(40) % 2)
    state = audit_shard(job, slice(0, 40))
    save_shard(tmp_path / "s.pt", state)
    again = load_shard(tmp_path / "s.pt")
    assert torch.equal(again.points.columns["align"], state.points.columns["align"])
    for group, layers in state.units.items():
        for layer, one in layers.items():
            assert all(torch.equal(torch.as_tensor(vars(one)[name]), torch.as_tensor(value)) for name, value in vars(again.units[group][layer]).items())  # fmt: skip
    assert load_shard(tmp_path / "none.pt") is None
