"""Images as tables: one column per pixel and channel, grouped in blocks that are drawn together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memloc.errors import SpecError

_COVER = 0.7  # expected share of the sought region that a learner is given (measured, REFERENCE B3)


def pixel_table(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Images of shape (row, channel, height, width) as a table in [0, 1], shape (row, channel x height x width).

    >>> pixel_table(np.full((2, 3, 4, 4), 255, dtype=np.uint8)).shape
    (2, 48)
    """
    return images.reshape(len(images), -1) / 255.0


def pixel_groups(channels: int, height: int, width: int, *, block: int = 1) -> NDArray[np.int64]:
    """The block of each column of `pixel_table`: `block` x `block` pixels with all their channels.

    Raises:
        SpecError: a block larger than the image.

    >>> pixel_groups(1, 2, 4, block=2).tolist()
    [0, 0, 1, 1, 0, 0, 1, 1]
    """
    if not 1 <= block <= min(height, width):
        raise SpecError(
            f"block is {block} for images of {height}x{width} pixels. Expected 1 to {min(height, width)}. Pass"
            " --block 2."
        )
    across = -(-width // block)
    rows, columns = np.meshgrid(np.arange(height) // block, np.arange(width) // block, indexing="ij")
    return np.tile((rows * across + columns).ravel(), channels)


def recommended_share(groups: int, sought: int) -> float:
    """The share of groups per learner that localizes a region of `sought` groups: about 0.7 / sought, at least one
    group.

    A learner should be given a part of the region alone: with half of all columns nearly every learner has some of it,
        and no
    cell stands out.

    >>> recommended_share(256, 16)
    0.04375
    """
    return max(min(_COVER / sought, 1.0), 1 / groups)
