"""An encoder as memloc sees it: a module, the layers to read, and what its input needs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._built import Built
from memloc.encoders._chain import Layer
from memloc.encoders._checkpoints import check_finite, load_weights, read_weights
from memloc.encoders._layers import find_layers
from memloc.encoders._layouts import pick_weights
from memloc.encoders._output import features_of
from memloc.encoders._resnet import ResNet
from memloc.encoders._resnet9 import ResNet9
from memloc.encoders.from_transformers import VITS, build_vit
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, SpecError, nearest

_RESNETS: Mapping[str, Callable[[], nn.Module]] = {
    "resnet9": ResNet9,
    "resnet18": lambda: ResNet((2, 2, 2, 2)),
    "resnet34": lambda: ResNet((3, 4, 6, 3)),
    "resnet50": lambda: ResNet((3, 4, 6, 3), bottleneck=True),
}
BUILT_IN = (*_RESNETS, *VITS)
RANDOM, RANDOM_NOTE = "random", "random weights"
_ADAPTERS = {
    "timm": "memloc.encoders.from_timm",
    "torchvision": "memloc.encoders.from_torchvision",
    "hf": "memloc.encoders.from_transformers",
}
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[(]*[\])])")
_EXAMPLES = {"timm": "img_size=32", "torchvision": "image_size=32", "hf": "image_size=32"}
_APART = 1e-3  # of the largest feature: more is no rounding of a device
_TRIAL_SHAPES = ((3, 32, 32), (1, 28, 28), (1, 32, 32), (3, 224, 224))


@dataclass(frozen=True)
class Preprocess:
    """What happens to views in [0, 1] before the encoder: (view - mean) / std per channel.

    >>> Preprocess((0.5,), (0.25,))(torch.tensor([[[[1.0]]]])).item()
    2.0
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, views: Tensor) -> Tensor:
        """Normalize float views of shape (view, channel, height, width)."""
        if not self.mean:
            return views
        mean, std = (
            torch.tensor(value, device=views.device, dtype=views.dtype)[:, None, None]
            for value in (self.mean, self.std)
        )
        return (views - mean) / std


@dataclass(frozen=True)
class Encoder:
    """A module with the layers to read and its preprocessing.

    Attributes:
        module: takes float images (point, channel, height, width).
        layers: what an audit reads, in the order of the forward pass.
        preprocess: mean and standard deviation per channel.
        name: what messages and tables call it.
        channels: input channels of the first convolution; gray images are repeated to fit.
        augmentation: view policy it was trained with, where that is known.
        size: height and width that it takes, where it takes one alone.
        note: where its weights were found in their checkpoint.
        shape: (channel, height, width) of the images its layers were found with.
    """

    module: nn.Module
    layers: tuple[Layer, ...]
    preprocess: Preprocess
    name: str
    channels: int | None = None
    augmentation: str | None = None
    size: int | None = None
    note: str = ""
    shape: tuple[int, int, int] | None = None

    def prepare(self, views: Tensor) -> Tensor:
        """Views in [0, 1] as this encoder takes them: normalized, gray repeated to its channels, channels last on
        CPU."""
        if self.channels == 3 and views.shape[1] == 1 and len(self.preprocess.mean) == 3:
            views = views.expand(-1, 3, -1, -1)  # before they are normalized, as a gray photograph in RGB would be
        prepared = self.preprocess(views)
        if self.channels == 3 and prepared.shape[1] == 1:
            prepared = prepared.expand(-1, 3, -1, -1)
        else:
            _check_channels(self.name, self.channels, prepared.shape[1:])
        return prepared.contiguous(memory_format=torch.channels_last)


def load_encoder(
    encoder: str | Path | nn.Module | Encoder,
    *,
    weights: str | Path | None = None,
    layers: str | Sequence[str] = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    state_key: str | None = None,
    strip_prefix: str | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Encoder:
    """Load an encoder and find its layers; wrong names, shapes and checkpoints fail here.

    Args:
        encoder: a built-in name ("resnet9", "resnet18", "resnet34", "resnet50", "vit-tiny", "vit-base"), "timm:NAME",
            "torchvision:NAME"
            or "hf:NAME" (with ",key=value" for options of their constructors), "file.py:factory" (a function without
            arguments that
            returns a module), the .safetensors file of an encoder that memloc trained, an nn.Module, or an Encoder.
        weights: a .safetensors file or a PyTorch file that holds tensors alone, or "random". By default those that
            another library has for the name, and random ones for built-in encoders.
        layers: "auto", "fine", or names and globs (see `memloc layers`).
        mean, std: per channel; those stored with the weights or known to the library by default, else none.
        state_key: which nested dictionary of the checkpoint. strip_prefix: what its names begin with; both are found by
            default.
        shape: (channel, height, width) of the images, to find the layers with; common shapes are tried by default.
    Raises:
        EncoderError, CheckpointError, LayerNotFoundError, NonFiniteError, DataNotFoundError.

    >>> encoder = load_encoder("resnet9")
    >>> encoder.name, len(encoder.layers), encoder.layers[-1].name
    ('resnet9', 11, 'output')
    """
    if isinstance(encoder, Encoder):
        given = [
            name
            for name, value in (
                ("weights", weights),
                ("mean", mean),
                ("std", std),
                ("state_key", state_key),
                ("strip_prefix", strip_prefix),
            )
            if value is not None
        ]
        if given:
            raise SpecError(
                f"{given[0]} is given for an encoder that is loaded already. Expected none. Load it anew from its name"
                f" or module, with {given[0]}."
            )
        if layers == "auto" and encoder.layers:
            return encoder
        shape = shape or encoder.shape
        return replace(
            encoder, layers=find_layers(encoder.module, layers, _input_shape(encoder.channels, shape)), shape=shape
        )
    built, name, metadata = _build(encoder, pretrained=weights is None, shape=shape)
    note = ""
    if weights is not None and str(weights) != RANDOM:
        content, metadata = read_weights(weights)
        picked = pick_weights(
            content, built.module.state_dict(), name=str(weights), state_key=state_key, strip_prefix=strip_prefix
        )
        load_weights(built.module, picked.weights, name=str(weights))
        note = picked.note
    elif str(weights) == RANDOM or (isinstance(encoder, str) and encoder in BUILT_IN):
        note = RANDOM_NOTE
    if weights in (None, RANDOM) and (state_key is not None or strip_prefix is not None):
        raise SpecError(
            "state_key and strip_prefix are given without weights. Expected a checkpoint. Pass --weights FILE"
            " (--f-weights FILE to memloc audit)."
        )
    module = built.module
    check_finite(module, name=name)
    preprocess = _preprocess(mean, std, metadata, built)
    first = next((part for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd)), None)
    channels = first.in_channels if first is not None else None
    if shape is None and built.size is not None:
        shape = (channels or 3, built.size, built.size)
    _check_channels(name, channels, shape)
    found, shape = _find(module, layers, channels, shape)
    _check_repeats(module, name, _input_shape(channels, shape))
    return Encoder(module, found, preprocess, name, channels, metadata.get("augmentation"), built.size, note, shape)


def check_images(encoder: Encoder, pixels: Tensor) -> None:
    """Raise EncoderError where an encoder cannot take images: another size, wrong channels, or mean and std of another
    number."""
    channels = pixels.shape[1]
    if encoder.size is not None and tuple(pixels.shape[2:]) != (encoder.size, encoder.size):
        height, width = pixels.shape[2:]
        raise EncoderError(
            f"{encoder.name} takes images of {encoder.size}x{encoder.size} pixels and these have {height}x{width}."
            f" Expected that size: memloc does not enlarge. Pass --size {encoder.size} where the images are larger, or"
            " larger images."
        )
    if len(encoder.preprocess.mean) not in (0, 1, channels) and not (channels == 1 and encoder.channels == 3):
        raise EncoderError(
            f"{encoder.name} has {len(encoder.preprocess.mean)} means for images of {channels} channels. Expected one"
            " per channel. Pass --mean and --std with as many values."
        )
    encoder.prepare(torch.zeros(1, *pixels.shape[1:]))


def same_architecture(first: Encoder, second: Encoder) -> None:
    """Raise EncoderError unless both have the same layers with the same units."""
    one = [(layer.name, layer.units) for layer in first.layers]
    two = [(layer.name, layer.units) for layer in second.layers]
    if one != two:
        different = next(
            (pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]),
            (f"{len(one)} layers", f"{len(two)} layers"),
        )
        raise EncoderError(
            f"{first.name} and {second.name} differ: {different[0]} against {different[1]}. Expected one architecture,"
            " since layers are compared one by one. Pass encoders of the same architecture as --f and --g."
        )


def _build(
    encoder: str | Path | nn.Module, *, pretrained: bool, shape: tuple[int, int, int] | None
) -> tuple[Built, str, dict[str, str]]:
    """The module with its preprocessing, its name, and the text stored with its weights."""
    if isinstance(encoder, nn.Module):
        return Built(_bare(encoder)), type(encoder).__name__, {}
    text = str(encoder)
    if text in BUILT_IN:
        return Built(_built_in(text, shape)), text, {}
    if text.endswith(".safetensors"):
        return _trained(text)
    if ".py:" in text:
        return Built(_bare(_from_file(text))), text, {}
    library, _, name = text.partition(":")
    if library in _ADAPTERS and name:
        return _adapted(library, name, pretrained), text, {}
    raise EncoderError(
        f"there is no encoder {text!r}. {nearest(text, BUILT_IN)} Expected a built-in name, timm:NAME,"
        " torchvision:NAME, hf:NAME, file.py:factory or a .safetensors file that memloc wrote. Pass one of these, or"
        " an nn.Module from Python."
    )


def _built_in(name: str, shape: tuple[int, int, int] | None) -> nn.Module:
    """A built-in net; ViTs are made for the size of the images."""
    if name not in VITS:
        return _RESNETS[name]()
    size = 32 if shape is None else shape[1]
    return build_vit(name, size=size)


def _bare(module: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile, whose parameters are the same."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _adapted(library: str, text: str, pretrained: bool) -> Built:
    """An encoder of another library: NAME, or NAME,key=value for options of its constructor."""
    name, *pairs = _OUTSIDE_BRACKETS.split(text)
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise EncoderError(
                f"{pair!r} in {library}:{text} is no option. Expected key=value. Pass for instance"
                f" {library}:{name},{_EXAMPLES[library]}."
            )
        options[key] = _value(value)
    return importlib.import_module(_ADAPTERS[library]).build(name, options, pretrained=pretrained)


def _value(text: str) -> Any:
    """A Python literal where it is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _trained(path: str) -> tuple[Built, str, dict[str, str]]:
    """An encoder that memloc trained: its file names a built-in architecture."""
    tensors, metadata = read_weights(path)
    if metadata.get("encoder") is None:
        raise CheckpointError(
            f"{path} does not say which architecture it holds. Expected a file that memloc wrote. "
            "Name the architecture and pass the file as weights, for instance: --f resnet9 --f-weights FILE"
        )
    name = metadata["encoder"]
    library = name.partition(":")[0]
    if name not in BUILT_IN and library not in ("timm", "torchvision", "hf"):
        raise CheckpointError(
            f"{path} names the architecture {name!r}, which is not built in; loading it could run code. Expected "
            f"one of {', '.join(BUILT_IN)}. "
            + (
                f"Name the architecture yourself: --f {name} --f-weights {path}"
                if ".py:" in name
                else f"Name a function that returns it: --f FILE.py:FACTORY --f-weights {path}, or audit it in Python"
            )
        )
    channels, height, width = (int(part) for part in metadata.get("shape", "3 32 32").split())
    built, _, _ = _build(name, pretrained=False, shape=(channels, height, width))
    load_weights(built.module, tensors, name=path)
    return replace(built, size=height if name in VITS else built.size), Path(path).stem, metadata


def _from_file(text: str) -> nn.Module:
    path, _, factory = text.rpartition(":")
    if not Path(path).is_file():
        raise DataNotFoundError(
            f"there is no file {path!r}. Expected a Python file with the function {factory!r}. Check the path."
        )
    spec = importlib.util.spec_from_file_location("memloc_user_encoder", path)
    assert spec is not None, "a .py file always has a loader"
    assert spec.loader is not None, "a .py file always has a loader"
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    build = getattr(loaded, factory, None)
    if not callable(build):
        names = [name for name, value in vars(loaded).items() if inspect.isfunction(value)]
        raise EncoderError(
            f"{path} has no function {factory!r}. {nearest(factory, names)} Expected one that returns a module. Pass"
            f" {path}:NAME."
        )
    try:
        module = build()
    except Exception as problem:  # whatever the user's own function raises
        raise EncoderError(
            f"{text} fails ({type(problem).__name__}: {problem}). Expected a function without arguments that returns a"
            " module. Call it in Python to see where."
        ) from problem
    if not isinstance(module, nn.Module):
        raise EncoderError(
            f"{text} returned a {type(module).__name__}. Expected a torch nn.Module. Return the model itself."
        )
    return module


def _preprocess(
    mean: Sequence[float] | None, std: Sequence[float] | None, metadata: Mapping[str, str], built: Built
) -> Preprocess:
    if (mean is None) != (std is None):
        raise SpecError("only one of mean and std is given. Expected both or neither. Pass --mean and --std together.")
    if mean is None and "mean" in metadata:
        mean, std = (tuple(float(part) for part in metadata[key].split()) for key in ("mean", "std"))
    if mean is None and built.mean:
        mean, std = built.mean, built.std
    if mean is None or std is None:
        return Preprocess()
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise SpecError(
            f"mean {tuple(mean)} and std {tuple(std)} do not match. Expected one positive std per channel. Pass as many"
            " of each."
        )
    return Preprocess(tuple(mean), tuple(std))


def _find(
    module: nn.Module, layers: str | Sequence[str], channels: int | None, shape: tuple[int, int, int] | None
) -> tuple[tuple[Layer, ...], tuple[int, int, int]]:
    """The layers, and the shape of the images they were found with."""
    if shape is not None:
        return find_layers(module, layers, _input_shape(channels, shape)), shape
    problem: EncoderError | None = None
    for trial in _TRIAL_SHAPES:
        shape = _input_shape(channels, trial)
        try:
            return find_layers(module, layers, shape), shape
        except EncoderError as failed:
            problem = problem or failed
    assert problem is not None
    raise problem


def _check_channels(name: str, channels: int | None, shape: Sequence[int] | None) -> None:
    """Raise EncoderError where images of a shape do not have the channels of the first convolution; gray ones are
    repeated for RGB."""
    if shape is None or channels is None or shape[0] == channels or (shape[0], channels) == (1, 3):
        return
    raise EncoderError(
        f"{name} takes {channels} channel{'s' * (channels != 1)} and the images have {shape[0]}. Expected as many, or"
        " gray images for an RGB encoder. Convert the images first, or wrap the encoder in a module that does."
    )


@torch.no_grad()
def _check_repeats(module: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Raise EncoderError where the same images give other features in a second pass: every score would hold that
    noise."""
    parameter = next(module.parameters(), None)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    images = images if parameter is None else images.to(parameter.device, parameter.dtype)
    training = {key: part.training for key, part in module.named_modules()}
    module.eval()
    try:
        with torch.random.fork_rng():
            one, two = (features_of(module(images)).float() for _ in range(2))
    finally:
        for key, part in module.named_modules():
            part.training = training[key]
    apart = float((one - two).abs().max())
    if apart > _APART * float(one.abs().max()):
        raise EncoderError(
            f"{name} gives the same images other features in a second pass (they differ by up to {apart:.2g}), although"
            " it is in evaluation mode. Expected an encoder without random parts, such as dropout by functions or"
            " ViTMAE's masking. Take them out; for a ViTMAE pass hf:NAME, which sees every patch."
        )


def _input_shape(channels: int | None, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
    first, height, width = shape or _TRIAL_SHAPES[0]
    return (channels if channels == 3 and first == 1 else first), height, width
