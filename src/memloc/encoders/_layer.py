"""A layer: a place in an encoder that is read, with its units; and what a net may declare of its own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from memloc.encoders._flow import Node
from memloc.encoders._paths import plain

OUTPUT = "output"
BRANCH = " (branch)"
GATE = " (gate)"
INPUT = " (input)"  # ends the address of a module that is read at its input
IMAGES = 3  # in the trial pass: unlike the small numbers that other tensors begin with
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Operations by their names in PyTorch's dispatcher, without the last _ of those in place.
NON_NEGATIVE = ("relu", "sigmoid", "softplus", "hardsigmoid")
ACTIVATIONS = (
    *NON_NEGATIVE,
    "gelu",
    "silu",
    "elu",
    "celu",
    "selu",
    "leaky_relu",
    "hardswish",
    "mish",
    "hardtanh",
    "tanh",
    "clamp_min",
    "clamp",
    "_prelu_kernel",
    "rrelu_with_noise",
)
BETWEEN = (  # what may stand between a layer and its norm or activation: other shapes, scales and shifts, pooling
    "view",
    "_unsafe_view",
    "permute",
    "transpose",
    "clone",
    "alias",
    "mul",
    "add",
    "sub",
    "div",
    "constant_pad_nd",
    "max_pool2d_with_indices",
    "mkldnn_max_pool2d",
    "max_pool2d",
    "avg_pool2d",
)


@dataclass(frozen=True)
class Layer:
    """A place in an encoder that is read.

    Attributes:
        name: what tables call it.
        read_at: the module whose output is read, "" for the encoder itself; `name#1` is a module's second call, `name
            (input)` what it is given.
        order: place in the forward pass.
        kind: convolution, linear, residual, patch embedding, attention, fully-connected or output; a shortcut or
            parallel path has
            " (branch)" after it, what computes factors for another layer's output " (gate)". Of `layers="fine"` also
            before batch-norm, before activation, batch-norm, activation, norm and pooling; of named modules, module.
        predecessor: the layer that Δ subtracts; None for the first.
        units: number of units: channels, or neurons averaged over tokens.
        signed: whether activations may be negative, so that UnitMem rectifies them.
        main: whether it is part of the main chain, so that other layers may follow it.
        last: whether units are the last axis of an output with four axes, as in Swin, rather than the second, as of
            convolutions.
        made_by: the modules whose weights are its own, where they are not those of `read_at`.
        take: of the encoder's own output, which of the tensors that it returns: auto, pooled, cls, tokens or a name.
    """

    name: str
    read_at: str
    order: int
    kind: str
    predecessor: str | None
    units: int
    signed: bool = True
    main: bool = True
    last: bool = False
    made_by: tuple[str, ...] = ()
    take: str = "auto"


@dataclass(frozen=True)
class Reading:
    """What a net declares of its rows, as its attribute `memloc_reading`; an adapter may set it on a net it makes.

    Attributes:
        suffix: end of the addresses of modules that the names of rows leave out.
        signed: whether sums, pooled maps and the output may be negative.
    """

    suffix: str = ""
    signed: bool = True


def declared(module: nn.Module) -> Reading:
    """What a net declares of its rows."""
    found = getattr(module, "memloc_reading", None)
    return found if isinstance(found, Reading) else Reading()


def has_images(node: Node) -> bool:
    """Whether a tensor can be read: its first axis is the images and its units can be told."""
    if len(node.shape) == 3 and node.unit == 1:
        return False  # of Conv1d, whose positions are last
    return len(node.shape) in (2, 3, 4) and node.shape[0] == IMAGES


def between(start: Node, end: Node) -> list[Node] | None:
    """The operations without weights that lead from one tensor to another, the last first; None if none do."""
    path: list[Node] = []
    for node in plain(end):
        if node is start:
            return path
        path.append(node)
    return None


def possible_units(node: Node) -> set[int]:
    """How many units a tensor may have."""
    shape = node.shape
    if node.unit is not None:
        return {shape[node.unit]}
    return {shape[1], shape[3]} if len(shape) == 4 else {shape[-1]}


def units_of(module: nn.Module, gave: Node) -> int:
    """How many units an output of a module has."""
    shape = gave.shape
    return shape[1] if len(shape) == 2 or (len(shape) == 4 and not is_last(module, gave)) else shape[-1]


def is_last(module: nn.Module, gave: Node) -> bool:
    """Whether units are the last axis of four: as the operations say that gave them, else as the widths of the module's
    parts do."""
    shape = gave.shape
    if len(shape) != 4 or isinstance(module, (nn.modules.conv._ConvNd, *NORMS)):
        return False
    if gave.unit is not None:
        return gave.unit == 3
    kinds = (nn.Linear, nn.LayerNorm, nn.modules.conv._ConvNd)
    parts = [part for part in module.modules() if isinstance(part, kinds)]
    rows = [part for part in parts if isinstance(part, (nn.Linear, nn.LayerNorm)) and _width(part) == shape[3]]
    return bool(rows) and (parts[-1] is rows[-1] or not any(_width(part) == shape[1] for part in parts))


def _width(part: nn.Module) -> int:
    if isinstance(part, nn.modules.conv._ConvNd):
        return part.out_channels
    return int(part.out_features if isinstance(part, nn.Linear) else part.normalized_shape[-1])  # type: ignore[index]
