"""The four splits and subset ensembles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memloc.data import as_images, duplicates_across, split_points, subset_membership
from memloc.errors import SpecError


def test_default_sizes_are_the_papers():
    names = split_points(torch.arange(50_000))
    assert {name: names.count(name) for name in set(names)} == {
        "shared": 40_000,
        "candidate": 5_000,
        "independent": 5_000,
    }


@given(st.integers(0, 1000))
def test_splits_belong_to_ids_not_to_order(seed):
    ids = torch.randperm(500, generator=torch.Generator().manual_seed(seed))[:60]
    turned = ids.flip(0)
    one = dict(zip(ids.tolist(), split_points(ids, seed=seed), strict=True))
    two = dict(zip(turned.tolist(), split_points(turned, seed=seed), strict=True))
    assert one == two


@given(st.sampled_from([(2, 0.5), (4, 0.5), (5, 0.4), (8, 0.25), (8, 0.75)]), st.integers(0, 1000))
def test_every_point_is_in_equally_many_encoders(shape, seed):
    encoders, fraction = shape
    ids = torch.arange(encoders * 12)
    seen = subset_membership(ids, encoders=encoders, fraction=fraction, seed=seed)
    assert seen.sum(dim=0).unique().tolist() == [round(encoders * fraction)]
    assert len(seen.sum(dim=1).unique()) == 1
    turned = subset_membership(ids.flip(0), encoders=encoders, fraction=fraction, seed=seed)
    assert torch.equal(turned.flip(1), seen)


def test_ensembles_are_not_all_alike():
    seen = subset_membership(torch.arange(400), encoders=8)
    overlap = np.corrcoef(seen.double().numpy()) - np.eye(8)
    assert np.abs(overlap).max() < 0.5


def test_sizes_that_do_not_fit():
    with pytest.raises(SpecError, match="do not fit 10 images"):
        split_points(torch.arange(10), candidates=8)
    with pytest.raises(SpecError, match="at least one in and one out"):
        subset_membership(torch.arange(10), encoders=4, fraction=0.99)


def test_identical_images_in_different_splits_are_found():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    pixels[3] = pixels[0]
    images = as_images(pixels)
    assert duplicates_across(images, ["candidate", "candidate", "external", "external"]) == [("0", "3")]
    assert duplicates_across(images, ["candidate"] * 4) == []
