"""What a robust training reads: images, arrays or a map-style dataset, by index, with and without augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memloc.data import Images
from memloc.errors import DataError, ShapeError, SpecError
from memloc.views import Views


class Source:
    """Inputs and labels of a training set.

    Attributes:
        labels: class number of each point, int64, shape (point,). classes: how many there are.
    """

    def __init__(
        self, dataset: Any, labels: Any = None, *, augmentation: str = "none", plain: Any = None, seed: int = 0
    ) -> None:
        self._read, found = _reader(dataset)
        self._plain = self._read if plain is None else _reader(plain)[0]
        self.labels = class_numbers(found if labels is None else labels, _length(dataset))
        self.classes = int(self.labels.max()) + 1
        self._views: Views | None = None
        if augmentation != "none":
            if not isinstance(dataset, Images):
                raise SpecError(
                    f"augmentation is {augmentation!r} and the dataset is no set of images in uint8. Expected none, or memloc's Images. "
                    "Let the dataset augment itself and pass plain=, the same without augmentation."
                )
            self._views = Views(augmentation, n=1, seed=seed, sampling="independent")

    def __len__(self) -> int:
        return len(self.labels)

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
        inputs, labels = (part if isinstance(part, Tensor) else torch.as_tensor(np.asarray(part)) for part in dataset)
        return lambda points: inputs[points], labels
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"the dataset is {type(dataset).__name__}. Expected memloc's Images, a pair (X, y) of arrays, or a dataset with a length and items "
            "(input, label). Pass one."
        )

    def read(points: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(np.asarray(dataset[point][0])) for point in points.tolist()])

    known = getattr(dataset, "targets", None)
    return read, known if known is not None else [dataset[point][1] for point in range(len(dataset))]


def class_numbers(labels: Any, points: int) -> Tensor:
    """Labels as class numbers from 0 without gaps, checked.

    Raises:
        DataError: none, no whole numbers, one class, or a class without points. ShapeError: another length.
    """
    if labels is None:
        raise DataError("the dataset has no labels. Expected a class per point. Pass labelled data, or labels=.")
    found = torch.as_tensor(np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels))
    if found.shape != (points,):
        raise ShapeError(
            f"there are {points} points and labels of shape {tuple(found.shape)}. Expected one each. Pass shape ({points},)."
        )
    if found.is_floating_point() or found.dtype == torch.bool or int(found.min()) < 0:
        raise DataError(
            f"the labels are {found.dtype} from {found.min().item()}. Expected class numbers from 0, for every point. Number the classes, and drop "
            "points without a label."
        )
    if len(found.unique()) < 2:
        raise DataError(
            f"all {points} labels are {int(found[0])}. Expected two classes or more. Pass data with more classes."
        )
    empty = sorted(set(range(int(found.max()) + 1)) - set(found.tolist()))
    if empty:
        raise DataError(
            f"class {empty[0]} of 0 to {int(found.max())} has no points. Expected at least one each. Number the classes without gaps."
        )
    return found.long()
