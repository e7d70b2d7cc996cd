"""Near-duplicates: planted ones are found, and images that merely look alike are not."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from memloc import open_images
from memloc.data import Images, LazyPixels, as_images, near_duplicates
from memloc.data import _near_duplicates as module

PLANTED = 60


def encoded(pixels, quality=60):
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))


def brighter(pixels):
    return (pixels.astype(float) * 1.1 + 8).clip(0, 255).astype(np.uint8)


def shifted(pixels, down=1, right=1):
    padded = np.pad(pixels, 2, mode="edge")
    return padded[2 + down : 2 + down + pixels.shape[0], 2 + right : 2 + right + pixels.shape[1]]


def cropped(pixels):
    return np.asarray(Image.fromarray(pixels[1:-1, 1:-1]).resize(pixels.shape, Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def real():
    return open_images("sample:train").pixels[:1000, 0].numpy()


@pytest.fixture(scope="module")
def photos(real):
    """Real images of which no two look alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MANY", len(real))
        alike = {row for group in near_duplicates(as_images(real)) for row in group[1:]}
    return real[[row for row in range(len(real)) if row not in alike]]


CHANGES = {
    "compressed": encoded,
    "brighter": brighter,
    "darker": lambda pixels: (pixels * 0.8).astype(np.uint8),
    "down and right": shifted,
    "up and right": lambda pixels: shifted(pixels, -1, 1),
    "left": lambda pixels: shifted(pixels, 0, -1),
    "cropped": cropped,
    "shifted, then compressed": lambda pixels: encoded(shifted(pixels, 1, 0)),
    "identical": np.copy,
}


@pytest.mark.parametrize("hashed", [False, True], ids=["all pairs", "by hashes"])
@pytest.mark.parametrize("change", CHANGES)
def test_planted_ones_are_found_and_nothing_else(photos, monkeypatch, change, hashed):
    if hashed:
        monkeypatch.setattr(module, "_FEW", 0)
    copies = np.stack([CHANGES[change](pixels) for pixels in photos[:PLANTED]])
    groups = near_duplicates(as_images(np.concatenate([photos, copies])))
    where = {row: number for number, group in enumerate(groups) for row in group}
    found = [where.get(row, -1) == where.get(len(photos) + row, -2) for row in range(PLANTED)]
    assert sum(found) >= 0.93 * PLANTED
    assert sum(len({row % len(photos) for row in group}) > 1 for group in groups) <= 3  # two that look alike


def test_of_a_kind_of_which_many_look_alike_only_the_same_are_found(real, photos, monkeypatch):
    """Else all of the kind would be one group."""
    assert near_duplicates(as_images(photos)) == []
    found = max(map(len, near_duplicates(as_images(real))))
    monkeypatch.setattr(module, "_MANY", len(real))
    assert max(map(len, near_duplicates(as_images(real)))) > 3 * found


def test_random_images_have_none():
    for shape in ((500, 32, 32, 3), (500, 16, 16, 1), (300, 8, 8, 1), (300, 20, 40, 3)):
        assert near_duplicates(as_images(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))) == []


def test_flat_images_are_near_duplicates_where_they_are_identical():
    random = np.random.default_rng(0)
    flat = np.stack([np.full((32, 32), level, dtype=np.uint8) for level in (0, 10, 128, 128, 255)])
    faint = (128 + random.integers(0, 2, (20, 32, 32))).astype(np.uint8)
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8) * 8, (32, 32))
    pixels = np.concatenate([flat, faint, ramp[None], ramp.T[None]])
    assert near_duplicates(as_images(pixels)) == [[2, 3]]


def test_small_images_are_compared_for_identical_copies_alone():
    pixels = np.random.default_rng(0).integers(0, 200, (6, 8, 8), dtype=np.uint8)
    pixels[3], pixels[4] = pixels[0], pixels[1] + 1
    assert near_duplicates(as_images(pixels)) == [[0, 3]]


def test_a_chain_is_one_group_in_any_order(photos):
    pixels = np.concatenate([photos[:40], shifted(photos[0], 0, 1)[None], shifted(photos[0], 0, 2)[None]])
    assert [0, 40, 41] in near_duplicates(as_images(pixels))
    order = np.random.default_rng(0).permutation(len(pixels))
    turned = near_duplicates(as_images(pixels[order]))
    assert {frozenset(order[group].tolist()) for group in turned} == {
        frozenset(group) for group in near_duplicates(as_images(pixels))
    }


def test_many_copies_of_one_image_take_no_longer(monkeypatch):
    """Pairs within a group are not compared again."""
    compared = []
    agreement = module._agreement
    monkeypatch.setattr(module, "_agreement", lambda one, two: (compared.append(len(one)), agreement(one, two))[1])
    ramp = np.random.default_rng(0).integers(0, 200, (32, 32))
    pixels = np.stack([ramp + level for level in range(50)] * 20).astype(np.int64)
    pixels[:, 0, 0] = np.arange(len(pixels)) % 256
    groups = near_duplicates(as_images(pixels.astype(np.uint8)))
    assert len(groups) == 1
    assert sum(compared) <= 2 * module._AT_ONCE


def test_images_that_are_not_in_memory_are_not_looked_at():
    pixels = torch.zeros(2, 1, 20, 20, dtype=torch.uint8)
    unread = LazyPixels([pixels], np.zeros(2, dtype=np.int16), np.arange(2), (1, 20, 20))
    assert near_duplicates(Images(pixels, torch.arange(2), ("a", "b"))) == [[0, 1]]
    assert near_duplicates(Images(unread, torch.arange(2), ("a", "b"))) == []
