"""What a layer's row says of its units: interval, 90 % quantile, equal numbers, and the share won by members."""

from itertools import combinations

import numpy as np
import pytest
import torch
from tests.conftest import tiny_net
from tests.golden.slow import ends, pictures, readings, weights_of, wilson

from memloc import Views, audit
from memloc.metrics import member_share

VIEWS, SEED = Views(n=4, seed=3), 5
SETTINGS = {"views": VIEWS, "dtype": "float64", "seed": SEED, "thumbnails": False}


def unit_means(net, images, layer):
    """Mean rectified activation of every unit: (point, unit)."""
    reading = np.maximum(readings(net, images, VIEWS)[layer], 0)  # (point, view, unit, ...)
    return reading.reshape(*reading.shape[:3], -1).mean(axis=(1, 3))


def unitmem(mu, rest="mean"):
    """One unit at a time."""
    found = []
    for unit in mu.T:
        others = np.delete(unit, unit.argmax())
        other = others.mean() if rest == "mean" else np.median(others)
        found.append((unit.max() - other) / (unit.max() + other) if unit.max() > 0 else 0.0)
    return np.array(found)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "output"])
def test_the_mean_is_resampled_over_units(layer):
    images = pictures(10)
    row = audit(tiny_net(0), images=images, **SETTINGS).layers.set_index("layer").loc[layer]
    value = unitmem(unit_means(tiny_net(0), images, layer))
    draws = np.array([np.repeat(value, drawn).mean() for drawn in weights_of(len(value), SEED)])
    assert row["unitmem_mean"] == pytest.approx(value.mean(), abs=1e-9)
    assert row[["unitmem_low", "unitmem_high"]].tolist() == pytest.approx(ends(draws), abs=1e-9)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "output"])
def test_one_unit_in_ten_exceeds_the_p90(layer):
    """Between the order statistics around place .9 (n - 1), from 0."""
    images = pictures(10)
    row = audit(tiny_net(0), images=images, **SETTINGS).layers.set_index("layer").loc[layer]
    ordered = np.sort(unitmem(unit_means(tiny_net(0), images, layer)))
    place = 0.9 * (len(ordered) - 1)
    below = int(place)
    expected = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
    assert row["unitmem_p90"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("rest", ["mean", "median"])
def test_the_controls_are_over_equally_many_points(rest):
    """Five trained points and four external ones: the trained figure is of one of the five fours."""
    images, split = pictures(9), ["candidate"] * 5 + ["external"] * 4
    found = audit(tiny_net(0), images=images, splits=split, rest=rest, **SETTINGS).layers.set_index("layer")
    for layer in ("conv1", "conv2", "output"):
        mu = unit_means(tiny_net(0), images, layer)
        fours = {four: unitmem(mu[list(four)], rest).mean() for four in combinations(range(5), 4)}
        assert min(abs(found.loc[layer, "unitmem_equal_mean"] - each) for each in fours.values()) < 1e-9
        assert found.loc[layer, "unitmem_mean"] == pytest.approx(unitmem(mu[:5], rest).mean(), abs=1e-9)
        assert found.loc[layer, "unitmem_external_mean"] == pytest.approx(unitmem(mu[5:], rest).mean(), abs=1e-9)


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_the_members_share_of_units_has_wilsons_interval_of_effective_points(layer):
    """Nine trained points and nine external ones; the sample is as large as the points that win units, by Kish."""
    images, split = pictures(18, seed=2), ["candidate"] * 9 + ["external"] * 9
    row = audit(tiny_net(0), images=images, splits=split, **SETTINGS).layers.set_index("layer").loc[layer]
    mu = unit_means(tiny_net(0), images, layer)
    winners = [unit.argmax() for unit in mu.T if unit.max() > 0]
    share = np.mean([winner < 9 for winner in winners])
    sizes = np.array([winners.count(winner) for winner in set(winners)])
    expected = [share, *wilson(share, sizes.sum() ** 2 / (sizes**2).sum())]
    assert row[["member_share", "member_share_low", "member_share_high"]].tolist() == pytest.approx(expected, abs=1e-6)
    assert 1 < len(sizes) < len(winners)
    assert 0 < share < 1


def test_member_share_by_hand():
    """Four of five live units are won, half of a tie counts; three go to point 4, so n is 25 / (9 + 1 + 1)."""
    members = torch.tensor([2.0, 3.0, 5.0, 1.0, 1.0, 0.0])
    external = torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0, 0.0])
    found = member_share(members, external, torch.tensor([4, 4, 4, 7, 9, 4]))
    assert tuple(found) == pytest.approx((0.7, *wilson(0.7, 25 / 11)), abs=1e-6)
    all_won = member_share(members[:3], external[:3], torch.tensor([4, 5, 6]))
    z = 1.959963984540054
    assert tuple(all_won) == pytest.approx((1, 3 / (3 + z**2), 1), abs=1e-6)
    assert np.isnan(member_share(members[5:], external[5:], torch.tensor([4]))).all()
