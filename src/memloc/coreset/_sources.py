"""What a robust training reads: images, arrays or a map-style dataset, by index, with and without augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memloc.data import Images, dataset_classes, item_parts, matched
from memloc.errors import DataError, ShapeError, SpecError
from memloc.views import Views


class Source:
    """Inputs and labels of a training set.

    Args:
        beside: the training set whose classes those of this test set are.
    Attributes:
        labels: class number of each point, int64, shape (point,). classes: how many there are.
        class_names: their names, where the dataset tells them.
    """

    def __init__(
        self,
        dataset: Any,
        labels: Any = None,
        *,
        augmentation: str = "none",
        plain: Any = None,
        seed: int = 0,
        beside: Source | None = None,
    ) -> None:
        self._dataset = dataset
        self._read, found = _reader(dataset)
        self._plain = self._read if plain is None else _reader(plain)[0]
        own = found if labels is None else labels
        self.labels = class_numbers(own, _length(dataset), training=beside is None)
        self.class_names = dataset.class_names if isinstance(dataset, Images) else dataset_classes(dataset)
        if beside is not None:
            numbers = matched(beside.class_names, self.class_names, self.labels.numpy())
            self.labels, self.class_names = torch.from_numpy(numbers), beside.class_names
            check_tested(self.labels)
        self.classes = int(self.labels.max()) + 1
        self._views: Views | None = None
        if augmentation != "none":
            if not isinstance(dataset, Images):
                raise SpecError(
                    f"augmentation is {augmentation!r} and the dataset is no set of images in uint8. Expected none, or"
                    " memloc's Images. Let the dataset augment itself and pass plain=, the same without augmentation."
                )
            self._views = Views(augmentation, n=1, seed=seed, sampling="independent")

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """A hash of labels, and of inputs that are in memory."""
        found = hashlib.blake2b(self.labels.numpy().tobytes(), digest_size=16)
        if isinstance(self._dataset, Images):
            found.update(self._dataset.fingerprint().encode())
        elif isinstance(self._dataset, tuple):
            found.update(np.ascontiguousarray(np.asarray(self._dataset[0])).tobytes())
        return found.hexdigest()

    def plain(self, points: Tensor) -> Tensor:
        """Inputs as they are, for scoring."""
        return _scaled(self._plain(points))

    def augmented(self, points: Tensor, epoch: int) -> Tensor:
        """Inputs for training in an epoch."""
        inputs = self._read(points)
        if self._views is None:
            return _scaled(inputs)
        return self._views.draw(inputs, points, first=epoch)[:, 0]


def _length(dataset: Any) -> int:
    return len(dataset[0]) if isinstance(dataset, tuple) else len(dataset)


def _scaled(inputs: Tensor) -> Tensor:
    return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs.float()


def _reader(dataset: Any) -> tuple[Callable[[Tensor], Tensor], Any]:
    """How to read some points, and the labels where they are known without reading."""
    if isinstance(dataset, Images):
        return lambda points: dataset.pixels[points], dataset.labels
    if isinstance(dataset, tuple) and len(dataset) == 2:
        inputs = dataset[0] if isinstance(dataset[0], Tensor) else torch.as_tensor(np.asarray(dataset[0]))
        return lambda points: inputs[points], dataset[1]
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"the dataset is {type(dataset).__name__}. Expected memloc's Images, a pair (X, y) of arrays, or a dataset"
            " with a length and items (input, label). Pass one."
        )

    def read(points: Tensor) -> Tensor:
        return torch.stack([_input(item_parts(dataset[point], point)[0]) for point in points.tolist()])

    known = getattr(dataset, "targets", None)
    return read, known if known is not None else [item_parts(dataset[point], point)[1] for point in range(len(dataset))]


def _input(given: Any) -> Tensor:
    """An item's input; a picture as (channel, height, width)."""
    found = torch.as_tensor(np.asarray(given))
    if isinstance(given, (Tensor, np.ndarray)) or not hasattr(given, "getbands"):
        return found
    return found.movedim(2, 0) if found.ndim == 3 else found[None]


def check_tested(labels: Tensor) -> None:
    """Raise DataError where a test set holds points without a label: each would count as wrong."""
    unknown = int((labels < 0).sum())
    if unknown:
        raise DataError(
            f"{unknown} of {len(labels)} test points have no label. Expected one each. Leave them out of the test set."
        )


def class_numbers(labels: Any, points: int, *, training: bool = True) -> Tensor:
    """Labels as class numbers, int64, checked.

    Args:
        training: of a training set, where every class from 0 has points and there are two or more; elsewhere -1 stands
            for unknown.
    Raises:
        DataError: none, no whole numbers, one class, or a class without points. ShapeError: another length.

    >>> class_numbers(np.array([1, 0, 1], dtype=np.uint8), 3).tolist()
    [1, 0, 1]
    """
    if labels is None:
        raise DataError("the dataset has no labels. Expected a class per point. Pass labelled data, or labels=.")
    found = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if found.shape != (points,) or not points:
        raise ShapeError(
            f"there are {points} points and labels of shape {found.shape}. Expected one each, of one point or more."
            f" Pass shape ({points},)."
        )
    if found.dtype.kind not in "iub":
        raise DataError(
            f"the labels are {found.dtype}. Expected class numbers from 0. Number the classes: names, y ="
            " numpy.unique(labels, return_inverse=True)"
        )
    if found.min() < (0 if training else -1):
        raise DataError(
            f"the labels go from {found.min()}. Expected class numbers from 0, for every point. Drop points without a"
            " label."
        )
    if training and len(np.unique(found)) < 2:
        raise DataError(
            f"all {points} labels are {found[0]}. Expected two classes or more. Pass data with more classes."
        )
    empty = sorted(set(range(int(found.max()) + 1)) - set(found.tolist()))
    if training and empty:
        raise DataError(
            f"class {empty[0]} of 0 to {found.max()} has no points. Expected at least one each. Number the classes"
            " without gaps."
        )
    return torch.from_numpy(found.astype(np.int64))
