"""Small pictures for reports."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

_SIDE = 48  # pixels, at most


def thumbnail(pixels: Tensor) -> bytes:
    """A PNG of an image, uint8 of shape (channel, height, width), at most 48 pixels a side; of more than three channels
    the first three, of two the first.

    >>> import torch
    >>> thumbnail(torch.zeros(1, 8, 8, dtype=torch.uint8))[1:4]
    b'PNG'
    """
    array = pixels[:3].permute(1, 2, 0).numpy() if len(pixels) >= 3 else pixels[0].numpy()
    picture = Image.fromarray(array)
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()
