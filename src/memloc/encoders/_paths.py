"""How the tensors of a forward pass are joined: shortcuts and parallel paths, gates, residual sums, and attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from memloc.encoders._flow import SUMS, Call, Node

_PRODUCTS = ("mul", "mul_", "bmm", "mm")
_POOLED = ("mean", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "amax", "sum")
RESHAPED = ("view", "_unsafe_view", "unsqueeze", "squeeze", "permute", "transpose", "clone", "expand")


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum of two results of which one comes from layers that the other does not.

    Attributes:
        total: the sum. stream: the residual stream it takes. parts: what it adds to that; several for parallel layers.
            base: the
            multiplications with weights that lie before the parts, a bit each. before: the sum that the stream is, but
            for operations without weights.
    """

    total: Node
    stream: Node
    parts: tuple[Node, ...]
    base: int
    before: Sum | None

    def own(self, part: Node) -> int:
        """The multiplications with weights of what is added."""
        return part.weighted & ~self.base

    @property
    def added(self) -> int:
        """Those of everything that is added."""
        bits = 0
        for part in self.parts:
            bits |= self.own(part)
        return bits

    @property
    def joined(self) -> int:
        """Those that lie before one operand of the sum and not before the other."""
        one, other = self.total.parents
        return one.weighted ^ other.weighted

    @property
    def parallel(self) -> bool:
        """Whether neither operand comes from the other's layers."""
        return bool(self.stream.weighted & ~self.parts[0].weighted)


def plain(node: Node) -> Iterator[Node]:
    """A node and those before it, as long as no weights, and no results of other weights, come in between."""
    yield node
    while node.parents and all(parent.weighted == node.weighted for parent in node.parents):
        node = node.parents[0]
        yield node


def find_sums(nodes: list[Node], calls: list[Call]) -> list[Sum]:
    """The residual sums of a pass, in the order in which they were made."""
    found: dict[int, Sum] = {}
    for node in nodes:
        if node.op not in SUMS or len(node.parents) != 2 or node.parents[0].weighted == node.parents[1].weighted:
            continue
        stream, part = sorted(node.parents, key=lambda each: _bits(each, node.parents))
        base, inner = stream.weighted, found.get(part.number)
        if (
            stream.op == "" and stream.number
        ):  # a token of its own: what is added begins with its module, after the last sum that it comes from
            sums = [each.total.number for each in found.values() if not each.added & ~part.weighted]
            began = [call.first for call in calls if call.name == node.within and call.made(node)]
            base = (1 << max([*sums, *began], default=0)) - 1
        if not stream.weighted & ~part.weighted:  # x + f(x), or x + (a + b) of a module's own code
            parts: tuple[Node, ...] = (part,)
            if inner is not None and inner.parallel and inner.total.within == node.within:
                parts = (inner.stream, *inner.parts)
                del found[part.number]
            found[node.number] = Sum(node, stream, parts, base, _sum_of(stream, found))
            continue
        for taken, added in ((stream, part), (part, stream)):
            before = _sum_of(taken, found)
            if (
                before is not None
                and before.total.within == node.within
                and not before.base & ~added.weighted
                and not added.weighted & before.added
            ):
                found[node.number] = Sum(node, taken, (added,), before.base, before)  # x + a + b
                break
        else:  # the stream itself is projected, by fewer layers than are added
            found[node.number] = Sum(node, stream, (part,), base, _sum_of(stream, found))
    return list(found.values())


def _sum_of(node: Node, found: dict[int, Sum]) -> Sum | None:
    return next((found[each.number] for each in plain(node) if each.number in found), None)


def _bits(node: Node, parents: tuple[Node, ...]) -> int:
    """How many multiplications lie before a parent and not before the other."""
    return max((node.weighted & ~other.weighted).bit_count() for other in parents)


def attends(part: Node, base: int) -> bool:
    """Whether a result was computed with attention: a softmax of products of two results, after the multiplications of
    `base`."""
    return any(
        "attention" in node.op or ("softmax" in node.op and any(_is_product(each) for each in _since(node, base)))
        for node in _since(part, base)
    )


def _is_product(node: Node) -> bool:
    return node.op in ("bmm", "baddbmm") or (node.op == "mm" and len(node.parents) > 1)


def _since(node: Node, base: int) -> Iterator[Node]:
    """A node and those it comes from, back to those that have no more multiplications than `base`."""
    waiting, seen = [node], set()
    while waiting:
        each = waiting.pop()
        if each.number not in seen and each.weighted & ~base:
            seen.add(each.number)
            yield each
            waiting.extend(each.parents)


def side_paths(nodes: list[Node], output: Node) -> tuple[int, int]:
    """The multiplications off the main chain, a bit each: of shortcuts and parallel paths, and of gates as in squeeze
    and excitation."""
    branches = gates = settled = 0
    for node in nodes:
        if len(node.parents) < 2:
            continue
        held = [parent.weighted for parent in node.parents]
        gate = _gate(node, nodes) if node.op in _PRODUCTS and len(held) == 2 else 0
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
    if output.weighted and not output.lost:
        # What the output does not come from, such as an unused pooling head.
        branches |= sum(node.weighted & 1 << node.number for node in nodes) & ~output.weighted & ~gates
    return branches, gates


def _gate(node: Node, nodes: list[Node]) -> int:
    """The multiplications that compute factors or weights for the other operand of a product, from a summary of it."""
    for side, other in ((0, 1), (1, 0)):
        factors, values = node.parents[side], node.parents[other]
        own = factors.weighted & ~values.weighted
        if not own or values.weighted & ~factors.weighted:
            continue
        first = nodes[(own & -own).bit_length() - 1]
        if prod(factors.shape) < prod(values.shape) or ("mul" in node.op and _pooled(first.parents[0])):
            return own
    return 0


def _pooled(node: Node) -> bool:
    """Whether a tensor was pooled over positions just before."""
    while len(node.parents) == 1:
        if node.op in _POOLED:
            return True
        if node.op not in RESHAPED:
            return False
        node = node.parents[0]
    return False
