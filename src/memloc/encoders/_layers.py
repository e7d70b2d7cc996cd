"""Which layers an encoder has, in which order, and where each is read."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._resnet9 import ResNet9, Sum
from memloc.errors import EncoderError, LayerNotFoundError, MemlocWarning, nearest

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
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_IMAGES = 2  # in the trial pass
INPUT = " (input)"  # ends the address of a module that is read at its input
_TOKEN_BLOCKS = (  # attention, second norm and fully-connected part of a transformer's block, by its attributes
    ("attn", "norm2", "mlp"),  # timm; the repositories of DINO, DINOv2 and MAE
    ("attention", "layernorm_after", "mlp"),  # transformers: ViT, ViTMAE, DeiT
    ("attention", "norm2", "mlp"),  # transformers: Dinov2
    ("self_attn", "layer_norm2", "mlp"),  # transformers: CLIP, SigLIP
    ("self_attention", "ln_2", "mlp"),  # torchvision
    ("attn", "ln_2", "mlp"),  # open_clip
)


@dataclass(frozen=True)
class Layer:
    """A place in an encoder that is read.

    Attributes:
        name: what tables call it.
        read_at: the module whose output is read, "" for the encoder itself; `name#1` is a module's second call, `name (input)`
            what it is given.
        order: place in the forward pass.
        kind: convolution, residual, patch embedding, attention, fully-connected, linear, norm, pooling, module or output.
        predecessor: the layer that Δ subtracts; None for the first.
        units: number of units: channels, or neurons averaged over tokens.
        signed: whether activations may be negative, so that UnitMem rectifies them.
        main: whether it is part of the main chain, so that other layers may follow it.
        last: whether units are the last axis of an output with four axes, as in Swin, rather than the second, as of convolutions.
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


@dataclass(frozen=True)
class _Call:
    """One call of a module during a trial forward pass."""

    address: str
    module: nn.Module
    gave: Tensor
    gave_version: int  # how often the tensor had been changed in place by then
    took: Tensor | None  # the very tensor it was called with, to see what follows what
    took_version: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.gave.shape)

    def feeds(self, other: _Call) -> bool:
        """Whether the other call takes just what this one gave."""
        return other.took is self.gave and other.took_version == self.gave_version


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
    """Every call of a module that gives a tensor, in the order in which they end."""
    calls: list[_Call] = []
    counts: dict[str, int] = {}
    began: dict[str, list[tuple[Tensor | None, int]]] = {}
    handles = []

    def before(name: str) -> Any:
        def hook(_called: nn.Module, inputs: object, named: dict[str, object]) -> None:
            tensor = as_tensor(inputs if inputs else named)
            began.setdefault(name, []).append((tensor, -1 if tensor is None else tensor._version))

        return hook

    def after(name: str) -> Any:
        def hook(called: nn.Module, _inputs: object, output: object) -> None:
            tensor = as_tensor(output)
            number = counts[name] = counts.get(name, -1) + 1
            took = began[name].pop()
            if tensor is not None:
                address = f"{name}#{number}" if number else name
                calls.append(_Call(address, called, tensor, tensor._version, *took))

        return hook

    training = {name: part.training for name, part in module.named_modules()}
    parameter = next(module.parameters(), None)
    blank = torch.zeros(_IMAGES, *shape) if parameter is None else parameter.new_zeros(_IMAGES, *shape)
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(before(name), with_kwargs=True))
            handles.append(part.register_forward_hook(after(name)))
        module.eval()
        with torch.no_grad():  # not in inference mode, which does not count changes in place
            output = module(blank)
    except Exception as problem:  # whatever the user's own module raises
        part = getattr(module, "vision_model", None)
        step = (
            "Pass its part for images, .vision_model"
            if part is not None
            else "Pass --size, or wrap it in a module that does"
        )
        raise EncoderError(
            f"the encoder's forward pass fails on a batch of shape ({_IMAGES}, {', '.join(map(str, shape))}) ({type(problem).__name__}: {problem}). "
            f"Expected a module that takes (point, channel, height, width) alone. {step}."
        ) from problem
    finally:
        for handle in handles:
            handle.remove()
        for name, part in module.named_modules():
            part.training = training[name]
    _check_output(module, output)
    reused = {name for name, number in counts.items() if number > 0}
    return [replace(call, address=f"{call.address}#0") if call.address in reused else call for call in calls]


def as_tensor(output: object) -> Tensor | None:
    """The tensor of a module's output: itself, `last_hidden_state` of a mapping, else the first of a mapping or sequence that is no scalar.

    >>> as_tensor({"loss": torch.tensor(1.0), "features": torch.ones(2, 3)}).shape
    torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        inner = [output["last_hidden_state"]] if "last_hidden_state" in output else list(output.values())
    else:
        inner = list(output) if isinstance(output, (tuple, list)) else []
    return next((found for each in inner if (found := as_tensor(each)) is not None and found.ndim), None)


def _check_output(module: nn.Module, output: object) -> None:
    """Raise EncoderError unless an encoder returns features of each image; warn where it returns several tensors that could be meant."""
    name, found = type(module).__name__, as_tensor(output)
    if found is None or found.ndim not in (2, 3, 4) or len(found) != _IMAGES:
        raise EncoderError(
            f"{name} returns {_in_words(output)} for {_IMAGES} images. Expected (point, feature), (point, token, feature) or (point, channel, height, width), "
            "or a tuple or dict with such a tensor. Wrap it in a module that returns its features."
        )
    if isinstance(output, Tensor) or (isinstance(output, dict) and "last_hidden_state" in output):
        return
    whole: Any = output
    parts = list(whole.items() if isinstance(output, dict) else enumerate(whole))
    several = [key for key, part in parts if (tensor := as_tensor(part)) is not None and tensor.ndim > 1]
    if len(several) > 1:
        warnings.warn(
            f"{name} returns {_in_words(output)}; the first, {several[0]!r}, is taken as its features. Wrap it in a module that returns others.",
            MemlocWarning,
            stacklevel=2,
        )


def _in_words(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return "a dict of " + (", ".join(f"{key!r} ({_in_words(part)})" for key, part in output.items()) or "nothing")
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of " + (", ".join(_in_words(part) for part in output) or "nothing")
    return "None" if output is None else f"a {type(output).__name__}"


def _chain(module: nn.Module, calls: list[_Call]) -> list[Layer]:
    """Every layer that has a place in the published tables, in call order, each with the layer that Δ subtracts."""
    return _Chain(module, calls).layers


class _Chain:
    """Walks the calls of a trial pass once; `previous` is the main layer reached so far."""

    def __init__(self, module: nn.Module, calls: list[_Call]) -> None:
        self.layers: list[Layer] = []
        self._builtin = isinstance(module, ResNet9)
        self._previous: str | None = None
        self._took: list[tuple[Tensor | None, str | None]] = []  # inputs of weighted layers, and what came before each
        self._calls = calls
        self._blocks = {call.address: _token_block(call, calls) for call in calls if call.address}
        inside = tuple(f"{address}." for address, block in self._blocks.items() if block)
        self._leaves = _leaves(calls)
        walked = [call for call in self._leaves if not call.address.startswith(inside)] if inside else self._leaves
        place = {call.address: number for number, call in enumerate(walked)}
        done = -1
        for call in calls:
            if self._blocks.get(call.address):
                self._add_token_block(call)
            elif call.address in place and place[call.address] > done:
                done = self._add_leaf(walked, place[call.address])
            elif call.address and not (inside and call.address.startswith(inside)) and self._is_sum(call):
                self._add(call.address, call, "residual")
        root = next(call for call in reversed(calls) if call.address == "")
        self.layers.append(
            Layer(
                OUTPUT, "", 0, OUTPUT, self._previous, _units(root), not self._builtin, main=False, last=_is_last(root)
            )
        )

    def _add(self, name: str, call: _Call, kind: str, read_at: str | None = None, after: str | None = None) -> None:
        """A main layer."""
        self.layers.append(
            Layer(
                name,
                read_at or call.address,
                0,
                kind,
                after or self._previous,
                _units(call),
                not isinstance(call.module, _NON_NEGATIVE) and not (self._builtin and kind == "residual"),
                last=_is_last(call),
            )
        )
        self._previous = name

    def _hang(self, name: str, call: _Call, kind: str, on: str | None, *, signed: bool = True) -> None:
        """A layer that nothing follows."""
        self.layers.append(
            Layer(name, call.address, 0, kind, on, _units(call), signed, main=False, last=_is_last(call))
        )

    def _add_leaf(self, leaves: list[_Call], place: int) -> int:
        """A convolution, linear layer, sum, norm or pooling; returns the place of the last leaf that its reading includes."""
        call = leaves[place]
        if isinstance(call.module, WEIGHTED) and len(call.shape) in (2, 3, 4) and len(call.gave) == _IMAGES:
            end, extras = place, []
            for kinds in (NORMS, _ACTIVATIONS):
                if (
                    end + 1 < len(leaves)
                    and isinstance(leaves[end + 1].module, kinds)
                    and leaves[end].feeds(leaves[end + 1])
                ):
                    extras.append(leaves[end])
                    end += 1
            read, kind = leaves[end], "linear" if isinstance(call.module, nn.Linear) else "convolution"
            if kind == "convolution" and not self.layers and any(self._blocks.values()):
                kind = "patch embedding"
            name = call.address.removesuffix(".conv") if self._builtin else call.address
            branch = next((pair for pair in self._took if pair[0] is call.took), None)
            if branch is None:
                self._took.append((call.took, self._previous))
                self._add(name, read, kind)
            else:  # a shortcut: it takes what an earlier layer took, and nothing on the main chain follows it
                self._hang(name, read, f"{kind}{BRANCH}", branch[1], signed=not isinstance(read.module, _NON_NEGATIVE))
            for extra in extras:
                extra_kind = "batch-norm" if isinstance(extra.module, NORMS) else "before batch-norm"
                plain = self._builtin or extra_kind == "batch-norm"
                self._hang(extra.address if plain else f"{extra.address} (before batch-norm)", extra, extra_kind, name)
            return end
        if isinstance(call.module, Sum):
            self._add(call.address, call, "residual")
        elif isinstance(call.module, _POOLS) and self._previous is not None:
            self._hang(call.address, call, "pooling", self._previous, signed=not self._builtin)
        elif isinstance(call.module, nn.LayerNorm) and self._previous is not None:
            self._hang(call.address, call, "norm", self._previous)
        return place

    def _add_token_block(self, block: _Call) -> None:
        """The four rows of a transformer's block, and what hangs on them (REFERENCE A3, LocMem Table 10)."""
        found = self._blocks[block.address]
        assert found is not None, "only blocks are added"
        attention, middle, connected = found
        before = self._previous
        if len(attention.gave) == len(
            block.gave
        ):  # Swin's attention runs over windows, so its rows are no longer images
            self._add(attention.address, attention, "attention")
        inner = [call for call in self._leaves if call.address.startswith(f"{block.address}.")]
        turn = next(
            (
                place
                for place, call in enumerate(inner)
                if f"{call.address}.".startswith((f"{middle.address}.", f"{connected.address}."))
            ),
            len(inner),
        )
        halves = [inner[:turn], inner[turn:]]
        for call in halves[0] if self._previous == attention.address else []:
            self._hang_inner(call, attention)
        residual = f"{block.address} after attention"
        self._previous = before
        self._add(residual, middle, "residual", read_at=f"{middle.address}{INPUT}")
        self._add(connected.address, connected, "fully-connected")
        for call in halves[1]:
            self._hang_inner(call, connected)
        self._add(block.address, block, "residual", after=before)

    def _hang_inner(self, call: _Call, on: _Call) -> None:
        if call.gave is on.gave or len(call.shape) not in (2, 3, 4) or len(call.gave) != _IMAGES:
            return
        if isinstance(call.module, (*WEIGHTED, *_ACTIVATIONS, nn.LayerNorm)):
            kind = (
                "linear"
                if isinstance(call.module, WEIGHTED)
                else "norm"
                if isinstance(call.module, nn.LayerNorm)
                else "activation"
            )
            self._hang(call.address, call, kind, on.address, signed=not isinstance(call.module, _NON_NEGATIVE))

    def _is_sum(self, call: _Call) -> bool:
        """Whether a module ends in a sum of its own: what it gives comes from no module in it, or from an activation of such a tensor."""
        if isinstance(call.module, (nn.Sequential, nn.ModuleList)) or not list(call.module.children()):
            return False
        inside = [other for other in self._calls if other.address.startswith(f"{call.address.partition('#')[0]}.")]
        weighted = [other for other in inside if isinstance(other.module, WEIGHTED)]
        if len(weighted) < 2 or not any(other.shape == call.shape for other in inside):
            return False
        starts = (*WEIGHTED, *NORMS, *_ACTIVATIONS)
        if not any(other.took is call.took and isinstance(other.module, starts) for other in inside):
            return False  # a gate, such as squeeze and excitation: its layers take a pooled input
        giver = next((other for other in reversed(inside) if _gave(other, call)), None)
        if giver is None:
            return True
        return isinstance(giver.module, _ACTIVATIONS) and not any(other.feeds(giver) for other in inside)


def _gave(inner: _Call, outer: _Call) -> bool:
    return inner.gave is outer.gave and inner.gave_version == outer.gave_version


def _leaves(calls: list[_Call]) -> list[_Call]:
    """Calls of modules without parts; norms that bring their own activation count as one."""
    whole = tuple(
        f"{call.address.partition('#')[0]}."
        for call in calls
        if isinstance(call.module, NORMS) and list(call.module.children())
    )
    return [
        call
        for call in calls
        if call.address
        and not (whole and call.address.startswith(whole))
        and (not list(call.module.children()) or isinstance(call.module, (*NORMS, *WEIGHTED)))
        and not isinstance(call.module, (nn.Identity, nn.Dropout))
    ]


def _token_block(call: _Call, calls: list[_Call]) -> tuple[_Call, _Call, _Call] | None:
    """Attention, the module whose input is the residual stream after it, and the fully-connected part; None if it is no such block."""
    for names in _TOKEN_BLOCKS:
        if all(isinstance(getattr(call.module, name, None), nn.Module) for name in names):
            places = {other.address: number for number, other in enumerate(calls)}
            parts = [f"{call.address}.{name}" for name in names]
            if not all(part in places for part in parts):
                return None
            attention, norm, connected = (calls[places[part]] for part in parts)
            before = places[parts[0]] < places[parts[1]] < places[parts[2]]
            # Where the norm comes after the fully-connected part (Swin V2), that part takes the residual stream itself.
            return attention, norm if before else connected, connected
    return None


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

    def where(name: str) -> tuple[int, bool]:
        at = "" if name == OUTPUT else name if name in by_address else chain[name].read_at
        return place[at.removesuffix(INPUT)], not at.endswith(INPUT)

    for name in sorted(picked, key=where):
        if name in by_address:  # a module that the user names is read at its own output
            call = by_address[name]
            kind = chain[name].kind if name in chain else "module"
            layer = Layer(name, name, 0, kind, previous, _units(call), True, last=_is_last(call))
        else:
            layer = replace(chain[name], predecessor=previous)
        found.append(layer)
        previous = name
    return found


def _is_last(call: _Call) -> bool:
    """Whether units are the last axis of four: outputs of linear layers and norms over the last axis, or of a module whose own are."""
    if len(call.shape) != 4:
        return False
    parts = [
        part for part in call.module.modules() if isinstance(part, (nn.Linear, nn.LayerNorm, nn.modules.conv._ConvNd))
    ]
    if not parts or isinstance(call.module, (nn.modules.conv._ConvNd, *NORMS)):
        return False
    final = parts[-1]
    return isinstance(final, (nn.Linear, nn.LayerNorm)) and _width(final) == call.shape[3]


def _width(part: nn.Module) -> int:
    return int(part.out_features if isinstance(part, nn.Linear) else part.normalized_shape[-1])  # type: ignore[index]


def _units(call: _Call) -> int:
    return call.shape[1] if len(call.shape) == 2 or (len(call.shape) == 4 and not _is_last(call)) else call.shape[-1]
