"""Labels as people have them: class numbers and names, with what is missing told from what is a name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Number
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memloc.errors import DataError, nearest

WEAK_LABELS = ("target", "targets", "class", "class_name", "category")
TABLE_LABELS = ("label", "labels", "fine_label", *WEAK_LABELS)
"""What tables call their labels; the weak names may be of something else."""
LABEL_COLUMNS = (*TABLE_LABELS, "y")
"""What items of datasets call them besides."""
_LARGEST = 2**63 - 1


def plain_labels(labels: Iterable[Any], where: str) -> list[int | str | None]:
    """Every label as a whole number, a name, or None where there is none.

    None, NaN, NA of pandas, empty text and numbers below 0 are no label; the texts "None", "NA" and "nan" are names.
    Whole numbers may come as floats; booleans are names, among numbers 0 and 1; bytes are text in UTF-8.

    Args:
        where: what the labels belong to, for messages.
    Raises:
        DataError: a fraction, an infinity, bytes that are no text, or a label that is a list.

    >>> plain_labels([3.0, None, "None", b"cat", float("nan"), -1, ""], "the table")
    [3, None, 'None', 'cat', None, None, None]
    """
    values = labels.tolist() if isinstance(labels, (np.ndarray, Tensor)) else list(labels)
    found = [_plain(value, row, where) for row, value in enumerate(values)]
    if all(isinstance(value, (bool, str, NoneType)) for value in found):
        return [str(value) if isinstance(value, bool) else value for value in found]
    return [int(value) if isinstance(value, bool) else value for value in found]


def number_labels(
    labels: Iterable[Any], count: int, where: str, class_names: Sequence[str] = ()
) -> tuple[Tensor, tuple[str, ...]]:
    """Class numbers from 0 and their names, from numbers or text; missing ones are -1.

    Args:
        count: of images. where: what they belong to. class_names: of the numbers, where the set tells them.
    Raises:
        DataError: as in `plain_labels`; labels of another length; a number or a name beyond those of the set.

    >>> number_labels(["b", None, "a"], 3, "the table")
    (tensor([ 1, -1,  0]), ('a', 'b'))
    """
    values = plain_labels(_flat(labels), where)
    if len(values) != count:
        raise DataError(
            f"{where} has {len(values)} labels for {count} images. Expected one per image. Save as many of both."
        )
    if class_names:
        return torch.tensor([_named(value, class_names, where) for value in values]), tuple(class_names)
    known = {value if isinstance(value, int) else str(value) for value in values if value is not None}
    names = sorted(known, key=lambda name: (0, name, "") if isinstance(name, int) else (1, 0, name))
    texts = tuple(dict.fromkeys(map(str, names)))  # 1 and "1" are one class
    number = {name: place for place, name in enumerate(texts)}
    return torch.tensor([-1 if value is None else number[str(value)] for value in values]), texts


def given_labels(labels: Any, count: int, what: str = "labels=") -> tuple[Tensor, tuple[str, ...]]:
    """Labels that stand beside images in memory: whole numbers stay as they are, names are numbered.

    Args:
        what: to call them, in messages.

    >>> given_labels([7, None, 5], 3), given_labels(["b", "a"], 2)
    ((tensor([ 7, -1,  5]), ()), (tensor([1, 0]), ('a', 'b')))
    """
    values = plain_labels(_flat(labels), what)
    if len(values) != count:
        raise DataError(
            f"labels have shape {_shape(labels)} for {count} images. Expected one label per image. "
            "Pass labels= in the order of the images, with -1 where unknown."
        )
    if any(isinstance(value, str) for value in values):
        return number_labels(values, count, what)
    return torch.tensor([-1 if value is None else value for value in values], dtype=torch.int64), ()


def _plain(value: Any, row: int, where: str) -> int | str | bool | None:
    if isinstance(value, (np.ndarray, Tensor)) and value.shape in ((), (1,)):
        value = value.item()
    elif isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, str):
        return value or None
    if isinstance(value, bytes):
        try:
            return value.decode() or None
        except UnicodeDecodeError as problem:
            raise _refused(f"bytes that are no text in UTF-8 ({value[:8]!r})", row, where) from problem
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (Integral, np.integer)):
        if int(value) > _LARGEST:
            raise _refused(f"{int(value)}, beyond 64 bits", row, where)
        return int(value) if int(value) >= 0 else None
    if not isinstance(value, (Number, np.number)):
        raise _refused(f"{str(value)[:40]!r}, a {type(value).__name__}", row, where)
    number = float(value)  # type: ignore[arg-type]
    if math.isnan(number):
        return None
    if math.isinf(number) or number != int(number):
        raise _refused(f"{number:g}", row, where)
    return int(number) if number >= 0 else None


def _refused(what: str, row: int, where: str) -> DataError:
    return DataError(
        f"the label of image {row} of {where} is {what}. Expected a class: a whole number or a name. Turn labels into"
        " classes, such as names.index(name)."
    )


def _named(value: int | str | None, class_names: Sequence[str], where: str) -> int:
    """The number of a class, given by number or by name."""
    if value is None:
        return -1
    if isinstance(value, int) and value < len(class_names):
        return value
    if isinstance(value, str) and value in class_names:
        return list(class_names).index(value)
    raise DataError(
        f"{where} has the class {value!r} and {len(class_names)} names of classes. {nearest(str(value), class_names)}"
        " Expected one of these. Correct the label, or the list of names."
    )


def _flat(labels: Any) -> Any:
    """Labels along one axis: a column of them is one."""
    if isinstance(labels, (np.ndarray, Tensor)) and labels.ndim > 1 and np.size(labels) == len(labels):
        return labels.reshape(-1)
    return labels


def _shape(labels: Any) -> tuple[int, ...]:
    return tuple(labels.shape) if hasattr(labels, "shape") else (len(labels),)
