"""Weights found in the checkpoints of others: nested keys, prefixes, heads, copies, and messages."""

import argparse

import pytest
import torch

from memloc.encoders import ResNet, load_encoder, pick_weights, read_weights
from memloc.errors import CheckpointError, SpecError


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1))


def under(state, prefix, **more):
    return {**{f"{prefix}{name}": value for name, value in state.items()}, **more}


ONE = torch.ones(1)
CHILD = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def numbered(state):
    return {f"{CHILD[name.split('.')[0]]}.{name.partition('.')[2]}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda s, o: s, ""),
        (
            lambda s, o: {
                "model": {**s, "decoder_embed.weight": ONE, "mask_token": ONE},
                "args": argparse.Namespace(lr=1),
            },
            "MAE layout",
        ),
        (
            lambda s, o: {
                "student": under(o, "module.backbone.", **{"module.head.mlp.0.weight": ONE}),
                "teacher": under(s, "backbone.", **{"head.mlp.0.weight": ONE}),
                "epoch": 3,
            },
            "DINO layout: 'teacher' without the prefix 'backbone.'",
        ),
        (
            lambda s, o: {
                "state_dict": {
                    **under(s, "module.encoder_q.", **{"module.encoder_q.fc.0.weight": ONE, "module.queue": ONE}),
                    **under(o, "module.encoder_k."),
                }
            },
            "MoCo layout",
        ),
        (
            lambda s, o: {
                "state_dict": {
                    **under(s, "module.base_encoder.", **{"module.base_encoder.fc.0.weight": ONE}),
                    **under(o, "module.momentum_encoder."),
                }
            },
            "MoCo v3 layout",
        ),
        (lambda s, o: {"state_dict": under(s, "backbone.", **{"backbone.fc.0.weight": ONE})}, "backbone."),  # SimCLR
        (
            lambda s, o: {
                "state_dict": {**under(s, "backbone."), **under(o, "momentum_backbone."), "projector.0.weight": ONE}
            },
            "solo-learn",
        ),
        (
            lambda s, o: {"state_dict": under(numbered(s), "backbone.", **{"projection_head.layers.0.weight": ONE})},
            "numbered children",
        ),
        (lambda s, o: under(s, "_orig_mod."), "without the prefix '_orig_mod.'"),
        (lambda s, o: {name: value for name, value in s.items() if not name.endswith("num_batches_tracked")}, ""),
    ],
)
def test_published_layouts_are_recognized(net, tmp_path, wrap, note):
    other = {name: value + 1 for name, value in net.state_dict().items()}
    torch.save(wrap(net.state_dict(), other), tmp_path / "w.pth")
    content, _ = read_weights(tmp_path / "w.pth")
    picked = pick_weights(content, net.state_dict(), name="w.pth")
    assert note in picked.note
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in picked.weights.items())
    assert set(net.state_dict()) - set(picked.weights) <= {
        n for n in net.state_dict() if n.endswith("num_batches_tracked")
    }


def test_a_layout_is_named_by_what_lies_beside_the_encoder(net):
    state = net.state_dict()
    plain = pick_weights({"model": state, "model_ema": state}, state, name="w", state_key="model")
    assert plain.note == "'model'"
    masked = pick_weights({"model": {**state, "mask_token": ONE, "decoder_embed.weight": ONE}}, state, name="w")
    assert masked.note == "MAE layout: 'model' 2 entries of heads left out"
    assert (
        pick_weights(under(state, "backbone."), state, name="w", strip_prefix="backbone").weights.keys() == state.keys()
    )
    with pytest.raises(CheckpointError, match="no weights under 'teacher'. It has no nested dictionaries"):
        pick_weights(state, state, name="w", state_key="teacher")


def test_published_vits_are_sent_to_timm_and_chunks_of_blocks_are_joined():
    own = {f"blocks.{block}.attn.qkv.weight": ONE * block for block in range(4)}
    chunked = {f"blocks.{block // 2}.{block}.attn.qkv.weight": ONE * block for block in range(4)}
    found = pick_weights({"teacher": under(chunked, "backbone.")}, own, name="dinov2.pth")
    assert "blocks without the number of their chunk" in found.note
    assert all(torch.equal(found.weights[name], own[name]) for name in own)
    with pytest.raises(
        CheckpointError, match="names of timm and of the published repositories .* pass the encoder as timm:NAME"
    ):
        pick_weights({"model": own}, {"layers.0.attention.query.weight": ONE}, name="mae.pth")


def test_keys_and_prefixes_can_be_given(net, tmp_path):
    state = net.state_dict()
    other = {name: value + 1 for name, value in state.items()}
    torch.save({"teacher": under(state, "backbone."), "student": under(other, "backbone.")}, tmp_path / "w.pth")
    content, _ = read_weights(tmp_path / "w.pth")
    chosen = pick_weights(content, state, name="w", state_key="student")
    assert torch.equal(chosen.weights["conv1.weight"], other["conv1.weight"])
    torch.save({**under(state, "a."), **under(other, "b.")}, tmp_path / "two.pth")
    content, _ = read_weights(tmp_path / "two.pth")
    with pytest.raises(
        CheckpointError, match=r"holds 2 copies that fit the encoder, under 'a.' .strip_prefix=a.*, 'b.' "
    ):
        pick_weights(content, state, name="two.pth")
    assert torch.equal(
        pick_weights(content, state, name="two", strip_prefix="b.").weights["bn1.bias"], other["bn1.bias"]
    )
    with pytest.raises(CheckpointError, match="no weights that begin with 'c.'"):
        pick_weights(content, state, name="two.pth", strip_prefix="c.")
    with pytest.raises(CheckpointError, match="no weights under 'ema'"):
        pick_weights(content, state, name="two.pth", state_key="ema")
    with pytest.raises(SpecError, match="without weights"):
        load_encoder("resnet18", state_key="teacher")


def test_a_checkpoint_of_another_architecture_is_refused(net, tmp_path):
    content = {"state_dict": under(ResNet((2, 1, 1, 1)).state_dict(), "backbone.")}
    with pytest.raises(CheckpointError, match=r"0 keys are missing and 10 unexpected under 'state_dict/backbone.'"):
        pick_weights(content, net.state_dict(), name="deep.pth")
    with pytest.raises(CheckpointError, match="such as 'layer1.1.conv1.weight'"):
        pick_weights(ResNet((2, 1, 1, 1)).state_dict(), net.state_dict(), name="deep.pth")
    less = {name: value for name, value in net.state_dict().items() if "layer4" not in name}
    with pytest.raises(CheckpointError, match=r"\d+ keys are missing and 0 unexpected, such as 'layer4"):
        pick_weights(less, net.state_dict(), name="cut.pth")
    with pytest.raises(CheckpointError, match="none of its 1 keys is one of the encoder's"):
        pick_weights({"weights": {"w": ONE}}, net.state_dict(), name="other.pth")
