"""Crust against hand-worked values, brute force, a slow loop from the formula, and laws."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from memloc.coreset import Crust
from memloc.coreset import _coverage as coverage
from memloc.coreset import _greedy as greedy
from memloc.coreset._distances import Distances
from memloc.errors import DataError, NonFiniteError, ShapeError, SpecError

LINE = np.array([[0.0], [0.1], [-0.1], [10.0], [10.1]])


def facility_location(x, picks, metric="euclidean"):
    """F(S) and the k-medoids cost, from the formula."""
    d = cdist(x, x, metric)
    return (d.max() - d[:, picks]).max(axis=1).sum(), d[:, picks].min(axis=1).sum()


def slow_greedy(x, budget):
    """Picks and gains by a loop over the formula."""
    s = cdist(x, x)
    s = s.max() - s
    picks, gains, current = [], [], np.zeros(len(x))
    for _ in range(budget):
        found = [-1.0 if j in picks else np.maximum(s[:, j] - current, 0).sum() for j in range(len(x))]
        picks.append(int(np.argmax(found)))
        gains.append(max(found))
        current = np.maximum(current, s[:, picks[-1]])
    return picks, gains


def clusters(n, d=10, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(5, d)) * 3
    return (centers[rng.integers(0, 5, n)] + rng.normal(size=(n, d))).astype(dtype)


def test_the_worked_example():
    found = Crust(budget=2, group_by=None).select(LINE)
    assert found.indices.tolist() == [1, 3]
    assert found.gains.tolist() == pytest.approx([30.8, 19.8], abs=1e-9)
    assert found.objective == pytest.approx(50.6, abs=1e-9)
    assert found.weights.tolist() == [3, 2]
    assert found.assignment.tolist() == [1, 1, 1, 3, 3]
    assert found.cost == pytest.approx(0.1 + 0.2 + 0.1)
    central = Crust(budget=2, group_by=None, objective="centrality").select(LINE)
    assert central.indices.tolist() == [1, 0]
    assert central.weights.tolist() == [2.5, 2.5]
    assert central.gains.tolist() == pytest.approx([30.8, 30.7])


def test_the_guarantee_on_thirty_small_sets():
    for seed in range(30):
        x = np.random.default_rng(seed).normal(size=(12, 3))
        found = Crust(budget=4, group_by=None).select(x)
        best = max(facility_location(x, list(picks))[0] for picks in itertools.combinations(range(12), 4))
        assert found.objective >= (1 - 1 / np.e) * best
        assert (np.diff(found.gains) <= 0).all()
        assert found.gains.sum() == pytest.approx(found.objective)


@pytest.mark.parametrize(("n", "budget"), [(40, 13), (90, 45)])
def test_picks_and_gains_are_those_of_a_slow_loop(n, budget):
    x = clusters(n)
    picks, gains = slow_greedy(x, budget)
    for optimizer in ("lazy", "naive"):
        found = Crust(budget=budget, group_by=None, optimizer=optimizer).select(x)
        assert found.indices.tolist() == picks
        assert found.gains.tolist() == pytest.approx(gains, abs=1e-8)
        assert found.objective == pytest.approx(facility_location(x, picks)[0], rel=1e-10)
        assert found.cost == pytest.approx(facility_location(x, picks)[1], rel=1e-9)


def test_lazy_picks_what_naive_picks_with_a_twentieth_of_the_evaluations():
    x = clusters(2000)
    lazy = Crust(group_by=None).select(x)
    naive = Crust(group_by=None, optimizer="naive").select(x)
    assert lazy.indices.tolist() == naive.indices.tolist()
    assert (lazy.gains == naive.gains).all()
    assert lazy.evaluations <= 0.05 * naive.evaluations
    assert (np.diff(lazy.gains) <= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=30), st.floats(0.05, 1))
def test_points_on_a_grid_with_ties_and_copies(points, fraction):
    x = np.array(points, dtype=np.float64)
    lazy = Crust(fraction, group_by=None).select(x)
    naive = Crust(fraction, group_by=None, optimizer="naive").select(x)
    assert lazy.indices.tolist() == naive.indices.tolist()
    assert len(set(lazy.indices.tolist())) == len(lazy.indices) == max(int(np.ceil(fraction * len(x) - 1e-9)), 1)
    assert lazy.weights.sum() == len(x)
    assert (lazy.weights >= 1).all()
    assert (lazy.assignment[lazy.indices] == lazy.indices).all()
    assert (np.diff(lazy.gains) <= 0).all()
    d = cdist(x, x)
    assert lazy.cost == pytest.approx(d[np.arange(len(x)), lazy.assignment].sum(), abs=1e-9)
    assert lazy.cost == pytest.approx(d[:, lazy.indices].min(axis=1).sum(), abs=1e-9)


@pytest.mark.parametrize("exact", [0, 1 << 40])  # distances by the Gram matrix, by differences
@pytest.mark.parametrize("room", [0, 1 << 30])
@pytest.mark.parametrize("optimizer", ["lazy", "stochastic", "naive"])
def test_lists_memory_and_device_change_no_pick(monkeypatch, exact, room, optimizer):
    from memloc.coreset import _distances

    monkeypatch.setattr(_distances, "_EXACT", exact)
    x = np.round(clusters(400, dtype=np.float32), 1)  # many ties
    usual = Crust(group_by=None, optimizer=optimizer).select(x)
    monkeypatch.setattr(coverage, "_LISTS_BYTES", room)
    monkeypatch.setattr(coverage, "_FIRST_LISTS", 3)
    for memory in ("dense", "free"):
        found = Crust(group_by=None, optimizer=optimizer, memory=memory).select(x)
        assert found.indices.tolist() == usual.indices.tolist()
        assert (found.gains == usual.gains).all()
        assert (found.assignment == usual.assignment).all()
    # What runs on an accelerator, on the CPU.
    monkeypatch.setattr(greedy, "_coverage", lambda distances, by_candidate: coverage.DeviceCoverage(distances))
    device = Crust(group_by=None, optimizer=optimizer).select(x)
    assert device.indices.tolist() == usual.indices.tolist()
    assert (device.gains == usual.gains).all()
    assert (device.assignment == usual.assignment).all()
    assert device.cost == usual.cost


@pytest.mark.parametrize(
    ("metric", "name"), [("euclidean", "euclidean"), ("cosine", "cosine"), ("manhattan", "cityblock")]
)
@pytest.mark.parametrize(("n", "d"), [(60, 4), (300, 700)])
def test_distances_are_scipys(metric, name, n, d):
    x = clusters(n, d)
    for memory in (True, False):
        found = Distances(torch.from_numpy(x), metric, dense=memory)
        assert found.rows(list(range(n))).numpy() * found.step == pytest.approx(cdist(x, x, name), abs=1e-6)
        assert found.largest * found.step == pytest.approx(cdist(x, x, name).max())
        half = Distances(torch.from_numpy(x).float(), metric, dense=memory)
        assert half.rows([3]).numpy() * half.step == pytest.approx(cdist(x[3:4], x, name), rel=1e-5, abs=1e-4)


def test_stochastic_is_near_exact_and_follows_its_seed():
    x = clusters(1500)
    exact = Crust(group_by=None).select(x)
    runs = [Crust(group_by=None, optimizer="stochastic", random_state=seed).select(x) for seed in (0, 0, 1)]
    assert runs[0].indices.tolist() == runs[1].indices.tolist() != runs[2].indices.tolist()
    assert exact.cost <= runs[0].cost <= 1.1 * exact.cost
    assert runs[0].evaluations < 12 * 1500
    random = np.random.default_rng(0).permutation(1500)[:750]
    assert facility_location(x, random)[1] > 1.1 * exact.cost


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_centrality_over_squares_serves_as_pick_after_pick(metric, kind, monkeypatch):
    """Of more points than a square has, with equal points among them: what every pick adds by itself, row by row."""
    x = clusters(1100).round(1).astype(kind)
    x[700:740] = x[:40]
    distances = Distances(torch.from_numpy(x), metric, dense=True)
    rows = distances.rows(list(range(len(x)))).double().numpy()
    picks = np.argsort(rows.sum(axis=1), kind="stable")[:330]
    near = rows[:, np.sort(picks)]
    owner = np.sort(picks)[near.argmin(axis=1)]
    owner[picks] = picks
    settings = {"fraction": 0.3, "group_by": None, "objective": "centrality", "metric": metric}
    found = [Crust(memory=memory, **settings).select(x) for memory in ("dense", "free")]
    monkeypatch.setattr(greedy, "_coverage", lambda distances, by_candidate: coverage.DeviceCoverage(distances))
    monkeypatch.setattr(coverage, "_least", coverage._first_least)
    found += [Crust(memory=memory, **settings).select(x) for memory in ("dense", "free")]
    for one in found:
        assert one.indices.tolist() == picks.tolist()
        assert (one.assignment == owner).all()
        assert one.cost == pytest.approx(near.min(axis=1).sum() * distances.step, rel=1e-12)


def test_progress_rises_to_the_end():
    said = []
    for one in (
        {"objective": "centrality", "memory": "free"},
        {},
        {"optimizer": "stochastic"},
        {"optimizer": "naive"},
    ):
        said.clear()
        Crust(0.1, **one).select(clusters(600), np.arange(600) % 3, progress=lambda *told: said.append(told))
        assert {text for text, _, _ in said} == {"selecting a coreset"}
        shares = [done / total for _, done, total in said]
        assert shares == sorted(shares)
        assert shares[0] < 0.5
        assert shares[-1] == 1


def test_centrality_is_the_order_of_total_similarity():
    x = clusters(200)
    total = (cdist(x, x).max() - cdist(x, x)).sum(axis=1)
    found = Crust(0.3, group_by=None, objective="centrality").select(x)
    assert found.indices.tolist() == np.argsort(-total, kind="stable")[:60].tolist()
    assert found.gains == pytest.approx(np.sort(total)[::-1][:60])
    exact = Crust(0.3, group_by=None).select(x)
    assert found.objective < exact.objective
    assert found.cost > exact.cost


def test_groups_are_selected_one_after_the_other():
    x, labels = clusters(90), np.array([2, 0, 7] * 30)
    found = Crust(0.2).select(x, labels)
    assert found.groups.tolist() == [0] * 6 + [2] * 6 + [7] * 6
    for group in (0, 2, 7):
        member = np.flatnonzero(labels == group)
        alone = Crust(0.2, group_by=None).select(x[member])
        mine = found.groups == group
        assert found.indices[mine].tolist() == member[alone.indices].tolist()
        assert found.weights[mine].sum() == 30
        assert (labels[found.assignment[member]] == group).all()
    named = Crust(0.2).select(x, np.array(["b", "a", "c"])[[0, 1, 2] * 30])
    assert named.groups.tolist() == ["a"] * 6 + ["b"] * 6 + ["c"] * 6
    uneven = Crust(0.5, objective="centrality").select(x[:7], [0, 0, 0, 0, 0, 0, 1])
    assert uneven.groups.tolist() == [0, 0, 0, 1]  # a class of one point keeps it
    assert uneven.weights.tolist() == [2, 2, 2, 1]
    assert Crust(fraction=3).select(x, labels).groups.tolist() == [0] * 3 + [2] * 3 + [7] * 3


def test_identical_points_fill_the_budget():
    for objective, optimizers in (("facility_location", ("lazy", "stochastic", "naive")), ("centrality", ("lazy",))):
        for optimizer in optimizers:
            found = Crust(0.5, group_by=None, objective=objective, optimizer=optimizer).select(np.ones((8, 3)))
            assert len(set(found.indices.tolist())) == 4
            assert found.weights.sum() == 8
            assert found.cost == found.objective == 0
    assert Crust(0.5, group_by=None).select(np.ones((8, 3))).indices.tolist() == [0, 1, 2, 3]


def test_what_comes_in_goes_out_and_stays_as_it_was():
    x, labels = clusters(40, dtype=np.float32), np.arange(40) % 2
    before = x.copy()
    arrays = Crust().select(x, labels)
    assert (x == before).all()
    tensor = torch.from_numpy(x).requires_grad_()
    tensors = Crust().select(tensor, torch.from_numpy(labels))
    assert isinstance(tensors.indices, torch.Tensor)
    assert tensors.indices.tolist() == arrays.indices.tolist()
    assert tensors.weights.dtype == torch.float64
    assert isinstance(arrays.assignment, np.ndarray)
    assert Crust().select(x.astype(np.float16), labels).indices.shape == (20,)
    assert Crust(group_by=None).select((x * 10).astype(int)).indices.shape == (20,)
    for other in (x[::-1, ::-1], x.astype(">f4"), np.broadcast_to(x, x.shape)):
        assert Crust(group_by=None).select(other).indices.shape == (20,)


def test_logits_become_gradients_and_predicted_groups():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradients = p - np.eye(3)[y]
    for group_by, groups in (("label", y), ("prediction", logits.argmax(axis=1)), (None, np.zeros(60))):
        crust = Crust(0.3, group_by=group_by, objective="centrality")
        assert (
            crust.select_logits(logits, y).indices.tolist() == crust.select(gradients, groups=groups).indices.tolist()
        )
    for kind in (np.uint8, np.int8, np.int32):
        assert (
            Crust(0.3).select_logits(logits, y.astype(kind)).indices.tolist()
            == Crust(0.3).select_logits(logits, y).indices.tolist()
        )
    tensors = Crust(0.3).select_logits(torch.from_numpy(logits), torch.from_numpy(y))
    assert isinstance(tensors.indices, torch.Tensor)


def test_the_plan_states_what_memory_is_taken():
    assert Crust(budget=7).plan([0, 1] * 20, features=10)["picks"] == [7, 7]
    assert Crust(budget=7, group_by=None).plan([0, 1] * 20, features=10) == Crust(budget=7, group_by=None).plan(
        40, features=10
    )
    assert Crust(budget=7, group_by="prediction").plan([0] * 20 + [1] * 5, features=10)["picks"] == [7, 5]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("settings", "n", "d"),
    [
        ({"memory": "dense"}, 4000, 10),
        ({"memory": "free"}, 4000, 10),
        ({"memory": "free", "optimizer": "stochastic"}, 2000, 300),
    ],
)
def test_no_more_memory_is_taken_than_the_plan_states(settings, n, d):
    script = f"""
import numpy as np, psutil, torch
from memloc.coreset import Crust
torch.set_num_threads(1)
x = np.random.default_rng(0).normal(size=({n}, {d})).astype(np.float32)
crust = Crust(group_by=None, **{settings})
crust.select(x[:300])
before = psutil.Process().memory_info().rss
crust.select(x)
# Not ru_maxrss, which starts at the parent's.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak / 2**10 - before / 2**20, crust.plan({n}, features={d})["memory_mb"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    taken, planned = map(float, done.stdout.split())
    assert taken < 1.1 * planned
    assert planned < 4 * taken + 40  # a bound, and no empty one


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (SpecError, r"fraction is 0\. Expected a share", lambda: Crust(0)),
        (SpecError, r"fraction is 1\.5\. Expected a share", lambda: Crust(1.5)),
        (SpecError, r"fraction is nan\.", lambda: Crust(float("nan"))),
        (SpecError, r"fraction is '0.5'\.", lambda: Crust("0.5")),
        (SpecError, r"fraction is 2.0\. Expected a share", lambda: Crust(2.0)),
        (SpecError, r"budget is 2.5\. Expected a whole number", lambda: Crust(budget=2.5)),
        (SpecError, r"random_state is -1\.", lambda: Crust(random_state=-1)),
        (SpecError, r"objective is centrality, which is a sort", lambda: Crust(objective="centrality", optimizer="naive")),
        (SpecError, r"epsilon is 0.1 and the optimizer is lazy", lambda: Crust(epsilon=0.1)),
        (SpecError, r"budget is 0\. Expected a whole number of points a group, at least 1", lambda: Crust(budget=0)),
        (SpecError, r"epsilon is 1\.", lambda: Crust(optimizer="stochastic", epsilon=1.0)),
        (SpecError, r"metric is 'euclid'\. Nearest: 'euclidean'", lambda: Crust(metric="euclid")),
        (SpecError, r"objective is 'central'\. Nearest: 'centrality'", lambda: Crust(objective="central")),
        (SpecError, r"optimizer is 'lazier'\.", lambda: Crust(optimizer="lazier")),
        (SpecError, r"memory is 'sparse'\.", lambda: Crust(memory="sparse")),
        (SpecError, r"group_by is 'class'\.", lambda: Crust(group_by="class")),
        (SpecError, r"budget is 3 and the 2 points of group 1 are fewer", lambda: Crust(budget=3).select(LINE, [0, 0, 0, 1, 1])),
        (SpecError, r"group_by is 'label' and there is nothing to group by.*labels=", lambda: Crust().select(LINE)),
        (SpecError, r"call select_logits", lambda: Crust(group_by="prediction").select(LINE, [0] * 5)),
        (ShapeError, r"5 gradients and labels of shape \(4,\)", lambda: Crust().select(LINE, [0] * 4)),
        (ShapeError, r"5 gradients and groups of shape \(6,\)", lambda: Crust().select(LINE, groups=[0] * 6)),
        (ShapeError, r"have shape \(0, 3\)", lambda: Crust(group_by=None).select(np.empty((0, 3)))),
        (ShapeError, r"have shape \(3,\)", lambda: Crust(group_by=None).select(np.ones(3))),
        (NonFiniteError, r"row 3 of the gradients", lambda: Crust(group_by=None).select(np.where(LINE == 10, np.nan, LINE))),
        (NonFiniteError, r"numbers above 1e150", lambda: Crust(group_by=None).select(LINE * 1e200)),
        (DataError, r"the gradients are <U", lambda: Crust(group_by=None).select(LINE.astype(str))),
        (DataError, r"groups are of several kinds", lambda: Crust().select(LINE, np.array([0, "a", None, 1, 1], dtype=object))),
        (ShapeError, r"labels of shape \(4,\)", lambda: Crust(group_by=None).select(LINE, [0] * 4)),
        (NonFiniteError, r"row 0 of the logits", lambda: Crust().select_logits(np.full((2, 2), np.nan), [0, 1])),
        (DataError, r"labels are <U1\..*return_inverse", lambda: Crust().select_logits(np.ones((2, 2)), ["a", "b"])),
        (DataError, r"row 1 has no label", lambda: Crust().select(LINE, [0, np.nan, 1, 1, 1])),
        (ShapeError, r"logits have 1 column", lambda: Crust().select_logits(LINE, [0] * 5)),
        (ShapeError, r"5 rows of logits and labels of shape \(4,\)", lambda: Crust().select_logits(np.ones((5, 2)), [0] * 4)),
        (DataError, r"labels go from 0 to 2 and there are 2 classes", lambda: Crust().select_logits(np.ones((5, 2)), [0, 1, 2, 0, 0])),
    ],
)  # fmt: skip
def test_wrong_calls(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_memory_below_what_is_needed_is_refused_with_the_estimate(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.raises(DataError, match=r"take 0\.0 GiB.*Pass a memory of free"):
        Crust(group_by=None, memory="dense").select(clusters(50))
    assert len(Crust(group_by=None).select(clusters(50))) == 25  # matrix-free


def test_a_predicted_class_smaller_than_the_budget_is_taken_whole():
    logits = np.array([[3.0, 0.0]] * 9 + [[0.0, 3.0]])
    found = Crust(budget=4, group_by="prediction", objective="centrality").select_logits(logits, [0] * 9 + [1])
    assert found.groups.tolist() == [0] * 4 + [1]
    with pytest.raises(SpecError, match="budget is 4 and the 1 points of group 1 are fewer"):
        Crust(budget=4).select_logits(logits, [0] * 9 + [1])


def test_stochastic_looks_at_as_many_candidates_as_it_says():
    """ln(100) x 100 / 10 candidates a pick, rounded up to 47, after the first sums of all 100."""
    found = Crust(budget=10, group_by=None, optimizer="stochastic").select(clusters(100))
    assert found.evaluations == 100 + 10 * 47


def test_of_equal_sampled_candidates_the_lowest_number_is_picked():
    drawn = np.random.default_rng([0, 0]).random((1, 8)) * 8
    assert int(drawn[0, 0]) > int(drawn.min())
    found = Crust(budget=1, group_by=None, optimizer="stochastic").select(np.eye(8))
    assert found.indices.tolist() == [int(drawn.min())]


def test_a_point_between_two_picks_is_the_lower_numbers():
    found = Crust(budget=2, group_by=None).select(np.array([[0.0], [0.0], [0.0], [10.0], [10.0], [5.0]]))
    assert found.indices.tolist() == [0, 3]
    assert found.assignment.tolist() == [0, 0, 0, 3, 3, 0]
    assert found.weights.tolist() == [4.0, 2.0]


def test_of_equally_central_points_the_lowest_numbers_are_picked():
    assert Crust(budget=2, group_by=None, objective="centrality").select(np.eye(4)).indices.tolist() == [0, 1]
