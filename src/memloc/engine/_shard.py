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

_TOGETHER = (1 << 21, 1 << 25)  # distances reduced together: on a processor, and on a GPU

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

    def on_host(self) -> ShardState:
        """The state in the machine's own memory: what a GPU added up comes over once a shard."""
        return ShardState(
            self.points.on_host(),
            {group: {name: each.on_host() for name, each in states.items()} for group, states in self.units.items()},
            {group: {name: each.on_host() for name, each in states.items()} for group, states in self.classes.items()},
            {group: block.cpu() for group, block in self.activations.items()},
        )

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
                blocks.setdefault(group, []).append(block.cpu())  # the one reading that grows with the points
            state = batch if state is None else state.merge(batch)
        for reader in by_module.values():
            reader.check()
    assert state is not None, "shards hold points"
    return replace(state, activations={group: torch.cat(parts) for group, parts in blocks.items()}).on_host()


def is_at_hand(tensor: Tensor) -> bool:
    """Whether looking at a number of it waits for nothing."""
    return tensor.device.type == "cpu"


class _Reader:
    """One encoder with its taps; `read` gives every layer's distances and, for the first encoder, unit means."""

    def __init__(self, encoder: Encoder, job: Job, number: int, shared: set[nn.Module]) -> None:
        self._encoder, self._job, self._number, self._shared = encoder, job, number, shared
        self._points, self._features, self._only_units = 0, torch.empty(0), False
        self._later: list[tuple[Layer, Tensor]] = []  # whether readings on a GPU are finite, which is not waited for
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
            self._check(loss.layer, losses)
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

    def _check(self, layer: Layer, reading: Tensor) -> None:
        """Raise NonFiniteError if a reading is not finite; on a GPU, `check` does."""
        if is_at_hand(reading):
            check_finite_reading(layer, reading, self._encoder.name)
        else:
            self._later.append((layer, reading.isfinite().all()))

    def check(self) -> None:
        """Raise NonFiniteError for the first reading that was not finite."""
        later, self._later = self._later, []
        if later and not torch.stack([sound for _, sound in later]).all():
            for layer, sound in later:
                check_finite_reading(layer, torch.where(sound, 0.0, torch.nan), self._encoder.name)

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
                self._check(layer, distances)
                self.distances[layer.name] = distances
            if self._number == 0 and self._only_units == (apart is not None):
                rectify = self._job.options.signed == "rectify"
                skip = int(apart is None and self._job.views.original)
                means = unit_means(layer, output, views, rectify=rectify, skip=skip)
                self._check(layer, means)
                self.means[layer.name] = means


def _shared_parts(job: Job) -> set[nn.Module]:
    """Modules that belong to more than one encoder."""
    modules = {id(encoder.module): encoder.module for encoder in job.encoders}.values()
    counts = Counter(part for module in modules for part in set(module.modules()))
    return {part for part, count in counts.items() if count > 1}


def _first_views(job: Job) -> Tensor:
    """Two views of the job's first point, the same for every shard."""
    drawn = job.views.draw(job.images.pixels[:1].to(job.device), job.images.ids[:1].to(job.device), static=False)[0, :2]
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
    target, reference = (side[:, rows].to(drawn.device) for side in (job.target, job.reference))
    parts: dict[str, list[Tensor]] = {}
    for some in _layers_at_once(job, len(points)):
        distances = torch.stack(
            [torch.stack([reader.distances[layer.name] for reader in readers]) for layer in job.layers[some]]
        ).double()  # (layer, encoder, point, view, view)
        for name, column in _columns(distances, target, reference, job.views.pairs).items():
            parts.setdefault(name, []).append(column)
    columns = {name: torch.cat(each).transpose(0, 1) for name, each in parts.items()}
    output = torch.stack([reader.distances[job.layers[job.output].name] for reader in readers]).double()
    columns["variance"] = _view_variance(output, target, reference, job.views.pairs)
    units, classes, activations = _unit_states(job, readers[0].means, rows)
    return ShardState(PointState.of(points.to(drawn.device), columns), units, classes, activations)


def _layers_at_once(job: Job, points: int) -> list[slice]:
    """Layers whose distances are reduced together: many small operations would keep a GPU waiting, and all at once take
    much memory where many encoders have many layers."""
    each = len(job.encoders) * points * job.views.count**2
    count = max(_TOGETHER[job.device.type == "cuda"] // each, 1)
    return [slice(start, start + count) for start in range(0, len(job.layers), count)]


def _columns(distances: Tensor, target: Tensor, reference: Tensor, pairs: Pairs) -> dict[str, Tensor]:
    """What is kept of each point, (layer, point, ...), from distances (layer, encoder, point, view, view)."""
    shape, flat = distances.shape[:3], distances.flatten(0, 2)
    whole, *half = (each.unflatten(0, shape) for each in (pair_distances(flat, pairs), *half_distances(flat, pairs)))
    return {
        "align": whole.mean(dim=3).transpose(1, 2),
        "half": torch.stack([each.mean(dim=3).transpose(1, 2) for each in half], dim=3),  # NaN below four views
        "pairwise": torch.stack([_pairwise(each, target, reference) for each in (whole, *half)], dim=2),
        "log_variance": _log_variance(distances, target, reference, pairs),
    }


def _side(distances: Tensor, side: Tensor) -> Tensor:
    """Mean over the encoders of a side; NaN where it has none: (layer, point, pair) from (layer, encoder, point,
    pair)."""
    weight = side.double()
    return torch.einsum("lepk,ep->lpk", distances, weight) / weight.sum(dim=0)[:, None]


def _pairwise(distances: Tensor, target: Tensor, reference: Tensor) -> Tensor:
    layers, _, points, pairs = distances.shape
    if not pairs:
        return distances.new_full((layers, points), torch.nan)
    sides = (_side(distances, side).flatten(0, 1) for side in (target, reference))
    return sslmem_pairwise(*sides).view(layers, points)


def _view_variance(stacked: Tensor, target: Tensor, reference: Tensor, pairs: Pairs) -> Tensor:
    """Variance of SSLMem' over views: the ratio's linear part per view, as for a two-sample or a one-sample
    U-statistic.

    Exact in the limit for plain draws; for Sobol draws, which spread more evenly, about an upper bound.
    """
    views = stacked.shape[2:]  # of (encoder, point, view, view)
    f, g = (_side(stacked.flatten(2)[None], side)[0].unflatten(1, views) for side in (target, reference))
    mean_f, mean_g = (pair_distances(each, pairs).mean(dim=1) for each in (f, g))
    score = sslmem(mean_f, mean_g)[:, None, None]
    influence = (g - f - score * (g + f)) / torch.where(mean_f + mean_g == 0, 1.0, mean_f + mean_g)[:, None, None]
    parts = [weight * _covariance(part, part) for weight, part in _by_view(influence, pairs)]
    return torch.stack(parts).sum(dim=0)


def _log_variance(distances: Tensor, target: Tensor, reference: Tensor, pairs: Pairs) -> Tensor:
    """Variance over views of the mean log reading of either side, and their covariance: (layer, point, 3)."""
    shape, views = distances.shape[:3], distances.shape[3:]
    means = pair_distances(distances.flatten(0, 2), pairs).mean(dim=1).view(shape)
    relative = (distances / torch.where(means > 0, means, 1.0)[..., None, None]).flatten(3)
    sides = [_side(relative, side).flatten(0, 1).unflatten(1, views) for side in (target, reference)]
    total = relative.new_zeros(shape[0] * shape[2], 3)
    for (weight, f), (_, g) in zip(*(_by_view(side, pairs) for side in sides), strict=True):
        for column, (one, two) in enumerate(((f, f), (g, g), (f, g))):
            total[:, column] += weight * _covariance(one, two)
    return total.view(shape[0], shape[2], 3)


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
    device = next(iter(means.values())).device
    points = job.images.ids[rows].to(device)
    units: dict[str, dict[str, UnitState]] = {}
    classes: dict[str, dict[str, ClassState]] = {}
    activations: dict[str, Tensor] = {}
    for group, member in job.groups.items():
        chosen = member[rows].nonzero().flatten().to(device)
        if not len(chosen):
            continue
        units[group] = {name: UnitState.of(mean[chosen], points[chosen]) for name, mean in means.items()}
        if job.options.rest == "median":
            activations[group] = torch.cat([mean[chosen] for mean in means.values()], dim=1)
    if job.images.labels is not None:
        labels, known = job.images.labels[rows], job.classes
        external = torch.from_numpy(np.asarray(job.split[rows] == "external"))
        for group, member in (("trained", job.groups["trained"][rows]), ("external", external)):
            chosen = (member & (labels >= 0)).nonzero().flatten()
            if len(chosen):
                number, there = torch.searchsorted(known, labels[chosen]).to(device), chosen.to(device)
                classes[group] = {
                    name: ClassState.of(mean[there], number, classes=len(known)) for name, mean in means.items()
                }
    return units, classes, activations
