"""A step of training whose shapes and addresses never change, so that a GPU replays it as one graph.

The step is written once, as tensors in and out of fixed places; on a CPU it runs as it is (`--step graph` there), and
on a GPU it is captured and replayed. What differs from step to step (rows, epoch, learning rate, pace of a teacher)
lies in tensors that are filled before.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from memloc.encoders import is_out_of_memory
from memloc.errors import warn
from memloc.machine import own_code
from memloc.objectives import Batch
from memloc.pretrain._feed import Feed

if TYPE_CHECKING:
    from memloc.data import LazyPixels
    from memloc.pretrain._loop import Training

_WARM_UP = 3  # steps before a capture, which set up libraries and choose kernels
_APART = 0.05  # that a compiled step's loss may differ by, in bfloat16; a share of losses above 1


class CannotCaptureError(RuntimeError):
    """A step that cannot be captured."""


@dataclass(frozen=True)
class _Place:
    """Where a step of so many rows reads and what runs it."""

    rows: Tensor
    shown: Tensor
    run: Callable[[], None]
    draws: bool = False  # random numbers, which graphs of one process read from one place


class StaticStep:
    """The steps of one training, captured on a GPU."""

    def __init__(self, training: Training, pixels: Tensor | LazyPixels, points: Tensor, labels: Tensor | None) -> None:
        self._of, self._points, self._labels = training, points, labels
        device = training.device
        self._cuda = device.type == "cuda"
        self._feed = Feed(pixels, device)
        self._shape = tuple(pixels.shape[1:])
        kind = torch.float32 if self._cuda else torch.float64  # which the fused optimizers take
        self.rate, self._pace, self._loss = (torch.zeros((), dtype=kind, device=device) for _ in range(3))
        self._epoch = torch.zeros((), dtype=torch.int64, device=device)
        self._draw = training.objective.drawer(training.spec.policy, training.seed, static=True)
        self._places: dict[int, _Place] = {}
        self._pool: Any = None
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._compiles = self._cuda
        self._compiled: Callable[..., Tensor] | None = None

    def begin(self, epoch: int, order: Tensor, rates: list[float], paces: list[float]) -> None:
        """Put what an epoch needs onto the device.

        Args:
            order: of the slots. rates, paces: learning rate and pace of each step.
        Raises:
            CannotCaptureError: the model cannot be captured; its weights are as before.
        """
        device = self._of.device
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which weights and checkpoint came by
        with self._on_stream():
            self._order, self._host_order = order.to(device), order
            self._rates = torch.tensor(rates, dtype=self.rate.dtype, device=device)
            self._paces = torch.tensor(paces, dtype=self.rate.dtype, device=device)
            self._losses = torch.zeros(len(rates), dtype=torch.float32, device=device)
            self._epoch.fill_(epoch)
            if not self._places:  # before anything is trained: what does not fit, or cannot be captured, shows now
                self._make_ready(len(order), len(rates))

    def take(self, number: int, start: int, stop: int) -> Tensor:
        """Take one step of the epoch; returns its loss, which may still be on its way."""
        with self._on_stream():
            place = self._places[stop - start]
            self._fill(place, number, start, stop)
            place.run()
            self._losses[number].copy_(self._loss)
            if place.draws and self._stream is not None:
                self._stream.synchronize()  # before another encoder's step puts its numbers there
        return self._losses[number]

    def _fill(self, place: _Place, number: int, start: int, stop: int) -> None:
        """Put rows, images, learning rate and pace of a step where it reads them."""
        place.rows.copy_(self._order[start:stop])
        self._feed.fill(place.shown, place.rows, self._host_order[start:stop])
        self.rate.copy_(self._rates[number])
        self._pace.copy_(self._paces[number])

    def _make_ready(self, slots: int, batches: int) -> None:
        """A place for each size of batch that an epoch has: sizes differ by one at most."""
        for count in sorted({-(-slots // batches), slots // batches}, reverse=True):
            place = self._place(count)
            self._fill(place, 0, 0, count)
            self._places[count] = self._ready(place)

    def wait(self) -> None:
        """Wait until the steps are done."""
        if self._stream is not None:
            self._stream.synchronize()

    def finish(self) -> None:
        """Wait, and let go of the graphs."""
        self.wait()
        self._places.clear()
        self._of.optimizer.zero_grad(set_to_none=True)

    def _on_stream(self) -> Any:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _place(self, count: int) -> _Place:
        device = self._of.device
        rows = torch.zeros(count, dtype=torch.int64, device=device)
        shown = torch.zeros(count, *self._shape, dtype=torch.uint8, device=device)
        return _Place(rows, shown, lambda: self._take(rows, shown, self._loss_of))

    def _take(self, rows: Tensor, shown: Tensor, loss_of: Callable[..., Tensor]) -> None:
        """The step itself."""
        training = self._of
        labels = None if self._labels is None else self._labels[rows]
        inputs = training.prepared(self._draw(shown, rows, self._epoch))
        loss = loss_of(inputs, self._points[rows], labels, rows, self._epoch)
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        training.optimizer.step()
        training.objective.after_step(training.module, self._pace)
        self._loss.copy_(loss.detach())

    def _loss_of(
        self, inputs: Tensor, points: Tensor, labels: Tensor | None, slots: Tensor, epoch: int | Tensor
    ) -> Tensor:
        return self._of.loss(inputs, Batch(points, labels, slots, epoch, self._of.seed))

    def _ready(self, place: _Place) -> _Place:
        """The place with a graph that runs it: compiled where that works, else as it is."""
        if not self._cuda:
            return place
        self._check_waits(place)
        if self._compiles:
            try:
                return self._captured(place, self._compiled_loss(place))
            except Exception as problem:
                if is_out_of_memory(problem):
                    raise
                self._compiles = False
                warn(f"The training step is not compiled, which is slower: {_in_a_line(problem)}")
        try:
            return self._captured(place, self._loss_of)
        except Exception as problem:
            if is_out_of_memory(problem):
                raise
            raise CannotCaptureError(_in_a_line(problem)) from problem

    def _check_waits(self, place: _Place) -> None:
        """Raise CannotCaptureError where a step asks the device for a number, or draws on the host what a graph would
        repeat for ever. A capture that fails in the middle would leave the allocator and the generator as they are
        during one."""
        with self._unchanged():
            before = _host_random()
            self._take(place.rows, place.shown, self._loss_of)  # what is made at the first step
            assert self._stream is not None, "a GPU has one"
            self._stream.synchronize()
            mode = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                self._take(place.rows, place.shown, self._loss_of)
            except Exception as problem:
                if is_out_of_memory(problem):
                    raise
                raise CannotCaptureError(_in_a_line(problem)) from None
            finally:
                torch.cuda.set_sync_debug_mode(mode)
            if before != _host_random():
                raise CannotCaptureError("the model draws random numbers on the host")

    def _compiled_loss(self, place: _Place) -> Callable[..., Tensor]:
        """The loss, compiled.

        Raises:
            RuntimeError: it differs from the plain one.
        """
        if self._compiled is None:
            self._compiled = torch.compile(own_code(StaticStep._loss_of), dynamic=False)
        compiled = self._compiled

        def loss_of(*inputs: Any) -> Tensor:
            return compiled(self, *inputs)

        found, before = [], self._random()
        draws = False
        for each in (self._loss_of, loss_of):
            with self._unchanged(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice on settings that are the caller's
                self._take(place.rows, place.shown, each)
                found.append(float(self._loss))
                draws = draws or not torch.equal(before, self._random())
        # dropout draws other numbers when it is compiled
        if not draws and abs(found[0] - found[1]) > _APART * max(abs(found[0]), 1.0):
            raise RuntimeError(f"the compiler's loss is {found[1]:.4g} in place of {found[0]:.4g}")
        return loss_of

    def _captured(self, place: _Place, loss_of: Callable[..., Tensor]) -> _Place:
        """The step as a graph; weights, optimizer and random numbers are as before."""
        assert self._stream is not None, "a GPU has one"
        graph = torch.cuda.CUDAGraph()
        pool = self._pool or torch.cuda.graph_pool_handle()
        with self._unchanged(), _quick():
            before = self._random()
            for _ in range(_WARM_UP):
                self._take(place.rows, place.shown, loss_of)
            self._stream.synchronize()
            draws = not torch.equal(before, self._random())
            try:
                with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                    self._take(place.rows, place.shown, loss_of)
            except Exception:
                self._end_capture(pool)
                raise
        self._pool = pool
        return _Place(place.rows, place.shown, graph.replay, draws)

    def _end_capture(self, pool: Any) -> None:
        """After a capture that failed, leave the allocator and the generator as after one that did not."""
        device = self._of.device.index or 0
        with suppress(Exception):
            torch._C._cuda_endAllocateToPool(device, pool)
        with suppress(Exception):
            torch._C._cuda_releasePool(device, pool)
        with suppress(Exception):
            trivial = torch.cuda.CUDAGraph()
            with torch.cuda.graph(trivial, stream=self._stream):
                self._loss.add_(0)

    def _random(self) -> Tensor:
        """The state of the generator that dropout and the like draw from."""
        return torch.cuda.get_rng_state(self._of.device) if self._cuda else torch.get_rng_state()

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Leave weights, buffers, the optimizer's state and the generator as they were, in place."""
        training = self._of
        parts: list[nn.Module] = [training.module, training.objective]
        tensors = [each for part in parts for each in (*part.parameters(), *part.buffers())]
        kept = [each.detach().clone() for each in tensors]
        state: Any = training.optimizer.state
        before = {key: {name: value.clone() for name, value in held.items()} for key, held in state.items()}
        drawn, host = self._random(), torch.get_rng_state()
        try:
            yield
        finally:
            with torch.no_grad():
                for each, value in zip(tensors, kept, strict=True):
                    each.copy_(value)
                for key, held in state.items():
                    for name, value in held.items():
                        # a state that was made meanwhile starts at zero
                        known = before.get(key, {}).get(name)
                        value.zero_() if known is None else value.copy_(known)
            torch.set_rng_state(host)
            if self._cuda:
                torch.cuda.set_rng_state(drawn, training.device)


@contextmanager
def _quick() -> Iterator[None]:
    """Let cudnn try its kernels out, here alone."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=True,
        deterministic=cudnn.deterministic,
        allow_tf32=cudnn.allow_tf32,
    ):
        yield


def _host_random() -> tuple[Any, ...]:
    """The states of the generators on the host."""
    return bytes(torch.get_rng_state().numpy()), random.getstate()


def _in_a_line(problem: Exception) -> str:
    first = next(iter(str(problem).strip().splitlines()), "")
    return f"{type(problem).__name__}: {first}"
