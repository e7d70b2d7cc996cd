"""What a probe is given besides images: the layers, and masks of a dense one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from memloc.data import Images
from memloc.encoders import Encoder, represent
from memloc.errors import DataError, DataNotFoundError, EncoderError, SpecError


def every_layer(encoder: Encoder, images: Images, *, dense: bool) -> list[str]:
    """Every layer; for a dense probe those with positions."""
    found = []
    for layer in encoder.layers:
        try:
            represent(encoder, images.pixels[:1], layer=layer.name, dense=dense, device="cpu")
        except EncoderError:
            if not dense:
                raise
            continue
        found.append(layer.name)
    return found


def open_masks(train: Path | None, test: Path | None) -> tuple[Any, Any] | None:
    """Class numbers per pixel of a dense probe's images; both or neither."""
    if (train is None) != (test is None):
        raise SpecError(
            "only one of --train-masks and --test-masks is given. Expected both for a dense probe. Pass a .npy file for"
            " each."
        )
    if train is None or test is None:
        return None
    found = []
    for path in (train, test):
        if not path.is_file():
            raise DataNotFoundError(
                f"there is no file {str(path)!r}. Expected a .npy file of class numbers per pixel. Check the path."
            )
        try:
            found.append(np.load(path, allow_pickle=False))
        except Exception as problem:  # NumPy raises whatever the bytes lead it to
            raise DataError(
                f"{path} cannot be read ({problem}). Expected an array that numpy.save wrote. Save it again."
            ) from problem
    return found[0], found[1]
