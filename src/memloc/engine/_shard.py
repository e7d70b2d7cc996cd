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

from memloc.encoders import (
    OUTPUT,
    Encoder,
    Layer,
    averaged,
    check_finite_reading,
    folded,
    rows_behind,
    tapped,
    unit_means,
)
from memloc.engine._job import Job
from memloc.engine._own_loss import own_losses
from memloc.errors import EncoderError
from memloc.metrics import Pairs, half_distances, pair_distances, sslmem, sslmem_pairwise, view_distances
from memloc.stats import ClassState, PointState, UnitState
from memloc.views import Views

_State = TypeVar("_State", UnitState, ClassState)


@dataclass(frozen=True)
class ShardState:
    """What a shard adds up to.

    Attributes:
        points: columns "align" (point, layer, encoder), "half" (point, layer, encoder, 2) from either half of the
            views, "pairwise" (point, layer, 3) from all views and either half, "variance" (point,) of the output's
            SSLMem' over views, "log_variance" (point, layer, 3) of the log reading of f's side, of g's, and their
            covariance.
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
        stack.enter_context(job.repeatable())
        by_module: dict[tuple[int, ...], _Reader] = {}  # f and g may be one module, which is then read once
        shared = _shared_parts(job)
        keys = [tuple(map(id, encoder.parts)) for encoder in job.encoders]
        for number, (key, encoder) in enumerate(zip(keys, job.encoders, strict=True)):
            if key not in by_module:
                by_module[key] = stack.enter_context(_Reader(encoder, job, number, shared))
        readers = [by_module[key] for key in keys]
        for batch in job.batches.map(shard, lambda rows: _audit_batch(job, readers, rows)):
            for group, block in batch.activations.items():
                blocks.setdefault(group, []).append(block)
            state = batch if state is None else state.merge(batch)
    assert state is not None, "shards hold points"
    return replace(state, activations={group: torch.cat(parts) for group, parts in blocks.items()})


class _Reader:
    """One encoder with its taps; `read` gives every layer's distances and, for the first encoder, unit means."""

    def __init__(self, encoder: Encoder, job: Job, number: int, shared: set[nn.Module]) -> None:
        self._encoder, self._job, self._number, self._shared = encoder, job, number, shared
        self._points, self._features, self._only_units = 0, torch.empty(0), False
        self.distances: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}

    def __enter__(self) -> _Reader:
        module, layers = self._encoder.module, self._encoder.layers
        with ExitStack() as stack:
            example = self._encoder.prepare(_first_views(self._job))
            stack.enter_context(folded(module, layers, example, keep=self._shared))
            self._forward = stack.enter_context(tapped(module, layers, self._reduce))
            head = self._encoder.head
            if head is not None:
                rows = rows_behind(layers, head)
                self._forward_head = stack.enter_context(tapped(head.module, rows, self._reduce))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, problem, trace)

    def read(self, inputs: Tensor, rows: slice) -> None:
        """Run one forward pass over prepared views of some points."""
        self._points = rows.stop - rows.start
        self.distances, self.means = {}, {}
        self._pass(inputs)
        loss = self._job.loss
        if loss is not None:
            with torch.no_grad():
                losses = own_losses(self._job, self._number, inputs, self._features, rows)
            check_finite_reading(loss.layer, losses, self._encoder.name)
            self.distances[loss.layer.name] = losses

    def read_units(self, inputs: Tensor, rows: slice) -> None:
        """Run one forward pass over views that are for units alone, after `read`."""
        self._points, self._only_units = rows.stop - rows.start, True
        try:
            self._pass(inputs)
        finally:
            self._only_units = False

    def _pass(self, inputs: Tensor) -> None:
        """Through the encoder, and from its features through its head."""
        with torch.autocast(self._job.device.type, torch.bfloat16, enabled=self._job.options.dtype == "bfloat16"):
            self._forward(inputs)
            if self._encoder.head is not None:
                self._forward_head(self._features.clone())  # an operation in place changes no reading

    def _reduce(self, layer: Layer, output: Tensor) -> None:
        apart = self._job.unit_views
        views = apart.count if apart is not None and self._only_units else self._job.views.count
        if len(output) != self._points * views:
            raise EncoderError(
                f"layer {layer.name!r} of {self._encoder.name} gives {len(output)} rows for {self._points * views}"
                " views. Expected one per view; windows and crops that stand in place of images cannot be told apart."
                " Leave the layer out with --layers."
            )
        if layer.kind == OUTPUT:
            self._features = averaged(layer, output)
        with torch.autocast(self._job.device.type, enabled=False):
            if not self._only_units:
                rows = output.unflatten(0, (self._points, views))
                distances = view_distances(rows, distance=self._job.options.distance)
                check_finite_reading(layer, distances, self._encoder.name)
                self.distances[layer.name] = distances
            if self._number == 0 and self._only_units == (apart is not None):
                rectify = self._job.options.signed == "rectify"
                skip = int(apart is None and self._job.views.original)
                means = unit_means(layer, output, views, rectify=rectify, skip=skip)
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


def _drawn(job: Job, views: Views, rows: slice) -> Tensor:
    """Views of some points, point after point."""
    found = views.draw(job.images.pixels[rows].to(job.device), job.images.ids[rows].to(job.device)).flatten(0, 1)
    return found.double() if job.options.dtype == "float64" else found


def _audit_batch(job: Job, readers: list[_Reader], rows: slice) -> ShardState:
    points, drawn = job.images.ids[rows], _drawn(job, job.views, rows)
    prepared: dict[object, Tensor] = {}
    done: list[_Reader] = []
    for reader, encoder in zip(readers, job.encoders, strict=True):
        key = (encoder.preprocess, encoder.channels)
        if key not in prepared:
            prepared[key] = encoder.prepare(drawn)
        if reader not in done:
            reader.read(prepared[key], rows)
            done.append(reader)
    if job.unit_views is not None:
        readers[0].read_units(job.encoders[0].prepare(_drawn(job, job.unit_views, rows)), rows)
    target, reference = job.target[:, rows], job.reference[:, rows]
    align, halves, pairwise, log_variance = [], [], [], []
    variance = torch.full((len(points),), torch.nan, dtype=torch.float64)
    for number, layer in enumerate(job.layers):
        distances = [reader.distances[layer.name].double().cpu() for reader in readers]
        whole = torch.stack([pair_distances(each, job.views.pairs) for each in distances])  # (encoder, point, pair)
        half = [
            torch.stack(pair)
            for pair in zip(*(half_distances(each, job.views.pairs) for each in distances), strict=True)
        ]
        align.append(whole.mean(dim=2).T)
        halves.append(torch.stack([each.mean(dim=2).T for each in half], dim=2))  # NaN below four views
        pairwise.append(torch.stack([_pairwise(each, target, reference) for each in (whole, *half)], dim=1))
        if number == job.output:
            variance = _view_variance(distances, target, reference, job.views.pairs)
        log_variance.append(_log_variance(distances, target, reference, job.views.pairs))
    columns = {
        "align": torch.stack(align, 1),
        "half": torch.stack(halves, 1),
        "pairwise": torch.stack(pairwise, 1),
        "variance": variance,
        "log_variance": torch.stack(log_variance, 1),
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


def _view_variance(distances: list[Tensor], target: Tensor, reference: Tensor, pairs: Pairs) -> Tensor:
    """Variance of SSLMem' over views: the ratio's linear part per view, as for a two-sample or a one-sample
    U-statistic.

    Exact in the limit for plain draws; for Sobol draws, which spread more evenly, about an upper bound.
    """
    stacked = torch.stack(distances)  # (encoder, point, view, view)
    f, g = (_side(stacked.flatten(2), side).unflatten(1, stacked.shape[2:]) for side in (target, reference))
    mean_f, mean_g = (pair_distances(each, pairs).mean(dim=1) for each in (f, g))
    score = sslmem(mean_f, mean_g)[:, None, None]
    influence = (g - f - score * (g + f)) / torch.where(mean_f + mean_g == 0, 1.0, mean_f + mean_g)[:, None, None]
    parts = [weight * _covariance(part, part) for weight, part in _by_view(influence, pairs)]
    return torch.stack(parts).sum(dim=0)


def _log_variance(distances: list[Tensor], target: Tensor, reference: Tensor, pairs: Pairs) -> Tensor:
    """Variance over views of the mean log reading of either side, and their covariance: (point, 3)."""
    stacked = torch.stack(distances)
    means = torch.stack([pair_distances(each, pairs).mean(dim=1) for each in distances])
    relative = stacked / torch.where(means > 0, means, 1.0)[:, :, None, None]
    sides = [_side(relative.flatten(2), side).unflatten(1, relative.shape[2:]) for side in (target, reference)]
    total = torch.zeros(relative.shape[1], 3, dtype=torch.float64)
    for (weight, f), (_, g) in zip(*(_by_view(side, pairs) for side in sides), strict=True):
        for column, (one, two) in enumerate(((f, f), (g, g), (f, g))):
            total[:, column] += weight * _covariance(one, two)
    return total


def _covariance(one: Tensor, two: Tensor) -> Tensor:
    """Of each point over its views; NaN over a single one."""
    apart = [part - part.mean(dim=1, keepdim=True) for part in (one, two)]
    return (apart[0] * apart[1]).sum(dim=1) / (one.shape[1] - 1)


def _by_view(matrix: Tensor, pairs: Pairs) -> list[tuple[float, Tensor]]:
    """What each view adds to a mean over pairs, (point, view), by sets of views that are drawn apart, with the weight
    of its variance."""
    if pairs == "original":
        part = matrix[:, 0, 1:]
        return [(1 / part.shape[1], part)]
    if pairs == "cross":
        part = matrix[:, 0::2, 1::2]
        return [(1 / part.shape[1], part.mean(dim=2)), (1 / part.shape[2], part.mean(dim=1))]
    views = matrix.shape[1]
    # the diagonal is left out
    inside = matrix - torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
    return [(4 / views, inside.sum(dim=2) / (views - 1))]


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
