"""One dictionary of metrics, and one suite of laws over all of them: batches, order, shards merged, scale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from memloc import metrics
from memloc.stats import ClassState, PointState, UnitState

POINTS, TOLERANCE = 24, 1e-9


def draws(seed: int) -> dict[str, Tensor]:
    """Everything that some metric takes, one row per point."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, dtype=torch.float64, generator=random) + 0.1

    return {
        "views": uniform(POINTS, 6, 5),
        "f": uniform(POINTS),
        "g": uniform(POINTS),
        "pairs_f": uniform(POINTS, 7),
        "pairs_g": uniform(POINTS, 7),
        "align": uniform(POINTS, 4),
        "seen": (torch.rand(POINTS, 4, generator=random) < 0.5) ^ (torch.arange(4) % 2 == 0),
        "mu": uniform(POINTS, 5),
        "labels": torch.randint(0, 3, (POINTS,), generator=random),
        "split": torch.arange(POINTS) % 2 == 0,
    }


@dataclass(frozen=True)
class Metric:
    """A metric of points.

    Attributes:
        of: the metric, of rows of `draws`. scaled: what is multiplied in the law of scale. power: of the factor that comes
            out: 0, the metric does not change. each: whether it has a figure for each point by itself.
        ordered: whether figures follow the points' order, for those that need all points.
    """

    of: Callable[[dict[str, Tensor]], Any]
    scaled: tuple[str, ...]
    power: int = 0
    each: bool = False
    ordered: bool = False


def side(data, name, split=True):
    return data[name][data["split"] == split]


METRICS: dict[str, Metric] = {
    "pairwise_alignment": Metric(lambda d: metrics.pairwise_alignment(d["views"]), ("views",), each=True),
    "pairwise_alignment, cross": Metric(
        lambda d: metrics.pairwise_alignment(d["views"], pairs="cross", distance="cosine"), ("views",), each=True
    ),
    "pairwise_alignment, as it is": Metric(
        lambda d: metrics.pairwise_alignment(d["views"], normalize=False), ("views",), power=1, each=True
    ),
    "sslmem": Metric(lambda d: metrics.sslmem(d["f"], d["g"]), ("f", "g"), each=True),
    "sslmem, raw": Metric(lambda d: metrics.sslmem(d["f"], d["g"], normalize=False), ("f", "g"), power=1, each=True),
    "sslmem_pairwise": Metric(
        lambda d: metrics.sslmem_pairwise(d["pairs_f"], d["pairs_g"]), ("pairs_f", "pairs_g"), each=True
    ),
    "sslmem_range": Metric(lambda d: metrics.sslmem_range(d["g"] - d["f"]), ("f", "g"), ordered=True),
    "layermem": Metric(lambda d: metrics.layermem(metrics.sslmem(d["f"], d["g"])), ("f", "g")),
    "relative_alignment": Metric(
        lambda d: metrics.relative_alignment(d["align"].T, d["seen"].T).T, ("align",), each=True
    ),
    "log_reading": Metric(lambda d: metrics.log_reading(d["align"]).exp(), ("align",), power=1, each=True),
    "membership_effect": Metric(
        lambda d: metrics.membership_effect(d["align"].T, d["seen"].T, repeats=2).value, ("align",)
    ),
    "membership_effect, error": Metric(
        lambda d: metrics.membership_effect(d["align"].T, d["seen"].T, repeats=2).se, ("align",)
    ),
    "unitmem": Metric(lambda d: metrics.unitmem(d["mu"]).value, ("mu",)),
    "unitmem, median": Metric(lambda d: metrics.unitmem(d["mu"], rest="median").value, ("mu",)),
    "unitmem, largest": Metric(lambda d: metrics.unitmem(d["mu"]).mu_max, ("mu",), power=1),
    "median_of_rest": Metric(lambda d: metrics.median_of_rest(d["mu"]), ("mu",), power=1),
    "classmem": Metric(lambda d: metrics.classmem(d["mu"], d["labels"]).value, ("mu",)),
    "classmem, label": Metric(lambda d: metrics.classmem(d["mu"], d["labels"]).label, ("mu",)),
    "auroc": Metric(lambda d: tuple(metrics.auroc(side(d, "f"), side(d, "f", False))), ("f",)),
    "auroc_of_cells": Metric(lambda d: metrics.auroc_of_cells(d["align"].T, d["seen"].T, repeats=2).value, ("align",)),
    "tpr_at_fpr": Metric(
        lambda d: [rate.value for rate in metrics.tpr_at_fpr(side(d, "f"), side(d, "f", False), (0.3, 0.5), repeats=2)],
        ("f",),
    ),
    "lira": Metric(lambda d: metrics.lira(d["align"].T.log(), d["seen"].T).T, ("align",), ordered=True),
    "excess_fraction": Metric(lambda d: metrics.excess_fraction(side(d, "f"), side(d, "f", False)), ("f",)),
    "empirical_p_values": Metric(
        lambda d: metrics.empirical_p_values(d["f"], torch.linspace(0, 1, 9, dtype=torch.float64)), (), each=True
    ),
    "q_values": Metric(lambda d: metrics.q_values(d["f"] / 2), (), ordered=True),
    "kendall_tau": Metric(lambda d: metrics.kendall_tau(d["f"], d["g"]), ("f",)),
    "overlap_at_k": Metric(lambda d: metrics.overlap_at_k(d["f"], d["g"], 6), ("f",)),
    "t_test": Metric(lambda d: metrics.t_test(side(d, "f"), side(d, "f", False)), ("f",)),
    "reliability": Metric(lambda d: metrics.reliability(d["f"], d["g"]), ("f",)),
    "member_share": Metric(
        lambda d: (
            metrics.member_share(
                side(d, "mu").amax(0), side(d, "mu", False).amax(0), d["mu"].argmax(0) * 0 + torch.arange(5)
            ).value
        ),
        ("mu",),
    ),
}


def same(one: Any, two: Any) -> None:
    assert torch.allclose(torch.as_tensor(one).double(), torch.as_tensor(two).double(), atol=TOLERANCE, rtol=TOLERANCE)


def rows(data: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    return {name: values[chosen] for name, values in data.items()}


laws = pytest.mark.parametrize("name", list(METRICS))
seeds = pytest.mark.parametrize("seed", [0, 1, 2])


@laws
@seeds
def test_order_equivalence(name, seed):
    metric, data = METRICS[name], draws(seed)
    order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(seed))
    whole, turned = metric.of(data), metric.of(rows(data, order))
    same(whole[order] if metric.each or metric.ordered else whole, turned)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.each])
@seeds
def test_batch_size_equivalence(name, seed):
    metric, data = METRICS[name], draws(seed)
    for size in (1, 7, POINTS):
        parts = [metric.of(rows(data, part)) for part in torch.arange(POINTS).split(size)]
        same(metric.of(data), torch.cat(parts))


@laws
@seeds
def test_scale(name, seed):
    metric, data = METRICS[name], draws(seed)
    factor = 3.5
    scaled = {key: values * factor if key in metric.scaled else values for key, values in data.items()}
    whole = torch.as_tensor(metric.of(data)).double()
    same(whole * factor**metric.power, metric.of(scaled))


MERGED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "unitmem": lambda d: UnitState.of(d["mu"], d["id"]),
    "classmem": lambda d: ClassState.of(d["mu"], d["labels"], classes=3),
    "points": lambda d: PointState.of(d["id"], {"align": d["align"]}),
}


def read(name: str, state: Any) -> tuple[Tensor, ...]:
    """The figures of a state."""
    if name == "unitmem":
        rest = metrics.mean_of_rest(state.mu_max, state.total, state.points)
        return metrics.contrast(state.mu_max, rest), state.mu_max, state.point
    if name == "classmem":
        found = metrics.class_contrast(state.total, state.count, torch.arange(3))
        return found.value, found.label
    return state.points, state.columns["align"]


@pytest.mark.parametrize("name", list(MERGED))
@seeds
def test_shards_merge_in_any_order_and_grouping(name, seed):
    data = draws(seed) | {"id": torch.randperm(POINTS, generator=torch.Generator().manual_seed(seed))}
    one, two, three = (MERGED[name](rows(data, part)) for part in torch.arange(POINTS).tensor_split([5, 13]))
    whole = read(name, MERGED[name](data))
    for state in (one.merge(two).merge(three), one.merge(two.merge(three)), three.merge(one).merge(two)):
        for left, right in zip(whole, read(name, state), strict=True):
            same(left, right)


def test_every_formula_of_points_is_in_the_dictionary():
    """Those that make figures; the others turn, check or resample them."""
    helpers = {
        "DISTANCES", "Distance", "Pairs", "RunHalves", "Effect", "Auroc", "ClassMem", "UnitMem", "Share", "Z95", "bootstrap_sums",
        "bootstrap_weights", "percentile_interval", "standard_error", "mean_draws", "mean_interval", "run_weights", "half_distances",
        "pair_distances", "view_distances", "spearman_brown", "delta_layermem", "run_reliability", "rectified", "contrast",
        "class_contrast", "mean_of_rest", "FEWEST_REFERENCES", "Regression", "folds_of", "regress_readings", "FPRS", "Rate",
        "Spread", "Components", "two_way_spread", "simultaneous_bounds", "variance_components", "run_halves", "run_clusters",
        "epsilon_lower_bound",
    }  # fmt: skip
    assert {name.split(",")[0] for name in METRICS} == set(metrics.__all__) - helpers
