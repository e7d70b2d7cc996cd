"""The chains of families: our ResNets and ViTs, transformers, timm and torchvision."""

import importlib.util

import pytest
import torch
from torch import nn

from memloc.encoders import as_tensor, load_encoder, tapped, unit_means
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, MemlocWarning, MissingExtraError, SpecError

DINOV2 = "hf:dinov2,hidden_size=24,num_hidden_layers=2,num_attention_heads=3,image_size=28,patch_size=7"
TIMM = "timm:vit_tiny_patch16_224,img_size=32,patch_size=8,depth=2"


def rows_of(name, **settings):
    return {row.name: row for row in load_encoder(name, weights="random", **settings).layers}


@pytest.mark.parametrize(
    ("name", "convolutions", "sums"), [("resnet18", 17 + 3, 8), ("resnet34", 33 + 3, 16), ("resnet50", 49 + 4, 16)]
)
def test_resnets_have_every_convolution_and_residual_sum(name, convolutions, sums):
    rows = load_encoder(name).layers
    assert sum(row.kind.startswith("convolution") for row in rows) == convolutions
    assert sum(row.kind == "residual" for row in rows) == sums
    chain = [row for row in rows if row.main]
    assert [row.predecessor for row in chain] == [None, *[row.name for row in chain[:-1]]]
    first = {row.name: row for row in rows}
    assert (
        first["layer2.0.downsample.0"].predecessor
        == "layer1." + {"resnet18": "1", "resnet34": "2", "resnet50": "2"}[name] + ".sum"
    )


def test_resnet18_has_torchvisions_names_and_function(torchvision):
    ours, theirs = load_encoder("resnet18").module.eval(), torchvision.models.resnet18()
    theirs.conv1, theirs.maxpool, theirs.fc = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity(), nn.Identity()
    assert {n: v.shape for n, v in ours.state_dict().items()} == {n: v.shape for n, v in theirs.state_dict().items()}
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs.eval()(images), atol=1e-5)


@pytest.mark.parametrize("name", ["vit-tiny", DINOV2])
def test_vits_have_the_four_rows_of_every_block(name):
    check_vit(load_encoder(name, weights="random"))


@pytest.mark.vision
def test_timm_vits_have_the_four_rows_of_every_block(torchvision):
    check_vit(load_encoder(TIMM, weights="random"))


@pytest.mark.vision
def test_torchvision_vits_have_the_four_rows_of_every_block(torchvision):
    check_vit(load_encoder("torchvision:vit_b_32,image_size=64", weights="random"))


def check_vit(encoder):
    rows = [row for row in encoder.layers if row.kind not in ("output", "linear")]
    assert rows[0].kind == "patch embedding"
    before = rows[0].name
    blocks = [rows[start : start + 4] for start in range(1, len(rows), 4)]
    assert len(rows) > 8
    for attention, middle, connected, after in blocks:
        assert [row.kind for row in (attention, middle, connected, after)] == [
            "attention",
            "residual",
            "fully-connected",
            "residual",
        ]
        assert attention.predecessor == middle.predecessor == after.predecessor == before  # REFERENCE A3
        assert connected.predecessor == middle.name
        assert len({row.units for row in (attention, middle, connected, after)}) == 1
        before = after.name
    size = encoder.size or 32
    found = {}
    with tapped(encoder.module, encoder.layers, lambda layer, out: found.__setitem__(layer.name, out.clone())) as run:
        run(torch.rand(2, 3, size, size))
    start = None
    for attention, middle, connected, after in blocks:
        if start is not None and "layer_scale" not in str(
            encoder.module
        ):  # Dinov2 scales both parts before it adds them
            assert torch.allclose(found[middle.name], start + found[attention.name], atol=1e-5)
            assert torch.allclose(found[after.name], found[middle.name] + found[connected.name], atol=1e-5)
        start = found[after.name]


def test_delta_of_a_vit_by_hand():
    from memloc import Views, audit

    images = torch.randint(0, 256, (12, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    f, g = (load_encoder(DINOV2, weights="random") for _ in range(2))
    found = audit(
        f, g, images=images, splits=["candidate"] * 6 + ["independent"] * 6, views=Views(n=4)
    ).layers.set_index("layer")
    mem = found["layermem"]
    block, before = "encoder.layer.1", "encoder.layer.0"
    assert found["delta"][f"{block}.attention"] == pytest.approx(mem[f"{block}.attention"] - mem[before])
    assert found["delta"][f"{block}.mlp"] == pytest.approx(mem[f"{block}.mlp"] - mem[f"{block} after attention"])
    assert found["delta"][block] == pytest.approx(mem[block] - mem[before])


def test_units_of_a_vit_are_neurons_averaged_over_all_tokens():
    encoder = load_encoder("vit-tiny", shape=(3, 8, 8))
    row = next(row for row in encoder.layers if row.name == "layers.3.mlp")
    kept = []
    with tapped(encoder.module, [row], lambda _, out: kept.append(out.clone())) as run:
        run(torch.rand(4, 3, 8, 8))
    assert kept[0].shape == (4, 5, 192)  # CLS and 4 patches
    expected = kept[0].clamp_min(0).mean(1).view(2, 2, 192).mean(1)
    assert torch.allclose(unit_means(row, kept[0], 2), expected, atol=1e-6)


@pytest.mark.vision
def test_swin_is_read_with_its_channels_last_and_not_within_windows(torchvision):
    rows = rows_of("timm:swin_tiny_patch4_window7_224,img_size=56")
    block = rows["layers.0.blocks.1"]
    assert (block.kind, block.units, block.last) == ("residual", 96, True)
    assert "layers.0.blocks.1.attn" not in rows  # it gives windows, not images
    out = torch.rand(2, 5, 5, 96)
    assert torch.allclose(unit_means(block, out, 1, rectify=False), out.mean((1, 2)), atol=1e-6)


@pytest.mark.vision
def test_torchvision_blocks_that_reuse_one_relu_are_read_call_by_call(torchvision):
    rows = rows_of("torchvision:resnet50")
    assert rows["layer1.0.conv1"].read_at == "layer1.0.relu#0"
    assert rows["layer1.0.conv2"].read_at == "layer1.0.relu#1"
    assert rows["layer1.0.conv3"].read_at == "layer1.0.bn3"
    assert (rows["layer1.0"].kind, rows["layer1.1.conv1"].predecessor) == ("residual", "layer1.0")
    assert rows["layer1.0.downsample.0"].predecessor == "conv1"
    assert "fc" not in rows
    encoder = load_encoder("torchvision:resnet18", weights="random")
    assert encoder.preprocess.mean == (0.485, 0.456, 0.406)
    with torch.no_grad():
        assert encoder.module.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 512)


@pytest.mark.vision
def test_timm_norms_that_bring_their_activation_are_read_after_it(torchvision):
    rows = rows_of("timm:efficientnet_b0")
    assert rows["blocks.0.0.conv_dw"].read_at == "blocks.0.0.bn1"
    assert rows_of("timm:resnet18")["layer1.0.conv1"].read_at == "layer1.0.act1"


@pytest.mark.vision
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_tiny_patch16_225", "timm has no model 'vit_tiny_patch16_225'. Nearest: 'vit_tiny_patch16_224'"),
        ("torchvision:resnet19", "torchvision has no model 'resnet19'. Nearest: 'resnet18'"),
        ("torchvision:resnet18@IMAGENET", "has no weights 'IMAGENET'"),
        ("timm:resnet18,foo=3", "takes no such option"),
        ("timm:resnet18,foo", "'foo' in timm:resnet18,foo is no option"),
    ],
)
def test_messages_of_adapters(torchvision, name, message):
    with pytest.raises(EncoderError, match=message):
        load_encoder(name, weights="random")


def test_messages_of_transformers(tmp_path):
    with pytest.raises(EncoderError, match="is a type of model, without weights"):
        load_encoder("hf:dinov2")
    with pytest.raises(DataNotFoundError, match="cannot be opened"):
        load_encoder(f"hf:{tmp_path}")
    with pytest.raises(EncoderError, match="cannot be cut into patches of 4"):
        load_encoder("vit-tiny", shape=(3, 30, 30))


def test_a_saved_transformers_model_is_opened_with_its_preprocessing(tmp_path):
    from transformers import Dinov2Config, Dinov2Model, ViTImageProcessor

    torch.manual_seed(0)
    model = Dinov2Model(
        Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, image_size=28, patch_size=7)
    )
    model.save_pretrained(tmp_path)
    ViTImageProcessor(
        size={"height": 28, "width": 28}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    ).save_pretrained(tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    assert (encoder.preprocess.mean, encoder.size) == ((0.1, 0.2, 0.3), 28)
    images = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.allclose(
            as_tensor(encoder.module.eval()(images)), model.eval()(images).last_hidden_state, atol=1e-6
        )


def test_an_mae_is_read_without_masking(tmp_path):
    from transformers import ViTMAEConfig, ViTMAEModel

    small = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 48,
        "image_size": 16,
        "patch_size": 4,
    }
    ViTMAEModel(ViTMAEConfig(**small)).save_pretrained(tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}")
    with torch.no_grad():
        one, two = (as_tensor(encoder.module.eval()(torch.ones(1, 3, 16, 16))) for _ in range(2))
    assert one.shape == (1, 17, 24)
    assert torch.equal(one, two)


def test_wrapped_modules_are_read_as_what_they_wrap(tiny):
    bare = [row.name for row in load_encoder(tiny(0)).layers]
    assert [row.name for row in load_encoder(nn.DataParallel(tiny(0))).layers] == bare
    assert [row.name for row in load_encoder(torch.compile(tiny(0))).layers] == bare


@pytest.mark.parametrize(
    "wrap",
    [lambda out: (out, None), lambda out: {"features": out}, lambda out: {"last_hidden_state": out, "x": out[:1]}],
)
def test_outputs_in_tuples_and_dictionaries(tiny, wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny(0)

        def forward(self, x):
            return wrap(self.net(x))

    from memloc import Views, audit

    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    splits = ["candidate"] * 4 + ["independent"] * 4
    found = audit(Wrapped(), Wrapped(), images=images, splits=splits, views=Views(n=4))
    assert found.layers["layer"].iloc[-1] == "output"
    assert found.layers["n_units"].iloc[-1] == 5


def test_models_whose_forward_needs_more_or_other_channels(tiny):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x, mask):
            return self.conv(x) * mask

    with pytest.raises(EncoderError, match=r"forward pass fails .*'mask'.* wrap it in a module that does"):
        load_encoder(Two())
    from memloc import Views, audit

    rgb = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(EncoderError, match="TinyNet takes 1 channel and the images have 3. Expected as many"):
        audit(tiny(0), images=rgb, views=Views(n=2))


class Returns(nn.Module):
    """Wraps features of shape (point, 4) in what a function says."""

    def __init__(self, wrap):
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(3, 4, 3), wrap

    def forward(self, x):
        return self.wrap(self.conv(x).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda out: None, "returns None for 3 images"),
        (lambda out: (), "returns a tuple of nothing"),
        (lambda out: {"loss": out.mean()}, r"returns a dict of 'loss' \(a tensor of shape \(\)\)"),
        (lambda out: out.mean(), r"returns a tensor of shape \(\)"),
        (lambda out: out[0], r"returns a tensor of shape \(4,\)"),
        (lambda out: out[:, :, None, None, None], r"returns a tensor of shape \(3, 4, 1, 1, 1\)"),
        (lambda out: slice(out), "returns a slice"),
        (lambda out: out.pixel_values, r"forward pass fails .*AttributeError.* Wrap it|wrap it in a module that does"),
        (lambda out: {}["features"], r"forward pass fails .*KeyError"),
    ],
)
def test_outputs_that_are_no_features(wrap, said):
    with pytest.raises(EncoderError, match=said):
        load_encoder(Returns(wrap))


def test_scalars_beside_features_are_passed_over_and_several_tensors_said():
    for wrap in (
        lambda out: {"loss": out.mean(), "features": out},
        lambda out: (out.mean(), out),
        lambda out: (None, out),
    ):
        assert load_encoder(Returns(wrap)).layers[-1].units == 4
    with pytest.warns(MemlocWarning, match="the first, 'z', is taken as its output. Pass output=p for another"):
        load_encoder(Returns(lambda out: {"z": out, "p": out * 2}))


def test_an_encoder_that_is_random_in_evaluation_is_refused():
    with pytest.raises(EncoderError, match="other features in a second pass"):
        load_encoder(Returns(lambda out: nn.functional.dropout(out, 0.5, training=True)))
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    with pytest.raises(EncoderError, match="for a ViTMAE pass hf:NAME"):
        load_encoder(transformers.ViTMAEModel(config), shape=(3, 16, 16))


def test_what_is_loaded_is_not_loaded_again():
    encoder = load_encoder("resnet9")
    with pytest.raises(SpecError, match="weights is given for an encoder that is loaded already"):
        load_encoder(encoder, weights="w.pth")


def test_options_may_hold_lists():
    transformers = pytest.importorskip("transformers")
    assert transformers
    encoder = load_encoder(
        "hf:convnext,depths=[1,1,1,1],hidden_sizes=[8,8,8,8],image_size=32", weights="random", shape=(3, 32, 32)
    )
    assert encoder.layers[-1].units == 8


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("vit-tiny", "transformers", "hf"),
        ("timm:resnet18", "timm", "timm"),
        ("torchvision:resnet18", "torchvision", "vision"),
    ],
)
def test_a_missing_extra_names_what_to_install(monkeypatch, capsys, name, package, extra):
    import sys

    from memloc.cli import main

    monkeypatch.setitem(sys.modules, package, None)
    assert main(["layers", name]) == 4
    assert f"pip install 'memloc[{extra}]'" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("natten") is not None, reason="natten is installed")
def test_a_model_that_needs_another_package_says_which():
    with pytest.raises(MissingExtraError, match=r"hf:dinat needs a package that is not here \(.*natten"):
        load_encoder("hf:dinat", weights="random")


def test_options_and_weights_of_transformers_are_all_or_nothing(tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import ViTConfig, ViTModel

    small = {
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 48,
        "image_size": 16,
        "patch_size": 4,
    }
    ViTModel(ViTConfig(**small), add_pooling_layer=False).save_pretrained(tmp_path)
    load_encoder(f"hf:{tmp_path}")
    with pytest.raises(EncoderError, match="has no option 'hiden_size'. Nearest: 'hidden_size'"):
        load_encoder(f"hf:{tmp_path},hiden_size=24")
    with pytest.raises(EncoderError, match="has no option 'hiden_size'"):
        load_encoder("hf:dinov2,hiden_size=24", weights="random")
    with pytest.raises(EncoderError, match="option hidden_size of hf:vit is 'abc'. Expected a number"):
        load_encoder("hf:vit,hidden_size=abc", weights="random")
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "layers.1" not in key and "layer.1" not in key},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CheckpointError, match=r"lack \d+ of the model's"):
        load_encoder(f"hf:{tmp_path}")


@pytest.mark.vision
@pytest.mark.parametrize("name", ["timm:seresnet18", "timm:efficientnet_b0", "timm:mobilenetv3_small_100"])
def test_gates_are_no_sums_at_any_size(torchvision, name):
    encoder = load_encoder(name, weights="random")
    chains = [[row.name for row in load_encoder(encoder.module, shape=(3, size, size)).layers] for size in (32, 96)]
    assert chains[0] == chains[1]
    kinds = {row.name: row.kind for row in encoder.layers}
    assert not any(kind == "residual" and ".se" in name for name, kind in kinds.items())
    assert any(kind == "residual" for kind in kinds.values())


def test_gray_views_are_repeated_before_they_are_normalized():
    encoder = load_encoder("resnet9", mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    prepared = encoder.prepare(torch.full((1, 1, 2, 2), 0.5))
    assert torch.allclose(prepared[0, :, 0, 0], torch.tensor([0.4, 0.15, 0.05]))


def test_images_of_another_size_than_the_encoders(gray):
    from memloc import Views, audit

    with pytest.raises(EncoderError, match="takes images of 28x28 pixels and these have 8x8"):
        audit(load_encoder(DINOV2, weights="random"), images=gray, views=Views(n=2))


def test_random_weights_are_said(gray):
    from memloc import Views, audit
    from memloc.errors import MemlocWarning

    with pytest.warns(MemlocWarning, match="The weights of resnet9 are random"):
        audit("resnet9", images=gray, views=Views(n=2))
