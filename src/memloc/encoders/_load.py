"""An encoder by name, module or file, with its layers found and everything checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from memloc.encoders._built import Recipe
from memloc.encoders._checkpoints import check_finite, load_weights, read_weights, tensors_of
from memloc.encoders._encoder import RANDOM, RANDOM_NOTE, Encoder, Preprocess, check_channels
from memloc.encoders._head import features_given, with_head
from memloc.encoders._layer import OUTPUT, Layer
from memloc.encoders._layers import find_layers
from memloc.encoders._layouts import pick_weights
from memloc.encoders._making import made
from memloc.encoders._names import encoder_name
from memloc.encoders._output import AUTO, output_name
from memloc.encoders._passes import check_passes
from memloc.encoders._rebuilt import build_head
from memloc.errors import EncoderError, MemlocError, SpecError
from memloc.fit import Fit

_MEAN_MOST = 20.0  # beyond which a mean is one of values to 255
_TRIAL_SHAPES = ((3, 32, 32), (1, 28, 28), (1, 32, 32), (3, 224, 224))


def load_encoder(
    encoder: str | Path | nn.Module | Encoder,
    *,
    weights: str | Path | None = None,
    layers: str | Sequence[str] = "auto",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    state_key: str | None = None,
    strip_prefix: str | None = None,
    shape: tuple[int, int, int] | None = None,
    output: str = AUTO,
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
        mean, std: per channel, of values from 0 to 1; those stored with the weights, or that the model's or its
            library's configuration names, by default. Without any, views reach the encoder as they are, which is said.
        state_key: which nested dictionary of the checkpoint. strip_prefix: what its names begin with; both are found by
            default.
        shape: (channel, height, width) of the images, to find the layers with; common shapes are tried by default.
        output: which of the tensors that the encoder returns is its output: "auto" (the embedding that it is used by,
            such as image_embeds or pooler_output), "pooled", "cls", "tokens", or a name or place of what it returns.
    Raises:
        EncoderError, CheckpointError, LayerNotFoundError, NonFiniteError, DataNotFoundError.

    >>> encoder = load_encoder("resnet9")
    >>> encoder.name, len(encoder.layers), encoder.layers[-1].name
    ('resnet9', 11, 'output')
    """
    if isinstance(encoder, Encoder):
        given = {"weights": weights, "mean": mean, "std": std, "state_key": state_key, "strip_prefix": strip_prefix}
        return _again(encoder, [name for name, value in given.items() if value is not None], layers, shape, output)
    built, name, metadata = made(encoder, pretrained=weights is None, shape=shape, follow=mean is None)
    note, head = built.note, {}
    if weights is not None and str(weights) != RANDOM:
        content, metadata = read_weights(weights)
        picked = pick_weights(
            content,
            tensors_of(built.module),
            name=str(weights),
            state_key=state_key,
            strip_prefix=strip_prefix,
            module=built.module,
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
    preprocess, known = _preprocess(mean, std, metadata, built.recipe)
    known = known or note == RANDOM_NOTE
    first = next((part for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd)), None)
    channels = first.in_channels if first is not None else None
    if shape is None and built.size is not None:
        shape = (channels or 3, built.size, built.size)
    check_channels(name, channels, shape)
    found, shape = _find(module, layers, channels, shape, output)
    returned = check_passes(module, name, _input_shape(channels, shape), output)
    loaded = Encoder(
        module,
        found,
        preprocess,
        name,
        channels,
        metadata.get("augmentation"),
        built.size,
        note,
        shape,
        fit=Fit(built.size) if built.recipe is None else built.recipe.fit,
        is_normalization_known=known,
        output=output_name(returned, output) if not isinstance(returned, Tensor) or output != AUTO else "",
    )
    return _with_found_head(loaded, head) if head else loaded


def _with_found_head(encoder: Encoder, weights: Mapping[str, Tensor]) -> Encoder:
    """The encoder with the head that lies beside it in its checkpoint, where that can be rebuilt; said in its note."""
    try:
        return with_head(encoder, build_head(weights, features=features_given(encoder), name="the head beside it"))
    except MemlocError as problem:
        return replace(encoder, note=f"{encoder.note}; it is not read: {problem}")


def _again(
    encoder: Encoder, given: list[str], layers: str | Sequence[str], shape: tuple[int, int, int] | None, output: str
) -> Encoder:
    """An encoder that is loaded already, with other layers where they are asked for."""
    if given:
        raise SpecError(
            f"{given[0]} is given for an encoder that is loaded already. Expected none. Load it anew from its name or"
            f" module, with {given[0]}."
        )
    before = next((layer.take for layer in encoder.layers if layer.kind == OUTPUT), AUTO)
    take = before if output == AUTO else output
    if layers == "auto" and encoder.layers and take == before:
        return encoder
    shape = shape or encoder.shape
    full = _input_shape(encoder.channels, shape)
    words = encoder.output
    if take != before:
        words = output_name(check_passes(encoder.module, encoder.name, full, take), take)
    return replace(encoder, layers=find_layers(encoder.module, layers, full, take=take), shape=shape, output=words)


def _preprocess(
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    metadata: Mapping[str, str],
    recipe: Recipe | None,
) -> tuple[Preprocess, bool]:
    """Mean and deviation, and whether they are known rather than left out."""
    if (mean is None) != (std is None):
        raise SpecError("only one of mean and std is given. Expected both or neither. Pass --mean and --std together.")
    flip = metadata.get("flip") == "1" or (recipe is not None and recipe.flip)
    if mean is None and "mean" in metadata:
        mean, std = (tuple(float(part) for part in metadata[key].split()) for key in ("mean", "std"))
    if mean is None and recipe is not None and recipe.mean:
        mean, std = recipe.mean, recipe.std
    if mean is None or std is None:
        return Preprocess(flip=flip), recipe is not None or "encoder" in metadata
    means, stds = (_per_channel(each) for each in (mean, std))
    if len(means) != len(stds) or not means or not all(value > 0 for value in stds):
        raise SpecError(
            f"mean {means} and std {stds} do not match. Expected one positive std per channel. Pass as many of each."
        )
    if max(map(abs, means)) > _MEAN_MOST:
        raise SpecError(
            f"mean is {means}. Expected values of pixels from 0 to 1, not to 255. Divide mean and std by 255."
        )
    return Preprocess(means, stds, flip), True


def _per_channel(given: Any) -> tuple[float, ...]:
    """Numbers as they are given: one, several, or text as the command line takes it."""
    if isinstance(given, str):
        given = given.replace(",", " ").split()
    try:
        return (float(given),) if isinstance(given, (int, float)) else tuple(map(float, given))
    except (TypeError, ValueError) as problem:
        raise SpecError(
            f"mean or std is {given!r}. Expected a number per channel. Pass mean=(0.485, 0.456, 0.406)."
        ) from problem


def _find(
    module: nn.Module,
    layers: str | Sequence[str],
    channels: int | None,
    shape: tuple[int, int, int] | None,
    output: str,
) -> tuple[tuple[Layer, ...], tuple[int, int, int]]:
    """The layers, and the shape of the images they were found with."""
    if shape is not None:
        return find_layers(module, layers, _input_shape(channels, shape), take=output), shape
    problem: EncoderError | None = None
    for trial in _TRIAL_SHAPES:
        shape = _input_shape(channels, trial)
        try:
            return find_layers(module, layers, shape, take=output), shape
        except EncoderError as failed:
            problem = problem or failed
    assert problem is not None
    raise problem


def _input_shape(channels: int | None, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
    first, height, width = shape or _TRIAL_SHAPES[0]
    return (channels if channels == 3 and first == 1 else first), height, width


def fit_for(name: str, size: int | None, load: Callable[[], Encoder]) -> Fit:
    """How images are brought to an encoder's size, by its name, or to one that a user asks for.

    Args:
        load: loads the encoder, where its name alone does not tell.
    """
    found = trial(name, load)
    return Fit(size) if found is None else found.fit if size is None else found.fit.at(size)


def trial(name: str, load: Callable[[], Encoder]) -> Encoder | None:
    """An encoder that tells which images it takes, loaded before there are any; None for others, and for a user's
    function whose module wants images of a shape that is not known yet."""
    named = encoder_name(name)
    if not named.has_own_size and not named.is_code:
        return None
    try:
        return load()
    except EncoderError:
        if named.is_code:
            return None
        raise
