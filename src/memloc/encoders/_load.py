"""An encoder by name, module or file, with its layers found and everything checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from memloc.encoders._built import Built
from memloc.encoders._checkpoints import check_finite, load_weights, read_weights
from memloc.encoders._encoder import RANDOM, RANDOM_NOTE, Encoder, Preprocess, check_channels
from memloc.encoders._head import features_given, with_head
from memloc.encoders._layer import Layer
from memloc.encoders._layers import find_layers
from memloc.encoders._layouts import pick_weights
from memloc.encoders._making import made
from memloc.encoders._names import encoder_name
from memloc.encoders._output import features_of
from memloc.encoders._rebuilt import build_head
from memloc.errors import EncoderError, MemlocError, SpecError

_APART = 1e-3  # of the largest feature: more is no rounding of a device
_TRIAL_SHAPES = ((3, 32, 32), (1, 28, 28), (1, 32, 32), (3, 224, 224))


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
            "torchvision:NAME" or "hf:NAME" (with ",key=value" for options of their constructors), "file.py:factory" (a
            function without arguments that returns a module), the .safetensors file of an encoder that memloc trained,
            an nn.Module, or an Encoder.
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
        given = {"weights": weights, "mean": mean, "std": std, "state_key": state_key, "strip_prefix": strip_prefix}
        return _again(encoder, [name for name, value in given.items() if value is not None], layers, shape)
    built, name, metadata = made(encoder, pretrained=weights is None, shape=shape)
    note, head = "", {}
    if weights is not None and str(weights) != RANDOM:
        content, metadata = read_weights(weights)
        picked = pick_weights(
            content, built.module.state_dict(), name=str(weights), state_key=state_key, strip_prefix=strip_prefix
        )
        load_weights(built.module, picked.weights, name=str(weights))
        note, head = picked.note, picked.head
    elif str(weights) == RANDOM or (isinstance(encoder, str) and encoder_name(encoder).is_built_in):
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
    check_channels(name, channels, shape)
    found, shape = _find(module, layers, channels, shape)
    _check_repeats(module, name, _input_shape(channels, shape))
    augmentation = metadata.get("augmentation")
    loaded = Encoder(module, found, preprocess, name, channels, augmentation, built.size, note, shape)
    return _with_found_head(loaded, head) if head else loaded


def _with_found_head(encoder: Encoder, weights: Mapping[str, Tensor]) -> Encoder:
    """The encoder with the head that lies beside it in its checkpoint, where that can be rebuilt; said in its note."""
    try:
        return with_head(encoder, build_head(weights, features=features_given(encoder), name="the head beside it"))
    except MemlocError as problem:
        return replace(encoder, note=f"{encoder.note}; it is not read: {problem}")


def _again(
    encoder: Encoder, given: list[str], layers: str | Sequence[str], shape: tuple[int, int, int] | None
) -> Encoder:
    """An encoder that is loaded already, with other layers where they are asked for."""
    if given:
        raise SpecError(
            f"{given[0]} is given for an encoder that is loaded already. Expected none. Load it anew from its name or"
            f" module, with {given[0]}."
        )
    if layers == "auto" and encoder.layers:
        return encoder
    shape = shape or encoder.shape
    return replace(
        encoder, layers=find_layers(encoder.module, layers, _input_shape(encoder.channels, shape)), shape=shape
    )


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
