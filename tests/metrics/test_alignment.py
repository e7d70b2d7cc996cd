"""Alignment against a slow loop written from the formula, and by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from memloc.errors import ShapeError, SpecError
from memloc.metrics import DISTANCES, half_distances, pair_distances, pairwise_alignment, view_distances


def slow_distance(a, b, distance):
    a, b = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    cosine = float(np.clip(a @ b, -1, 1))
    return {
        "l2": float(np.linalg.norm(a - b)),
        "l1": float(np.abs(a - b).sum()),
        "cosine": 1 - cosine,
        "angular": math.acos(cosine) / math.pi,
    }[distance]


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("pairs", ["all", "cross"])
def test_alignment_is_the_mean_over_pairs(distance, pairs):
    reps = torch.randn(3, 6, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = pairwise_alignment(reps, distance=distance, pairs=pairs)
    chosen = (
        list(itertools.combinations(range(6), 2)) if pairs == "all" else list(itertools.product((0, 2, 4), (1, 3, 5)))
    )
    slow = [np.mean([slow_distance(point[a], point[b], distance) for a, b in chosen]) for point in reps]
    assert found.tolist() == pytest.approx(slow, abs=1e-12)


def test_float32_is_exact_where_views_almost_agree():
    base = torch.randn(1, 1, 500, generator=torch.Generator().manual_seed(0))
    reps = base + 1e-5 * torch.randn(1, 4, 500, generator=torch.Generator().manual_seed(1))
    exact = pairwise_alignment(reps.double())
    assert float(pairwise_alignment(reps)) == pytest.approx(float(exact), rel=1e-2)
    assert float(pairwise_alignment(base.expand(1, 4, 500))) == 0.0


def test_without_normalization_distances_scale():
    reps = torch.randn(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pairwise_alignment(3 * reps, normalize=False), 3 * pairwise_alignment(reps, normalize=False))
    assert torch.allclose(pairwise_alignment(3 * reps), pairwise_alignment(reps))


def test_channels_last_maps_give_the_same_distances():
    reps = torch.randn(6, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    last = reps.contiguous(memory_format=torch.channels_last)
    one, two = (pairwise_alignment(each.unflatten(0, (2, 3))) for each in (reps, last))
    assert torch.allclose(one, two, atol=1e-14)


def test_halves_use_every_pair_within_a_net():
    distances = torch.arange(36.0).view(1, 6, 6)
    even, odd = half_distances(distances)
    assert even.tolist() == [[2.0, 4.0, 16.0]]
    assert odd.tolist() == [[9.0, 11.0, 23.0]]


def test_zero_representations_do_not_divide_by_zero():
    assert pairwise_alignment(torch.zeros(1, 2, 4)).tolist() == [0.0]


def test_messages(unchecked):
    with pytest.raises(SpecError, match="no distance 'l3'"):
        view_distances(torch.zeros(1, 2, 3), distance="l3")
    with pytest.raises(ShapeError, match="at least two views"):
        view_distances(torch.zeros(1, 1, 3))
    with pytest.raises(ShapeError, match="need an even number"):
        pair_distances(torch.zeros(1, 3, 3), "cross")


def test_halves_of_the_pairs_with_the_image_share_none():
    one, two = half_distances(torch.arange(25.0).view(1, 5, 5), "original")
    assert (one.tolist(), two.tolist()) == ([[1.0, 3.0]], [[2.0, 4.0]])
