"""The rows of an encoder: which calls of its modules are layers, which of them are the main chain, and what each
follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

from torch import nn

from memloc.encoders._flow import Call, Node
from memloc.encoders._paths import RESHAPED, Sum, attends, find_sums, plain, side_paths
from memloc.encoders._resnet9 import ResNet9

OUTPUT = "output"
BRANCH = " (branch)"
GATE = " (gate)"
INPUT = " (input)"  # ends the address of a module that is read at its input
IMAGES = 3  # in the trial pass: unlike the small numbers that other tensors begin with
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
# Operations by their names in PyTorch's dispatcher, without the last _ of those in place.
_NON_NEGATIVE = ("relu", "sigmoid", "softplus", "hardsigmoid")
_ACTIVATIONS = (
    *_NON_NEGATIVE,
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
_BETWEEN = (  # what may stand between a layer and its norm or activation: other shapes, scales and shifts, pooling
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


@dataclass(frozen=True)
class _Half:
    """What one half of a transformer's block adds to the residual stream."""

    kind: str
    of: Sum
    part: Node
    giver: Call


@dataclass(frozen=True)
class _Row:
    name: str
    bit: int  # of the node that is read
    comes: int  # the bits of those that it comes from
    aside: str  # BRANCH, GATE, or "" on the main chain


class Chain:
    """Walks a trial pass once; `layers` has every layer with a place in the published tables, in the order of the pass.

    `unread` names a module with attention whose block has no rows, since its outputs do not begin with the images; None
    if there is none.
    """

    def __init__(self, module: nn.Module, calls: list[Call], nodes: list[Node]) -> None:
        self.layers: list[Layer] = []
        self._builtin = isinstance(module, ResNet9)
        self._calls, self._nodes, self._root = calls, nodes, calls[-1]
        self._uses: dict[int, list[Node]] = {}
        for node in nodes:
            for parent in node.parents:
                self._uses.setdefault(parent.number, []).append(node)
        self._own = {call.ended: _multiplications(nodes[call.first : call.last]) for call in calls}
        self._weighted = [call for call in calls if call.address and isinstance(call.module, WEIGHTED)]
        self._branches, self._gates = side_paths(nodes, self._root.gave)
        self._sums = find_sums(nodes, calls)
        self._halves = self._find_halves()
        self._ends = {
            kind: {half.of.total.number for half in self._halves if half.kind == kind}
            for kind in ("attention", "fully-connected")
        }
        self._inner = {half.giver.ended: self._inside(half) for half in self._halves}
        self._bits, self._comes = self._origins()
        self._rows: list[_Row] = []
        self._befores: dict[int, str | None] = {}  # by the number of a block's first sum, what the block follows
        for _, step in sorted(self._steps(), key=lambda step: step[0]):
            step()
        self._put(OUTPUT, OUTPUT, self._before(self._root.gave), self._root, signed=not self._builtin, main=False)
        streams = [each for each in self._halves if _has_images(each.of.total)]
        self.unread = self._halves[0].giver.address if self._halves and not streams else None

    def _origins(self) -> tuple[dict[int, int], list[int]]:
        """A bit for every node that may be a row, and for every node the bits of those it comes from."""
        rows = {call.gave.number for call in self._calls} | {each.total.number for each in self._sums}
        bits = {number: 1 << place for place, number in enumerate(sorted(rows))}
        comes: list[int] = []
        for node in self._nodes:
            held = bits.get(node.number, 0)
            for parent in node.parents:
                held |= comes[parent.number]
            comes.append(held)
        return bits, comes

    def _steps(self) -> list[tuple[tuple[float, int], Callable[[], None]]]:
        """What makes rows, with its time in the pass."""
        steps: list[tuple[tuple[float, int], Callable[[], None]]] = []
        hung = {call.ended for inner in self._inner.values() for call in inner}
        own_of = {half.of.total.number: half.of.own(half.part) for half in self._halves}
        weighted = {call.name for call in self._weighted}
        for each in self._sums:
            nested = each.total.number not in own_of and any(not each.joined & ~own for own in own_of.values())
            if each.total.within not in weighted and not nested:
                steps.append(((each.total.number + 0.5, 0), partial(self._add_sum, each)))
        for call in self._calls:
            if call.address and call.ended not in hung and _has_images(call.gave):
                step = self._add_weighted if isinstance(call.module, WEIGHTED) else self._add_plain
                steps.append(((call.last, call.ended), partial(step, call)))
        return steps

    def _put(
        self,
        name: str,
        kind: str,
        after: str | None,
        of: Call,
        *,
        read_at: str | None = None,
        at: Node | None = None,
        node: Node | None = None,
        signed: bool = True,
        main: bool = True,
        made_by: tuple[str, ...] = (),
    ) -> None:
        """A row; `of` is the call that it is read at, `read_at` another place; `at` is what is read there, `node` what
        later rows come from."""
        at, node = at or of.gave, node or of.gave
        last = is_last(of.module, at)
        self.layers.append(
            Layer(
                name,
                of.address if read_at is None else read_at,
                0,
                kind,
                after,
                units_of(of.module, at),
                signed,
                main,
                last,
                made_by,
            )
        )
        aside = next((each for each in (BRANCH, GATE) if kind.endswith(each)), "")
        if main or aside:
            self._rows.append(_Row(name, self._bits[node.number], self._comes[node.number], aside))

    def _before(self, node: Node | None, aside: str = "") -> str | None:
        """The last row that a tensor comes from: of the main chain, for a branch or gate also of its own path since it
        left that chain."""
        chain = [row for row in self._rows if not row.aside]
        held = 0 if node is None else self._comes[node.number]
        reached = [row for row in chain if held & row.bit]
        if not reached and (node is None or node.lost):
            return chain[-1].name if chain else None  # not known: the one before it in time
        left = reached[-1].bit if reached else -1
        path = [row for row in self._rows if aside and row.aside == aside and row.comes & left and held & row.bit]
        rows = path or reached or [row for row in self._rows if row.aside == BRANCH and held & row.bit]
        return rows[-1].name if rows else None

    def _add_plain(self, call: Call) -> None:
        """Pooling or a norm over units."""
        kind = "pooling" if isinstance(call.module, _POOLS) else "norm" if isinstance(call.module, nn.LayerNorm) else ""
        if kind and self._rows:
            signed = kind == "norm" or not self._builtin
            self._put(call.address, kind, self._before(call.took, BRANCH), call, signed=signed, main=False)

    def _add_weighted(self, call: Call) -> None:
        """A convolution or linear layer, read after the norm and the activation that follow it."""
        norm, read, active = self._reading(call)
        read_at, reader = (call.address, call) if read is None else self._reader(read) or (call.address, call)
        signed = active not in _NON_NEGATIVE and not isinstance(reader.module, nn.ReLU6)
        kind = "linear" if isinstance(call.module, nn.Linear) else "convolution"
        if kind == "convolution" and not self._rows and self._halves and call.module.kernel_size == call.module.stride:
            kind = "patch embedding"
        own = self._own[call.ended]
        aside = "" if own & ~(self._branches | self._gates) or not own else BRANCH if own & ~self._gates else GATE
        name = call.address.removesuffix(".conv") if self._builtin else call.address
        self._put(
            name, kind + aside, self._before(call.took, aside), call, read_at=read_at, signed=signed, main=not aside
        )
        if read_at != call.address:
            raw = "before activation" if norm is None else "before batch-norm"
            self._put(call.address if self._builtin else f"{call.address} ({raw})", raw, name, call, main=False)
        gives = next((each for each in self._calls if each.gave is norm and isinstance(each.module, NORMS)), None)
        if gives is not None and gives is not reader and _has_images(gives.gave):
            self._put(gives.address, "batch-norm", name, gives, main=False)

    def _reading(self, call: Call) -> tuple[Node | None, Node | None, str]:
        """The norm that follows a layer, the last readable one of norm and activation, and the operation of the
        activation."""
        norm, read, node = None, None, call.gave
        unit = -1 if is_last(call.module, call.gave) or len(call.shape) == 3 else 1
        while (following := self._following(node)) is not None:
            node, op = following
            fits = (
                len(node.shape) == len(call.shape) and node.shape[0] == IMAGES and node.shape[unit] == call.shape[unit]
            )
            fits = fits and self._reader(node) is not None
            if op in _ACTIVATIONS:
                return (norm, node, op) if fits else (norm, read, "")
            if "norm" in op and "layer" not in op and norm is None:
                norm, read = node, node if fits else read
            elif op not in _BETWEEN:
                break
        return norm, read, ""

    def _following(self, node: Node) -> tuple[Node, str] | None:
        """What alone is computed from a tensor, and by which operation; x times an activation of x is one."""
        uses = self._uses.get(node.number, [])
        if len(uses) == 1 and len(uses[0].parents) == 1:
            return uses[0], uses[0].op.rstrip("_")
        if (
            len(uses) == 2
            and uses[0].op in _ACTIVATIONS
            and set(uses[1].parents) == {node, uses[0]}
            and "mul" in uses[1].op
        ):
            return uses[1], "silu"
        return None

    def _reader(self, node: Node) -> tuple[str, Call] | None:
        """The module that gives a tensor which it made, else the first that takes it: where it is read, and the
        call."""
        gives = [call for call in self._calls if call.gave is node and call.address and call.made(node)]
        whole = next((call for call in gives if isinstance(call.module, NORMS)), gives[0] if gives else None)
        if whole is not None:
            return whole.address, whole
        takes = min((call for call in self._calls if call.took is node), key=lambda call: call.began, default=None)
        return None if takes is None or not takes.address else (f"{takes.address}{INPUT}", takes)

    def _add_sum(self, each: Sum) -> None:
        """What a residual sum adds, where that is attention or the fully-connected part after it, and the sum."""
        halves = [half for half in self._halves if half.of is each]
        first, before = self._first_of(each), self._before(each.stream) or self._before(each.parts[0])
        self._befores.setdefault(each.total.number, before)
        for half in halves:
            if _has_images(half.giver.gave):  # Swin's attention runs over windows, so its rows are no longer images
                after = before if half.kind == "attention" else self._before(half.part) or before
                self._put(half.giver.address, half.kind, after, half.giver, made_by=self._makers(half))
                self._hang(half)
        whole = self._returner(each, halves)
        reader = (whole.address, whole, whole.gave) if whole is not None else self._taker(each, halves)
        if reader is None or not _has_images(each.total):
            return
        read_at, call, node = reader
        aside = "" if halves or each.joined & ~(self._branches | self._gates) else BRANCH
        after = self._before(each.total, aside)
        if halves:
            after = self._befores[first.total.number]
            if (
                whole is not None
                and first is not each
                and first.before is not None
                and whole.made(first.before.total)
                and not self._others(first, whole)
            ):
                after = self._before(whole.took)  # a block that has sums before its attention
        name = call.address if whole is not None else self._name_of(each, halves)
        if name is None or any(layer.name == name for layer in self.layers):
            name = read_at if read_at.endswith(INPUT) else f"{read_at} (sum)"
        signed = not self._builtin
        self._put(
            name,
            f"residual{aside}",
            after,
            call,
            read_at=read_at,
            at=node,
            node=each.total,
            signed=signed,
            main=not aside,
        )

    def _returner(self, each: Sum, halves: list[_Half]) -> Call | None:
        """The module whose own code makes a sum and returns it, perhaps after an activation; for a block's last sum the
        block."""
        total, first = each.total, self._first_of(each)
        own = None
        for call in self._calls:
            if not call.address or not call.made(total) or not _has_images(call.gave):
                continue
            path = _between(total, call.gave)
            if path is None:
                continue
            # Where the norm comes after each sum, what it gives is the stream that goes on.
            links = [
                (other.before.total, other.stream)
                for other in self._sums
                if other.before is not None and call.made(other.before.total)
            ]
            normed = any("norm" in node.op for link in links for node in _between(*link) or [])
            same = all(
                node.op.rstrip("_") in (*_ACTIVATIONS, *RESHAPED, "alias") or (normed and "norm" in node.op)
                for node in path
            )
            if not same or not _units(call.gave) & _units(total):
                continue
            block = call.made(first.total) and (first.before is None or not call.made(first.before.total))
            if halves and first is not each and block:
                return call
            own = own or (call if call.name == total.within else None)
        return own

    def _taker(self, each: Sum, halves: list[_Half]) -> tuple[str, Call, Node] | None:
        """Where a sum that no module returns can be read, perhaps scaled or after an activation: the place, the module
        there, and the tensor."""
        nodes, node = [each.total], each.total
        while (following := self._following(node)) is not None and following[1] in ("mul", "div", *_ACTIVATIONS):
            node = following[0]
            nodes.insert(0, node)
            if following[1] in _ACTIVATIONS:
                break
        if halves:  # where the norm comes after the sum, the stream goes on from there
            nodes[:0] = [later.stream for later in self._sums if later.before is each]
        readers = ((self._reader(node), node) for node in nodes)
        return next(((*reader, node) for reader, node in readers if reader is not None), None)

    def _others(self, first: Sum, whole: Call) -> bool:
        """Whether a module makes the attention of other blocks, too."""
        return any(
            half.kind == "attention" and whole.made(half.of.total) and self._first_of(half.of) is not first
            for half in self._halves
        )

    def _name_of(self, each: Sum, halves: list[_Half]) -> str | None:
        """What a sum that no module returns is called: after its block or after the module that gives what it adds."""
        whole = next(
            (call for call in self._calls if call.address and call.name == each.total.within and call.made(each.total)),
            None,
        )
        attending = any(half.kind == "attention" for half in halves)
        if whole is not None and attending and not self._others(self._first_of(each), whole):
            return f"{whole.address} after attention"
        giver = self._giver(each, each.parts[0])
        return None if giver is None else f"{giver.address} (sum)"

    def _find_halves(self) -> list[_Half]:
        """Sums of attention that a fully-connected part follows, perhaps after more attention or another part, and
        these parts."""
        next_of: dict[int, Sum] = {}
        for each in self._sums:
            if each.before is not None:
                next_of.setdefault(each.before.total.number, each)
        found: dict[int, list[_Half]] = {}
        for each in reversed(self._sums):
            attention = next((part for part in each.parts if attends(part, each.base)), None)
            giver = None if attention is None else self._giver(each, attention)
            if attention is None or giver is None:
                continue
            halves = [_Half("attention", each, attention, giver)]
            second = next_of.get(each.total.number)
            third = None if second is None else next_of.get(second.total.number)
            beside = [half for part in each.parts if part is not attention and (half := self._connected(each, part))]
            if beside:
                found[each.total.number] = halves + beside
            elif second is not None and "attention" in [half.kind for half in found.get(second.total.number, [])]:
                if second.total.within == each.total.within:  # a decoder's second attention is of the same block
                    found[each.total.number] = halves
            elif second is not None and (half := self._connected(second, second.parts[0])):
                found.update({each.total.number: halves, second.total.number: [half]})
            elif third is not None and (half := self._connected(third, third.parts[0])):
                found.update({each.total.number: halves, third.total.number: [half]})
        return [half for number in sorted(found) for half in found[number]]

    def _connected(self, each: Sum, part: Node) -> _Half | None:
        """A part that works on each position alone; linear layers may have convolutions of single channels between
        them."""
        giver, own = self._giver(each, part), each.own(part)
        if giver is None or attends(part, each.base):
            return None
        modules = [call.module for call in self._weighted if own & self._own[call.ended]]
        linear = [module for module in modules if isinstance(module, nn.Linear)]
        spatial = [
            module for module in modules if isinstance(module, nn.modules.conv._ConvNd) and prod(module.kernel_size) > 1
        ]
        if len(modules) == len(spatial) or any(not linear or module.groups < module.in_channels for module in spatial):
            return None
        return _Half("fully-connected", each, part, giver)

    def _first_of(self, each: Sum) -> Sum:
        """The first sum of a transformer's block: the attention that it ends, or itself."""
        attention = self._ends["attention"]
        while each.total.number not in attention and each.before is not None:
            each = each.before
        while (
            each.before is not None and each.before.total.number in attention - self._ends["fully-connected"]
        ):  # a decoder's
            each = each.before
        return each

    def _giver(self, each: Sum, part: Node) -> Call | None:
        """The outermost module that gives what a sum adds, but for operations without weights."""
        own = each.own(part)
        gives = [
            call
            for call in self._calls
            if call.address
            and call.last <= each.total.number
            and call.gave.weighted == part.weighted
            and self._own[call.ended]
            and not self._own[call.ended] & ~own
        ]
        return min(gives, key=lambda call: (call.address.count("."), call.ended), default=None)

    def _inside(self, half: _Half) -> list[Call]:
        """The calls that make what a half adds: by their weights, or without any in between."""
        stream, total, own = half.of.stream, half.of.total, half.of.own(half.part)
        found = []
        for call in self._calls:
            weights, held = self._own[call.ended], call.gave.weighted
            between = (
                stream.number < call.first
                and call.last <= total.number
                and not stream.weighted & ~held
                and not held & ~half.part.weighted
            )
            if call.address and (not weights & ~own if weights else between):
                found.append(call)
        return found

    def _makers(self, half: _Half) -> tuple[str, ...]:
        """The modules whose weights make what a half adds, where the one that is read does not hold them all."""
        own, giver = half.of.own(half.part), half.giver
        others = [
            call.name
            for call in self._weighted
            if self._own[call.ended] & own and call is not giver and not giver.holds(call)
        ]
        return tuple(dict.fromkeys([*others, giver.name])) if others else ()

    def _hang(self, half: _Half) -> None:
        """Layers, norms and activations that make what a half adds."""
        for call in self._inner[half.giver.ended]:
            if call.gave is half.giver.gave or not _has_images(call.gave):
                continue
            op = call.gave.op.rstrip("_")
            if isinstance(call.module, WEIGHTED):
                kind = "linear" if isinstance(call.module, nn.Linear) else "convolution"
            elif isinstance(call.module, nn.LayerNorm):
                kind = "norm"
            elif op in _ACTIVATIONS and call.made(call.gave) and not list(call.module.children()):
                kind = "activation"
            else:
                continue
            signed = kind != "activation" or op not in _NON_NEGATIVE
            self._put(call.address, kind, half.giver.address, call, signed=signed, main=False)


def _multiplications(nodes: list[Node]) -> int:
    """Those of some nodes that multiply with weights, a bit each."""
    bits = 0
    for node in nodes:
        bits |= node.weighted & 1 << node.number
    return bits


def _has_images(node: Node) -> bool:
    """Whether a tensor can be read: its first axis is the images and its units can be told."""
    if len(node.shape) == 3 and node.unit == 1:
        return False  # of Conv1d, whose positions are last
    return len(node.shape) in (2, 3, 4) and node.shape[0] == IMAGES


def _between(start: Node, end: Node) -> list[Node] | None:
    """The operations without weights that lead from one tensor to another, the last first; None if none do."""
    path: list[Node] = []
    for node in plain(end):
        if node is start:
            return path
        path.append(node)
    return None


def _units(node: Node) -> set[int]:
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
