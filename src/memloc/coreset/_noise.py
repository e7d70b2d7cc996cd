"""Label noise for experiments: a stated share of the labels of every class made wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.errors import DataError, SpecError
from memloc.streams import Stream, generator

CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
"""Truck to automobile, bird to airplane, deer to horse, cat and dog to each other (Patrini et al., CVPR 2017)."""


def symmetric_noise(
    labels: NDArray[np.int64], rate: float, *, classes: int | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """Labels of which a share is replaced, in every class alike, by another class drawn evenly.

    Args:
        labels: class numbers, shape (point,). rate: share of each class, rounded to whole points. classes: how many
            there are.
    Raises:
        SpecError: a rate outside [0, 1], or fewer than two classes. DataError: labels that are no class numbers.

    >>> noisy = symmetric_noise(np.arange(1000) % 10, 0.4)
    >>> float((noisy != np.arange(1000) % 10).mean())
    0.4
    """
    labels, count = _checked(labels, rate, classes)
    noisy, rng = labels.copy(), generator(Stream.SYMMETRIC_NOISE, seed)
    for rows in _chosen(labels, rate, rng):
        noisy[rows] = (labels[rows] + rng.integers(1, count, len(rows))) % count
    return noisy


def asymmetric_noise(
    labels: NDArray[np.int64], rate: float, *, pairs: Mapping[int, int] = CIFAR10_PAIRS, seed: int = 0
) -> NDArray[np.int64]:
    """Labels of which a share of some classes becomes the class that each is easily taken for.

    Args:
        labels, rate, seed: as in `symmetric_noise`. pairs: class to the class that its labels become; others stay.

    >>> asymmetric_noise(np.array([9, 9, 9, 9, 0]), 0.5).tolist().count(1)
    2
    """
    labels, count = _checked(labels, rate, None)
    outside = [one for pair in pairs.items() for one in pair if not 0 <= one < count]
    if outside:
        raise SpecError(
            f"the pairs name class {outside[0]} and the classes go from 0 to {count - 1}. Expected pairs of these. Pass"
            " pairs={0: 1}, or take symmetric noise."
        )
    noisy, rng = labels.copy(), generator(Stream.ASYMMETRIC_NOISE, seed)
    for rows in _chosen(labels, rate, rng):
        noisy[rows] = [pairs.get(label, label) for label in labels[rows].tolist()]
    return noisy


def _checked(labels: NDArray[np.int64], rate: float, classes: int | None) -> tuple[NDArray[np.int64], int]:
    if not 0 <= rate <= 1:
        raise SpecError(f"the noise rate is {rate}. Expected a share from 0 to 1. Pass --noise 0.4.")
    known = np.asarray(labels)
    if known.ndim != 1 or known.dtype.kind not in "iu" or not len(known) or known.min() < 0:
        raise DataError(
            f"the labels are {known.dtype} of shape {known.shape}. Expected a class number of 0 or more for every"
            " point. Number the classes."
        )
    count = int(known.max()) + 1 if classes is None else classes
    if count < 2 or count <= known.max():
        raise SpecError(
            f"there are {count} classes and labels up to {known.max()}. Expected two or more. Pass labels of more"
            " classes."
        )
    return known.astype(np.int64), count


def _chosen(labels: NDArray[np.int64], rate: float, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The rows of each class that become wrong."""
    members = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    return [rng.permutation(rows)[: round(rate * len(rows))] for rows in members]


def noisy(labels: Any, made: dict[str, Any], seed: int) -> Any:
    """The labels to train on: as given, or made wrong for an experiment."""
    import torch

    if made["noise"] is None:
        return labels
    make = symmetric_noise if made["noise_kind"] == "symmetric" else asymmetric_noise
    return torch.from_numpy(make(labels.numpy(), made["noise"], seed=seed))
