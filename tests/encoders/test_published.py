"""Models as their libraries publish them: what memloc feeds them and reads of them, against the libraries' own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import OPTIONAL
from torch import nn

from memloc import Views, audit, load_encoder, open_images
from memloc.encoders import represent
from memloc.errors import DataError, EncoderError, MemlocWarning, SpecError

transformers = pytest.importorskip("transformers")
SIDE = 32
VIT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
VIT |= {"image_size": SIDE, "patch_size": 8}
SQUARE, SHORT = {"height": SIDE, "width": SIDE}, {"shortest_edge": SIDE}
PLAIN = {"do_resize": True, "size": SQUARE, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
PLAIN |= {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25]}
CROPPED = {**PLAIN, "do_center_crop": True, "crop_size": SQUARE, "resample": 3}
MOBILE = {"image_size": SIDE, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [8, 8, 8, 12, 16, 16, 16]}
MOBILE |= {"num_attention_heads": 2, "mlp_ratio": 1.0}
FAMILIES = {  # model, configuration, its options, image processor, its settings, and what users embed with
    "CLIP": ("CLIPVisionModel", VIT, "CLIPImageProcessor", {**CROPPED, "size": SHORT}, "pooler_output"),
    "CLIP with projection": (
        *("CLIPVisionModelWithProjection", {**VIT, "projection_dim": 12}, "CLIPImageProcessor"),
        *({**CROPPED, "size": SHORT}, "image_embeds"),
    ),
    "SigLIP": ("SiglipVisionModel", VIT, "SiglipImageProcessor", {**PLAIN, "resample": 3}, "pooler_output"),
    "DINOv2 with registers": (
        *("Dinov2WithRegistersModel", {**VIT, "num_register_tokens": 2}, "BitImageProcessor"),
        *({**CROPPED, "size": {"shortest_edge": 37}}, "pooler_output"),
    ),
    "DINOv3": ("DINOv3ViTModel", {**VIT, "num_register_tokens": 2}, "DINOv3ViTImageProcessor", PLAIN, "pooler_output"),
    "MobileViT": (
        *("MobileViTModel", MOBILE, "MobileViTImageProcessor"),
        *(
            {**CROPPED, "size": {"shortest_edge": 36}, "do_flip_channel_order": True, "do_normalize": None},
            "pooler_output",
        ),
    ),
    "Swin": (
        *(
            "SwinModel",
            {"image_size": SIDE, "patch_size": 4, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]}
            | {"window_size": 4},
        ),
        *("ViTImageProcessor", {**PLAIN, "resample": 3}, "pooler_output"),
    ),
    "ConvNeXt": (
        *("ConvNextModel", {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1], "image_size": SIDE}),
        *("ConvNextImageProcessor", {**PLAIN, "size": SHORT, "crop_pct": 0.875, "resample": 3}, "pooler_output"),
    ),
    "BEiT": (
        *("BeitModel", VIT, "BeitImageProcessor"),
        *({**CROPPED, "size": {"height": 36, "width": 36}}, "pooler_output"),
    ),
    "DeiT": (
        *("DeiTModel", VIT, "DeiTImageProcessor"),
        *({**CROPPED, "size": {"height": 36, "width": 36}}, "pooler_output"),
    ),
    "ViTMAE": ("ViTMAEModel", VIT, "ViTImageProcessor", {**PLAIN, "resample": 3}, None),
    "ResNet": (
        *("ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
        *("ConvNextImageProcessor", {**PLAIN, "size": SHORT, "crop_pct": 0.875, "resample": 3}, "pooler_output"),
    ),
    "EfficientNet": (
        *(
            "EfficientNetModel",
            {"image_size": SIDE, "width_coefficient": 0.3, "depth_coefficient": 0.2} | {"hidden_dim": 384},
        ),
        *("EfficientNetImageProcessor", {**PLAIN, "resample": 0, "include_top": True, "rescale_offset": True}),
        *("pooler_output",),
    ),
    "ViT": ("ViTModel", VIT, "ViTImageProcessor", {**PLAIN, "rescale_factor": 1 / 127.5}, "pooler_output"),
    "ViT without rescaling": ("ViTModel", VIT, "ViTImageProcessor", {**PLAIN, "do_rescale": False}, "pooler_output"),
    "LeViT": (
        *("LevitModel", {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 1, 1]}),
        *("LevitImageProcessor", {**CROPPED, "size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}),
        *("pooler_output",),
    ),
}


def photograph(seed, height, width):
    """A smooth picture of three unlike channels."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width] / max(height, width)
    planes = [
        base + 45 * np.sin(6.3 * (rng.uniform(1, 3) * across + rng.uniform(1, 3) * down)) for base in (200, 120, 50)
    ]
    return Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate(((110, 90), (90, 100), (98, 98))):
        photograph(number, *size).save(folder / f"{number}.png")
    return folder


def saved(folder, family):
    kind, options, processor, settings, _ = FAMILIES[family]
    config = getattr(transformers, kind).config_class(**options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(config)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": processor, **settings}))
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_embeddings_are_those_of_transformers(family, tmp_path, pictures):
    if family != "DINOv3":
        compare(family, tmp_path, pictures)
        return
    # its processor needs torchvision, for which transformers looks once, when it is imported
    code = f"""
import sys; sys.path[:0] = [{str(OPTIONAL)!r}, {str(Path(__file__).parents[2])!r}]
import torch; declared = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"): declared.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from pathlib import Path; from tests.encoders.test_published import compare
compare({family!r}, Path({str(tmp_path)!r}), Path({str(pictures)!r}))"""
    if not (OPTIONAL / "torchvision").is_dir():
        pytest.skip("the optional environment is missing; make test makes it")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def compare(family, folder, pictures):
    """What memloc feeds and reads, against the library's own processor and documented embedding."""
    model = saved(folder, family)
    encoder = load_encoder(f"hf:{folder}")
    images = open_images(pictures, size=encoder.fit)
    fed = encoder.prepare(images.pixels.float() / 255)
    opened = [Image.open(pictures / name) for name in images.names]
    own = transformers.AutoImageProcessor.from_pretrained(folder)(images=opened, return_tensors="pt")["pixel_values"]
    assert fed.shape == own.shape
    unit = torch.tensor(encoder.preprocess.std or (1.0,))[:, None, None]  # of values from 0 to 1
    assert float(((fed - own).abs() * unit).mean(dim=(1, 2, 3)).max()) <= 2 / 255
    with torch.no_grad():
        returned = model(pixel_values=fed)
    key = FAMILIES[family][4]
    wanted = returned[key].flatten(1) if key else encoder.module(fed).last_hidden_state.mean(dim=1)
    found = represent(encoder, images.pixels, device="cpu")
    assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-3)
    assert key is None or encoder.output == key


def test_a_whole_clip_gives_its_image_features(tmp_path):
    vision = {**VIT, "projection_dim": 5}  # which the whole model's replaces
    text = {key: value for key, value in VIT.items() if key not in ("image_size", "patch_size")}
    text |= {"vocab_size": 50, "max_position_embeddings": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    encoder = load_encoder(f"hf:{tmp_path}", mean=0.5, std=0.5)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    with torch.no_grad():
        wanted = model.get_image_features(pixel_values=(images.float() / 255 - 0.5) / 0.5)
    wanted = wanted if isinstance(wanted, torch.Tensor) else wanted.pooler_output
    assert torch.allclose(represent(encoder, images, device="cpu"), wanted, atol=1e-4)
    assert encoder.output == "image_embeds"
    projection = next(layer for layer in encoder.layers if layer.name == "visual_projection")
    assert "branch" not in projection.kind


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("auto", lambda given: given.pooler_output),
        ("pooled", lambda given: given.pooler_output),
        ("cls", lambda given: given.last_hidden_state[:, 0]),
        ("tokens", lambda given: given.last_hidden_state.mean(dim=1)),
        ("last_hidden_state", lambda given: given.last_hidden_state.mean(dim=1)),
    ],
)
def test_another_output_is_named(output, wanted):
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VIT)).eval()
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    encoder = load_encoder(model, output=output, mean=0, std=1)
    with torch.no_grad():
        assert torch.allclose(represent(encoder, images, device="cpu"), wanted(model(images.float() / 255)), atol=1e-5)
    again = load_encoder(load_encoder(model, mean=0, std=1), output=output)
    assert torch.equal(represent(again, images, device="cpu"), represent(encoder, images, device="cpu"))
    with pytest.raises(EncoderError, match="returns no 'poolr_output'. Nearest: 'pooler_output'"):
        load_encoder(model, output="poolr_output")


class Several(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.net, self.project, self.kind = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), kind

    def forward(self, images):
        maps = self.net(images)
        embedding = self.project(maps.mean(dim=(2, 3)))
        return {"dict": {"maps": maps, "embedding": embedding}, "tuple": (maps, embedding)}[self.kind]


def test_outputs_of_own_modules_are_said():
    assert load_encoder(Several("dict")).output == "embedding"
    with pytest.warns(MemlocWarning, match="the first, 0, is taken as its output. Pass output=1 for another"):
        found = load_encoder(Several("tuple"))
    assert found.output == "the mean over the places of the first of 2 it returns"
    assert load_encoder(Several("tuple"), output="1").layers[-1].units == 5


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}),
        ("test_vit", {}),
        ("test_resnet", {}),
        ("test_convnext", {}),
        ("test_efficientnet", {}),
    ],
)
def test_images_are_those_of_timm(model, options, pictures, tmp_path, torchvision):
    import timm
    from timm.data import create_transform, resolve_data_config

    module = timm.create_model(model, num_classes=0, **options)
    data = resolve_data_config({}, model=module)
    side = options.get("img_size", data["input_size"][1])
    for number in range(2):
        photograph(number, side + 40, side + 20).save(tmp_path / f"{number}.png")
    transform = create_transform(**{**data, "input_size": (3, side, side)}, is_training=False)
    named = ",".join([f"timm:{model}", *(f"{key}={value}" for key, value in options.items())])
    for encoder in (load_encoder(named, weights="random"), load_encoder(module)):
        images = open_images(tmp_path, size=encoder.fit.at(side))
        fed = encoder.prepare(images.pixels.float() / 255)
        own = torch.stack([transform(Image.open(tmp_path / name)) for name in images.names])
        unit = torch.tensor(data["std"])[:, None, None]
        assert float(((fed - own).abs() * unit).mean(dim=(1, 2, 3)).max()) <= 2 / 255


@pytest.mark.parametrize("model", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "resnet18"])
def test_images_are_those_of_torchvision(model, tmp_path, torchvision):
    transform = torchvision.models.get_model_weights(model)["DEFAULT"].transforms()
    side = transform.crop_size[0]
    for number in range(2):
        photograph(number, side + 60, side + 40).save(tmp_path / f"{number}.png")
    encoder = load_encoder(f"torchvision:{model}", weights="random")
    images = open_images(tmp_path, size=encoder.fit.at(side))
    own = torch.stack([transform(Image.open(tmp_path / name)) for name in images.names])
    fed = encoder.prepare(images.pixels.float() / 255)
    assert float(((fed - own).abs() * torch.tensor(transform.std)[:, None, None]).mean()) <= 2 / 255


@pytest.mark.parametrize(
    "step", [{"do_pad": True}, {"size": {"height": 32, "width": 40}}, {"size": {"longest_edge": 32}}]
)
def test_steps_that_are_not_followed_are_refused(step, tmp_path):
    saved(tmp_path, "ViT")
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, **step}))
    with pytest.raises(EncoderError, match="which memloc does not do|Expected squares"):
        load_encoder(f"hf:{tmp_path}")


def test_live_modules_tell_their_preprocessing(tmp_path, torchvision):
    import timm

    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **small)
    for each in (module, nn.DataParallel(module)):
        encoder = load_encoder(each)
        assert (encoder.preprocess.mean, encoder.size) == ((0.5, 0.5, 0.5), 32)
    saved(tmp_path, "ViT")
    live = load_encoder(transformers.ViTModel.from_pretrained(tmp_path))
    assert live.preprocess == load_encoder(f"hf:{tmp_path}").preprocess
    classifier = timm.create_model("test_resnet", num_classes=7)
    assert "scores of its classifier for 7 classes" in load_encoder(classifier).note
    for unknown in (nn.Sequential(module, nn.Linear(24, 3)), torchvision.models.resnet18()):
        assert not load_encoder(unknown).is_normalization_known
        assert "since none is known" in load_encoder(unknown).in_words()[0]


def test_unknown_normalization_is_said_in_audits(tiny):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    with pytest.warns(
        MemlocWarning, match="No mean and standard deviation are known for TinyNet.* Pass mean= and std="
    ):
        found = audit(tiny(0), images=images, views=Views(n=2))
    assert any("No mean" in text for text in found.warnings)
    assert found.record["input"] == ["TinyNet: no normalization, since none is known"]
    told = audit(tiny(0), images=images, views=Views(n=2), mean=0.5, std=0.25)
    assert not any("No mean" in text for text in told.warnings)
    assert told.record["input"] == ["TinyNet: mean 0.5; std 0.25"]
    for mean, std, error in (
        (127.5, 127.5, "to 1, not to 255"),
        (0.5, None, "only one of mean and std"),
        (0.5, 0, "std"),
    ):
        with pytest.raises(SpecError, match=error):
            audit(tiny(0), images=images, views=Views(n=2), mean=mean, std=std)


def test_images_of_several_sizes_get_the_encoders(tmp_path, torchvision):
    import timm

    for number in range(6):
        photograph(number, 40 + number, 36).save(tmp_path / f"{number}.png")
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **small)
    audit(module, images=tmp_path, views=Views(n=2))
    audit(module, images=[Image.open(tmp_path / f"{number}.png") for number in range(6)], views=Views(n=2))
    with pytest.raises(DataError, match="Pass size=36 or less .* best is 224 pixels"):
        open_images(tmp_path, size=load_encoder("timm:test_resnet,pretrained_cfg_overlay={'input_size':(3,224,224)}", weights="random").fit)  # fmt: skip
