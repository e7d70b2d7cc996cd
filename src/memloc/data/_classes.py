"""Two labelled sets of images meet by the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from memloc.data._images import Images
from memloc.errors import DataError, nearest


def matched_labels(known: Images, other: Images, what: tuple[str, str] = ("training", "test")) -> Tensor:
    """The labels of other images in the class numbers of known ones: classes meet by name where both sets name them.

    Args:
        known, other: labelled images. what: to call both, in messages.
    Returns:
        int64, -1 where there is no label.
    Raises:
        DataError: a class that the known images lack.

    >>> pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    >>> one, two = (Images(pixels, torch.arange(2), ("0", "1"), torch.tensor([0, 1]), names) for names in ("ab", "ba"))
    >>> matched_labels(one, two)
    tensor([1, 0])
    """
    assert known.labels is not None, "both are labelled"
    assert other.labels is not None, "both are labelled"
    return torch.from_numpy(matched(known.class_names, other.class_names, other.labels.numpy(), what))


def matched(
    known: Sequence[str], other: Sequence[str], labels: np.ndarray, what: tuple[str, str] = ("training", "test")
) -> np.ndarray:
    """Class numbers of one set in those of another, by the class names of both; as `matched_labels`.

    Raises:
        DataError: a class in use that the known set lacks.
    """
    names = list(other) or [str(number) for number in range(int(labels.max(initial=-1)) + 1)]
    if not known:
        if other and list(other) != [str(number) for number in range(len(other))]:
            raise DataError(
                f"the {what[1]} images name their classes ({', '.join(map(repr, other[:3]))}) and the {what[0]} images"
                " number theirs. Expected the names of both, or of neither. Open both sets alike, or pass their labels"
                " as numbers of one list of classes."
            )
        return labels
    if not other:  # numbers are places in the only list of names that there is
        names = [known[number] if number < len(known) else str(number) for number in range(len(names))]
    place = {name: number for number, name in enumerate(known)}
    used = [names[number] for number in np.unique(labels[labels >= 0])]
    lacking = [name for name in used if name not in place]
    if lacking:
        raise DataError(
            f"the {what[1]} images have {len(lacking)} of {len(used)} classes that the {what[0]} images lack, such as"
            f" {lacking[0]!r}. {nearest(lacking[0], place)} Expected the same names. Rename or leave out"
            " their folder."
        )
    number = np.array([place.get(name, -1) for name in names] + [-1], dtype=np.int64)
    found: np.ndarray = number[labels]
    return found
