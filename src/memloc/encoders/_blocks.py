"""The two halves of a transformer's blocks: attention, and the fully-connected part that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import nn

from memloc.encoders._flow import Call, Node
from memloc.encoders._layer import WEIGHTED
from memloc.encoders._paths import Sum, attends, find_sums


@dataclass(frozen=True)
class Half:
    """What one half of a transformer's block adds to the residual stream."""

    kind: str
    of: Sum
    part: Node
    giver: Call


class Blocks:
    """The residual sums of a trial pass, and which of them are halves of blocks."""

    def __init__(self, calls: list[Call], nodes: list[Node]) -> None:
        self._calls = calls
        self.own = {call.ended: _multiplications(nodes[call.first : call.last]) for call in calls}
        self.weighted = [call for call in calls if call.address and isinstance(call.module, WEIGHTED)]
        self.sums = find_sums(nodes, calls)
        self.halves = self._find_halves()
        self._ends = {
            kind: {half.of.total.number for half in self.halves if half.kind == kind}
            for kind in ("attention", "fully-connected")
        }

    def _find_halves(self) -> list[Half]:
        """Sums of attention that a fully-connected part follows, perhaps after more attention or another part, and
        these parts."""
        next_of: dict[int, Sum] = {}
        for each in self.sums:
            if each.before is not None:
                next_of.setdefault(each.before.total.number, each)
        found: dict[int, list[Half]] = {}
        for each in reversed(self.sums):
            attention = next((part for part in each.parts if attends(part, each.base)), None)
            giver = None if attention is None else self.giver(each, attention)
            if attention is None or giver is None:
                continue
            halves = [Half("attention", each, attention, giver)]
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

    def _connected(self, each: Sum, part: Node) -> Half | None:
        """A part that works on each position alone; linear layers may have convolutions of single channels between
        them."""
        giver, own = self.giver(each, part), each.own(part)
        if giver is None or attends(part, each.base):
            return None
        modules = [call.module for call in self.weighted if own & self.own[call.ended]]
        linear = [module for module in modules if isinstance(module, nn.Linear)]
        spatial = [
            module for module in modules if isinstance(module, nn.modules.conv._ConvNd) and prod(module.kernel_size) > 1
        ]
        if len(modules) == len(spatial) or any(not linear or module.groups < module.in_channels for module in spatial):
            return None
        return Half("fully-connected", each, part, giver)

    def first_of(self, each: Sum) -> Sum:
        """The first sum of a transformer's block: the attention that it ends, or itself."""
        attention = self._ends["attention"]
        while each.total.number not in attention and each.before is not None:
            each = each.before
        while (
            each.before is not None and each.before.total.number in attention - self._ends["fully-connected"]
        ):  # a decoder's
            each = each.before
        return each

    def giver(self, each: Sum, part: Node) -> Call | None:
        """The outermost module that gives what a sum adds, but for operations without weights."""
        own = each.own(part)
        gives = [
            call
            for call in self._calls
            if call.address
            and call.last <= each.total.number
            and call.gave.weighted == part.weighted
            and self.own[call.ended]
            and not self.own[call.ended] & ~own
        ]
        return min(gives, key=lambda call: (call.address.count("."), call.ended), default=None)

    def inside(self, half: Half) -> list[Call]:
        """The calls that make what a half adds: by their weights, or without any in between."""
        stream, total, own = half.of.stream, half.of.total, half.of.own(half.part)
        found = []
        for call in self._calls:
            weights, held = self.own[call.ended], call.gave.weighted
            between = (
                stream.number < call.first
                and call.last <= total.number
                and not stream.weighted & ~held
                and not held & ~half.part.weighted
            )
            if call.address and (not weights & ~own if weights else between):
                found.append(call)
        return found

    def makers(self, half: Half) -> tuple[str, ...]:
        """The modules whose weights make what a half adds, where the one that is read does not hold them all."""
        own, giver = half.of.own(half.part), half.giver
        others = [
            call.name
            for call in self.weighted
            if self.own[call.ended] & own and call is not giver and not giver.holds(call)
        ]
        return tuple(dict.fromkeys([*others, giver.name])) if others else ()

    def others(self, first: Sum, whole: Call) -> bool:
        """Whether a module makes the attention of other blocks, too."""
        return any(
            half.kind == "attention" and whole.made(half.of.total) and self.first_of(half.of) is not first
            for half in self.halves
        )


def _multiplications(nodes: list[Node]) -> int:
    """Those of some nodes that multiply with weights, a bit each."""
    bits = 0
    for node in nodes:
        bits |= node.weighted & 1 << node.number
    return bits
