"""Copies of an image stand in one split, whichever splits are drawn."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from memloc import as_images
from memloc.errors import SpecError
from memloc.pretrain._held_out import keep_together
from memloc.pretrain._plan import make_plan
from memloc.pretrain._spec import TrainSpec


def photographs(count, side=24):
    """Smooth pictures that are unlike each other."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[0:side, 0:side] / side
    waves = [
        np.sin(rng.uniform(2, 14) * down + rng.uniform(2, 14) * across + rng.uniform(0, 6)) for _ in range(4 * count)
    ]
    return np.clip(128 + 40 * np.array(waves).reshape(count, 4, side, side).sum(axis=1), 0, 255).astype(np.uint8)


def compressed(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=70)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize(
    "settings",
    [
        {"candidates": 10},
        {"candidates": 10, "held_out": 0},
        {"candidates": 10, "held_out": 0, "coin": True},
        {"candidates": 8, "runs": 2},
        {"candidates": 10, "independents": 6, "unpaired": True},
        {"candidates": 10, "plant": 4, "repeats": 5},
        {"ensemble": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["identical", "compressed", "three of a kind"])
def test_copies_stand_in_one_split(settings, how):
    images = photographs(60)
    copies = {40 + number: number for number in range(12)}
    if how == "three of a kind":
        copies |= {54: 0, 55: 1}
    for row, of in copies.items():
        images[row] = compressed(images[of]) if how == "compressed" else images[of]
    spec = TrainSpec(epochs=1, seed=3, **settings)
    plan = make_plan(as_images(images), spec)
    seen = plan.membership.iloc[:, 1:].to_numpy()
    for row, of in copies.items():
        assert seen[row].tolist() == seen[of].tolist()
        assert plan.points["split"][row] == plan.points["split"][of]
    counts = plan.points["split"].value_counts()
    if not spec.ensemble:
        assert counts["candidate"] == settings["candidates"]
        assert counts["independent"] == settings.get("independents", settings["candidates"])
        assert any("changed places" in note for note in plan.notes)


def test_without_copies_the_draws_stay():
    plan = make_plan(as_images(photographs(60)), TrainSpec(epochs=1, candidates=10))
    assert not any("changed places" in note for note in plan.notes)


def test_too_few_images_without_a_copy():
    images = photographs(20)
    images[10:] = images[:10]
    with pytest.raises(SpecError, match="20 of the images are copies of others, and copies must stand in one split"):
        make_plan(as_images(images), TrainSpec(epochs=1, candidates=6, held_out=0))


@given(st.integers(0, 10_000))
def test_exchanges_keep_the_numbers_and_the_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    split = np.array(["candidate"] * 8 + ["independent"] * 8 + ["shared"] * 14, dtype=object)
    rng.shuffle(split)
    rows = rng.permutation(30)[:9].tolist()
    groups = [rows[:2], rows[2:5], rows[5:9]]
    ids = rng.permutation(30)
    before, first = split.copy(), split.copy()
    keep_together(ids, first, groups)
    assert sorted(first) == sorted(before)
    assert all(len(set(first[group])) == 1 for group in groups)
    order = rng.permutation(30)
    place = np.argsort(order)
    second = split[order].copy()
    keep_together(ids[order], second, [[int(place[row]) for row in group] for group in groups])
    assert second.tolist() == first[order].tolist()
