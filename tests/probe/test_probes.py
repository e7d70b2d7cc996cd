"""Probes against hand-worked figures and slow loops; Déjà Vu on encoders whose answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import tiny_net
from torch import nn

from memloc import as_images, load_encoder
from memloc.errors import DataError, EncoderError, LayerNotFoundError, NonFiniteError, ShapeError, SpecError
from memloc.probe import (
    Probe,
    check_probe,
    corners,
    dejavu,
    dejavu_agreement,
    dense_probe,
    knn_probe,
    label_share,
    linear_probe,
    paired_difference,
    patch_labels,
    probe_encoder,
    scored,
    wilson,
)


def blobs(count=120, classes=3, seed=0, spread=0.5):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return random.normal(size=(count, 4)) * spread + np.eye(classes, 4)[labels] * 3, labels


def test_linear_probe_tells_blobs_apart_and_noise_not():
    x, y = blobs()
    found = linear_probe(x[:90], y[:90], x[90:], y[90:])
    assert found.accuracy > 0.9
    assert found.low < found.accuracy <= found.high
    assert found.chance == pytest.approx(1 / 3)
    noise = np.random.default_rng(1).normal(size=x.shape)
    assert linear_probe(noise[:90], y[:90], noise[90:], y[90:]).accuracy < 0.7


def test_linear_probe_does_not_depend_on_scale_or_order():
    x, y = blobs(spread=2.0)
    order = np.random.default_rng(0).permutation(90)
    plain = linear_probe(x[:90], y[:90], x[90:], y[90:], strengths=(0.1,))
    moved = linear_probe(x[:90][order] * 7 + 3, y[:90][order], x[90:] * 7 + 3, y[90:], strengths=(0.1,))
    assert (plain.right == moved.right).all()


def test_regularization_is_chosen_without_the_test_points():
    x, y = blobs(spread=3.0)
    one, other = (linear_probe(x[:90], y[:90], test, y[90:]).settings["strength"] for test in (x[90:], -x[90:]))
    assert one == other


def test_knn_probe_against_a_loop():
    x, y = blobs(spread=2.0)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = np.argsort(-(unit[90:] @ unit[:90].T), axis=1)[:, :5]
    votes = np.array([np.bincount(y[:90][row], minlength=3).argmax() for row in near])
    assert knn_probe(x[:90], y[:90], x[90:], y[90:], neighbours=5).accuracy == (votes == y[90:]).mean()


def test_dense_probe_finds_what_each_position_holds_and_counts_images():
    random = np.random.default_rng(0)
    labels = random.integers(-1, 2, (40, 9))
    features = random.normal(size=(40, 9, 3)) * 0.1 + np.eye(3)[labels % 3]
    found = dense_probe(features[:30], labels[:30], features[30:], labels[30:])
    assert found.accuracy == 1.0
    assert len(found.right) == (labels[30:] >= 0).sum()
    assert found.settings["n_images"] == 10


def test_intervals_of_alike_positions_are_those_of_images():
    right = np.repeat(np.arange(20) % 2, 50)
    truth = np.ones(1000, dtype=int)
    alone, grouped = scored(right, truth), scored(right, truth, np.repeat(np.arange(20), 50))
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)


def test_patch_labels_takes_the_majority():
    masks = np.zeros((1, 4, 4), dtype=int)
    masks[0, :2, :2] = [[5, 5], [5, 1]]
    masks[0, 2:, 2:] = -1
    assert patch_labels(masks, 4).tolist() == [[5, 0, 0, -1]]


def test_wilson_covers():
    random = np.random.default_rng(0)
    ends = [wilson(share, 40) for share in random.binomial(40, 0.9, 2000) / 40]
    assert 0.93 < np.mean([low <= 0.9 <= high for low, high in ends]) < 0.98


def test_paired_difference_by_hand():
    before, after = (Probe(0, 0, 0, 0, np.array(right, dtype=bool), {}) for right in ([1, 1, 0, 0], [1, 0, 0, 1]))
    found = paired_difference(after, before)
    assert found["change"] == 0
    assert found["high"] == pytest.approx(1.959964 * np.sqrt(1.5 + 1.5) / 6, rel=1e-5)
    same = paired_difference(before, before)
    assert same["low"] < 0 < same["high"]


def test_paired_difference_covers():
    random = np.random.default_rng(0)
    hits = []
    for _ in range(600):
        draw = random.random(200)
        pair = [Probe(0, 0, 0, 0, right, {}) for right in (draw < 0.85, (draw > 0.05) & (draw < 0.88))]
        found = paired_difference(pair[1], pair[0])
        hits.append(found["low"] <= -0.02 <= found["high"])
    assert 0.92 < np.mean(hits) < 0.985


def test_a_dense_probe_holds_out_whole_images():
    """Patches of an image are alike: chosen on other patches of the same images, no penalty would look best."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(20) % 2, 16).reshape(20, 16)
    features = (
        random.normal(size=(20, 1, 60)) + random.normal(size=(20, 16, 60)) * 0.01
    )  # says which image, not which class
    found = dense_probe(features[:14], labels[:14], features[14:], labels[14:])
    assert found.settings["strength"] <= 1e-2


def labelled(count, seed=0, classes=2):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = random.integers(0, 120, (count, 8, 8, 1)) + 120 * labels[:, None, None, None]
    return as_images(pixels.astype(np.uint8), labels=labels)


@pytest.mark.parametrize("kind", ["linear", "knn"])
@pytest.mark.parametrize("layer", ["conv1", "output"])
def test_an_encoder_is_probed_at_any_layer_and_left_as_it_was(kind, layer):
    net = tiny_net(0).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = probe_encoder(load_encoder(net, shape=(1, 8, 8)), labelled(60), labelled(30, 1), kind=kind, layer=layer)
    assert found.accuracy > 0.9
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_dense_probe_of_maps():
    encoder = load_encoder(tiny_net(0), shape=(1, 8, 8))
    random = np.random.default_rng(0)
    parts, masks = [], []
    for _ in range(2):
        mask = random.integers(0, 2, (40, 4, 4)).repeat(2, axis=1).repeat(2, axis=2)
        parts.append(as_images((mask * 200 + random.integers(0, 40, mask.shape)).astype(np.uint8)))
        masks.append(mask)
    found = probe_encoder(encoder, *parts, kind="dense", layer="conv2", masks=tuple(masks))
    assert found.accuracy > 0.9
    with pytest.raises(EncoderError):
        probe_encoder(encoder, *parts, kind="dense", layer="output", masks=tuple(masks))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, y: linear_probe(x, y[:5], x, y), ShapeError, "one label per point"),
        (lambda x, y: linear_probe(x * np.nan, y, x, y), NonFiniteError, "NaN or Inf"),
        (lambda x, y: linear_probe(x, y * 0, x, y * 0), DataError, "one class"),
        (lambda x, y: linear_probe(x, y, x, y + 1), DataError, "class 3 is among the test points"),
        (lambda x, y: linear_probe(x, y, x[:, :2], y), ShapeError, "test features 2"),
        (lambda x, y: linear_probe(x, y, x, y, strengths=()), SpecError, "strengths"),
        (lambda x, y: linear_probe(x[:4], np.array([0, 1, 1, 1]), x[:1], y[:1]), DataError, "one training point"),
        (lambda x, y: knn_probe(x, y, x, y, neighbours=0), SpecError, "neighbours=1"),
        (lambda x, y: dense_probe(x, y, x, y), ShapeError, "patch_labels"),
        (lambda x, y: patch_labels(np.zeros((1, 5, 5), dtype=int), 4), ShapeError, "do not divide"),
        (lambda x, y: patch_labels(np.zeros((1, 4, 4)), 4), ShapeError, "whole numbers"),
    ],
)
def test_wrong_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(*blobs())


def test_what_cannot_be_probed_is_refused_before_work():
    encoder, images = load_encoder(tiny_net(0), shape=(1, 8, 8)), labelled(20)
    bare = as_images(np.zeros((4, 8, 8, 1), dtype=np.uint8))
    with pytest.raises(SpecError, match="Nearest: 'linear'"):
        check_probe(encoder, images, images, kind="linar")
    with pytest.raises(SpecError, match="train_masks="):
        check_probe(encoder, images, images, kind="dense")
    with pytest.raises(DataError, match="test images have no labels"):
        check_probe(encoder, images, bare)
    coloured = as_images(np.zeros((20, 8, 8, 3), dtype=np.uint8), labels=[0, 1] * 10)
    with pytest.raises(DataError, match="training images have 1 channels and the test images 3"):
        check_probe(encoder, images, coloured)
    with pytest.raises(DataError, match="4 masks for 20 images"):
        check_probe(encoder, images, images, kind="dense", masks=(np.zeros((4, 8, 8), int), np.zeros((20, 8, 8), int)))
    with pytest.raises(ShapeError, match="whole numbers"):
        check_probe(encoder, images, images, kind="dense", masks=(np.zeros((20, 8, 8)), np.zeros((20, 8, 8))))
    with pytest.raises(DataError, match="one training point"):
        check_probe(encoder, images.take(torch.tensor([0, 1, 3, 5])), images)
    with pytest.raises(SpecError, match="neighbours=20"):
        check_probe(encoder, images, images, kind="knn", neighbours=21)
    with pytest.raises(EncoderError, match="takes images of 16x16"):
        check_probe(replace(encoder, size=16), images, images)
    with pytest.raises(LayerNotFoundError, match="Nearest: 'conv1'"):
        probe_encoder(encoder, images, images, layer="conv11")


def test_classes_are_matched_by_name():
    train, test = replace(labelled(40), class_names=("cat", "dog")), labelled(20, 1)
    test = replace(test, labels=1 - test.labels, class_names=("dog", "cat"))
    encoder = load_encoder(tiny_net(0), shape=(1, 8, 8))
    assert probe_encoder(encoder, train, test).accuracy > 0.9
    with pytest.raises(DataError, match="'cow'"):
        probe_encoder(encoder, train, replace(test, class_names=("cow", "cat")))


def test_label_share_against_a_loop():
    random = np.random.default_rng(0)
    asked, known = random.normal(size=(7, 3)), random.normal(size=(30, 3))
    labels, names = random.integers(0, 3, 7), random.integers(0, 3, 30)
    expected = []
    for row, label in zip(asked, labels, strict=True):
        cosine = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in known]
        expected.append(np.mean(names[np.argsort(cosine)[::-1][:4]] == label))
    assert label_share(asked, labels, known, names, neighbours=4).tolist() == expected


def test_corners_show_what_is_there():
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    image[0, 0, :2, 2:] = 200
    assert corners(image).float().mean(dim=(2, 3, 4)).tolist() == [[0.0, 200.0, 0.0, 0.0]]


class Lookup(nn.Module):
    """Knows one image by its top left corner, as an encoder that memorized it would, and answers with its class."""

    def __init__(self, known):
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, x):
        corner = nn.functional.interpolate(self.known[:, :, :4, :4], (8, 8), mode="bilinear", align_corners=False)
        hit = ((x - corner).abs().amax(dim=(1, 2, 3)) < 0.01).float()
        return torch.stack([x.mean(dim=(1, 2, 3)) * (1 - hit), hit * 5 + (1 - hit) * 0.5, (1 - hit) * 0.1], dim=1)


def test_dejavu_finds_what_one_encoder_knows_from_a_corner():
    random = np.random.default_rng(0)
    images = as_images(random.integers(0, 256, (4, 8, 8, 1), dtype=np.uint8), labels=[0, 1, 0, 1])
    public = labelled(40, 5)
    known = images.pixels[:1].float() / 255
    knows = load_encoder(Lookup(known), shape=(1, 8, 8))
    does_not = load_encoder(Lookup(torch.full_like(known, 9.0)), shape=(1, 8, 8))
    found = dejavu(knows, does_not, images, public, neighbours=5)
    assert found["dejavu"].iloc[0] != 0
    assert (found["dejavu"].iloc[1:] == 0).all()
    named = replace(public, class_names=("cat", "dog"))
    turned = replace(public, labels=1 - public.labels, class_names=("dog", "cat"))
    mine = replace(images, class_names=("cat", "dog"))
    one, two = (dejavu(knows, does_not, mine, each, neighbours=5)["dejavu"] for each in (named, turned))
    assert one.tolist() == two.tolist()
    with pytest.raises(DataError, match="public images are among those"):
        dejavu(knows, does_not, public, public, neighbours=5)
    with pytest.raises(SpecError, match="side="):
        dejavu(knows, does_not, images, public, side=1.5)
    with pytest.raises(SpecError, match="neighbours="):
        dejavu(knows, does_not, images, public, neighbours=41)


def test_agreement_of_dejavu_needs_common_points():
    scores = pd.DataFrame({"point": [1, 2], "dejavu": [0.1, 0.2]})
    with pytest.raises(DataError, match="no candidate"):
        dejavu_agreement(scores, pd.DataFrame({"point": [7], "split": ["candidate"], "sslmem": [0.1]}))
