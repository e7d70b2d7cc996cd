"""The rows of an encoder: which calls of its modules are layers, which of them are the main chain, and what each
follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from memloc.encoders._blocks import Blocks, Half
from memloc.encoders._flow import Call, Node
from memloc.encoders._layer import (
    ACTIVATIONS,
    BETWEEN,
    BRANCH,
    GATE,
    IMAGES,
    INPUT,
    NON_NEGATIVE,
    NORMS,
    OUTPUT,
    POOLS,
    WEIGHTED,
    Layer,
    between,
    declared,
    has_images,
    is_last,
    possible_units,
    units_of,
)
from memloc.encoders._paths import RESHAPED, Sum, side_paths


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

    def __init__(self, module: nn.Module, calls: list[Call], nodes: list[Node], take: str) -> None:
        self.layers: list[Layer] = []
        self._declared = declared(module)
        self._calls, self._nodes, self._root = calls, nodes, calls[-1]
        self._uses: dict[int, list[Node]] = {}
        for node in nodes:
            for parent in node.parents:
                self._uses.setdefault(parent.number, []).append(node)
        self._branches, self._gates = side_paths(nodes, self._root.gave)
        self._blocks = Blocks(calls, nodes)
        self._inner = {half.giver.ended: self._blocks.inside(half) for half in self._blocks.halves}
        self._bits, self._comes = self._origins()
        self._rows: list[_Row] = []
        self._befores: dict[int, str | None] = {}  # by the number of a block's first sum, what the block follows
        for _, step in sorted(self._steps(), key=lambda step: step[0]):
            step()
        self._put(OUTPUT, OUTPUT, self._before(self._root.gave), self._root, signed=self._declared.signed, main=False)
        self.layers[-1] = replace(self.layers[-1], take=take)
        streams = [each for each in self._blocks.halves if has_images(each.of.total)]
        self.unread = self._blocks.halves[0].giver.address if self._blocks.halves and not streams else None

    def _origins(self) -> tuple[dict[int, int], list[int]]:
        """A bit for every node that may be a row, and for every node the bits of those it comes from."""
        rows = {call.gave.number for call in self._calls} | {each.total.number for each in self._blocks.sums}
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
        own_of = {half.of.total.number: half.of.own(half.part) for half in self._blocks.halves}
        weighted = {call.name for call in self._blocks.weighted}
        for each in self._blocks.sums:
            nested = each.total.number not in own_of and any(not each.joined & ~own for own in own_of.values())
            if each.total.within not in weighted and not nested:
                steps.append(((each.total.number + 0.5, 0), partial(self._add_sum, each)))
        for call in self._calls:
            if call.address and call.ended not in hung and has_images(call.gave):
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
        kind = "pooling" if isinstance(call.module, POOLS) else "norm" if isinstance(call.module, nn.LayerNorm) else ""
        if kind and self._rows:
            signed = kind == "norm" or self._declared.signed
            self._put(call.address, kind, self._before(call.took, BRANCH), call, signed=signed, main=False)

    def _add_weighted(self, call: Call) -> None:
        """A convolution or linear layer, read after the norm and the activation that follow it."""
        norm, read, active = self._reading(call)
        read_at, reader = (call.address, call) if read is None else self._reader(read) or (call.address, call)
        signed = active not in NON_NEGATIVE and not isinstance(reader.module, nn.ReLU6)
        kind = "linear" if isinstance(call.module, nn.Linear) else "convolution"
        if (
            kind == "convolution"
            and not self._rows
            and self._blocks.halves
            and call.module.kernel_size == call.module.stride
        ):
            kind = "patch embedding"
        own = self._blocks.own[call.ended]
        aside = "" if own & ~(self._branches | self._gates) or not own else BRANCH if own & ~self._gates else GATE
        name = call.address.removesuffix(self._declared.suffix)
        self._put(
            name, kind + aside, self._before(call.took, aside), call, read_at=read_at, signed=signed, main=not aside
        )
        if read_at != call.address:
            raw = "before activation" if norm is None else "before batch-norm"
            before = f"{call.address} ({raw})" if name == call.address else call.address
            self._put(before, raw, name, call, main=False)
        gives = next((each for each in self._calls if each.gave is norm and isinstance(each.module, NORMS)), None)
        if gives is not None and gives is not reader and has_images(gives.gave):
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
            if op in ACTIVATIONS:
                return (norm, node, op) if fits else (norm, read, "")
            if "norm" in op and "layer" not in op and norm is None:
                norm, read = node, node if fits else read
            elif op not in BETWEEN:
                break
        return norm, read, ""

    def _following(self, node: Node) -> tuple[Node, str] | None:
        """What alone is computed from a tensor, and by which operation; x times an activation of x is one."""
        uses = self._uses.get(node.number, [])
        if len(uses) == 1 and len(uses[0].parents) == 1:
            return uses[0], uses[0].op.rstrip("_")
        if (
            len(uses) == 2
            and uses[0].op in ACTIVATIONS
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
        halves = [half for half in self._blocks.halves if half.of is each]
        first, before = self._blocks.first_of(each), self._before(each.stream) or self._before(each.parts[0])
        self._befores.setdefault(each.total.number, before)
        for half in halves:
            if has_images(half.giver.gave):  # Swin's attention runs over windows, so its rows are no longer images
                after = before if half.kind == "attention" else self._before(half.part) or before
                self._put(half.giver.address, half.kind, after, half.giver, made_by=self._blocks.makers(half))
                self._hang(half)
        whole = self._returner(each, halves)
        reader = (whole.address, whole, whole.gave) if whole is not None else self._taker(each, halves)
        if reader is None or not has_images(each.total):
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
                and not self._blocks.others(first, whole)
            ):
                after = self._before(whole.took)  # a block that has sums before its attention
        name = call.address if whole is not None else self._name_of(each, halves)
        if name is None or any(layer.name == name for layer in self.layers):
            name = read_at if read_at.endswith(INPUT) else f"{read_at} (sum)"
        signed = self._declared.signed
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

    def _returner(self, each: Sum, halves: list[Half]) -> Call | None:
        """The module whose own code makes a sum and returns it, perhaps after an activation; for a block's last sum the
        block."""
        total, first = each.total, self._blocks.first_of(each)
        own = None
        for call in self._calls:
            if not call.address or not call.made(total) or not has_images(call.gave):
                continue
            path = between(total, call.gave)
            if path is None:
                continue
            # Where the norm comes after each sum, what it gives is the stream that goes on.
            links = [
                (other.before.total, other.stream)
                for other in self._blocks.sums
                if other.before is not None and call.made(other.before.total)
            ]
            normed = any("norm" in node.op for link in links for node in between(*link) or [])
            same = all(
                node.op.rstrip("_") in (*ACTIVATIONS, *RESHAPED, "alias") or (normed and "norm" in node.op)
                for node in path
            )
            if not same or not possible_units(call.gave) & possible_units(total):
                continue
            block = call.made(first.total) and (first.before is None or not call.made(first.before.total))
            if halves and first is not each and block:
                return call
            own = own or (call if call.name == total.within else None)
        return own

    def _taker(self, each: Sum, halves: list[Half]) -> tuple[str, Call, Node] | None:
        """Where a sum that no module returns can be read, perhaps scaled or after an activation: the place, the module
        there, and the tensor."""
        nodes, node = [each.total], each.total
        while (following := self._following(node)) is not None and following[1] in ("mul", "div", *ACTIVATIONS):
            node = following[0]
            nodes.insert(0, node)
            if following[1] in ACTIVATIONS:
                break
        if halves:  # where the norm comes after the sum, the stream goes on from there
            nodes[:0] = [later.stream for later in self._blocks.sums if later.before is each]
        readers = ((self._reader(node), node) for node in nodes)
        return next(((*reader, node) for reader, node in readers if reader is not None), None)

    def _name_of(self, each: Sum, halves: list[Half]) -> str | None:
        """What a sum that no module returns is called: after its block or after the module that gives what it adds."""
        whole = next(
            (call for call in self._calls if call.address and call.name == each.total.within and call.made(each.total)),
            None,
        )
        attending = any(half.kind == "attention" for half in halves)
        if whole is not None and attending and not self._blocks.others(self._blocks.first_of(each), whole):
            return f"{whole.address} after attention"
        giver = self._blocks.giver(each, each.parts[0])
        return None if giver is None else f"{giver.address} (sum)"

    def _hang(self, half: Half) -> None:
        """Layers, norms and activations that make what a half adds."""
        for call in self._inner[half.giver.ended]:
            if call.gave is half.giver.gave or not has_images(call.gave):
                continue
            op = call.gave.op.rstrip("_")
            if isinstance(call.module, WEIGHTED):
                kind = "linear" if isinstance(call.module, nn.Linear) else "convolution"
            elif isinstance(call.module, nn.LayerNorm):
                kind = "norm"
            elif op in ACTIVATIONS and call.made(call.gave) and not list(call.module.children()):
                kind = "activation"
            else:
                continue
            signed = kind != "activation" or op not in NON_NEGATIVE
            self._put(call.address, kind, half.giver.address, call, signed=signed, main=False)
