"""UnitMem and ClassMem, by hand and against slow loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memloc.errors import DataError, ShapeError, SpecError
from memloc.metrics import classmem, member_share, unitmem


def mu(points=20, units=7, seed=0):
    return torch.rand(points, units, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_unitmem(values, rest):
    found = []
    for unit in values.T.tolist():
        best = max(range(len(unit)), key=lambda row: (unit[row], -row))
        others = [value for row, value in enumerate(unit) if row != best]
        middle = float(np.median(others)) if rest == "median" else sum(others) / len(others)
        found.append(((unit[best] - middle) / (unit[best] + middle), best))
    return found


@pytest.mark.parametrize("rest", ["mean", "median"])
def test_unitmem_against_a_slow_loop(rest):
    found = unitmem(mu(), rest=rest)
    for value, point, (slow_value, slow_point) in zip(
        found.value.tolist(), found.point.tolist(), slow_unitmem(mu(), rest), strict=True
    ):
        assert value == pytest.approx(slow_value, abs=1e-12)
        assert point == slow_point


@settings(deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 50))
def test_unitmem_does_not_change_with_scale(scale, seed):
    assert torch.allclose(unitmem(mu(seed=seed) * scale).value, unitmem(mu(seed=seed)).value, atol=1e-12)


def test_signed_activations_are_rectified_or_marked():
    signed = torch.tensor([[2.0, -1.0], [-4.0, -3.0]])
    assert unitmem(signed).value.tolist() == [1.0, 0.0]
    assert torch.isnan(unitmem(signed, signed="raw").value).tolist() == [True, True]


def test_ties_go_to_the_first_point():
    assert unitmem(torch.tensor([[1.0], [2.0], [2.0]])).point.tolist() == [1]


def test_a_dead_unit_memorizes_nothing():
    assert unitmem(torch.zeros(3, 1)).value.tolist() == [0.0]


def test_classmem_by_hand():
    found = classmem(torch.tensor([[4.0], [2.0], [1.0], [1.0]]), torch.tensor([5, 5, 1, 2]))
    assert found.value.tolist() == pytest.approx([(3 - 1) / (3 + 1)])
    assert found.label.tolist() == [5]
    assert found.mu_rest.tolist() == [1.0]


def test_classes_count_equally_whatever_their_size():
    few = classmem(torch.tensor([[4.0], [2.0], [0.0]]), torch.tensor([0, 1, 2]))
    many = classmem(torch.tensor([[4.0], [2.0], [2.0], [2.0], [0.0]]), torch.tensor([0, 1, 1, 1, 2]))
    assert torch.equal(few.value, many.value)


def test_member_share_counts_ties_half_and_clusters_by_point():
    share = member_share(
        torch.tensor([2.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 3.0]), torch.tensor([1, 2, 3, 4])
    )
    assert share.value == pytest.approx(0.5)
    one_point = member_share(torch.ones(100) * 2, torch.ones(100), torch.ones(100, dtype=torch.int64))
    assert (one_point.low, one_point.high) == pytest.approx((1 / (1 + 1.959964**2), 1.0), abs=1e-5)  # Wilson's, 1 of 1
    mixed = torch.arange(100) % 5
    wide = member_share((mixed % 2).float() + 0.5, torch.ones(100), mixed)
    narrow = member_share((mixed % 2).float() + 0.5, torch.ones(100), torch.arange(100))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_messages(unchecked):
    with pytest.raises(ShapeError, match="at least two points"):
        unitmem(torch.ones(1, 3))
    with pytest.raises(SpecError, match="rest is 'max'"):
        unitmem(torch.ones(2, 3), rest="max")
    with pytest.raises(DataError, match="at least two"):
        classmem(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="Pass labels="):
        classmem(torch.ones(2, 3), torch.zeros(3, dtype=torch.int64))


def test_a_large_maximum_does_not_swallow_the_rest():
    found = unitmem(torch.tensor([[2.0**24], [0.3], [0.3], [0.3]]))
    assert found.mu_rest.tolist() == pytest.approx([0.3], rel=1e-6)
