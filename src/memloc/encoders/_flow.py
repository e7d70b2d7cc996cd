"""What follows what in a forward pass: every tensor with the operation that gave it and the tensors it comes from."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

SUMS = ("add", "add_")  # operations by their names in PyTorch's dispatcher
_ALONE = ("norm", "pool", "attention")  # parts of those whose other results are statistics and places
_MULTIPLY = ("conv", "mm", "linear", "attention")  # parts of such names


@dataclass(frozen=True, eq=False, repr=False)
class Node:
    """A tensor of a forward pass at one moment.

    Attributes:
        number: place among all nodes of the pass. op: the operation, as PyTorch's dispatcher names it ("" for the
            images).
        parents: what it was computed from, without weights and constants. within: address of the innermost module that
            ran it.
        weighted: a bit, by number, for every node that it comes from, itself included, that multiplies with weights, as
            convolutions
            and linear layers do. lost: whether it comes from the images by a way outside of PyTorch, such as NumPy.
            unit: which axis its channels or neurons are, where that is known.
    """

    number: int
    op: str
    unit: int | None
    parents: tuple[Node, ...]
    within: str
    shape: tuple[int, ...]
    weighted: int
    lost: bool


class Flow(TorchDispatchMode):
    """Records the nodes of a forward pass that runs inside it.

    >>> images = torch.ones(1, 2)
    >>> with Flow(images) as flow:
    ...     doubled = images + images.exp()
    >>> flow.node_of(doubled).op, [parent.op for parent in flow.node_of(doubled).parents]
    ('add', ['', 'exp'])
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether PyTorch keeps its compiler away from this class, for which it imports it: seconds, for nothing where
        nobody compiles."""
        return "torch._dynamo" in sys.modules

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.within = [""]  # addresses of the modules that are running, the innermost last
        self._of: Any = WeakTensorKeyDictionary()
        # What was last written in place into each storage, by whichever view; holding the storage's reference keeps its
        # number its own.
        self._written: dict[int, tuple[StorageWeakRef, Node]] = {}
        self._of[images] = self._new("", (), images)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and note what its results come from."""
        named = kwargs or {}
        given = list(_tensors([args, named]))
        op = getattr(func, "overloadpacket", func).__name__
        found = [(tensor, self.node_of(tensor)) for tensor in given]
        parents = list(dict.fromkeys(node for _, node in found if node is not None))
        weights = [tensor for tensor, node in found if node is None and tensor.ndim > 1]
        multiplies = bool(weights) and any(part in op for part in _MULTIPLY)
        if parents and op in SUMS:  # a token for each image, such as CLS, is no constant: it starts a residual stream
            for tensor in weights:
                if tensor.ndim > 2 and tensor.shape[0] == self.nodes[0].shape[0]:
                    self._of[tensor] = self._new("", (), tensor)
                    parents.append(self._of[tensor])
        result = func(*args, **named)
        if parents:
            alone = any(part in op for part in _ALONE)
            for tensor in itertools.islice(_tensors(result), 1 if alone else None):
                unit = _unit_of(op, args, parents[0], tuple(tensor.shape))
                node = self._of[tensor] = self._new(op, tuple(parents), tensor, unit=unit, multiplies=multiplies)
                if any(tensor is each for each in given) and (storage := _storage(tensor)) is not None:
                    self._written[storage.cdata] = storage, node
        return result

    def node_of(self, tensor: Tensor | None) -> Node | None:
        """The node that a tensor is now; None where it does not come from the images."""
        if tensor is None:
            return None
        node = self._of.get(tensor)
        storage = _storage(tensor) if self._written else None
        _, written = (None, None) if storage is None else self._written.get(storage.cdata, (None, None))
        if written is None or (node is not None and node.number >= written.number):
            return node
        node = self._of[tensor] = self._new(
            "copy_", (written,) if node is None else (written, node), tensor, unit=written.unit
        )
        return node

    def given(self, tensor: Tensor, took: Node | None) -> Node:
        """The node of what a module gave, which it has even if it is a constant, or comes from what the module took by
        another way."""
        node = self.node_of(tensor)
        if node is None:
            node = self._new("", (), tensor, lost=took is not None)
            if took is not None:
                self._of[tensor] = node
        return node

    def _new(
        self,
        op: str,
        parents: tuple[Node, ...],
        tensor: Tensor,
        *,
        unit: int | None = None,
        multiplies: bool = False,
        lost: bool = False,
    ) -> Node:
        weighted = int(multiplies) << len(self.nodes)
        for parent in parents:
            weighted, lost = weighted | parent.weighted, lost or parent.lost
        self.nodes.append(
            Node(len(self.nodes), op, unit, parents, self.within[-1], tuple(tensor.shape), weighted, lost)
        )
        return self.nodes[-1]


def _unit_of(op: str, args: Any, parent: Node, shape: tuple[int, ...]) -> int | None:
    """Which axis of a result its units are, from the operation and from where they were in what it took first."""
    before, last = parent.unit, len(shape) - 1
    if "conv" in op or ("norm" in op and "layer" not in op):
        return 1
    if "mm" in op or "linear" in op or "layer_norm" in op:
        return last
    if before is None:
        return None
    if op == "permute":
        dims = [dim % len(shape) for dim in args[1]]
        return dims.index(before)
    if op == "transpose":
        one, other = (dim % len(shape) for dim in args[1:3])
        return {one: other, other: one}.get(before, before)
    if op in ("view", "_unsafe_view", "reshape"):
        if before == len(parent.shape) - 1 and shape[-1] == parent.shape[-1]:
            return last
        return before if shape[: before + 1] == parent.shape[: before + 1] else None
    return before if len(shape) == len(parent.shape) else None


@dataclass(frozen=True, eq=False, repr=False)
class Call:
    """One call of a module during a trial forward pass.

    Attributes:
        address: the module's name, with #0, #1, … where it is called more than once; "" for the encoder itself.
        began, ended: places among all calls by when they began and ended. first, last: nodes made in it are numbered
            from the one to
            before the other. took, gave: what it was called with and what it returned; took is None for constants.
    """

    address: str
    module: nn.Module
    began: int
    ended: int
    first: int
    last: int
    took: Node | None
    gave: Node

    @property
    def shape(self) -> tuple[int, ...]:
        return self.gave.shape

    @property
    def name(self) -> str:
        """The module's name."""
        return self.address.partition("#")[0]

    def holds(self, other: Call) -> bool:
        """Whether the other call was made by this one."""
        return self.began < other.began and other.ended < self.ended

    def made(self, node: Node) -> bool:
        """Whether a node was made in this call."""
        return self.first <= node.number < self.last


@cache
def _apart_from_compiler() -> type[Flow]:
    """Flow as PyTorch keeps its compiler away from it."""

    class Apart(Flow):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return super().__torch_dispatch__(func, types, args, kwargs)

    return Apart


def record(
    module: nn.Module, images: Tensor, whole: Callable[[object], Tensor | None]
) -> tuple[list[Call], list[Node], object]:
    """The calls of a forward pass in the order in which they end, its nodes, and what the module returned; hooks are
    gone afterwards.

    Args:
        whole: the tensor that is read of what the module itself returns.
    """
    calls: list[Call] = []
    counts: dict[str, int] = {}
    running: dict[str, list[tuple[int, int, int, Node | None]]] = {}
    began, ended = itertools.count(), itertools.count()
    flow = (_apart_from_compiler() if "torch._dynamo" in sys.modules else Flow)(images)
    outer = sys.exc_info()[1]  # what a caller is handling

    def before(name: str) -> Callable[..., None]:
        def hook(_called: nn.Module, inputs: object, named: dict[str, object]) -> None:
            took = flow.node_of(as_tensor(inputs if inputs else named))
            running.setdefault(name, []).append((len(flow.within), next(began), len(flow.nodes), took))
            flow.within.append(name)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(called: nn.Module, _inputs: object, output: object) -> None:
            depth, start, first, took = running[name].pop()
            del flow.within[depth:]
            if sys.exc_info()[1] is not outer:
                return  # it raised, which its caller may catch
            tensor = as_tensor(output) if name else whole(output)
            number = counts[name] = counts.get(name, -1) + 1
            if tensor is not None:
                gave = flow.given(tensor, took)
                address = f"{name}#{number}" if number else name
                calls.append(Call(address, called, start, next(ended), first, len(flow.nodes), took, gave))

        return hook

    handles = []
    try:
        for name, part in module.named_modules():
            if name and isinstance(part, torch.jit.ScriptModule):
                continue  # takes no hooks, so what it holds is not read; what flows through it is still seen
            handles.append(part.register_forward_pre_hook(before(name), with_kwargs=True))
            handles.append(part.register_forward_hook(after(name), always_call=True))
        with torch.no_grad(), flow:  # not in inference mode, which hides operations in place
            output = module(images)
    finally:
        for handle in handles:
            handle.remove()
    reused = {name for name, number in counts.items() if number > 0}
    return (
        [replace(call, address=f"{call.address}#0") if call.address in reused else call for call in calls],
        flow.nodes,
        output,
    )


def as_tensor(output: object) -> Tensor | None:
    """The tensor of a module's output: itself, `last_hidden_state` of a mapping, else the first of a mapping or
    sequence that is no scalar.

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


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without a storage
        return None
