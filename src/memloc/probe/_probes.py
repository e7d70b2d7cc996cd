"""Linear, k-nearest-neighbour and dense probes of features that stay as they are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memloc.errors import DataError, NonFiniteError, ShapeError, SpecError
from memloc.probe._accuracy import Probe, scored
from memloc.probe._specs import NEIGHBOURS

Features = NDArray[np.floating[Any]]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the L2 penalty that a linear probe chooses from."""
VALIDATION, ITERATIONS = 0.2, 1_000


def linear_probe(
    train: Features,
    train_labels: NDArray[Any],
    test: Features,
    test_labels: NDArray[Any],
    *,
    strengths: tuple[float, ...] = STRENGTHS,
    validation: float = VALIDATION,
    seed: int = 0,
) -> Probe:
    """Logistic regression on standardized features, its regularization chosen on a part of the training points.

    Args:
        train, test: features, shape (point, feature). train_labels, test_labels: class of each.
        strengths: inverse strengths of the L2 penalty to choose from. validation: share of the training points to
            choose it on, a seeded draw by class; the probe is then fitted on all of them.
    Returns:
        Probe with accuracy, its 95 % interval over test points, and the strength chosen as settings["strength"].
    Raises:
        ShapeError, DataError, NonFiniteError: features and labels that do not fit; SpecError.
    Source: the usual linear evaluation; L-BFGS of scikit-learn.

    >>> x = np.random.default_rng(0).normal(size=(80, 3)); y = (x[:, 0] > 0).astype(int)
    >>> linear_probe(x[:60], y[:60], x[60:], y[60:]).accuracy > 0.8
    True
    """
    _check(train, train_labels, test, test_labels)
    if not strengths or min(strengths) <= 0 or not 0 < validation < 1:
        raise SpecError(
            f"strengths is {strengths} and validation {validation}. Expected numbers above 0, and a share between 0 and"
            " 1. Leave them out for the usual ones."
        )
    check_classes(train_labels, test_labels, twice=True)
    predicted, settings = _predicted(train, train_labels, test, strengths, validation, seed)
    return scored(predicted, test_labels, kind="linear", **settings)


def _predicted(
    train: Features,
    train_labels: NDArray[Any],
    test: Features,
    strengths: tuple[float, ...],
    validation: float,
    seed: int,
    groups: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Predictions of a logistic regression, and what it was fitted with; of grouped points whole groups are held out to
    choose it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupShuffleSplit, train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.unique(train_labels)

    def fitted(strength: float, x: Features, y: NDArray[Any]) -> Any:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether the chosen one converged is in the settings
            return model.fit(x, y)

    strength = strengths[0]
    if len(strengths) > 1:
        held = max(round(validation * len(train)), len(classes))
        rows = np.arange(len(train))
        if groups is not None and len(np.unique(groups)) > 1:
            fit, check = next(GroupShuffleSplit(1, test_size=validation, random_state=seed).split(rows, groups=groups))
        else:
            size = min(held, len(train) - len(classes))
            fit, check = train_test_split(rows, test_size=size, random_state=seed, stratify=train_labels)
        if len(np.unique(train_labels[fit])) > 1:  # groups may leave one class alone
            accuracies = [
                fitted(each, train[fit], train_labels[fit]).score(train[check], train_labels[check])
                for each in strengths
            ]
            strength = strengths[int(np.argmax(accuracies))]  # the strongest penalty among equals
    model = fitted(strength, train, train_labels)
    converged = bool(model[-1].n_iter_.max() < ITERATIONS)
    return model.predict(test), {"strength": strength, "n_train": len(train), "converged": converged}


def knn_probe(
    train: Features,
    train_labels: NDArray[Any],
    test: Features,
    test_labels: NDArray[Any],
    *,
    neighbours: int = NEIGHBOURS,
) -> Probe:
    """Vote of the nearest training points by cosine.

    Args and errors as in `linear_probe`; `neighbours` is at most the number of training points.

    >>> x = np.random.default_rng(0).normal(size=(80, 3)); y = (x[:, 0] > 0).astype(int)
    >>> knn_probe(x[:60], y[:60], x[60:], y[60:], neighbours=5).accuracy > 0.6
    True
    """
    from sklearn.neighbors import KNeighborsClassifier

    _check(train, train_labels, test, test_labels)
    check_neighbours(neighbours, len(train))
    model = KNeighborsClassifier(neighbours, metric="cosine").fit(train, train_labels)
    return scored(model.predict(test), test_labels, kind="knn", neighbours=neighbours, n_train=len(train))


def check_neighbours(neighbours: int, points: int) -> None:
    """Raise SpecError for a number of neighbours that there are not."""
    if not 1 <= neighbours <= points:
        raise SpecError(
            f"neighbours is {neighbours} for {points} known points. Expected 1 to {points}. Pass --neighbours"
            f" {min(max(neighbours, 1), points)}."
        )


def dense_probe(
    train: Features, train_labels: NDArray[Any], test: Features, test_labels: NDArray[Any], *, seed: int = 0
) -> Probe:
    """A linear probe of every position: features (point, position, feature), labels (point, position); -1 marks
    positions without a label.

    The interval counts images, not positions.

    >>> x = np.random.default_rng(0).normal(size=(20, 4, 3)); y = (x[..., 0] > 0).astype(int)
    >>> dense_probe(x[:15], y[:15], x[15:], y[15:]).right.shape
    (20,)
    """
    flat: list[Any] = []
    groups, images = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for features, labels, name in ((train, train_labels, "train"), (test, test_labels, "test")):
        if features.ndim != 3 or features.shape[:2] != labels.shape:
            raise ShapeError(
                f"{name} features have shape {features.shape} and labels {labels.shape}. Expected (point, position,"
                " feature) and (point, position). Bring the masks to the layer's positions with"
                " memloc.probe.patch_labels."
            )
        known = labels >= 0
        flat += [features[known], labels[known]]
        groups, images = (
            images,
            np.nonzero(known)[0],
        )  # after the loop: of the training positions, and of the test positions
    _check(*flat)
    predicted, settings = _predicted(flat[0], flat[1], flat[2], STRENGTHS, VALIDATION, seed, groups)
    return scored(predicted, flat[3], images, kind="dense", n_images=len(np.unique(images)), **settings)


def patch_labels(masks: NDArray[np.integer[Any]], positions: int) -> NDArray[np.int64]:
    """The most frequent label of every patch of a square grid: masks (point, height, width) to (point, position); -1
    where most is -1; the smaller number where two are as frequent.

    >>> patch_labels(np.array([[[1, 1, 2, 2], [1, 0, 2, 2]]]).repeat(2, axis=1), 4).tolist()
    [[1, 2, 0, 2]]
    """
    check_masks(masks)
    side = int(positions**0.5)
    if side * side != positions:
        raise ShapeError(f"there are {positions} positions. Expected a square number of them. Name another layer.")
    if masks.shape[1] % side or masks.shape[2] % side:
        raise ShapeError(
            f"masks of {masks.shape[1]} x {masks.shape[2]} pixels do not divide into {side} x {side} patches. Expected"
            " multiples. Pass masks of the size of the images."
        )
    count, height, width = masks.shape
    patches = (
        masks.reshape(count, side, height // side, side, width // side)
        .transpose(0, 1, 3, 2, 4)
        .reshape(count, positions, -1)
    )
    values = np.unique(masks)
    votes = np.stack([(patches == value).sum(axis=2) for value in values])
    return values[votes.argmax(axis=0)].astype(np.int64)


def _check(train: Features, train_labels: NDArray[Any], test: Features, test_labels: NDArray[Any]) -> None:
    for features, labels, name in ((train, train_labels, "train"), (test, test_labels, "test")):
        if features.ndim != 2 or labels.shape != features.shape[:1] or not len(features):
            raise ShapeError(
                f"{name} features have shape {features.shape} and labels {labels.shape}. Expected (point, feature) and"
                " (point,), at least one point. Pass one label per point."
            )
        if not np.isfinite(features).all():
            raise NonFiniteError(
                f"{name} features hold NaN or Inf. Expected finite numbers. Check the encoder's weights and"
                " preprocessing."
            )
    if train.shape[1] != test.shape[1]:
        raise ShapeError(
            f"train features have {train.shape[1]} columns and test features {test.shape[1]}. Expected the same encoder"
            " for both. Represent both with one encoder."
        )
    check_classes(train_labels, test_labels)


def check_masks(masks: NDArray[Any]) -> None:
    """Raise ShapeError for masks that are no class numbers per pixel."""
    if masks.ndim != 3 or not np.issubdtype(masks.dtype, np.integer):
        raise ShapeError(
            f"masks have shape {masks.shape} ({masks.dtype}). Expected whole numbers (point, height, width). Pass class"
            " numbers per pixel."
        )


def check_classes(train_labels: NDArray[Any], test_labels: NDArray[Any], *, twice: bool = False) -> None:
    """Raise DataError for labels that no probe can be fitted or tested on.

    Args:
        twice: whether every class needs two training points, one of them to choose the regularization with.
    """
    classes, counts = np.unique(train_labels, return_counts=True)
    if len(classes) < 2:
        raise DataError("the training points are of one class. Expected two or more. Pass images of several classes.")
    unseen = np.setdiff1d(test_labels, train_labels)
    if len(unseen):
        raise DataError(
            f"class {unseen[0]} is among the test points and not among the training points. Expected the classes of the"
            " training points. Pass training images of it, too."
        )
    if twice and counts.min() < 2:
        raise DataError(
            f"class {classes[counts.argmin()]} has one training point. Expected at least two, one of them to choose the"
            " regularization with. Pass more points, or leave that class out."
        )
