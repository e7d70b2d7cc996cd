"""A step of fixed shapes and places takes the loop's steps, and never asks the device for a number."""

import copy
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from memloc.encoders import load_encoder
from memloc.errors import SpecError
from memloc.pretrain import _loop, _step, spec_of, train_encoder, train_pair

VIT = "hf:vit,hidden_size=24,num_hidden_layers=2,num_attention_heads=3,intermediate_size=48,image_size=8,patch_size=4"
CPU = torch.device("cpu")
SETTINGS = {
    "simclr": {},
    "simclr, lars": {"optimizer": "lars", "learning_rate": 0.5},
    "simclr, penalty": {"alignment_penalty": 1.0},
    "simsiam": {"optimizer": "sgd", "learning_rate": 0.02},
    "vicreg": {},
    "dino": {"local_crops": 2},
    "mae": {},
    "mae, penalty": {"alignment_penalty": 1.0},
    "supervised": {"optimizer": "sgd", "learning_rate": 0.02},
}
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (23, 3, 8, 8), dtype=np.uint8))
# a point shown four times, as planted ones are; 23 slots in batches of at most 8 are 8, 8 and 7
POINTS = torch.cat([torch.zeros(4, dtype=torch.int64), torch.arange(1, 20)])


class Small(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.drop, self.last = nn.Dropout(0.2), nn.Conv2d(6, 5, 3, stride=2)

    def forward(self, images):
        return self.last(self.drop(self.norm(self.first(images)).relu()))


def encoder_for(name):
    torch.manual_seed(0)
    module = load_encoder(VIT, weights="random").module if name.startswith("mae") else Small()
    return load_encoder(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), shape=(3, 8, 8))


def trained(name, step, folder, *, epochs=17, encoder=None, log=None, **more):
    encoder = encoder or encoder_for(name)
    settings = {"objective": name.split(",")[0], "batch_size": 8, "precision": "float32", **SETTINGS[name], **more}
    spec = spec_of(epochs=epochs, step=step, **settings)
    lines = [] if log is None else log
    with torch.random.fork_rng():
        objective = train_encoder(
            encoder, PIXELS, POINTS, spec, seed=3, device=CPU, checkpoint=folder / f"{step}.pt",
            log=lines.append, labels=POINTS % 3, classes=3,
        )  # fmt: skip
    return [each.detach().clone() for part in (encoder.module, objective) for each in part.state_dict().values()], lines


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "penalty" in name else ()) for name in SETTINGS]
)
def test_51_steps_of_every_objective_are_the_loops(name, tmp_path):
    """Views, order, copies of a point, smaller last batches, schedule, teacher and dropout included."""
    (loop, losses), (static, found) = (trained(name, step, tmp_path) for step in ("loop", "graph"))
    for one, two in zip(loop, static, strict=True):
        one, two = one.double(), two.double()
        assert float((one - two).abs().max()) <= 1e-6 * max(float(one.abs().max()), 1e-3)
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in losses], rel=1e-5)
    assert [line["learning_rate"] for line in found] == [line["learning_rate"] for line in losses]


@pytest.mark.parametrize("name", ["simsiam", "dino"])
@pytest.mark.parametrize("steps", [("loop", "graph"), ("graph", "loop"), ("graph", "graph")])
def test_either_goes_on_from_the_others_checkpoint(name, steps, tmp_path, monkeypatch):
    expected, _ = trained(name, "loop", tmp_path / "whole", epochs=6, checkpoint_every=2)
    first, second = steps

    class StoppedError(Exception):
        pass

    def stop(line):
        if line["epoch"] == 5:
            raise StoppedError

    (tmp_path / "half").mkdir()
    encoder = encoder_for(name)

    class Log(list):
        append = staticmethod(stop)

    with pytest.raises(StoppedError):
        trained(name, first, tmp_path / "half", epochs=6, checkpoint_every=2, encoder=encoder, log=Log())
    (tmp_path / f"half/{first}.pt").rename(tmp_path / "half/kept.pt")
    (tmp_path / "half/kept.pt").rename(tmp_path / f"half/{second}.pt")
    for seal in (tmp_path / "half").glob("*"):
        if seal.name.startswith(f"{first}.pt") and seal.name != f"{second}.pt":
            seal.rename(tmp_path / "half" / seal.name.replace(f"{first}.pt", f"{second}.pt"))
    found, lines = trained(name, second, tmp_path / "half", epochs=6, checkpoint_every=2)
    assert [line["epoch"] for line in lines] == [5, 6]
    for one, two in zip(expected, found, strict=True):
        assert torch.allclose(one.double(), two.double(), rtol=1e-6, atol=1e-9)


class NoQuestions(TorchDispatchMode):
    """Raises where an operation asks the device for a number, has a shape that depends on one, or brings a number
    there."""

    ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "is_nonzero", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            each is not None and each.dtype == torch.bool for each in (args[1] if isinstance(args[1], list) else [])
        )
        if masks or any(name.startswith(each) for each in self.ASKS):
            raise AssertionError(f"a step asks: {func}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_asks_the_device_nothing(name, tmp_path, monkeypatch):
    """What asks cannot be captured. The optimizers' fused kernels for processors take the rate as a number, those for
    GPUs do not: the optimizer's step is left out."""
    taken, real = [], _step.StaticStep._take

    def watched(self, *inputs):
        taken.append(1)
        if len(taken) == 1 or name.endswith("lars"):
            real(self, *inputs)  # what is put onto the device once
        if len(taken) > 1:
            step, self._of.optimizer.step = self._of.optimizer.step, lambda: None
            if name.endswith("lars"):
                self._of.optimizer.step = step.__wrapped__.__get__(self._of.optimizer)
            with NoQuestions():
                real(self, *inputs)
            self._of.optimizer.step = step

    monkeypatch.setattr(_step.StaticStep, "_take", watched)
    trained(name, "graph", tmp_path, epochs=1)
    assert len(taken) == 3


def test_the_watch_sees_a_question():
    with NoQuestions(), pytest.raises(AssertionError, match="asks"):
        float(torch.ones(1) + 1)
    with NoQuestions(), pytest.raises(AssertionError, match="asks"):
        torch.ones(3)[torch.ones(3) > 0]


class Stream:
    def wait_stream(self, _other): ...
    def synchronize(self): ...


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in for a GPU: captures run and are forgotten, and a replay takes the step; says what was done."""
    done, current = [], {}
    real = _step.StaticStep

    class Step(real):
        def __init__(self, *inputs):
            super().__init__(*inputs)
            self._cuda = self._compiles = True
            self._stream = Stream()

        def _captured(self, place, loss_of):
            current["run"] = lambda: self._take(place.rows, place.shown, loss_of)
            return super()._captured(place, loss_of)

    class Graph:
        def __init__(self):
            self.run = current["run"]

        def replay(self):
            done.append("replay")
            self.run()

        def pool(self):
            return None

    @contextmanager
    def capturing(*_, **__):
        done.append("capture")
        yield

    cuda = torch.cuda
    monkeypatch.setattr(_loop, "StaticStep", Step)
    monkeypatch.setattr(cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(cuda, "graph", capturing)
    monkeypatch.setattr(cuda, "stream", lambda _stream: nullcontext())
    monkeypatch.setattr(cuda, "current_stream", lambda _device: None)
    monkeypatch.setattr(cuda, "get_rng_state", lambda _device: torch.get_rng_state())
    monkeypatch.setattr(cuda, "set_rng_state", lambda state, _device: torch.set_rng_state(state))
    monkeypatch.setattr(cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(cuda, "set_sync_debug_mode", lambda mode: done.append(f"waits: {mode}"))
    monkeypatch.setattr(_step, "_host_random", tuple)  # which is the GPU's own here
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    return done


def alike(one, two):
    return all(torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-9) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", ["simsiam", "dino", "simclr, lars", "mae"])
def test_warming_up_and_capturing_leave_everything_as_it_was(name, gpu, tmp_path):
    """Weights, buffers, moments of the optimizer, teacher and random numbers."""
    expected, _ = trained(name, "loop", tmp_path, epochs=3)
    found, _ = trained(name, "graph", tmp_path, epochs=3)
    assert gpu.count("capture") == 2, "a graph for each size of batch"
    assert gpu.count("replay") == 9
    assert alike(expected, found)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["raises", "differs"])
def test_a_compiler_that_fails_leaves_a_graph_of_the_step_as_it_is(how, gpu, tmp_path, monkeypatch):
    def broken(function, **_):
        def run(*inputs):
            if how == "raises":
                raise RuntimeError("no Triton here")
            return function(*inputs) * 2

        return run

    monkeypatch.setattr(torch, "compile", broken)

    def plain():  # dropout draws other numbers when it is compiled, so the two cannot be compared
        encoder = encoder_for("simclr")
        encoder.module.drop = nn.Identity()
        return encoder

    expected, _ = trained("simclr", "loop", tmp_path, epochs=2, encoder=plain())
    why = "RuntimeError: no Triton here" if how == "raises" else "the compiler's loss is"
    with pytest.warns(UserWarning, match=f"step is not compiled, which is slower: .*{why}") as said:
        found, _ = trained("simclr", "graph", tmp_path, epochs=2, encoder=plain())
    assert len(said) == 1
    assert gpu.count("replay") == 6
    assert alike(expected, found)


def test_a_model_that_cannot_be_captured_takes_the_loop(gpu, tmp_path, monkeypatch):
    @contextmanager
    def refusing(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refusing)
    expected, _ = trained("simclr", "loop", tmp_path, epochs=2)
    with pytest.warns(UserWarning, match="graph|compiled") as said:
        found, _ = trained("simclr", "graph", tmp_path, epochs=2)
    texts = [str(each.message) for each in said]
    assert (
        sum("goes on without a graph, which is slower: RuntimeError: operation not permitted" in text for text in texts)
        == 1
    )
    assert not gpu.count("replay")
    assert alike(expected, found)


def asking(module):
    """A model that asks the device for a number, as a GPU says it."""
    real = module.forward

    def forward(images):
        if ASKED and ASKED[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        return real(images)

    module.forward = forward
    return module


ASKED = []


def test_a_model_that_asks_the_device_never_gets_to_a_capture(gpu, tmp_path, monkeypatch):
    """A capture that fails in the middle leaves a process damaged."""
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", ASKED.append)
    expected, _ = trained("simclr", "loop", tmp_path, epochs=2)
    torch.manual_seed(0)
    encoder = load_encoder(asking(Small()), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), shape=(3, 8, 8))
    with pytest.warns(UserWarning, match="goes on without a graph, which is slower: RuntimeError: called a synchro"):
        found, _ = trained("simclr", "graph", tmp_path, epochs=2, encoder=encoder)
    assert ASKED == ["error", 0], "the mode is as it was"
    assert not gpu.count("capture")
    assert alike(expected, found)


def test_a_model_that_draws_on_the_host_is_not_captured(gpu, tmp_path, monkeypatch):
    states = iter(range(100))
    monkeypatch.setattr(_step, "_host_random", lambda: next(states))
    with pytest.warns(UserWarning, match="draws random numbers on the host"):
        trained("simclr", "graph", tmp_path, epochs=1)
    assert not gpu.count("capture")


def test_running_out_of_memory_is_not_taken_for_it(gpu, tmp_path, monkeypatch):
    @contextmanager
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(torch.cuda, "graph", full)
    with pytest.raises(torch.OutOfMemoryError):
        trained("simclr", "graph", tmp_path, epochs=1)


def test_a_pair_by_graphs_is_the_loops_pair(tmp_path):
    """Through the public door, on gray images."""
    pictures = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
    settings = {
        "encoder": Small(1),
        "epochs": 2,
        "batch_size": 16,
        "candidates": 8,
        "workers": 1,
        "precision": "float32",
        "plant": 2,
        "repeats": 3,
    }
    loop, static = (train_pair(pictures, step=step, **settings) for step in ("loop", "graph"))
    for side in ("f", "g"):
        one, two = (getattr(pair, side).module.state_dict() for pair in (loop, static))
        assert all(torch.allclose(one[key].double(), two[key].double(), rtol=1e-5, atol=1e-7) for key in one)
    assert copy.copy(static.run.record["spec"])["step"] == "graph"


def test_private_training_takes_the_loop():
    with pytest.raises(SpecError, match="step graph"):
        spec_of(objective="mae", dp_epsilon=8.0, step="graph")
