"""The images of an audit, a set for each split: opened or taken as they are, and joined."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memloc.data import SPLITS, Images, as_images, concatenate, in_size, open_images
from memloc.errors import DataError, SpecError, warn
from memloc.fit import Fit

SETS = ("candidate", "independent", "shared", "external")
"""In the order in which they are joined."""


def joined_sets(
    sets: Mapping[str, Any], *, fit: Fit | None = None, max_bad: int = 0, asked: bool = False
) -> tuple[Images, list[str], int]:
    """Images of several splits as one, the split of each, and how many are not external.

    Args:
        sets: by split, what `open_images` opens or `as_images` takes; None where there is none. fit: to which size.
        asked: whether a user asked for the size. max_bad: as in `open_images`.
    Raises:
        SpecError: no candidates. DataError: as opening and joining them do.

    >>> import numpy as np
    >>> images, splits, own = joined_sets({"candidate": np.zeros((2, 8, 8), np.uint8), "external": None})
    >>> len(images), splits, own
    (2, ['candidate', 'candidate'], 2)
    """
    if sets.get("candidate") is None:
        raise SpecError(
            "there are no candidates. Expected the images that f was trained on and g was not. Pass candidate=."
        )
    images: Images | None = None
    splits: list[str] = []
    for split in SETS:
        given = sets.get(split)
        if given is None:
            continue
        opened = images_of_any(given, fit=fit, max_bad=max_bad, asked=asked)
        if images is not None and opened.pixels.shape[1] != images.pixels.shape[1]:
            warn(
                f"The {split} images have {opened.pixels.shape[1]} channels and those before"
                f" {images.pixels.shape[1]}: what sets them apart may be colour rather than training. Bring both to the"
                " same first."
            )
        splits += [split] * len(opened)
        images = opened if images is None else concatenate(images, opened, namespace=split)
    assert images is not None, "there are candidates"
    return images, splits, sum(split != "external" for split in splits)


def images_of_any(given: Any, *, fit: Fit | None = None, max_bad: int = 0, asked: bool = False) -> Images:
    """Images by a path or a name, or what `as_images` takes, brought to a size; those in memory that are smaller stay
    as they are, which the encoder's own check tells, unless the size was asked for."""
    if isinstance(given, (str, Path)):
        return open_images(given, size=fit, max_bad=max_bad)
    fit = fit or Fit()
    try:
        return in_size(as_images(given, fit=fit), fit, "the images")
    except DataError:
        if asked or fit.size is None:
            raise
        return as_images(given)


def splits_of(splits: Any, images: Images) -> Any:
    """A split per point: a list as it is; of a mapping from splits to points, or from points to splits, such a list.

    Raises:
        SpecError: points that are in no split, in two, or not among the images.
    """
    if splits is None:
        return None
    if not isinstance(splits, Mapping):
        return [str(split) for split in splits]
    ids = images.ids.tolist()
    by_split = all(key in SPLITS for key in splits)
    pairs = (
        [(point, split) for split, points in splits.items() for point in _numbers(points)]
        if by_split
        else list(splits.items())
    )
    found = dict(pairs)
    missing = [point for point in ids if point not in found]
    known = set(ids)
    foreign = [point for point in found if point not in known]
    twice = len(pairs) - len(found)
    if missing or foreign or twice:
        what = (
            f"{len(missing)} of {len(ids)} points are in none, such as {missing[0]!r}"
            if missing
            else f"{foreign[0]!r} is no id of a point"
            if foreign
            else f"{twice} points are in two"
        )
        raise SpecError(
            f"the splits are a mapping in which {what}. Expected every point's id once. Pass"
            " splits={'candidate': [ids], 'external': [ids]}, or a list in the order of the images."
        )
    return [found[point] for point in ids]


def _numbers(points: Any) -> list[int]:
    return [int(point) for point in (points.tolist() if hasattr(points, "tolist") else points)]
