"""Encoders that take turns in one process train as they would alone."""

import numpy as np
import pytest
import torch

from memloc.errors import MemoryUsedUpError
from memloc.pretrain import _together, train_ensemble
from memloc.pretrain import _train as room

CPU = torch.device("cpu")
SETTINGS = {"epochs": 2, "batch_size": 16, "workers": 1, "precision": "float32"}


def dropping():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Dropout(0.3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3)
    )


def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)


def test_turns_change_nothing(monkeypatch):
    """Dropout and initial weights, too: each has its own random numbers."""
    alone = train_ensemble(images(), k=3, encoder=dropping(), **SETTINGS)
    widest = []

    def together(folder, spec, _plan, module, _device, progress):
        widest.append(
            _together.train_together(
                ["e00", "e01", "e02"], lambda name: room.encoder_steps(folder, name, encoder=module), most=2, device=CPU
            )
        )
        return widest[-1]

    monkeypatch.setattr(room, "_train_missing", together)
    encoder = dropping()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    turns = train_ensemble(images(), k=3, encoder=encoder, **SETTINGS)
    assert torch.equal(before, torch.get_rng_state()), "the caller's generator is as it was"
    assert widest == [2]
    for one, two in zip(alone.encoders, turns.encoders, strict=True):
        weights = one.module.state_dict(), two.module.state_dict()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def steps(name, said, count, *, full_with=None, running=None):
    if full_with is not None and len(running) >= full_with:
        raise MemoryUsedUpError("full")
    running.add(name)
    for number in range(count):
        said.append((name, number))
        yield
    running.discard(name)


def test_they_take_turns_and_one_follows_another():
    said, running = [], set()
    begin = {"a": 3, "b": 1, "c": 2}
    most = _together.train_together(
        list("abc"), lambda n: steps(n, said, begin[n], running=running), most=2, device=CPU
    )
    assert most == 2
    assert said[:2] == [("a", 0), ("b", 0)]
    assert [each for each in said if each[0] == "c"] == [("c", 0), ("c", 1)]
    assert len(said) == 6


def test_one_that_does_not_fit_waits_for_its_turn():
    said, running = [], set()
    _together.train_together(list("abc"), lambda n: steps(n, said, 2, full_with=1, running=running), most=3, device=CPU)
    assert [name for name, _ in said] == list("aabbcc")


def test_one_that_does_not_fit_alone_is_an_error():
    with pytest.raises(MemoryUsedUpError):
        _together.train_together(["a"], lambda n: steps(n, [], 2, full_with=0, running=set()), most=2, device=CPU)
