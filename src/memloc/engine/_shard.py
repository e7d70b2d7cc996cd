"""audit_shard, the one worker function: uint8 batch to views, views through every tapped encoder, readings to
states."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from memloc.encoders import Encoder, Layer, check_finite_reading, folded, tapped, unit_means
from memloc.engine._job import Job
from memloc.errors import EncoderError
from memloc.metrics import half_distances, pair_distances, sslmem, sslmem_pairwise, view_distances
from memloc.stats import ClassState, PointState, UnitState

_State = TypeVar("_State", UnitState, ClassState)


@dataclass(frozen=True)
class ShardState:
    """What a shard adds up to.

    Attributes:
        points: columns "align" (point, layer, encoder), "half" (point, layer, encoder, 2) from either half of the
            views,
            "pairwise" (point, layer, 3) from all views and either half, "variance" (point,) of the output's score over
            views.
        units: UnitState by group and layer. classes: ClassState by group and layer.
        activations: unit means of the points of every group, (point, unit) with the units of all layers side by side,
            where medians are asked for; they are written to disk shard by shard and never merged.
    """

    points: PointState
    units: dict[str, dict[str, UnitState]]
    classes: dict[str, dict[str, ClassState]]
    activations: dict[str, Tensor]

    def merge(self, other: ShardState) -> ShardState:
        """The state of both shards together; groups that one of them lacks come from the other."""
        return ShardState(
            self.points.merge(other.points),
            {group: _merged(self.units.get(group), other.units.get(group)) for group in {**self.units, **other.units}},
            {
                group: _merged(self.classes.get(group), other.classes.get(group))
                for group in {**self.classes, **other.classes}
            },
            {},
        )


def _merged(one: dict[str, _State] | None, two: dict[str, _State] | None) -> dict[str, _State]:
    """Layer by layer; a layer that one of them lacks comes from the other."""
    found = dict(one or {})
    for name, state in (two or {}).items():
        found[name] = found[name].merge(state) if name in found else state
    return found


def audit_shard(job: Job, shard: slice) -> ShardState:
    """Score one range of points.

    Args:
        job: what to compute. shard: rows of the job's points.
    Returns:
        ShardState. The same job and shard give the same bits, whoever computes them.
    """
    state: ShardState | None = None
    blocks: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        if (
            job.device.type == "cuda" and job.options.dtype != "bfloat16"
        ):  # the same bits again, and float32 as on a processor
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False)
            )
        by_module: dict[int, _Reader] = {}  # f and g may be one module, which is then read once
        shared = _shared_parts(job)
        for number, encoder in enumerate(job.encoders):
            if id(encoder.module) not in by_module:
                by_module[id(encoder.module)] = stack.enter_context(_Reader(encoder, job, number, shared))
        readers = [by_module[id(encoder.module)] for encoder in job.encoders]
        for batch in job.batches.map(shard, lambda rows: _audit_batch(job, readers, rows)):
            for group, block in batch.activations.items():
                blocks.setdefault(group, []).append(block)
            state = batch if state is None else state.merge(batch)
    assert state is not None, "shards hold points"
    return replace(state, activations={group: torch.cat(parts) for group, parts in blocks.items()})


class _Reader:
    """One encoder with its taps; `read` gives every layer's distances and, for the first encoder, unit means."""

    def __init__(self, encoder: Encoder, job: Job, number: int, shared: set[nn.Module]) -> None:
        self._encoder, self._job, self._units, self._shared = encoder, job, number == 0, shared
        self._points = 0
        self.distances: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}

    def __enter__(self) -> _Reader:
        module, layers = self._encoder.module, self._encoder.layers
        with ExitStack() as stack:
            example = self._encoder.prepare(_first_views(self._job))
            stack.enter_context(folded(module, layers, example, keep=self._shared))
            self._forward = stack.enter_context(tapped(module, layers, self._reduce))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, problem, trace)

    def read(self, inputs: Tensor, points: int) -> None:
        """Run one forward pass over prepared views of so many points."""
        self._points = points
        self.distances, self.means = {}, {}
        dtype, device = self._job.options.dtype, self._job.device.type
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            self._forward(inputs)

    def _reduce(self, layer: Layer, output: Tensor) -> None:
        views = self._job.views.count
        if len(output) != self._points * views:
            raise EncoderError(
                f"layer {layer.name!r} of {self._encoder.name} gives {len(output)} rows for {self._points * views}"
                " views. Expected one per view; windows and crops that stand in place of images cannot be told apart."
                " Leave the layer out with --layers."
            )
        with torch.autocast(self._job.device.type, enabled=False):
            distances = view_distances(output.unflatten(0, (self._points, views)), distance=self._job.options.distance)
            check_finite_reading(layer, distances, self._encoder.name)
            self.distances[layer.name] = distances
            if self._units:
                rectify = self._job.options.signed == "rectify"
                means = unit_means(layer, output, views, rectify=rectify, skip=int(self._job.views.original))
                check_finite_reading(layer, means, self._encoder.name)
                self.means[layer.name] = means


def _shared_parts(job: Job) -> set[nn.Module]:
    """Modules that belong to more than one encoder."""
    modules = {id(encoder.module): encoder.module for encoder in job.encoders}.values()
    counts = Counter(part for module in modules for part in set(module.modules()))
    return {part for part, count in counts.items() if count > 1}


def _first_views(job: Job) -> Tensor:
    """Two views of the job's first point, the same for every shard."""
    drawn = job.views.draw(job.images.pixels[:1].to(job.device), job.images.ids[:1].to(job.device))[0, :2]
    return drawn.double() if job.options.dtype == "float64" else drawn


def _audit_batch(job: Job, readers: list[_Reader], rows: slice) -> ShardState:
    points = job.images.ids[rows]
    drawn = job.views.draw(job.images.pixels[rows].to(job.device), points.to(job.device)).flatten(0, 1)
    if job.options.dtype == "float64":
        drawn = drawn.double()
    prepared: dict[object, Tensor] = {}
    done: list[_Reader] = []
    for reader, encoder in zip(readers, job.encoders, strict=True):
        key = (encoder.preprocess, encoder.channels)
        if key not in prepared:
            prepared[key] = encoder.prepare(drawn)
        if reader not in done:
            reader.read(prepared[key], len(points))
            done.append(reader)
    target, reference = job.target[:, rows], job.reference[:, rows]
    align, halves, pairwise = [], [], []
    variance = torch.full((len(points),), torch.nan, dtype=torch.float64)
    for layer in job.layers:
        distances = [reader.distances[layer.name].double().cpu() for reader in readers]
        whole = torch.stack([pair_distances(each, job.views.pairs) for each in distances])  # (encoder, point, pair)
        half = [
            torch.stack(pair)
            for pair in zip(*(half_distances(each, job.views.pairs) for each in distances), strict=True)
        ]
        align.append(whole.mean(dim=2).T)
        halves.append(torch.stack([each.mean(dim=2).T for each in half], dim=2))  # NaN below four views
        pairwise.append(torch.stack([_pairwise(each, target, reference) for each in (whole, *half)], dim=1))
    variance = _view_variance(distances, target, reference, job.views.pairs)
    columns = {
        "align": torch.stack(align, 1),
        "half": torch.stack(halves, 1),
        "pairwise": torch.stack(pairwise, 1),
        "variance": variance,
    }
    units, classes, activations = _unit_states(job, readers[0].means, rows)
    return ShardState(PointState.of(points, columns), units, classes, activations)


def _side(distances: Tensor, side: Tensor) -> Tensor:
    """Mean over the encoders of a side; NaN where it has none: (point, pair)."""
    weight = side.double()
    return torch.einsum("epk,ep->pk", distances, weight) / weight.sum(dim=0)[:, None]


def _pairwise(distances: Tensor, target: Tensor, reference: Tensor) -> Tensor:
    if not distances.shape[2]:
        return torch.full((distances.shape[1],), torch.nan, dtype=torch.float64)
    return sslmem_pairwise(_side(distances, target), _side(distances, reference))


def _view_variance(distances: list[Tensor], target: Tensor, reference: Tensor, pairs: str) -> Tensor:
    """Variance of a score over views: the ratio's linear part per view, as for a two-sample or a one-sample
    U-statistic.

    Exact in the limit for plain draws; for Sobol draws, which spread more evenly, an upper bound.
    """
    stacked = torch.stack(distances)  # (encoder, point, view, view)
    f, g = (_side(stacked.flatten(2), side).unflatten(1, stacked.shape[2:]) for side in (target, reference))
    if pairs == "original":
        f, g = f[:, 0, 1:], g[:, 0, 1:]
        if f.shape[1] < 2:
            return torch.full((len(f),), torch.nan, dtype=torch.float64)
        mean_f, mean_g = f.mean(dim=1), g.mean(dim=1)
        whole = torch.where(mean_f + mean_g == 0, 1.0, mean_f + mean_g)[:, None]
        influence = (g - f - sslmem(mean_f, mean_g)[:, None] * (g + f)) / whole
        return influence.var(dim=1) / f.shape[1]
    if pairs == "cross":
        f, g = f[:, 0::2, 1::2], g[:, 0::2, 1::2]
        size = float(f.shape[1] * f.shape[2])
    else:
        size = float(f.shape[1] * (f.shape[1] - 1))  # the diagonal is 0
    mean_f, mean_g = f.sum(dim=(1, 2)) / size, g.sum(dim=(1, 2)) / size
    score = sslmem(mean_f, mean_g)[:, None, None]
    influence = (g - f - score * (g + f)) / torch.where(mean_f + mean_g == 0, 1.0, mean_f + mean_g)[:, None, None]
    if f.shape[1] < 2:
        return torch.full((len(f),), torch.nan, dtype=torch.float64)
    if pairs == "cross":
        return sum(influence.mean(dim=axis).var(dim=1) / influence.shape[3 - axis] for axis in (1, 2))
    views = f.shape[1]
    return 4 * (influence.sum(dim=2) / (views - 1)).var(dim=1) / views


def _unit_states(
    job: Job, means: dict[str, Tensor], rows: slice
) -> tuple[dict[str, dict[str, UnitState]], dict[str, dict[str, ClassState]], dict[str, Tensor]]:
    """UnitMem and ClassMem states of the first encoder's units, and activations where medians are asked for."""
    points = job.images.ids[rows]
    means = {name: mean.cpu() for name, mean in means.items()}
    units: dict[str, dict[str, UnitState]] = {}
    classes: dict[str, dict[str, ClassState]] = {}
    activations: dict[str, Tensor] = {}
    for group, member in job.groups.items():
        chosen = member[rows]
        if not chosen.any():
            continue
        units[group] = {name: UnitState.of(mean[chosen], points[chosen]) for name, mean in means.items()}
        if job.options.rest == "median":
            activations[group] = torch.cat([mean[chosen] for mean in means.values()], dim=1)
    if job.images.labels is not None:
        labels, known = job.images.labels[rows], job.classes
        external = torch.from_numpy(np.asarray(job.split[rows] == "external"))
        for group, member in (("trained", job.groups["trained"][rows]), ("external", external)):
            chosen = member & (labels >= 0)
            if chosen.any():
                classes[group] = {
                    name: ClassState.of(mean[chosen], torch.searchsorted(known, labels[chosen]), classes=len(known))
                    for name, mean in means.items()
                }
    return units, classes, activations
