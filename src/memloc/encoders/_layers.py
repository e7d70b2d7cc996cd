"""Which layers an encoder has, in which order, and where each is read."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._resnet9 import ResNet9, Sum
from memloc.errors import EncoderError, LayerNotFoundError, nearest

OUTPUT = "output"
BRANCH = " (branch)"
_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.GELU,
    nn.SiLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.Hardswish,
    nn.Softplus,
    nn.Sigmoid,
    nn.Mish,
)
_NON_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Softplus, nn.Sigmoid)
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class Layer:
    """A place in an encoder that is read.

    Attributes:
        name: what tables call it.
        read_at: the module whose output is read, "" for the encoder itself; `name#1` is a module's second call.
        order: place in the forward pass.
        kind: convolution, residual, linear, batch-norm, activation, pooling, module or output.
        predecessor: the layer that Δ subtracts; None for the first.
        units: number of units: channels, or neurons averaged over tokens.
        signed: whether activations may be negative, so that UnitMem rectifies them.
        main: whether it is part of the main chain, so that other layers may follow it.
    """

    name: str
    read_at: str
    order: int
    kind: str
    predecessor: str | None
    units: int
    signed: bool = True
    main: bool = True


@dataclass(frozen=True)
class _Call:
    """One call of a module during a trial forward pass."""

    address: str
    module: nn.Module
    shape: tuple[int, ...]
    took: Tensor | None = None  # the very tensor it was called with, to see what follows what
    gave: Tensor | None = None


def find_layers(module: nn.Module, request: str | Sequence[str], shape: tuple[int, int, int]) -> tuple[Layer, ...]:
    """The layers to read, found with one forward pass of a blank image.

    Args:
        module: the encoder.
        request: "auto" (main chain and output), "fine" (also before batch-norm, batch-norm, pooling), or names and globs of
            layers or modules. A module that is named is read at its own output.
        shape: (channel, height, width) of its input.
    Raises:
        LayerNotFoundError: a name that matches nothing. EncoderError: the forward pass fails.

    >>> [layer.name for layer in find_layers(ResNet9(), "auto", (3, 32, 32))][:5]
    ['conv1', 'conv2_0', 'conv2_1', 'conv2_2', 'res2']
    """
    calls = _trace(module, shape)
    if isinstance(request, str) and request in ("auto", "fine"):
        layers = _chain(module, calls)
        layers = (
            layers
            if request == "fine"
            else [layer for layer in layers if layer.main or layer.kind == OUTPUT or layer.kind.endswith(BRANCH)]
        )
        return tuple(replace(layer, order=order) for order, layer in enumerate(layers))
    wanted = [request] if isinstance(request, str) else list(request)
    chosen = _named(module, calls, wanted)
    return tuple(replace(layer, order=order) for order, layer in enumerate(chosen))


def _trace(module: nn.Module, shape: tuple[int, int, int]) -> list[_Call]:
    calls: list[_Call] = []
    counts: dict[str, int] = {}
    handles = []

    def record(name: str) -> Any:
        def hook(called: nn.Module, inputs: object, output: object) -> None:
            tensor = as_tensor(output)
            number = counts[name] = counts.get(name, -1) + 1
            if tensor is not None:
                address = f"{name}#{number}" if number else name
                calls.append(_Call(address, called, tuple(tensor.shape), as_tensor(inputs), tensor))

        return hook

    training = {name: part.training for name, part in module.named_modules()}
    parameter = next(module.parameters(), None)
    blank = torch.zeros(2, *shape) if parameter is None else parameter.new_zeros(2, *shape)
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_hook(record(name)))
        module.eval()
        with torch.inference_mode():
            module(blank)
    except (RuntimeError, TypeError, ValueError, IndexError) as problem:
        raise EncoderError(
            f"the encoder's forward pass fails on a batch of shape (2, {', '.join(map(str, shape))}): {problem}. "
            "Expected a module that takes (point, channel, height, width) alone. Pass --size, or wrap it in a module that does."
        ) from problem
    finally:
        for handle in handles:
            handle.remove()
        for name, part in module.named_modules():
            part.training = training[name]
    reused = {name for name, number in counts.items() if number > 0}
    return [replace(call, address=f"{call.address}#0") if call.address in reused else call for call in calls]


def as_tensor(output: object) -> Tensor | None:
    """The tensor of a module's output: itself, the first of a tuple, `last_hidden_state` or the first value of a mapping."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict) and output:
        return as_tensor(output.get("last_hidden_state", next(iter(output.values()))))
    if isinstance(output, (tuple, list)) and output:
        return as_tensor(output[0])
    return None


def _chain(module: nn.Module, calls: list[_Call]) -> list[Layer]:
    """Main chain in call order, each weighted layer read after the norm and activation that take its very output."""
    leaves = [call for call in calls if not list(call.module.children()) and call.address]
    builtin = isinstance(module, ResNet9)
    layers: list[Layer] = []
    previous: str | None = None
    before: list[tuple[Tensor | None, str | None]] = []  # inputs of weighted layers so far, and what came before each
    for place, call in enumerate(leaves):
        if isinstance(call.module, _WEIGHTED) and len(call.shape) in (2, 3, 4):
            end = place
            extras = []
            for kinds in (_NORMS, _ACTIVATIONS):
                if (
                    end + 1 < len(leaves)
                    and isinstance(leaves[end + 1].module, kinds)
                    and leaves[end + 1].took is leaves[end].gave
                ):
                    extras.append(leaves[end])
                    end += 1
            kind = "linear" if isinstance(call.module, nn.Linear) else "convolution"
            read = leaves[end]
            name = call.address.removesuffix(".conv") if builtin else call.address
            signed = not isinstance(read.module, _NON_NEGATIVE)
            branch = next((pair for pair in before if pair[0] is call.took), None)
            if branch is None:
                layers.append(Layer(name, read.address, 0, kind, previous, _units(call), signed))
                before.append((call.took, previous))
                previous = name
            else:  # a shortcut: it takes what an earlier layer took, and nothing on the main chain follows it
                layers.append(
                    Layer(name, read.address, 0, f"{kind}{BRANCH}", branch[1], _units(call), signed, main=False)
                )
            for extra in extras:
                extra_kind = "batch-norm" if isinstance(extra.module, _NORMS) else "before batch-norm"
                extra_name = (
                    extra.address if builtin or extra_kind == "batch-norm" else f"{extra.address} (before batch-norm)"
                )
                layers.append(Layer(extra_name, extra.address, 0, extra_kind, name, _units(extra), True, main=False))
        elif isinstance(call.module, Sum):
            layers.append(Layer(call.address, call.address, 0, "residual", previous, _units(call), not builtin))
            previous = call.address
        elif isinstance(call.module, _POOLS) and previous is not None:
            layers.append(
                Layer(call.address, call.address, 0, "pooling", previous, _units(call), not builtin, main=False)
            )
    root = next(call for call in reversed(calls) if call.address == "")
    layers.append(Layer(OUTPUT, "", 0, OUTPUT, previous, _units(root), not builtin, main=False))
    return layers


def _named(module: nn.Module, calls: list[_Call], wanted: list[str]) -> list[Layer]:
    """Layers by name or glob, in the order of the forward pass; the output is always read too."""
    chain = {layer.name: layer for layer in _chain(module, calls)}
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
    for name in sorted(
        picked,
        key=lambda name: place[
            chain[name].read_at if name in chain and name not in by_address else name if name != OUTPUT else ""
        ],
    ):
        if name in by_address:  # a module that the user names is read at its own output
            call = by_address[name]
            kind = chain[name].kind if name in chain else "module"
            layer = Layer(name, name, 0, kind, previous, _units(call), True)
        else:
            layer = replace(chain[name], predecessor=previous)
        found.append(layer)
        previous = name
    return found


def _units(call: _Call) -> int:
    return call.shape[1] if len(call.shape) in (2, 4) else call.shape[-1]
