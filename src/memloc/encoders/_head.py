"""What hangs on an encoder's output, such as the projection head it was trained with: rows of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memloc.encoders._layer import OUTPUT, Layer
from memloc.encoders._layers import find_layers
from memloc.encoders._rebuilt import build_head, read_head
from memloc.encoders._taps import tapped
from memloc.errors import EncoderError

if TYPE_CHECKING:
    from memloc.encoders._encoder import Encoder

HEAD = "head"  # the kind of its rows, the name of the last one and the beginning of the others'
_PROBES = 4  # rows of a trial pass


@dataclass(frozen=True)
class Head:
    """A head, and the layers that are read of it.

    Attributes:
        module: takes features, shape (view, feature). layers: after those of the encoder; the last is `head`.
    """

    module: nn.Module
    layers: tuple[Layer, ...]


class _Behind(nn.Module):
    """Gives the parts of a head names that begin with `head`."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(features)
        return found


def with_head(encoder: Encoder, head: nn.Module | str | Path, *, objective: nn.Module | None = None) -> Encoder:
    """The encoder with a head whose layers are read after its own.

    Args:
        head: takes the encoder's features, shape (view, feature), and returns one vector each; or a file with its
            weights (see `read_head`).
        objective: what both were trained by, with weights, where that is known.
    Raises:
        EncoderError: the head does not take features of the encoder's width, or a file holds none that is known.

    >>> from memloc.encoders import load_encoder
    >>> head = nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 16))
    >>> [layer.name for layer in with_head(load_encoder("resnet9"), head).head.layers]
    ['head.0', 'head']
    """
    width = features_given(encoder)
    if not isinstance(head, nn.Module):
        head = build_head(read_head(head), features=width, name=str(head))
    parameter = next(encoder.module.parameters(), torch.empty(0))
    first = next(head.parameters(), parameter)
    if (first.device, first.dtype) != (parameter.device, parameter.dtype):
        head = copy.deepcopy(head)  # the user's own stays as it is
    behind = _Behind(head).to(parameter.device, parameter.dtype)
    layers = _layers_of(behind, width, encoder.name)
    before = OUTPUT
    chained = []
    for layer in layers:
        chained.append(replace(layer, kind=HEAD, predecessor=before, main=False))
        before = layer.name
    return replace(encoder, head=Head(behind, tuple(chained)), objective=objective)


def with_kept_head(encoder: Encoder, path: str | Path) -> Encoder:
    """The encoder with the head that a run of memloc keeps beside its file, where there is one; what is none, such as
    MAE's decoder, is said in its note.

    Args:
        path: of the encoder, RUN/encoders/NAME.safetensors; anything else has no head beside it.
    """
    place = Path(path)
    found = place.parent.parent / "heads" / place.name
    if place.parent.name != "encoders" or not found.is_file():
        return encoder
    try:
        return with_head(encoder, found)
    except EncoderError as problem:
        note = f"what lies in {str(found)!r} is not read: {problem}"
        return replace(encoder, note=f"{encoder.note}; {note}" if encoder.note else note)


def rows_behind(layers: Sequence[Layer], head: Head) -> list[Layer]:
    """The head's rows, after an encoder's layers; where one of those is called so itself, as `projection head`."""
    taken = {layer.name for layer in layers} & {layer.name for layer in head.layers}

    def named(name: str | None) -> str | None:
        return f"projection {name}" if taken and name is not None and name != OUTPUT else name

    return [
        replace(layer, name=str(named(layer.name)), predecessor=named(layer.predecessor), order=len(layers) + number)
        for number, layer in enumerate(head.layers)
    ]


def features_given(encoder: Encoder) -> int:
    """How many features the encoder gives."""
    return next(layer.units for layer in encoder.layers if layer.kind == OUTPUT)


def _layers_of(behind: nn.Module, width: int, encoder: str) -> list[Layer]:
    """Its hidden layers, each read after its norm and non-linearity, and its output."""
    probe = torch.zeros(_PROBES, width)
    try:
        found = find_layers(behind, "auto", (width,))  # type: ignore[arg-type]
    except EncoderError as problem:
        first = next((part for part in behind.modules() if isinstance(part, nn.Linear)), None)
        takes = "other features" if first is None else f"{first.in_features} features"
        raise EncoderError(
            f"the head takes {takes} and {encoder} gives {width}. Expected a head of the encoder's width. Pass the head"
            " that was trained with this encoder (--f-head, --g-head)."
        ) from problem
    output = replace(next(layer for layer in found if layer.kind == OUTPUT), name=HEAD, read_at=HEAD)
    hidden = [layer for layer in found if layer.kind != OUTPUT]
    read: dict[str, Tensor] = {}
    parameter = next(behind.parameters(), probe)
    probe = torch.linspace(-1, 1, probe.numel()).view_as(probe).to(parameter.device, parameter.dtype)
    with tapped(behind, [*hidden, output], lambda layer, tensor: read.update({layer.name: tensor})) as forward:
        forward(probe)
    if read[HEAD].ndim != 2:
        raise EncoderError(
            f"the head returns shape {tuple(read[HEAD].shape)} for features of shape {tuple(probe.shape)}. Expected one"
            " vector for each. Wrap it in a module that returns its projection."
        )
    # the last linear layer is the output, unless something follows it
    return [layer for layer in hidden if not _same(read, layer.name)] + [output]


def _same(read: dict[str, Tensor], name: str) -> bool:
    return read[name].shape == read[HEAD].shape and torch.equal(read[name], read[HEAD])
