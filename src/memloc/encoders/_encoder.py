"""An encoder as memloc sees it: a module, the layers to read, and what its input needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from memloc.encoders._head import Head, rows_behind
from memloc.encoders._layer import Layer
from memloc.errors import EncoderError
from memloc.fit import Fit

RANDOM, RANDOM_NOTE = "random", "random weights"


@dataclass(frozen=True)
class Preprocess:
    """What happens to views in [0, 1] before the encoder: (view - mean) / std per channel, then BGR where `flip`.

    >>> Preprocess((0.5,), (0.25,))(torch.tensor([[[[1.0]]]])).item()
    2.0
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    flip: bool = False

    def __call__(self, views: Tensor) -> Tensor:
        """Normalize float views of shape (view, channel, height, width)."""
        return self._normalized(views).flip(1) if self.flip else self._normalized(views)

    def _normalized(self, views: Tensor) -> Tensor:
        if not self.mean:
            return views
        mean, std = (_per_channel(value, views.device, views.dtype) for value in (self.mean, self.std))
        return (views - mean) / std


@lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """A number per channel, put onto the device once: a step that is a graph copies nothing there."""
    return torch.tensor(values, device=device, dtype=dtype)[:, None, None]


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
        head: what hangs on its output and is read too. objective: what both were trained by, where that is known.
        fit: how its own preprocessing brings images to its size. is_normalization_known: whether mean and std are those
            that it was trained with, or were given; else views reach it as they are.
        output: which of the tensors that it returns is read as its output, in words.
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
    head: Head | None = None
    objective: nn.Module | None = None
    fit: Fit = field(default_factory=Fit)
    is_normalization_known: bool = True
    output: str = ""

    @property
    def rows(self) -> tuple[Layer, ...]:
        """The layers read, its head's after its own."""
        return self.layers if self.head is None else (*self.layers, *rows_behind(self.layers, self.head))

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """All its modules."""
        behind = () if self.head is None else (self.head.module,)
        return (self.module, *behind, *(() if self.objective is None else (self.objective,)))

    def prepare(self, views: Tensor) -> Tensor:
        """Views in [0, 1] as this encoder takes them: normalized, gray repeated to its channels, channels last on
        CPU."""
        if self.channels == 3 and views.shape[1] == 1 and (len(self.preprocess.mean) == 3 or self.preprocess.flip):
            views = views.expand(-1, 3, -1, -1)  # before they are normalized, as a gray photograph in RGB would be
        prepared = self.preprocess(views)
        if self.channels == 3 and prepared.shape[1] == 1:
            prepared = prepared.expand(-1, 3, -1, -1)
        else:
            check_channels(self.name, self.channels, prepared.shape[1:])
        return prepared.contiguous(memory_format=torch.channels_last)

    def in_words(self) -> list[str]:
        """How views reach it and where its weights come from, for a person to check."""
        given = self.preprocess
        steps = [f"size {self.size}"] if self.size else []
        if given.mean:
            steps += [
                f"{name} {', '.join(f'{value:.4g}' for value in values)}"
                for name, values in (("mean", given.mean), ("std", given.std))
            ]
        else:
            steps.append("no normalization" if self.is_normalization_known else "no normalization, since none is known")
        if given.flip:
            steps.append("channels as BGR")
        if not self.fit.is_plain:
            steps.append(f"resized as published ({self.fit.in_words()})")
        if self.output:
            steps.append(f"output: {self.output}")
        return [f"{self.name}: {'; '.join(steps)}", *([f"{self.name}: {self.note}"] if self.note else [])]


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


def check_channels(name: str, channels: int | None, shape: Sequence[int] | None) -> None:
    """Raise EncoderError where images of a shape do not have the channels of the first convolution; gray ones are
    repeated for RGB."""
    if shape is None or channels is None or shape[0] == channels or (shape[0], channels) == (1, 3):
        return
    raise EncoderError(
        f"{name} takes {channels} channel{'s' * (channels != 1)} and the images have {shape[0]}. Expected as many, or"
        " gray images for an RGB encoder. Convert the images first, or wrap the encoder in a module that does."
    )
