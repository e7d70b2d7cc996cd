"""CRUST: from each group of points the coreset that stands for the gradients of all, or the most central points."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memloc.coreset._coverage import lists_bytes
from memloc.coreset._distances import METRICS, Distances, free_bytes, matrix_bytes
from memloc.coreset._gradients import loss_gradients, moved, names_of, on_host, points_of
from memloc.coreset._greedy import Picks, Step, exact_greedy, most_central, naive_greedy, stochastic_greedy
from memloc.coreset._spec import EPSILON, SelectionSpec
from memloc.errors import DataError, ShapeError, SpecError, nearest
from memloc.progress import Report, silent
from memloc.streams import Stream, generator

OBJECTIVES = ("facility_location", "centrality")
GROUPINGS = ("label", "prediction")
OPTIMIZERS = ("lazy", "stochastic", "naive")
MEMORIES = ("auto", "dense", "free")
_LIBRARIES = 32 << 20  # that blocks and the buffers of linear algebra take (measured: 20 to 30 MB)
DENSE_BYTES = 2 << 30  # that a group's matrix of distances may take under memory="auto"


class _Steps:
    """Progress within one of several groups: distances are the first half of a group's work, picks the second."""

    def __init__(self, progress: Report, sizes: list[int], number: int) -> None:
        self._progress, self._all = progress, float(sum(size * size for size in sizes))
        self._before, self._mine = float(sum(size * size for size in sizes[:number])), float(sizes[number] ** 2)

    def first(self, share: float) -> None:
        """Distances are computed to this share."""
        self._progress("selecting a coreset", self._before + self._mine * share / 2, self._all)

    def second(self, share: float) -> None:
        """Points are picked to this share."""
        self._progress("selecting a coreset", self._before + self._mine * (1 + share) / 2, self._all)


@dataclass(frozen=True)
class Coreset:
    """Selected points, in pick order, group after group; arrays are NumPy's, or tensors on the device of the gradients.

    Attributes:
        indices: the points, each once. weights: how many points each stands for; they sum to the group's size.
        gains: what each added to its group's objective, non-increasing within a group (but for stochastic picks).
            groups: group of each.
        assignment: for every point, which selected point of its group is nearest (a point's number; its own where
            selected).
        objective: facility location F(S) with d_0 the group's largest distance, summed over groups, whatever was
            maximized.
        cost: k-medoids cost, the sum of distances to the nearest selected point. evaluations: gains computed.
    """

    indices: Any
    weights: Any
    gains: Any
    groups: Any
    assignment: Any = field(repr=False)
    objective: float
    cost: float
    evaluations: int

    def __len__(self) -> int:
        return len(self.indices)

    def on(self, device: torch.device | None) -> Coreset:
        """The same with tensors on a device, or with NumPy arrays for None; names of groups stay an array of text."""
        arrays = [
            moved(getattr(self, name), device) for name in ("indices", "weights", "gains", "groups", "assignment")
        ]
        return replace(self, **dict(zip(("indices", "weights", "gains", "groups", "assignment"), arrays, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Crust(SelectionSpec):
    """How a coreset is selected.

    Against noisy labels pass objective="centrality", group_by="prediction": the default here is the paper's facility
    location within given labels, which covers the gradients of wrong labels too and keeps more of them than chance does
    (of points with 40 % wrong labels, .46 of those it keeps are right, of centrality's .98; docs/coresets.md). `memloc
    coreset` and `CoresetSpec` therefore select by centrality within predictions, unless they are told otherwise.

    Args:
        fraction: share of each group in (0, 1], rounded up; or a whole number of points above 1, the budget of each
            group.
        budget: points of each group, instead of a fraction.
        objective: "facility_location" (the paper) or "centrality" (what the published code computes, and far cleaner
            under noisy labels).
        group_by: "label", "prediction", or None for one group.
        optimizer: of facility location; "lazy" and "naive" make the same picks, "stochastic" samples candidates.
        epsilon: of "stochastic": the sample misses the best n / k candidates with this chance.
        metric: "euclidean", "cosine" or "manhattan".
        memory: "dense" keeps each group's distances, "free" computes them as needed, "auto" is dense up to 2 GiB and
            half of what is free.
        random_state: of "stochastic".
    Source: Mirzasoleiman, Cao and Leskovec, Coresets for Robust Training of Deep Neural Networks against Noisy Labels,
        NeurIPS 2020.

    >>> x = np.array([[0.0], [0.1], [-0.1], [10.0], [10.1]])
    >>> found = Crust(budget=2, group_by=None).select(x)
    >>> found.indices.tolist(), found.gains.round(6).tolist(), found.weights.tolist(), round(found.objective, 6)
    ([1, 3], [30.8, 19.8], [3.0, 2.0], 50.6)
    >>> Crust(budget=2, group_by=None, objective="centrality").select(x).indices.tolist()
    [1, 0]
    """

    objective: str = "facility_location"
    group_by: str | None = "label"
    random_state: int = 0

    def __post_init__(self) -> None:
        for name, known in (
            ("objective", OBJECTIVES),
            ("group_by", (*GROUPINGS, None)),
            ("optimizer", OPTIMIZERS),
            ("metric", METRICS),
            ("memory", MEMORIES),
        ):
            value = getattr(self, name)
            if value not in known:
                close = nearest(str(value), [str(one) for one in known])
                raise SpecError(
                    f"{name} is {value!r}. {close} Expected one of {', '.join(map(str, known))}. Pass"
                    f" {name}={known[0]!r}."
                )
        number = isinstance(self.fraction, Real)
        whole = isinstance(self.fraction, Integral) and self.fraction > 1
        if not number or not (whole or 0 < self.fraction <= 1):
            raise SpecError(
                f"fraction is {self.fraction!r}. Expected a share above 0 and at most 1. Pass a fraction of 0.5, or a"
                " budget of points."
            )
        if self.budget is not None and not (isinstance(self.budget, Integral) and self.budget >= 1):
            raise SpecError(
                f"budget is {self.budget!r}. Expected a whole number of points a group, at least 1. Pass a budget of"
                " 100."
            )
        if not isinstance(self.epsilon, Real) or not 0 < self.epsilon < 1:
            raise SpecError(f"epsilon is {self.epsilon!r}. Expected a number between 0 and 1. Pass an epsilon of 0.01.")
        if not isinstance(self.random_state, Integral) or self.random_state < 0:
            raise SpecError(f"random_state is {self.random_state!r}. Expected a whole number of 0 or more. Pass 0.")
        if self.objective == "centrality" and self.optimizer != "lazy":
            raise SpecError(
                f"optimizer is {self.optimizer!r} and the objective is centrality, which is a sort. Expected"
                " facility_location for it. Leave the optimizer out."
            )
        if self.optimizer != "stochastic" and self.epsilon != EPSILON:
            raise SpecError(
                f"epsilon is {self.epsilon} and the optimizer is {self.optimizer}. Expected stochastic for it. Leave"
                " epsilon out."
            )

    def select(self, gradients: Any, labels: Any = None, *, groups: Any = None, progress: Report = silent) -> Coreset:
        """Select from gradients of the loss at the last layer, or from any representation.

        Args:
            gradients: NumPy array or tensor, shape (point, feature); never changed. The work is done where a tensor
                lies.
            labels: class of each point, which `group_by="label"` groups by. groups: groups to use instead.
            progress: called with what is done, such as memloc.progress.Console().
        Returns:
            Coreset, of the kind of `gradients`.
        Raises:
            ShapeError: no points, no features, or labels of another length. NonFiniteError: NaN or Inf.
            SpecError: nothing to group by, or a budget above a group. DataError: memory below what is needed.
        """
        return self._select(gradients, labels, groups, progress)

    def _select(self, gradients: Any, labels: Any, groups: Any, progress: Report, *, capped: bool = False) -> Coreset:
        """Select; with `capped` a group smaller than the budget is taken whole."""
        points = points_of(gradients)
        of = self._groups(points, labels, groups)
        names = names_of(of)
        members = [np.flatnonzero(of == name) for name in names]
        sizes = [len(member) for member in members]
        if capped:
            budgets = [
                min(self._budget(len(points), None), size) if self._is_budget else self._budget(size, None)
                for size in sizes
            ]
        else:
            budgets = [self._budget(size, name) for size, name in zip(sizes, names, strict=True)]
        shape = (points.shape[1], points.dtype == torch.float64)
        dense = [
            self._is_dense(matrix_bytes(size, *shape), name, points.device)
            for size, name in zip(sizes, names, strict=True)
        ]
        assignment = np.empty(len(points), dtype=np.int64)
        indices, weights, gains, found_groups = [], [], [], []
        value, cost, evaluations = 0.0, 0.0, 0
        for number, (member, budget) in enumerate(zip(members, budgets, strict=True)):
            rows = points if len(member) == len(points) else points[torch.from_numpy(member).to(points.device)]
            step = _Steps(progress, sizes, number)
            distances = Distances(rows, self.metric, dense=dense[number], progress=step.first)
            picks = self._pick(distances, budget, number, step.second)
            indices.append(member[picks.points])
            weights.append(self._weights(picks))
            gains.append(picks.gains)
            found_groups.append(np.full(budget, names[number]))
            assignment[member] = member[picks.owner]
            value += float((distances.largest * distances.step - picks.near).sum())
            cost += float(picks.near.sum())
            evaluations += picks.evaluations
        arrays = (
            np.concatenate(indices),
            np.concatenate(weights),
            np.concatenate(gains),
            np.concatenate(found_groups),
            assignment,
        )
        found = Coreset(*arrays, value, cost, evaluations)
        return found.on(gradients.device) if isinstance(gradients, Tensor) else found

    def select_logits(self, logits: Any, y: Any, *, progress: Report = silent) -> Coreset:
        """Select by the gradients softmax(logits) - onehot(y), shape (point, class); groups by prediction are of the
        largest logit.

        A predicted class with fewer points than the budget is taken whole, since its size cannot be known beforehand.

        Raises:
            As `select`; also ShapeError for fewer than two classes, and DataError for a label that is no class.

        >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 4.0]])
        >>> crust = Crust(budget=1, objective="centrality", group_by="prediction")
        >>> crust.select_logits(logits, [0, 0, 1, 1]).groups.tolist()
        [0, 1]
        """
        scores = points_of(logits, "logits")
        labels = on_host(y)
        if labels.dtype.kind not in "iub":
            raise DataError(
                f"the labels are {labels.dtype}. Expected class numbers. Number the classes: names, y ="
                " numpy.unique(labels, return_inverse=True)"
            )
        classes = torch.from_numpy(labels.astype(np.int64)).to(scores.device)
        if scores.shape[1] < 2:
            raise ShapeError(
                f"the logits have {scores.shape[1]} column. Expected one per class, of two classes or more. Pass logits"
                " of shape (point, class)."
            )
        if classes.shape != (len(scores),):
            raise ShapeError(
                f"there are {len(scores)} rows of logits and labels of shape {tuple(classes.shape)}. Expected one label"
                f" each. Pass y of shape ({len(scores)},)."
            )
        if int(classes.min()) < 0 or int(classes.max()) >= scores.shape[1]:
            raise DataError(
                f"labels go from {classes.min().item()} to {classes.max().item()} and there are {scores.shape[1]}"
                f" classes. Expected whole numbers from 0 to {scores.shape[1] - 1}. Number the classes."
            )
        gradients = loss_gradients(scores, classes)
        predicted = scores.argmax(dim=1) if self.group_by == "prediction" else None
        found = self._select(gradients, classes, predicted, progress, capped=predicted is not None)
        return found if isinstance(logits, Tensor) else found.on(None)

    def plan(self, groups: Any, *, features: int, float64: bool = False) -> dict[str, Any]:
        """What a selection will take: points and picks per group, and bytes beside the gradients.

        Args:
            groups: group of each point, or its number of points where all are one. features: of each gradient.

        >>> Crust(memory="dense", group_by=None).plan(5000, features=10)["picks"]
        [2500]
        """
        sizes = [groups] if isinstance(groups, int) else np.unique(on_host(groups), return_counts=True)[1].tolist()
        if self.group_by is None:
            sizes = [sum(sizes)]
        capped = self.group_by == "prediction" and self._is_budget
        return {
            "points": sizes,
            "picks": [min(self._budget(sum(sizes), None), n) if capped else self._budget(n, None) for n in sizes],
            "memory_mb": math.ceil(max(self._bytes(n, features, float64) for n in sizes) / 2**20),
        }

    def _bytes(self, n: int, features: int, float64: bool) -> int:
        """What a group's selection takes at most, beside its gradients: matrix, lists with what they are made from,
        copies of the points, blocks."""
        matrix = matrix_bytes(n, features, float64)
        matrix = matrix if self._fits(matrix, torch.device("cpu")) else 0
        lists = 0 if self.objective == "centrality" else round(2.5 * lists_bytes(matrix))
        return matrix + lists + 3 * 8 * n * features + 100 * n + _LIBRARIES

    def _groups(self, points: Tensor, labels: Any, groups: Any) -> NDArray[Any]:
        for name, given in (("labels", labels), ("groups", groups)):
            if given is not None and on_host(given).shape != (len(points),):
                raise ShapeError(
                    f"there are {len(points)} gradients and {name} of shape {on_host(given).shape}. Expected one each."
                    f" Pass shape ({len(points)},)."
                )
        chosen = labels if groups is None and self.group_by == "label" else groups
        if chosen is None and self.group_by is None:
            return np.zeros(len(points), dtype=np.int64)
        if chosen is None:
            missing = (
                "labels=" if self.group_by == "label" else "groups= (the predicted classes), or call select_logits"
            )
            raise SpecError(
                f"group_by is {self.group_by!r} and there is nothing to group by. Expected a group per point. Pass"
                f" {missing}, or group_by=None."
            )
        of = on_host(chosen)
        if of.dtype.kind == "f" and not np.isfinite(of).all():
            raise DataError(
                f"row {int(np.flatnonzero(~np.isfinite(of))[0])} has no label. Expected one for every point. Drop such"
                " rows."
            )
        return of

    @property
    def _is_budget(self) -> bool:
        return self.budget is not None or self.fraction > 1

    def check(self, labels: Any) -> None:
        """Raise SpecError for a budget above a class of these labels, or above all points where groups are
        predicted."""
        sizes = (
            [len(labels)] if self.group_by != "label" else np.unique(on_host(labels), return_counts=True)[1].tolist()
        )
        for size in sizes:
            self._budget(size, None)

    def _budget(self, n: int, name: Any) -> int:
        if not self._is_budget:
            return max(math.ceil(self.fraction * n - 1e-9), 1)
        budget = int(self.fraction if self.budget is None else self.budget)
        if budget > n:
            where = "" if name is None else f" of group {name!s}"
            raise SpecError(
                f"the budget is {budget} and the {n} points{where} are fewer. Expected at most as many. Pass"
                f" budget={n}, or a fraction."
            )
        return budget

    def _fits(self, needed: int, device: torch.device) -> bool:
        if self.memory == "auto":
            return needed <= min(DENSE_BYTES, free_bytes(device) // 2)
        return self.memory == "dense"

    def _is_dense(self, needed: int, name: Any, device: torch.device) -> bool:
        if self.memory == "dense" and needed > (free := free_bytes(device)):
            raise DataError(
                f"the distances within group {name!s} take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are"
                " free. Expected room for them. Pass a memory of free, which computes them as needed."
            )
        return self._fits(needed, device)

    def _pick(self, distances: Distances, budget: int, number: int, step: Step) -> Picks:
        if self.objective == "centrality":
            return most_central(distances, budget, step)
        if self.optimizer == "stochastic":
            rng = generator(Stream.STOCHASTIC_GREEDY, self.random_state, number)
            return stochastic_greedy(distances, budget, self.epsilon, rng, step)
        return (exact_greedy if self.optimizer == "lazy" else naive_greedy)(distances, budget, step)

    def _weights(self, picks: Picks) -> NDArray[np.float64]:
        """γ for facility location; uniform for centrality, whose γ would hand the mass of the noisy points to the
        outermost picks."""
        n, k = len(picks.owner), len(picks.points)
        if self.objective == "centrality":
            return np.full(k, n / k)
        return np.bincount(picks.owner, minlength=n)[picks.points].astype(np.float64)
