"""Which modules make a layer: whose weights are replaced, trained or zeroed when the layer is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from memloc.encoders._checkpoints import check_own_memory, check_storable
from memloc.encoders._encoder import Encoder
from memloc.encoders._layer import NORMS, WEIGHTED, Layer
from memloc.encoders._load import load_encoder
from memloc.errors import EncoderError, LayerNotFoundError, nearest

_WHOLE = ("attention", "fully-connected", "module")  # rows that are read at a module of their own
_SIDE = 32


@dataclass(frozen=True)
class LayerParts:
    """The modules behind a row of an audit's layers.

    Attributes:
        layer: the row.
        modules: names of the modules whose weights are the layer's own.
        makes: the convolution or linear layer whose rows are the layer's units; None where units cannot be told apart
            by weights.
        norm: the batch-norm that follows it, if any.
    """

    layer: Layer
    modules: tuple[str, ...]
    makes: str | None
    norm: str | None


def layer_parts(encoder: Encoder, names: Sequence[str] | None = None) -> dict[str, LayerParts]:
    """The modules behind some layers of an encoder; by default behind all that have weights of their own.

    Raises:
        LayerNotFoundError: no such layer. EncoderError: a layer without weights, such as a residual sum, was named.

    >>> layer_parts(load_encoder("resnet9"), ["conv4_2"])["conv4_2"].modules
    ('conv4_2.conv', 'conv4_2.norm')
    """
    parts = dict(encoder.module.named_modules())
    rows = {
        row.name: row
        for row in load_encoder(replace(encoder, layers=()), layers="fine", shape=shape_of(encoder)).layers
    }
    norms = {row.predecessor: row.read_at for row in rows.values() if row.kind == "batch-norm"}
    wanted = [name for name in rows if rows[name].main] if names is None else list(names)
    found: dict[str, LayerParts] = {}
    for name in wanted:
        if name not in rows and name in parts:
            rows[name] = Layer(name, name, 0, "module", None, 0)
        if name not in rows:
            raise LayerNotFoundError(
                f"{encoder.name} has no layer {name!r}. {nearest(name, rows)} List them with: memloc layers ENCODER"
            )
        made = _parts_of(rows[name], parts, norms.get(name))
        if made is not None:
            found[name] = made
        elif names is not None:
            raise EncoderError(
                f"layer {name!r} of {encoder.name} is a {rows[name].kind} row without weights of its own. Expected one"
                f" with weights, such as {', '.join(repr(each) for each in list(layer_parts(encoder))[-3:])}. Name"
                " another layer."
            )
    return found


def _parts_of(row: Layer, parts: dict[str, nn.Module], norm: str | None) -> LayerParts | None:
    """The parts of one row; None where it has no weights."""
    if row.kind in _WHOLE and "#" not in row.read_at:
        wholes = row.made_by or (row.read_at,)
        inside = {
            name: part
            for whole in wholes
            for name, part in parts[whole].named_modules(prefix=whole)
            if isinstance(part, WEIGHTED)
        }
        if not inside:
            return None
        if row.kind == "module":
            return LayerParts(row, wholes, row.read_at if row.read_at in inside else None, None)
        # The last that has as many rows as the layer has units: others, such as those of Swin V2's positions, may come
        # after it.
        fits = [name for name, part in inside.items() if part.weight.shape[0] == row.units]
        return LayerParts(row, wholes, fits[-1] if fits else None, None)
    own = next((name for name in (row.name, f"{row.name}.conv") if isinstance(parts.get(name), WEIGHTED)), None)
    if own is None:
        return None
    if norm is None and isinstance(parts.get(row.read_at), NORMS):
        norm = row.read_at  # a batch-norm that nothing follows is where the layer is read
    return LayerParts(row, (own,) if norm is None else (own, norm), own, norm)


def shape_of(encoder: Encoder) -> tuple[int, int, int]:
    """(channel, height, width) of images that an encoder takes: those its layers were found with, else 32 pixels."""
    return encoder.shape or (encoder.channels or 3, encoder.size or _SIDE, encoder.size or _SIDE)


def copied(encoder: Encoder) -> Encoder:
    """The same encoder with a module of its own, to be changed and stored.

    Raises:
        EncoderError: a state that cannot be stored, or weights that a copy would part.
    """
    check_storable(encoder.module, name=encoder.name)
    check_own_memory(encoder.module, name=encoder.name)
    return replace(encoder, module=copy.deepcopy(encoder.module))


def layer_tensors(encoder: Encoder, parts: LayerParts) -> dict[str, Tensor]:
    """Parameters and buffers of a layer by their name in the encoder."""
    state = encoder.module.state_dict(keep_vars=True)
    starts = tuple(f"{name}." for name in parts.modules)
    return {name: value for name, value in state.items() if name.startswith(starts)}


@torch.no_grad()
def silence(encoder: Encoder, parts: LayerParts, units: Sequence[int]) -> None:
    """Zero the rows of some units in place: filter, bias, and scale and shift of the batch-norm, so that they never
    respond.

    Source: LocMem, Table 6.
    """
    if parts.makes is None:
        raise EncoderError(
            f"the units of {parts.layer.name!r} are not the rows of one weight. Expected a convolution, linear,"
            " attention or fully-connected row. Name another layer."
        )
    modules = dict(encoder.module.named_modules())
    refuse_tied(encoder.module, [name for name in (parts.makes, parts.norm) if name is not None])
    if "weight" not in dict(modules[parts.makes].named_parameters(recurse=False)):
        raise EncoderError(
            f"the weight of {parts.makes!r} is computed from others (weight or spectral norm), so its rows cannot be"
            " zeroed. Expected a plain weight. Take the norm out first:"
            " torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')."
        )
    if parts.norm is not None and getattr(modules[parts.norm], "weight", None) is None:
        raise EncoderError(
            f"the norm {parts.norm!r} after {parts.makes!r} has no scale and shift to zero, so its units would still"
            " respond. Expected one with affine=True. Name another layer."
        )
    for name in (parts.makes, parts.norm):
        for value in [] if name is None else [getattr(modules[name], key) for key in ("weight", "bias")]:
            if value is not None:
                value[list(units)] = 0.0


def refuse_tied(module: nn.Module, names: Sequence[str]) -> None:
    """Raise EncoderError where weights of some parts are used elsewhere too, and would change there as well."""
    addresses = dict(module.named_modules(remove_duplicate=False))
    owners: dict[int, list[str]] = {}
    for name, part in addresses.items():
        for value in part.parameters(recurse=False):
            owners.setdefault(value.untyped_storage().data_ptr(), []).append(name)
    for name in names:
        for value in addresses[name].parameters(recurse=False):
            others = [other for other in owners[value.untyped_storage().data_ptr()] if other != name]
            if others and value.numel():
                raise EncoderError(
                    f"the weights of {name!r} are tied to those of {others[0]!r}, so to change the one would change the"
                    " other. Expected weights of its own. Name another layer, or untie them first:"
                    " layer.weight = nn.Parameter(layer.weight.clone())."
                )
