"""Counter-based and Sobol draws: golden values, independence of batching, and how evenly they spread."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memloc.views import owen_scramble, philox, uniforms


def test_philox_known_answers():
    """The vectors of Random123's kat_vectors for philox4x32, 10 rounds."""

    def words(counter, key):
        return [int(word) for word in philox(tuple(torch.tensor(part) for part in counter), key)]

    ones = 0xFFFFFFFF
    assert words((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert words((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


@given(st.integers(0, 2**32 - 1))
def test_owen_scramble_keeps_elementary_intervals(key):
    """Scrambling maps each dyadic interval onto one of the same size, so a net stays a net."""
    value = torch.arange(64) << 26
    scrambled = owen_scramble(value, torch.tensor(key))
    assert sorted((scrambled >> 26).tolist()) == list(range(64))
    halves = (scrambled >> 31).view(2, 32)
    assert (halves == halves[:, :1]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 2**62), st.sampled_from(["sobol", "independent"]))
def test_a_draw_depends_on_seed_point_and_view_alone(seed, point, sampling):
    points = torch.tensor([point, 5, 123456789012])
    whole = uniforms(seed, points, torch.arange(16), 9, sampling)
    assert torch.equal(whole[:1], uniforms(seed, points[:1], torch.arange(16), 9, sampling))
    assert torch.equal(whole[:, 6:10], uniforms(seed, points, torch.arange(6, 10), 9, sampling))
    assert ((whole > 0) & (whole < 1)).all()
    assert not torch.equal(whole, uniforms(seed + 1, points, torch.arange(16), 9, sampling))


@pytest.mark.parametrize("sampling", ["sobol", "independent"])
def test_draws_are_uniform_and_uncorrelated(sampling):
    drawn = uniforms(3, torch.arange(4000), torch.arange(4), 16, sampling).numpy()
    flat = drawn.reshape(-1, 16)
    assert np.abs(flat.mean(0) - 0.5).max() < 0.015
    assert np.abs(flat.var(0) - 1 / 12).max() < 0.004
    correlation = np.corrcoef(drawn[:, 0].T)  # between numbers of one view, over points
    assert np.abs(correlation - np.eye(16)).max() < 0.07
    between = [np.corrcoef(drawn[:, 0, k], drawn[:, 1, k])[0, 1] for k in range(16)]  # views 0 and 1: different nets
    assert np.abs(between).max() < 0.07


def test_each_net_is_evenly_spread():
    drawn = uniforms(0, torch.arange(20), torch.arange(32), 16)
    for net in (0, 1):
        cells = (drawn[:, net::2] * 16).long()  # 16 views of a net in 16 cells of every dimension
        assert (cells.sort(dim=1).values == torch.arange(16)[None, :, None]).all()
    plain = uniforms(0, torch.arange(20), torch.arange(32), 16, "independent")
    assert not ((plain[:, 0::2] * 16).long().sort(dim=1).values == torch.arange(16)[None, :, None]).all()


def test_points_do_not_share_their_nets():
    drawn = uniforms(0, torch.arange(2), torch.arange(8), 4)
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0, 0::2], drawn[0, 1::2])


def test_plain_draws_are_philoxs_words_in_order():
    """Four numbers of each block: the counter is (view, block, point), the key the seed."""
    zero = torch.tensor(0)
    words = [
        int(word) for block in (0, 1) for word in philox((zero + 3, zero + block, zero + 5, zero), (7, 0))
    ]  # fmt: skip
    found = uniforms(7, torch.tensor([5]), torch.tensor([3]), 6, "independent")[0, 0]
    assert found.tolist() == [(word + 0.5) / 2**32 for word in words[:6]]
