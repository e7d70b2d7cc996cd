"""Probe an encoder: represent training and test images with one of its layers, then fit a probe."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.data import Images, matched_labels
from memloc.encoders import OUTPUT, Encoder, check_images, pick_device, represent
from memloc.errors import DataError, SpecError, nearest
from memloc.probe._accuracy import Probe
from memloc.probe._probes import (
    check_classes,
    check_masks,
    check_neighbours,
    dense_probe,
    knn_probe,
    linear_probe,
    patch_labels,
)
from memloc.probe._specs import KINDS, NEIGHBOURS
from memloc.progress import Report, silent


def probe_encoder(
    encoder: Encoder,
    train: Images,
    test: Images,
    *,
    kind: str = "linear",
    layer: str = OUTPUT,
    neighbours: int = NEIGHBOURS,
    masks: tuple[NDArray[Any], NDArray[Any]] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Report = silent,
) -> Probe:
    """How well a frozen encoder's layer tells the classes of images apart.

    Args:
        train, test: images with labels; classes are matched by name where both have names.
        kind: "linear" (logistic regression), "knn" (cosine neighbours) or "dense" (a label per patch).
        layer: one of the encoder's layers; maps and tokens are averaged, but for a dense probe.
        masks: for a dense probe, class numbers per pixel of the training and test images, shape (point, height, width);
            -1 is no class.
    Returns:
        Probe with .accuracy, .low, .high.
    Raises:
        DataError, SpecError, LayerNotFoundError, ShapeError.

    >>> import torch
    >>> from memloc import load_encoder, open_images
    >>> images = open_images("sample:train")
    >>> train, test = images.take(torch.arange(200)), images.take(torch.arange(200, 300))
    >>> found = probe_encoder(load_encoder("resnet9"), train, test, kind="knn")
    >>> found.chance < found.accuracy
    True
    """
    check_probe(encoder, train, test, kind=kind, masks=masks, neighbours=neighbours, device=device)
    features = [
        represent(encoder, part.pixels, layer=layer, dense=kind == "dense", device=device, progress=progress)
        .cpu()
        .numpy()
        for part in (train, test)
    ]
    if kind == "dense":
        assert masks is not None, "dense probes were checked"
        labels = [patch_labels(mask, part.shape[1]) for mask, part in zip(masks, features, strict=True)]
        return dense_probe(features[0], labels[0], features[1], labels[1], seed=seed)
    train_labels, test_labels = labels_of_both(train, test)
    if kind == "knn":
        return knn_probe(features[0], train_labels, features[1], test_labels, neighbours=neighbours)
    return linear_probe(features[0], train_labels, features[1], test_labels, seed=seed)


def check_probe(
    encoder: Encoder,
    train: Images,
    test: Images,
    *,
    kind: str = "linear",
    masks: Any = None,
    neighbours: int = NEIGHBOURS,
    device: str = "auto",
) -> None:
    """Raise for what cannot be probed, before any work."""
    if kind not in KINDS:
        raise SpecError(
            f"there is no probe {kind!r}. {nearest(kind, KINDS)} Expected one of {', '.join(KINDS)}. Pass --kind"
            " linear."
        )
    if (masks is not None) != (kind == "dense"):
        raise SpecError(
            f"kind is {kind!r} {'with' if masks is not None else 'without'} masks. Expected masks for a dense probe and"
            " for no other. Pass --kind dense --train-masks FILE --test-masks FILE."
        )
    pick_device(device)
    channels = train.pixels.shape[1], test.pixels.shape[1]
    if channels[0] != channels[1]:
        raise DataError(
            f"the training images have {channels[0]} channels and the test images {channels[1]}. Expected the same kind"
            " of images. Pass two parts of one set."
        )
    for part in (train, test):
        check_images(encoder, part.pixels)
    if masks is None:
        labels = labels_of_both(train, test)
        check_classes(*labels, twice=kind == "linear")
        if kind == "knn":
            check_neighbours(neighbours, len(train))
        return
    for mask, part in zip(masks, (train, test), strict=True):
        check_masks(mask)
        if len(mask) != len(part):
            raise DataError(
                f"there are {len(mask)} masks for {len(part)} images. Expected one each, in the order of the images."
                " Check the file of masks."
            )


def labels_of_both(
    train: Images, test: Images, names: tuple[str, str] = ("training", "test")
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Class numbers of training and test images, the test's brought to the training's numbers where both name their
    classes."""
    for name, part in zip(names, (train, test), strict=True):
        if part.labels is None or bool((part.labels < 0).any()):
            raise DataError(
                f"the {name} images have no labels, or not all of them. Expected one each. Pass a folder with a folder"
                " per class, or a .parquet, IDX or .npz file with labels."
            )
    assert train.labels is not None, "labels were checked"
    return train.labels.numpy(), matched_labels(train, test, names).numpy()
