"""Which layers an encoder has, in which order, and where each is read."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._chain import Chain
from memloc.encoders._evaluating import evaluating
from memloc.encoders._flow import Call, Node, as_tensor, record
from memloc.encoders._layer import BRANCH, IMAGES, INPUT, OUTPUT, Layer, is_last, units_of
from memloc.encoders._output import AUTO, EMBEDDINGS, output_of
from memloc.errors import EncoderError, LayerNotFoundError, MemlocError, nearest, warn


def find_layers(
    module: nn.Module, request: str | Sequence[str], shape: tuple[int, int, int], *, take: str = AUTO
) -> tuple[Layer, ...]:
    """The layers to read, found with one forward pass of a blank image.

    Args:
        module: the encoder.
        request: "auto" (main chain and output), "fine" (also before batch-norm, batch-norm, pooling, gates), or names
            and globs of layers or modules. A module that is named is read at its own output.
        shape: (channel, height, width) of its input. take: which tensor of what it returns is its output, as
            `output_of` takes it.
    Raises:
        LayerNotFoundError: a name that matches nothing. EncoderError: the forward pass fails.

    >>> from memloc.encoders import load_encoder
    >>> [layer.name for layer in find_layers(load_encoder("resnet9").module, "auto", (3, 32, 32))][:5]
    ['conv1', 'conv2_0', 'conv2_1', 'conv2_2', 'res2']
    """
    calls, nodes = _trace(module, shape, take)
    chain = Chain(module, calls, nodes, take)
    whole = chain.layers
    if chain.unread is not None:
        warn(
            f"{type(module).__name__} has attention, such as {chain.unread!r}, whose outputs do not begin with the"
            " images, so its blocks have no rows. Expected (point, token, feature). Put the images first"
            " (batch_first=True) to read them.",
        )
    if isinstance(request, str) and request in ("auto", "fine"):
        layers = (
            whole
            if request == "fine"
            else [layer for layer in whole if layer.main or layer.kind == OUTPUT or layer.kind.endswith(BRANCH)]
        )
        return tuple(replace(layer, order=order) for order, layer in enumerate(layers))
    wanted = [request] if isinstance(request, str) else list(request)
    chosen = _named(module, calls, whole, wanted)
    return tuple(replace(layer, order=order) for order, layer in enumerate(chosen))


def _trace(module: nn.Module, shape: tuple[int, int, int], take: str) -> tuple[list[Call], list[Node]]:
    """Every call of a module that gives a tensor, in the order in which they end, and the flow between them."""
    try:
        parameter = next((weight for weight in module.parameters() if weight.is_floating_point()), torch.empty(0))
        blank = parameter.new_zeros(IMAGES, *shape)
        with evaluating(module):
            calls, nodes, output = record(module, blank, lambda returned: output_of(returned, take))
    except MemlocError:
        raise
    except Exception as problem:  # whatever the user's own module raises
        part = getattr(module, "vision_model", None)
        step = (
            "Pass its part for images, .vision_model"
            if part is not None
            else "Pass --size, or wrap it in a module that does"
        )
        raise EncoderError(
            f"the encoder's forward pass fails on a batch of shape ({IMAGES}, {', '.join(map(str, shape))})"
            f" ({type(problem).__name__}: {problem}). Expected a module that takes (point, channel, height, width)"
            f" alone. {step}."
        ) from problem
    _check_output(module, output, take)
    return calls, nodes


def _check_output(module: nn.Module, output: object, take: str) -> None:
    """Raise EncoderError unless an encoder returns features of each image; warn where it returns several tensors that
    could be meant."""
    name, found = type(module).__name__, output_of(output, take)
    if found is None or found.ndim not in (2, 3, 4) or len(found) != IMAGES:
        raise EncoderError(
            f"{name} returns {_in_words(output)} for {IMAGES} images. Expected (point, feature), (point, token,"
            " feature) or (point, channel, height, width), or a tuple or dict with such a tensor. Wrap it in a module"
            " that returns its features."
        )
    named = isinstance(output, Mapping) and any(key in output for key in (*EMBEDDINGS, "last_hidden_state"))
    if isinstance(output, Tensor) or named or take != AUTO:
        return
    whole: Any = output
    parts = list(whole.items() if isinstance(output, dict) else enumerate(whole))
    several = [key for key, part in parts if (tensor := as_tensor(part)) is not None and tensor.ndim > 1]
    if len(several) > 1:
        warn(
            f"{name} returns {_in_words(output)}; the first, {several[0]!r}, is taken as its output."
            f" Pass --output {several[1]} for another.",
        )


def _in_words(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return "a dict of " + (", ".join(f"{key!r} ({_in_words(part)})" for key, part in output.items()) or "nothing")
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of " + (", ".join(_in_words(part) for part in output) or "nothing")
    return "None" if output is None else f"a {type(output).__name__}"


def _named(module: nn.Module, calls: list[Call], layers: list[Layer], wanted: list[str]) -> list[Layer]:
    """Layers by name or glob, in the order of the forward pass; the output is always read too."""
    chain = {layer.name: layer for layer in layers}
    by_address = {call.address: call for call in calls if call.address}
    known = list(chain) + [address for address in by_address if address not in chain]
    picked: set[str] = {OUTPUT}
    for pattern in wanted:
        matches = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            twice = [name for name in known if name.startswith(f"{pattern}#")]
            hint = (
                f"It is called {len(twice)} times; address one call as {twice[0]!r}."
                if twice
                else nearest(pattern, known)
            )
            never = pattern in dict(module.named_modules()) and not twice
            raise LayerNotFoundError(
                f"{type(module).__name__} {'never calls' if never else 'has no'} layer {pattern!r}. {hint} "
                "Expected a layer or module that its forward pass calls. List them with: memloc layers ENCODER"
            )
        picked.update(matches)
    place = {call.address: number for number, call in enumerate(calls)}
    found, previous = [], None

    def where(name: str) -> tuple[int, bool]:
        at = name if name in by_address else chain[name].read_at
        return place[at.removesuffix(INPUT)], not at.endswith(INPUT)

    for name in sorted(picked, key=where):
        if name in by_address:  # a module that the user names is read at its own output
            call = by_address[name]
            kind = chain[name].kind if name in chain else "module"
            units, last = units_of(call.module, call.gave), is_last(call.module, call.gave)
            layer = Layer(name, name, 0, kind, previous, units, last=last)
        else:
            layer = replace(chain[name], predecessor=previous)
        found.append(layer)
        previous = name
    return found
