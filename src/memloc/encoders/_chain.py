"""The rows of an encoder: which calls of its modules are layers, which of them are the main chain, and what each follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from torch import nn

from memloc.encoders._flow import LOST, SUMS, Call, Node
from memloc.encoders._resnet9 import ResNet9

OUTPUT = "output"
BRANCH = " (branch)"
GATE = " (gate)"
INPUT = " (input)"  # ends the address of a module that is read at its input
IMAGES = 2  # in the trial pass
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
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
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_RELUS = ("relu", "relu_")
_ACTIVATES = (*_RELUS, "gelu", "gelu_", "silu", "silu_", "elu", "elu_", "leaky_relu", "leaky_relu_", "hardswish", "hardswish_", "mish", "mish_", "softplus")  # fmt: skip
_PRODUCTS = ("mul", "mul_")
_POOLED = ("mean", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "amax", "sum")


@dataclass(frozen=True)
class Layer:
    """A place in an encoder that is read.

    Attributes:
        name: what tables call it.
        read_at: the module whose output is read, "" for the encoder itself; `name#1` is a module's second call, `name (input)`
            what it is given.
        order: place in the forward pass.
        kind: convolution, residual, patch embedding, attention, fully-connected, linear, norm, pooling, module or output; a
            shortcut or parallel path has " (branch)" after it, what computes factors for another layer's output " (gate)".
        predecessor: the layer that Δ subtracts; None for the first.
        units: number of units: channels, or neurons averaged over tokens.
        signed: whether activations may be negative, so that UnitMem rectifies them.
        main: whether it is part of the main chain, so that other layers may follow it.
        last: whether units are the last axis of an output with four axes, as in Swin, rather than the second, as of convolutions.
        made_by: the modules whose weights are its own, where they are not those of `read_at`.
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


class _Sum(NamedTuple):
    """A residual sum, the stream it takes, and what it adds to that."""

    total: Node
    stream: Node
    part: Node


@dataclass(frozen=True, eq=False)
class _Block:
    """A transformer's block: its attention, the residual stream after it and what takes that, its fully-connected part, and its sums."""

    whole: Call
    attention: Call
    middle: Call
    stream: Node
    connected: Call
    sums: tuple[Node, ...]


@dataclass(frozen=True)
class _Row:
    name: str
    call: int  # its call's bit
    comes: int  # the calls it comes from
    aside: str  # BRANCH, GATE, or "" on the main chain


class Chain:
    """Walks the calls of a trial pass once; `layers` has every layer with a place in the published tables, in call order."""

    def __init__(self, module: nn.Module, calls: list[Call], nodes: list[Node]) -> None:
        self.layers: list[Layer] = []
        self._rows: list[_Row] = []
        self._builtin = isinstance(module, ResNet9)
        self._calls, self._nodes = calls, nodes
        self._uses: dict[int, list[Node]] = {}
        for node in nodes:
            for parent in node.parents:
                self._uses.setdefault(parent.number, []).append(node)
        self._root = next(call for call in reversed(calls) if call.address == "")
        self._branches, self._gates = self._side_paths()
        self._blocks = self._find_blocks()
        inside = {inner.index for inner in calls if any(block.whole.holds(inner) for block in self._blocks.values())}
        self._leaves = _leaves(calls)
        walked = [call for call in self._leaves if call.index not in inside]
        place = {call.index: number for number, call in enumerate(walked)}
        done = -1
        for call in calls:
            if call.index in self._blocks:
                self._add_block(self._blocks[call.index])
            elif call.index in inside or call is self._root:
                continue
            elif call.shape[:1] == (IMAGES,) and self._own_sum(call) is not None:
                self._add_sum(call)
            elif place.get(call.index, -1) > done:
                done = self._add_leaf(walked, place[call.index])
        before = self._before(self._root.gave)
        self._put(OUTPUT, OUTPUT, before, self._root, signed=not self._builtin, main=False)

    def _put(
        self, name: str, kind: str, after: str | None, of: Call, *, read_at: str | None = None, signed: bool = True, main: bool = True, made_by: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """A row; `of` is the call whose units it has, and that it is read at unless `read_at` says another."""
        at = of.address if read_at is None else read_at
        units, last = units_of(of.module, of.shape), is_last(of.module, of.shape)
        self.layers.append(Layer(name, at, 0, kind, after, units, signed, main, last, made_by))
        aside = next((each for each in (BRANCH, GATE) if kind.endswith(each)), "")
        if main or aside:
            self._rows.append(_Row(name, 1 << of.index, of.gave.calls, aside))

    def _own(self, call: Call) -> int:
        """The multiplications with weights that a call makes, a bit each."""
        return sum(1 << node.number for node in self._nodes[call.first : call.last] if node.weighted >> node.number & 1)

    def _before(self, node: Node | None, aside: str = "") -> str | None:
        """The last row that a tensor comes from: of the main chain, for a branch or gate also of its own path since it left that chain."""
        chain = [row for row in self._rows if not row.aside]
        reached = [row for row in chain if node is not None and node.calls & row.call]
        if not reached and (node is None or node.calls & LOST):
            return chain[-1].name if chain else None  # not known: the one before it in time
        left = reached[-1].call if reached else -1
        path = [row for row in self._rows if aside and row.aside == aside and row.comes & left]
        path = [row for row in path if node is not None and node.calls & row.call] or reached
        return path[-1].name if path else None

    def _add_leaf(self, leaves: list[Call], place: int) -> int:
        """A convolution, linear layer, norm or pooling; returns the place of the last leaf that its reading includes."""
        call = leaves[place]
        if len(call.shape) not in (2, 3, 4) or call.shape[0] != IMAGES:
            return place
        if isinstance(call.module, WEIGHTED):
            return self._add_weighted(leaves, place)
        kind = "pooling" if isinstance(call.module, _POOLS) else "norm" if isinstance(call.module, nn.LayerNorm) else ""
        if kind and self._rows:
            signed = kind == "norm" or not self._builtin
            self._put(call.address, kind, self._before(call.took, BRANCH), call, signed=signed, main=False)
        return place

    def _add_weighted(self, leaves: list[Call], place: int) -> int:
        """A convolution or linear layer, read after the norm and the activation that follow it."""
        call, end, extras = leaves[place], place, []
        for kinds in (NORMS, _ACTIVATIONS):
            after = leaves[end + 1] if end + 1 < len(leaves) else None
            if after is not None and isinstance(after.module, kinds) and leaves[end].feeds(after):
                extras.append(leaves[end])
                end += 1
        read = leaves[end]
        read_at, signed = read.address, not isinstance(read.module, _NON_NEGATIVE)
        active = None if isinstance(read.module, _ACTIVATIONS) else self._activation_after(read)
        if active is not None:
            extras.append(read)
            read_at, signed = active
        kind = "linear" if isinstance(call.module, nn.Linear) else "convolution"
        if kind == "convolution" and not self.layers and self._blocks and call.module.kernel_size == call.module.stride:
            kind = "patch embedding"
        own = self._own(call)
        aside = GATE if own & self._gates else BRANCH if own & self._branches else ""
        name = call.address.removesuffix(".conv") if self._builtin else call.address
        before = self._before(call.took, aside)
        self._put(name, kind + aside, before, call, read_at=read_at, signed=signed, main=not aside)
        for extra in extras:
            extra_kind = "batch-norm" if isinstance(extra.module, NORMS) else "before batch-norm"
            plain = self._builtin or extra_kind == "batch-norm"
            self._put(extra.address if plain else f"{extra.address} (before batch-norm)", extra_kind, name, extra, main=False)  # fmt: skip
        return end

    def _activation_after(self, read: Call) -> tuple[str, bool] | None:
        """Where the result of an activation that a module's code applies by itself can be read, and whether it may be negative."""
        uses = self._uses.get(read.gave.number, [])
        if len(uses) != 1 or uses[0].op not in _ACTIVATES or len(uses[0].parents) > 1:
            return None
        gives = [call.address for call in self._calls if call.gave is uses[0] and call.address]
        takes = sorted((call.began, call.address) for call in self._calls if call.took is uses[0])
        if not gives and not takes:
            return None
        return gives[0] if gives else f"{takes[0][1]}{INPUT}", uses[0].op not in _RELUS

    def _add_sum(self, call: Call) -> None:
        """A residual sum that a module returns; it is a branch where all that it sums are."""
        own = self._own(call)
        aside = BRANCH if own and not own & ~(self._branches | self._gates) else ""
        signed = not isinstance(call.module, _NON_NEGATIVE) and not self._builtin
        before = self._before(call.gave, aside)
        self._put(call.address, "residual" + aside, before, call, signed=signed, main=not aside)

    def _add_block(self, block: _Block) -> None:
        """The four rows of a transformer's block, and what hangs on them (REFERENCE A3, LocMem Table 10)."""
        whole, attention, connected = block.whole, block.attention, block.connected
        before = self._before(whole.took)
        inner = [leaf for leaf in self._leaves if whole.holds(leaf)]
        halves = [[leaf for leaf in inner if (leaf.began >= block.middle.began) is second] for second in (False, True)]
        if attention.shape[0] == IMAGES:  # Swin's attention runs over windows, so its rows are no longer images
            self._put(attention.address, "attention", before, attention, made_by=self._makers(attention, halves[0]))
            self._hang_inner(halves[0], attention, before)
        stream = replace(block.middle, gave=block.stream)
        residual = f"{whole.address} after attention"
        self._put(residual, "residual", before, stream, read_at=f"{stream.address}{INPUT}")
        makers = self._makers(connected, halves[1])
        self._put(connected.address, "fully-connected", residual, connected, made_by=makers)
        self._hang_inner(halves[1], connected, residual)
        self._put(whole.address, "residual", before, whole)

    def _makers(self, call: Call, leaves: list[Call]) -> tuple[str, ...]:
        """The modules whose weights make what half a block adds, where the one that is read does not hold them all."""
        others = [
            leaf.name
            for leaf in leaves
            if not (leaf is call or call.holds(leaf)) and self._own(leaf) & call.gave.weighted
        ]
        return (*others, call.name) if others else ()

    def _hang_inner(self, leaves: list[Call], on: Call, before: str | None) -> None:
        """Linear layers, norms and activations of half a block; a layer that does not lead to its row is a branch."""
        for call in leaves:
            if call.gave is on.gave or len(call.shape) not in (2, 3, 4) or call.shape[0] != IMAGES:
                continue
            kinds = {WEIGHTED: "linear", (nn.LayerNorm,): "norm", _ACTIVATIONS: "activation"}
            kind = next((kind for types, kind in kinds.items() if isinstance(call.module, types)), None)
            if kind is None:
                continue
            own, signed = self._own(call), not isinstance(call.module, _NON_NEGATIVE)
            aside = BRANCH if own and not own & on.gave.weighted else ""
            self._put(call.address, kind + aside, before if aside else on.address, call, signed=signed, main=False)

    def _is_sum(self, node: Node) -> bool:
        """Whether a node adds two results of which one comes from layers that the other does not."""
        return node.op in SUMS and len(node.parents) == 2 and node.parents[0].weighted != node.parents[1].weighted

    def _sum_before(self, node: Node, first: int) -> Node | None:
        """The residual sum that a node is, but for operations without weights; None if there is none from node `first` on."""
        while node.number >= first:
            if self._is_sum(node):
                return node
            if not node.parents or any(parent.weighted != node.weighted for parent in node.parents):
                return None
            node = node.parents[0]
        return None

    def _own_sum(self, call: Call) -> Node | None:
        """The residual sum that a module's own code makes and returns, perhaps after an activation."""
        found = self._sum_before(call.gave, call.first)
        return found if found is not None and found.within == call.name else None

    def _find_blocks(self) -> dict[int, _Block]:
        blocks: dict[int, _Block] = {}
        claimed: set[int] = set()
        for call in self._calls:  # inner modules come first
            block = self._block(call, claimed) if call.address and list(call.module.children()) else None
            if block is not None:
                blocks[call.index] = block
                claimed.update(node.number for node in block.sums)
        return blocks

    def _block(self, call: Call, claimed: set[int]) -> _Block | None:
        """The parts of a module that adds attention to its input and then a fully-connected part; None if it is no such block."""
        if call.shape[:1] != (IMAGES,):
            return None
        sums: list[_Sum] = []  # the last first
        found = self._sum_before(call.gave, call.first)
        while found is not None and found.number not in claimed:
            stream, part = found.parents
            if stream.weighted & ~part.weighted:
                stream, part = part, stream
            # Neither may come from the other alone, where the stream itself is projected to another width, as in Hiera.
            projected = bool(stream.weighted & ~part.weighted)
            if projected and _attends(stream, part, call.first):
                stream, part = part, stream
            sums.append(_Sum(found, stream, part))
            found = None if projected else self._sum_before(stream, call.first)
        attended = [each for each in sums[1:] if _attends(each.part, each.stream, call.first)]
        if not attended:
            return None
        inner = [other for other in self._calls if call.holds(other)]
        attention = self._giver(inner, attended[-1])
        connected = self._giver(inner, sums[0])
        stream = sums[0].stream
        takes = [other for other in inner if other.first > attended[-1].total.number and other.took is stream]
        if attention is None or connected is None or not takes or {stream.shape[0], connected.shape[0]} != {IMAGES}:
            return None
        middle = min(takes, key=lambda other: other.began)
        return _Block(call, attention, middle, stream, connected, tuple(each.total for each in sums))

    def _giver(self, inner: list[Call], of: _Sum) -> Call | None:
        """The outermost module that gives what a sum adds, but for operations without weights."""
        gives = [call for call in inner if call.last <= of.total.number and call.gave.weighted == of.part.weighted]
        return min(gives, key=lambda call: (call.address.count("."), call.index), default=None)

    def _side_paths(self) -> tuple[int, int]:
        """The multiplications off the main chain: shortcuts and parallel paths, and gates such as those of squeeze and excitation."""
        branches = gates = settled = 0
        for node in self._nodes:
            if len(node.parents) < 2:
                continue
            held = [parent.weighted for parent in node.parents]
            if node.op in _PRODUCTS and len(held) == 2:
                gate = self._gate(node, held)
                gates |= gate
                if gate:
                    continue
            common = held[0]
            for each in held[1:]:
                common &= each
            own = [each & ~common & ~gates for each in held]
            main = max(range(len(own)), key=lambda path: (own[path] & ~branches).bit_count())
            for path, each in enumerate(own):
                if path != main:
                    branches |= each & ~held[main] & ~settled
            settled |= own[main] & ~branches
        reached = self._root.gave
        if reached.weighted and not reached.calls & LOST:
            # What the output does not come from, such as an unused pooling head.
            branches |= sum(node.weighted & 1 << node.number for node in self._nodes) & ~reached.weighted & ~gates
        return branches, gates

    def _gate(self, node: Node, held: list[int]) -> int:
        """The multiplications that compute factors for the other operand of a product, from a summary of it."""
        for side, other in ((0, 1), (1, 0)):
            own = held[side] & ~held[other]
            if not own or held[other] & ~held[side]:
                continue
            first = self._nodes[(own & -own).bit_length() - 1]
            if prod(node.parents[side].shape) < prod(node.parents[other].shape) or _pooled(first.parents[0]):
                return own
        return 0


def units_of(module: nn.Module, shape: tuple[int, ...]) -> int:
    """How many units an output of a module has."""
    return shape[1] if len(shape) == 2 or (len(shape) == 4 and not is_last(module, shape)) else shape[-1]


def is_last(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether units are the last axis of four: outputs of linear layers and norms over the last axis, or of a module whose own are."""
    if len(shape) != 4 or isinstance(module, (nn.modules.conv._ConvNd, *NORMS)):
        return False
    kinds = (nn.Linear, nn.LayerNorm, nn.modules.conv._ConvNd)
    parts = [part for part in module.modules() if isinstance(part, kinds)]
    rows = [part for part in parts if isinstance(part, (nn.Linear, nn.LayerNorm)) and _width(part) == shape[3]]
    return bool(rows) and (parts[-1] is rows[-1] or not any(_width(part) == shape[1] for part in parts))


def _width(part: nn.Module) -> int:
    if isinstance(part, nn.modules.conv._ConvNd):
        return part.out_channels
    return int(part.out_features if isinstance(part, nn.Linear) else part.normalized_shape[-1])  # type: ignore[index]


def _leaves(calls: list[Call]) -> list[Call]:
    """Calls of modules without parts; norms that bring their own activation count as one."""
    whole = tuple(f"{call.name}." for call in calls if isinstance(call.module, NORMS) and list(call.module.children()))
    return [
        call
        for call in calls
        if call.address
        and not (whole and call.address.startswith(whole))
        and (not list(call.module.children()) or isinstance(call.module, (*NORMS, *WEIGHTED)))
        and not isinstance(call.module, (nn.Identity, nn.Dropout))
    ]


def _attends(part: Node, stream: Node, first: int) -> bool:
    """Whether what is added to a residual stream was computed with attention."""
    waiting, seen = [part], {stream.number}
    while waiting:
        node = waiting.pop()
        if node.number in seen or node.number < first:
            continue
        if "softmax" in node.op or "attention" in node.op:
            return True
        seen.add(node.number)
        waiting.extend(node.parents)
    return False


def _pooled(node: Node) -> bool:
    """Whether a tensor was pooled over positions just before."""
    while len(node.parents) == 1:
        if node.op in _POOLED:
            return True
        if node.op not in ("view", "_unsafe_view", "unsqueeze", "squeeze", "permute", "transpose", "clone", "expand"):
            return False
        node = node.parents[0]
    return False
