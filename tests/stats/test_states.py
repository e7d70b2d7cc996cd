"""States give the dense functions' figures in any order and grouping, and merge associatively and commutatively."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memloc.metrics import class_contrast, classmem, contrast, mean_of_rest, unitmem
from memloc.stats import ClassState, PointState, UnitState
from memloc.stats._states import sums_by_product

cases = settings(max_examples=40, deadline=None)


def batches(seed, points=30, units=5, *, ties=True):
    random = torch.Generator().manual_seed(seed)
    mu = torch.rand(points, units, dtype=torch.float64, generator=random) * 8
    mu = mu.round(decimals=1) if ties else mu
    ids = torch.randperm(1000, generator=random)[:points]
    order = torch.randperm(points, generator=random)
    cuts = sorted(torch.randint(1, points, (3,), generator=random).tolist())
    groups = [part for part in torch.tensor_split(order, cuts) if len(part)]
    return mu, ids, groups


def fold(states):
    while len(states) > 1:
        states = [states[1].merge(states[0]), *states[2:]]
    return states[0]


@cases
@given(st.integers(0, 10_000))
def test_unit_state_equals_dense_unitmem(seed):
    mu, ids, groups = batches(seed)
    state = fold([UnitState.of(mu[rows], ids[rows]) for rows in groups])
    order = ids.argsort()  # the dense form breaks ties by row: give it the rows in the order of ids
    dense = unitmem(mu[order])
    value = contrast(state.mu_max, mean_of_rest(state.mu_max, state.total, state.points))
    assert torch.allclose(value, dense.value, atol=1e-12, rtol=0)
    assert torch.equal(state.point, ids[order][dense.point])


@cases
@given(st.integers(0, 10_000))
def test_class_state_equals_dense_classmem(seed):
    mu, ids, groups = batches(seed, ties=False)
    labels = ids % 4
    state = fold([ClassState.of(mu[rows], labels[rows], classes=4) for rows in groups])
    dense = classmem(mu, labels)
    found = class_contrast(state.total, state.count, torch.arange(4))
    assert torch.allclose(found.value, dense.value, atol=1e-12, rtol=0)
    assert torch.equal(found.label, dense.label)


@cases
@given(st.integers(0, 10_000))
def test_sums_by_product_are_the_sums_by_index(seed):
    """What a GPU adds up."""
    mu, ids, _ = batches(seed, ties=False)
    count, total = sums_by_product(mu.double(), ids % 4, 5)
    state = ClassState.of(mu, ids % 4, classes=5)
    assert torch.equal(count, state.count)
    assert torch.allclose(total, state.total, atol=1e-12, rtol=0)


@cases
@given(st.integers(0, 10_000))
def test_merge_is_commutative_and_associative(seed):
    mu, ids, groups = batches(seed)
    states = [UnitState.of(mu[rows], ids[rows]) for rows in groups]
    a, b = states[0], states[1]
    c = states[-1]
    for one, two in ((a.merge(b), b.merge(a)), (a.merge(b).merge(c), a.merge(b.merge(c)))):
        assert torch.equal(one.mu_max, two.mu_max)
        assert torch.equal(one.point, two.point)
        assert torch.allclose(one.total, two.total, atol=1e-12, rtol=0)
        assert one.points == two.points


@cases
@given(st.integers(0, 10_000))
def test_point_state_is_in_id_order(seed):
    mu, ids, groups = batches(seed)
    state = fold([PointState.of(ids[rows], {"align": mu[rows]}) for rows in groups])
    assert torch.equal(state.points, ids.sort().values)
    assert torch.equal(state.columns["align"], mu[ids.argsort()])
