"""Checkpoints as people have them: objects beside tensors, copies of weights, other names, shards."""

import argparse
import collections
import datetime
import decimal
import io
import json
import pathlib
import pickle
import random
import subprocess
import sys
import types
import uuid

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from memloc import load_encoder
from memloc.cli import main
from memloc.encoders import ResNet9, convert_checkpoint, read_weights
from memloc.errors import CheckpointError, DataNotFoundError, TrustError

SHAPE = (1, 8, 8)


class Settings:
    """A user's own class, which a checkpoint may hold."""


def attribute_dict():
    from lightning.fabric.utilities.data import AttributeDict

    return AttributeDict(lr=0.1)


BESIDE = {
    "NumPy scalars": lambda: {
        "loss": np.float64(0.5),
        "step": np.int64(3),
        "best": np.float32(1),
        "ok": np.bool_(True),
    },
    "NumPy arrays": lambda: {
        "curve": np.arange(3.0),
        "names": np.array(["a"]),
        "odd": np.array([{"a": 1}], dtype=object),
    },
    "NumPy dates": lambda: {"day": np.datetime64("2026-01-01"), "rows": np.zeros(2, dtype=[("a", "f4")])},
    "random states": lambda: {
        "numpy": np.random.get_state(),
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
    },
    "generators": lambda: {"rng": np.random.default_rng(0), "old": np.random.RandomState(0)},
    "paths": lambda: {"out": pathlib.Path("a/b"), "windows": pathlib.PureWindowsPath("a")},
    "dates": lambda: {"at": datetime.datetime.now(), "took": datetime.timedelta(1), "zone": datetime.timezone.utc},
    "default dictionaries": lambda: {"log": collections.defaultdict(list, {"loss": [1.0]})},
    "counters": lambda: {"seen": collections.Counter("ab"), "last": collections.deque([1], maxlen=3)},
    "sets": lambda: {"a": {1}, "b": frozenset({2}), "c": range(3), "d": slice(1), "e": b"x", "f": 1j},
    "namespaces": lambda: {"args": argparse.Namespace(out=pathlib.Path("x")), "more": types.SimpleNamespace(a=1)},
    "numbers": lambda: {"a": decimal.Decimal(1), "b": uuid.UUID(int=1)},
    "versions": lambda: {"torch": torch.__version__},
    "Lightning's hyperparameters": lambda: {"hyper_parameters": attribute_dict()},
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", BESIDE)
def test_what_is_inert_is_passed_over(kind, protocol, tiny, tmp_path):
    state = tiny(3).state_dict()
    torch.save({"state_dict": state, **BESIDE[kind]()}, tmp_path / "w.pth", pickle_protocol=protocol)
    found = load_encoder(tiny(0), weights=tmp_path / "w.pth", shape=SHAPE)
    assert all(torch.equal(value, state[name]) for name, value in found.module.state_dict().items())


def test_weights_in_other_mappings_and_files_of_old_formats(tiny, tmp_path):
    state = tiny(3).state_dict()
    torch.save(collections.defaultdict(dict, {"model": dict(state)}), tmp_path / "a.pth")
    torch.save({"model": state, "lr": np.float64(1)}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.pth"):
        found = load_encoder(tiny(0), weights=tmp_path / name, shape=SHAPE)
        assert torch.equal(found.module.conv1.weight, state["conv1.weight"])


class Runs:
    def __reduce__(self):
        return (print, ("this must not be printed",))


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (Settings, r"(tests\.encoders\.)?test_checkpoint_forms\.Settings"),
        (Runs, "builtins.print|__builtin__.print"),
        (lambda: nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (lambda: torch.optim.SGD([torch.zeros(1)], 0.1), "torch.optim.sgd.SGD"),
    ],
    ids=["a class", "code", "a module", "an optimizer"],
)
def test_what_is_refused_is_named(made, named, tiny, tmp_path, capfd):
    torch.save({"state_dict": tiny(3).state_dict(), "other": made()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"holds ({named}), .* memloc convert .* --trust"):
        read_weights(tmp_path / "w.pth")
    assert "must not be printed" not in capfd.readouterr().out


def test_programs_and_pickled_attacks_on_the_stand_ins(tiny, tmp_path):
    from memloc.encoders._inert import Refused, _load

    torch.jit.script(tiny(0)).save(tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="a TorchScript program"):
        read_weights(tmp_path / "w.pt")
    system = b"cos\nsystem\n(S'echo x'\ntR."
    setter = b"ctorch._utils\n_rebuild_tensor_v2\n(N}S'__defaults__'\n(I1\ntstb."  # BUILD on a function
    allocated = b"\x80\x04ctorch\nUntypedStorage\n(K\x10t}\x8c\x09allocatorK\x01s\x92."  # NEWOBJ_EX of a storage
    made = b"\x80\x02ctorch\ndevice\n(X\x03\x00\x00\x00cput\x81."  # NEWOBJ
    oldest = b"(S'cpu'\nitorch\ndevice\n."  # INST
    called = b"cnumpy\nndarray\n(tRS'__class__'\n."  # a stand-in, and text
    for content in (system, setter, allocated, made, oldest):
        with pytest.raises((Refused, pickle.UnpicklingError, IndexError)):
            _load(io.BytesIO(content))
    assert _load(io.BytesIO(called)) == "__class__"
    assert torch._utils._rebuild_tensor_v2.__defaults__ is None or 1 not in torch._utils._rebuild_tensor_v2.__defaults__


def test_converting_takes_the_tensors_out(tiny, tmp_path, capsys, monkeypatch):
    net = tiny(3)
    home = pathlib.Path(__file__).parent  # where the other process finds the classes of this file and of its fixtures
    monkeypatch.setenv("PYTHONPATH", f"{home}:{home.parents[1]}")
    torch.save({"epoch": 3, "net": net, "more": {"settings": Settings()}}, tmp_path / "w.pth")
    with pytest.raises(TrustError, match="runs the code that it brings"):
        convert_checkpoint(tmp_path / "w.pth", tmp_path / "w.safetensors")
    assert main(["convert", str(tmp_path / "w.pth")]) == 2
    assert "--trust" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "w.pth"), "--trust"]) == 0
    assert "tensors:" in capsys.readouterr().out
    found = load_encoder(tiny(0), weights=tmp_path / "w.safetensors", shape=SHAPE)
    assert torch.equal(found.module.conv1.weight, net.conv1.weight)
    assert main(["convert", str(tmp_path / "w.pth"), "--trust"]) == 2  # nothing is written over
    assert "already" in capsys.readouterr().err
    torch.save({"parts": [torch.ones(1), torch.ones(2)], "other": Settings()}, tmp_path / "list.pth")
    assert convert_checkpoint(tmp_path / "list.pth", tmp_path / "list.safetensors", trust=True) == 2
    code = "import torch\nclass Mine: pass\ntorch.save({'w': torch.ones(2), 'mine': Mine()}, 'main.pth')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert convert_checkpoint(tmp_path / "main.pth", tmp_path / "main.safetensors", trust=True) == 1
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="cannot be converted"):
        convert_checkpoint(tmp_path / "bad.pth", tmp_path / "bad.safetensors", trust=True)
    assert not (tmp_path / "bad.safetensors").exists()
    with pytest.raises(DataNotFoundError):
        convert_checkpoint(tmp_path / "gone.pth", tmp_path / "x.safetensors", trust=True)


@pytest.mark.parametrize(
    ("layout", "taken", "other"),
    [
        (("state_dict", "state_dict_ema"), "state_dict_ema", "--state-key state_dict"),
        (("model", "model_ema"), "model_ema", "--state-key model"),
        (("encoder", "target_encoder"), "target_encoder", "--state-key encoder"),
        (("student", "teacher"), "teacher", "--state-key student"),
        (("state_dict.model.", "state_dict.ema_model."), "state_dict.ema_model.", "--state-key state_dict"),
        (("state_dict.backbone.", "state_dict.momentum_backbone."), "state_dict.backbone.", "momentum_backbone."),
        (("state_dict.encoder_q.", "state_dict.encoder_k."), "state_dict.encoder_q.", "encoder_k."),
        (("online", "target"), "online", "--state-key target"),
    ],
)
def test_the_copy_that_is_evaluated_is_taken_and_the_other_named(layout, taken, other, tiny, tmp_path):
    copies = {name: tiny(seed).state_dict() for seed, name in enumerate(layout, start=1)}
    content = {}
    for name, state in copies.items():
        key, _, prefix = name.partition(".")
        content.setdefault(key, {}).update({f"{prefix}{each}": value for each, value in state.items()})
    torch.save(content, tmp_path / "w.pth")
    encoder = load_encoder(tiny(0), weights=tmp_path / "w.pth", shape=SHAPE)
    assert torch.equal(encoder.module.conv1.weight, copies[taken]["conv1.weight"])
    assert "another copy lies in" in encoder.note
    assert other in encoder.note


@pytest.mark.parametrize("within", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"])
def test_names_of_wrappers_are_left_out(within, tmp_path):
    torch.manual_seed(0)
    state = ResNet9().state_dict()
    wrapped = {name.replace("conv2_0.", f"conv2_0.{within}."): value for name, value in state.items()}
    torch.save({f"{within}.{name}": value for name, value in wrapped.items()}, tmp_path / "w.pth")
    found = load_encoder("resnet9", weights=tmp_path / "w.pth")
    assert all(torch.equal(value, state[name]) for name, value in found.module.state_dict().items())


def test_counters_and_extra_state_beside_weights(tiny, tmp_path):
    state = dict(tiny(3).state_dict())
    state |= {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1), "norm1._extra_state": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    assert torch.equal(load_encoder(tiny(0), weights=tmp_path / "w.pth", shape=SHAPE).module.conv1.weight, state["conv1.weight"])  # fmt: skip


class Renames(nn.Module):
    """Takes older names by a hook of its own."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def _load_from_state_dict(self, state, prefix, *rest):
        for name in [name for name in state if name.startswith(f"{prefix}old_")]:
            state[prefix + name.removeprefix(f"{prefix}old_")] = state.pop(name)
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean(dim=(2, 3)))


class Normed(nn.Module):
    def __init__(self, parametrized):
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm if parametrized else nn.utils.weight_norm
        self.conv, self.head = norm(nn.Conv2d(1, 4, 3)), nn.Linear(4, 3)

    forward = Renames.forward


def test_names_that_a_modules_hooks_take(tmp_path):
    torch.save({f"old_{name}": value for name, value in Renames().state_dict().items()}, tmp_path / "w.pth")
    assert "older names" not in load_encoder(Renames(), weights=tmp_path / "w.pth", shape=SHAPE).note
    with pytest.warns(FutureWarning):
        old = Normed(parametrized=False)
    torch.save(old.state_dict(), tmp_path / "norm.pth")  # weight_g and weight_v
    found = load_encoder(Normed(parametrized=True), weights=tmp_path / "norm.pth", shape=SHAPE)
    assert torch.allclose(found.module.conv.weight, old.conv.weight, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_names_of_older_transformers(prefix, tmp_path):
    import re

    transformers = pytest.importorskip("transformers")
    config = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    model = transformers.ViTModel(
        transformers.ViTConfig(**config, image_size=16, patch_size=8), add_pooling_layer=False
    )
    old = {}
    for name, value in model.state_dict().items():
        for new, before in (
            (r"^layers\.", "encoder.layer."),
            (r"attention\.([qkv])_proj", r"attention.attention.\1_"),
            (r"attention\.o_proj", "attention.output.dense"),
            (r"mlp\.fc1", "intermediate.dense"),
            (r"mlp\.fc2", "output.dense"),
        ):
            name = re.sub(new, before, name)
        name = name.replace(".q_.", ".query.").replace(".k_.", ".key.").replace(".v_.", ".value.")
        old[prefix + name] = value
    torch.save(old, tmp_path / "w.pth")
    options = ",".join(f"{key}={value}" for key, value in {**config, "image_size": 16, "patch_size": 8}.items())
    found = load_encoder(f"hf:vit,{options}", weights=tmp_path / "w.pth")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.module.state_dict().items())


def test_weights_that_the_encoder_has_no_place_for_are_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 16, "patch_size": 8}
    larger = transformers.ViTForImageClassification(transformers.ViTConfig(num_hidden_layers=3, **config))
    larger.save_pretrained(tmp_path / "m")
    options = ",".join(f"{key}={value}" for key, value in config.items())
    weights = tmp_path / "m/model.safetensors"
    with pytest.raises(CheckpointError, match="unexpected"):
        load_encoder(f"hf:vit,num_hidden_layers=2,{options}", weights=weights)
    assert load_encoder(f"hf:vit,num_hidden_layers=3,{options}", weights=tmp_path / "m").layers


def test_a_checkpoint_that_holds_itself(tiny):
    from memloc.encoders import pick_weights

    state = tiny(3).state_dict()
    content = {"state_dict": state}
    content["parent"] = content
    assert pick_weights(content, state, name="w").weights.keys() == state.keys()


def test_timms_own_filter_takes_published_files(tmp_path, torchvision):
    import timm

    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 0}
    named = ",".join(
        ["timm:vit_tiny_patch16_224", *(f"{key}={value}" for key, value in small.items() if key != "num_classes")]
    )
    larger = timm.create_model("vit_tiny_patch16_224", **{**small, "img_size": 48}).state_dict()
    torch.save({"model": larger}, tmp_path / "larger.pth")
    found = load_encoder(named, weights=tmp_path / "larger.pth")
    assert "timm's own filter" in found.note
    assert found.module.pos_embed.shape[1] == 17
    options = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 12,
        "depths": (1, 1),
        "num_heads": (2, 2),
        "window_size": 4,
    }
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **options)
    state = {**swin.state_dict(), "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16)}
    torch.save(state, tmp_path / "swin.pth")
    again = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **options)
    assert load_encoder(again, weights=tmp_path / "swin.pth").note is not None


def test_shards_and_their_index(tiny, tmp_path):
    state = tiny(3).state_dict()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.safetensors": names[4:]}
    for file, held in parts.items():
        save_file({name: state[name] for name in held}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, held in parts.items() for name in held}}))
    for where in (index, tmp_path, tmp_path / "model-00002-of-00002.safetensors"):
        found = load_encoder(tiny(0), weights=where, shape=SHAPE)
        assert torch.equal(found.module.conv2.weight, state["conv2.weight"])
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="1 are missing, such as 'model-00001-of-00002.safetensors'"):
        read_weights(index)
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_weights(index)
    index.unlink()
    with pytest.raises(CheckpointError, match="one of several files"):
        read_weights(tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(DataNotFoundError, match="holds no weights"):
        read_weights(tmp_path)
