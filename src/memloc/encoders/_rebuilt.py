"""Projection heads, rebuilt from their weights alone."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from memloc.encoders._beside import head_within
from memloc.encoders._checkpoints import check_finite, read_weights
from memloc.encoders._layouts import flat
from memloc.errors import EncoderError

_STEP = "Pass a file that holds another head alone as --f-head or --g-head."
_PARAMETRIZED = re.compile(r"\.parametrizations\.weight\.original([01])$")  # torch's new form of weight_g and weight_v
_STATISTICS = {"running_mean", "running_var"}


def build_head(weights: Mapping[str, Tensor], *, features: int, name: str) -> nn.Module:
    """A projection head from its weights, in evaluation mode and in float32.

    Linear layers, batch-norms and layer-norms follow each other by the numbers in their names; what has no weights is
    filled in as it is usually trained. An activation stands between two linear layers: where a number is skipped,
    after the batch-norm in doubt. It is ReLU, and GELU in a head that ends in DINO's prototypes, before which the
    output of the other layers is brought to unit length. Nothing stands after the last layer.

    Args:
        weights: by name, as `pick_weights` and `read_head` give them; names that begin with "projector." and
            "predictor." are two heads, of which the second takes what the first gives.
        features: how many the encoder gives. name: of the head, for messages.
    Returns:
        A Sequential of numbered layers, or of `projector` and `predictor`, from (view, feature) to (view, output).
    Raises:
        EncoderError: no such layers, others beside them, no order among them, or widths that do not follow each other
            from `features` on. NonFiniteError: NaN or Inf.

    >>> weights = {"0.weight": torch.ones(3, 2), "2.weight": torch.ones(1, 3), "2.bias": torch.zeros(1)}
    >>> head = build_head(weights, features=2, name="head.pth")
    >>> head(torch.tensor([[1.0, 2.0], [-1.0, 0.0]])).tolist()
    [[9.0], [0.0]]
    """
    parts = {
        part: {own.removeprefix(f"{part}."): value for own, value in weights.items() if own.startswith(f"{part}.")}
        for part in ("projector", "predictor")
    }
    if all(parts.values()) and sum(map(len, parts.values())) == len(weights):
        projector = _mlp(parts["projector"], features, name, "the encoder")
        outputs = _widths(projector)[-1][1]
        predictor = _mlp(parts["predictor"], outputs, f"the predictor of {name}", "its projector")
        head = nn.Sequential(OrderedDict(projector=projector, predictor=predictor))
    else:
        head = _mlp(weights, features, name, "the encoder")
    check_finite(head, name=name)
    return head.eval()


def read_head(path: str | Path) -> dict[str, Tensor]:
    """The weights of a projection head in a file, for `build_head`.

    The file may hold the head alone, under any prefix and nested dictionary, or be a checkpoint with the encoder in it,
    or one of heads/ in the folder of a training. Of a teacher and a student the teacher's head is taken, and that of
    the network that learns rather than of its momentum copy.

    Raises:
        DataNotFoundError, CheckpointError: as `read_weights` does.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": {"module.projector.0.weight": torch.ones(3, 2)}}, f"{folder}/head.pth")
    ...     list(read_head(f"{folder}/head.pth"))
    ['0.weight']
    """
    state = flat(read_weights(path)[0])
    return head_within(state).weights or state


@dataclass(frozen=True)
class _Named:
    """A layer and its name."""

    name: str
    module: nn.Module
    normed: bool  # whether its weight is given as length and direction, as DINO's prototypes are

    @property
    def numbers(self) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", self.name)]

    @property
    def is_linear(self) -> bool:
        return isinstance(self.module, nn.Linear)


class _UnitLength(nn.Module):
    """Rows of length 1."""

    def forward(self, values: Tensor) -> Tensor:
        return nn.functional.normalize(values, dim=1)


def _mlp(weights: Mapping[str, Tensor], features: int, name: str, giver: str) -> nn.Sequential:
    layers = _layers(weights, name)
    bottleneck = [layer for layer in layers if _is_prototypes(layer, layers)]
    chain = _in_order([layer for layer in layers if layer not in bottleneck], name)
    if len(bottleneck) > 1 or not any(layer.is_linear for layer in chain):
        raise EncoderError(
            f"{name} holds no MLP: {_listed(weights)}. Expected linear layers, such as '0.weight' and '2.weight'."
            f" {_STEP}"
        )
    _check_widths(chain + bottleneck, features, name, giver)
    modules: list[nn.Module] = []
    linear = [place for place, layer in enumerate(chain) if layer.is_linear]
    active = {_activation_place(chain, *pair) for pair in itertools.pairwise(linear)}
    for place, layer in enumerate(chain):
        if place in active:
            modules.append(nn.GELU() if bottleneck else nn.ReLU())
        modules.append(layer.module)
    if bottleneck:
        modules += [_UnitLength(), bottleneck[0].module]
    return nn.Sequential(*modules)


def _layers(weights: Mapping[str, Tensor], name: str) -> list[_Named]:
    """The layers, in the order in which their names appear."""
    entries: dict[str, dict[str, Tensor]] = {}
    for path, value in weights.items():
        path = _PARAMETRIZED.sub(lambda found: f".weight_{'gv'[int(found[1])]}", path)
        layer, _, own = path.rpartition(".")
        if own == "prototypes":  # memloc's own, of unit length
            layer, own = path, "weight_v"
        entries.setdefault(layer, {})[own] = value.detach()
    found = []
    for layer, given in entries.items():
        module = _module(given)
        if module is None:
            shapes = " and ".join(f"{own!r} of shape {tuple(value.shape)}" for own, value in given.items())
            raise EncoderError(
                f"{name} holds more than an MLP: {shapes}{f' in {layer!r}' if layer else ''}. Expected linear layers,"
                f" batch-norms and layer-norms alone, and no convolutions. {_STEP}"
            )
        found.append(_Named(layer, module, "weight_v" in given))
    return found


def _module(given: Mapping[str, Tensor]) -> nn.Module | None:
    """The layer that has such weights; None where it is none of those that heads are made of."""
    state = {own: value.float() for own, value in given.items() if own != "num_batches_tracked"}
    if "weight_v" in state:
        direction = state.pop("weight_v")
        rows = (*direction.shape[:1], 1)
        length = state.pop("weight_g", torch.ones(rows))
        if direction.ndim != 2 or length.shape != rows or "weight" in state:
            return None
        state["weight"] = direction * (length / direction.norm(dim=1, keepdim=True))
    weight, names = state.get("weight"), set(state)
    shapes = {value.shape for own, value in state.items() if own != "weight" or value.ndim != 2}
    module: nn.Module
    if weight is not None and weight.ndim == 2 and names <= {"weight", "bias"} and shapes <= {weight.shape[:1]}:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in names, device="meta")
    elif len(shapes) != 1 or len(width := next(iter(shapes))) != 1 or (weight is not None and weight.ndim != 1):
        return None
    elif names >= _STATISTICS and names <= _STATISTICS | {"weight", "bias"}:
        module = nn.BatchNorm1d(width[0], affine=names != _STATISTICS, device="meta")
        if module.affine:
            state = {"weight": torch.ones(width), "bias": torch.zeros(width), **state}
        state["num_batches_tracked"] = torch.tensor(0)
    elif names == {"weight", "bias"}:
        module = nn.LayerNorm(width[0], device="meta")
    else:
        return None
    module.load_state_dict({own: value.clone() for own, value in state.items()}, assign=True)
    return module


def _is_prototypes(layer: _Named, layers: list[_Named]) -> bool:
    """Whether a layer is DINO's last, with its weight as length and direction, or (DINOv3) plain beside an `mlp`."""
    leaf = layer.name.rpartition(".")[2]
    beside = any("mlp" in other.name.split(".") for other in layers)
    return (leaf == "last_layer" and (layer.normed or beside)) or (leaf == "prototypes" and layer.normed)


def _in_order(layers: list[_Named], name: str) -> list[_Named]:
    """Layers by the numbers in their names, and of one number the linear one first, as in fc1, bn1, fc2."""
    ordered = sorted(layers, key=lambda layer: (layer.numbers, not layer.is_linear))
    keys = {(*layer.numbers, layer.is_linear) for layer in layers}
    if len(layers) > 1 and (len(keys) < len(layers) or not all(layer.numbers for layer in layers)):
        raise EncoderError(
            f"{name} has layers whose order is unknown: {', '.join(repr(layer.name) for layer in layers)}. Expected a"
            " number in each name, such as 0, 1 and 3. Save the head as a torch.nn.Sequential."
        )
    return ordered


def _check_widths(chain: list[_Named], features: int, name: str, giver: str) -> None:
    width = features
    for place, (layer, (takes, gives)) in enumerate(
        zip(chain, _widths([layer.module for layer in chain]), strict=True)
    ):
        if takes != width and place == 0:
            raise EncoderError(
                f"{name} takes features of width {takes} and {giver} gives {width}. Expected the head that was trained"
                f" with it. {_STEP}"
            )
        if takes != width:
            raise EncoderError(
                f"{name} has layers that do not follow each other: {layer.name!r} takes {takes} values and"
                f" {chain[place - 1].name!r} gives {width}. Expected them in the order of the numbers in their names."
                f" {_STEP}"
            )
        width = gives


def _widths(modules: Iterable[nn.Module]) -> list[tuple[int, int]]:
    """What each layer with weights takes and gives."""
    widths = []
    for module in modules:
        if isinstance(module, nn.Linear):
            widths.append((module.in_features, module.out_features))
        elif isinstance(module, nn.BatchNorm1d):
            widths.append((module.num_features, module.num_features))
        elif isinstance(module, nn.LayerNorm):
            widths.append((module.normalized_shape[0],) * 2)
    return widths


def _activation_place(chain: list[_Named], first: int, second: int) -> int:
    """Before which layer the activation between two linear ones stands."""

    def skips(place: int) -> bool:
        *before, one = chain[place].numbers
        *after, other = chain[place + 1].numbers
        return before == after and other > one + 1

    return first + 1 if skips(first) and not skips(second - 1) else second


def _listed(weights: Mapping[str, Tensor]) -> str:
    names = list(weights)
    return f"{', '.join(map(repr, names[:4]))}{', ...' if len(names) > 4 else ''}" if names else "it is empty"
