"""Shards computed by actors of Ray: on this machine, or on a cluster. The one file that imports it."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from memloc.errors import MemlocError, MissingExtraError, SpecError, TrainingError, warn
from memloc.machine import own_version

_AHEAD = 2  # shards that wait at an actor
_TRIES = 3  # times that a shard is begun
_LOOK = 0.5  # seconds between looks
_FIRST, _OTHERS = 60.0, 30.0  # seconds that actors have to be placed and begin: until one has, and the others then
_ANSWER = 5.0  # seconds that an address has to answer


def _threads() -> int:
    """The threads that OMP_NUM_THREADS asks for, of the outermost level where it names several; 1 without it."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(int(first), 1) if first.isdigit() else 1


@dataclass(frozen=True)
class RayPlace:
    """Where actors run.

    Attributes:
        address: "local", "auto" (the cluster of this machine), or HOST:PORT or ray://HOST:PORT.
        workers: actors; 0 for as many as the cluster's cores or GPUs allow.
        threads: of each. gpus: of each, which may be a fraction.
    """

    address: str = "local"
    workers: int = 0
    threads: int = field(default_factory=_threads)
    gpus: float = 0.0


class _Worker:
    """What an actor holds: what all shards share, made ready once."""

    def __init__(self, shared: Any, ready: Callable[[Any], Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self._stack = ExitStack()
        self._shared = self._stack.enter_context(ready(shared))

    def versions(self) -> dict[str, str]:
        return {"memloc": own_version(), "torch": torch.__version__}

    def compute(self, of: Callable[[Any, slice], Any], shard: slice) -> Any:
        return of(self._shared, shard)


def compute_on_ray(
    shards: Sequence[slice],
    *,
    place: RayPlace,
    shared: Any,
    modules: Sequence[nn.Module],
    ready: Callable[[Any], Any],
    of: Callable[[Any, slice], Any],
    load: Callable[[int], Any],
    store: Callable[[int, Any], None],
    show: Callable[[int], None],
) -> list[Any]:
    """The state of every shard, in order; those that are there are kept.

    An actor that dies is replaced and its shards are begun again. No more shards are under way than two an actor, so
    that what waits to be stored does not grow with their number.

    Args:
        shared: what every actor needs, sent once. modules: in it, whose classes may stand in a user's file.
        ready: a context manager that makes it ready on an actor. of: the state of one shard.
        load, store, show: as in `compute_shards`; show is called with the first point of the shards done.
    Raises:
        SpecError: the address does not answer, or a worker has another version. TrainingError: a shard's actor died
            again and again.
    """
    library = _library()
    missing = [number for number in range(len(shards)) if load(number) is None]
    with _connected(library, place), _by_value(library, modules):
        actors = _Actors(library, place, library.put(shared), ready, len(missing))
        try:
            for number, state in actors.each(missing, shards, of):
                store(number, state)
                show(shards[number].start)
        finally:
            actors.end()
    return [load(number) for number in range(len(shards))]


class _Actors:
    """Actors, and what is under way at each."""

    def __init__(self, library: Any, place: RayPlace, shared: Any, ready: Callable[[Any], Any], shards: int) -> None:
        self._ray, self._place, self._shared, self._ready = library, place, shared, ready
        cluster = library.cluster_resources()
        room = cluster.get("GPU", 0) / place.gpus if place.gpus else cluster.get("CPU", 1) / place.threads
        if room < 1:
            raise self._no_room()
        self._idle: list[Any] = []
        for _ in range(max(min(place.workers or int(room), shards), 0)):
            self._idle.append(self._made())
        self._under_way: dict[Any, tuple[int, Any]] = {}
        self._tried: dict[int, int] = {}

    def _made(self) -> Any:
        kind = self._ray.remote(num_cpus=self._place.threads, num_gpus=self._place.gpus, max_restarts=0)(_Worker)
        return kind.remote(self._shared, self._ready, self._place.threads)

    def _no_room(self) -> SpecError:
        if self._place.gpus:
            what, step = f"{self._place.gpus:g} GPUs", "Pass --ray-gpus 0 for processors"
        else:
            what, step = f"{self._place.threads} cores", "Set OMP_NUM_THREADS lower"
        return SpecError(
            f"there is no room for a worker of {what} on Ray ({self._place.address}). Expected some. {step}, wait until"
            " others are done, or start the cluster with more."
        )

    def _placed(self) -> list[Any]:
        """The actors that the cluster has room for now; the others are ended, and said.

        Raises:
            SpecError: there is room for none.
        """
        asked = {actor.versions.remote(): actor for actor in self._idle}
        first, _ = self._ray.wait(list(asked), timeout=_FIRST)
        if not first:
            raise self._no_room()
        done, waiting = self._ray.wait(list(asked), num_returns=len(asked), timeout=_OTHERS)
        for reference in waiting:
            self._ray.kill(asked[reference])
        if waiting:
            warn(f"There is room for {len(done)} of {len(asked)} workers, which go on alone.")
        for reference in done:
            self._check(self._ray.get(reference))
        return [asked[reference] for reference in done]

    def _check(self, there: dict[str, str]) -> None:
        """Raise SpecError where an actor computes with something else."""
        here = {"memloc": own_version(), "torch": torch.__version__}
        different = next((name for name in here if here[name] != there[name]), None)
        if different is not None:
            raise SpecError(
                f"a worker has {different} {there[different]} and this process {here[different]}. Expected the same"
                " everywhere, which gives the same figures. Install that version there."
            )

    def each(
        self, numbers: Sequence[int], shards: Sequence[slice], of: Callable[[Any, slice], Any]
    ) -> Iterator[tuple[int, Any]]:
        """States of shards by their numbers, as they come."""
        if not numbers:
            return
        actors = self._idle = self._placed()
        waiting = list(numbers)
        load = dict.fromkeys(range(len(actors)), 0)
        while waiting or self._under_way:
            for place in sorted(load, key=load.__getitem__):
                while waiting and load[place] < _AHEAD:
                    number = waiting.pop(0)
                    self._tried[number] = self._tried.get(number, 0) + 1
                    self._under_way[actors[place].compute.remote(of, shards[number])] = (number, place)
                    load[place] += 1
            done, _ = self._ray.wait(list(self._under_way), timeout=_LOOK)
            for reference in done:
                number, place = self._under_way.pop(reference)
                load[place] -= 1
                try:
                    state = self._ray.get(reference)
                except self._ray.exceptions.RayActorError as problem:
                    lost = [number, *self._lost(place)]
                    self._give_up(lost, problem)
                    waiting = sorted({*waiting, *lost})
                    actors[place], load[place] = self._made(), 0
                    warn(f"A worker ended; its shards are begun again at another one ({len(lost)}).")
                    continue
                except self._ray.exceptions.RayTaskError as problem:
                    cause = problem.cause
                    raise (cause if isinstance(cause, MemlocError) else problem) from None
                yield number, state

    def _lost(self, place: int) -> list[int]:
        """What else was under way at an actor that ended."""
        lost = [(reference, number) for reference, (number, at) in self._under_way.items() if at == place]
        for reference, _ in lost:
            del self._under_way[reference]
        return [number for _, number in lost]

    def _give_up(self, numbers: Sequence[int], problem: Exception) -> None:
        """Raise TrainingError for a shard whose actors died again and again."""
        for number in numbers:
            if self._tried[number] >= _TRIES:
                raise TrainingError(
                    f"the workers that computed shard {number} ended {_TRIES} times:"
                    f" {str(problem).strip().splitlines()[0]}. Expected them to finish, with memory for a batch. Pass a"
                    " smaller --batch-size, or repeat the command: shards that are done are kept."
                ) from problem

    def end(self) -> None:
        """End the actors, and what is under way."""
        for actor in self._idle:
            self._ray.kill(actor)


@contextmanager
def _connected(library: Any, place: RayPlace) -> Iterator[None]:
    """Join the cluster, or start one here, and leave it again; one that the caller joined is used."""
    if library.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if place.address == "local":
        from memloc.machine import cores

        library.init(num_cpus=max(place.workers * place.threads, cores()), include_dashboard=False, **quiet)
    else:
        _check_answers(place.address)
        try:
            library.init(address=place.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as problem:
            if any(word in str(problem).lower() for word in ("token", "auth")):
                raise SpecError(
                    f"the Ray cluster at {place.address!r} refuses this process: it wants its token. Expected the same"
                    " token here and there. Copy it from where ray start ran (ray get-auth-token), or start the cluster"
                    " with RAY_AUTH_MODE=disabled in a network of your own."
                ) from problem
            raise _no_answer(place.address) from problem
    try:
        yield
    finally:
        library.shutdown()


def _check_answers(address: str) -> None:
    """Raise SpecError where nothing listens at an address; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise SpecError(
            f"{address!r} is no address of Ray. Expected local, auto, or HOST:PORT. Pass --ray local, or what ray start"
            " printed."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()
    except OSError as problem:
        raise _no_answer(address) from problem


def _no_answer(address: str) -> SpecError:
    return SpecError(
        f"no Ray cluster answers at {address!r}. Expected one that runs. Start it with: ray start --head, or pass --ray"
        " local for this machine alone."
    )


@contextmanager
def _by_value(library: Any, modules: Sequence[nn.Module]) -> Iterator[None]:
    """Send the classes of a user's own file along with encoders made of them: a worker cannot import that file."""
    pickle = library.cloudpickle
    names = {type(part).__module__ for module in modules for part in module.modules()}
    sent = [sys.modules[name] for name in names if name in sys.modules and not _is_importable(name)]
    for each in sent:
        pickle.register_pickle_by_value(each)
    try:
        yield
    finally:
        for each in sent:
            pickle.unregister_pickle_by_value(each)


def _is_importable(name: str) -> bool:
    if name == "__main__":
        return True  # which is sent by value anyway
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _library() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as problem:
        raise MissingExtraError(
            "ray is not installed. Expected it for --ray. Install it with: pip install 'memloc[ray]'"
        ) from problem
    return ray
