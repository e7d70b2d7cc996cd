"""The images of a step, put where the step reads them without the device having to wait."""

from __future__ import annotations

import torch
from torch import Tensor

from memloc.data import LazyPixels

_SHARE = 0.5  # of the device's free memory that images may take


class Feed:
    """Images on the device where they fit there; else streamed through two pinned buffers, one filled while the other
    is copied."""

    def __init__(self, pixels: Tensor | LazyPixels, device: torch.device) -> None:
        self._device = device
        self._staging: dict[int, list[tuple[Tensor, torch.cuda.Event]]] = {}
        self._turn = 0
        self._pixels = pixels.to(device) if isinstance(pixels, Tensor) and fits(pixels, device) else pixels

    def fill(self, shown: Tensor, rows: Tensor, rows_on_host: Tensor) -> None:
        """Copy some images into a buffer on the device.

        Args:
            shown: uint8, shape (row, channel, height, width). rows: places of the images, on the device; rows_on_host:
                the same.
        """
        if isinstance(self._pixels, Tensor) and self._pixels.device == shown.device:
            torch.index_select(self._pixels, 0, rows, out=shown)
            return
        if shown.device.type != "cuda":
            shown.copy_(self._pixels[rows_on_host])
            return
        self._turn = 1 - self._turn
        staging, copied = self._buffers(shown)[self._turn]
        copied.synchronize()  # what was copied from it two steps ago is over
        if isinstance(self._pixels, Tensor):
            torch.index_select(self._pixels, 0, rows_on_host, out=staging)
        else:
            staging.copy_(self._pixels[rows_on_host])
        shown.copy_(staging, non_blocking=True)
        copied.record()

    def _buffers(self, shown: Tensor) -> list[tuple[Tensor, torch.cuda.Event]]:
        if len(shown) not in self._staging:
            self._staging[len(shown)] = [
                (torch.empty(shown.shape, dtype=shown.dtype, pin_memory=True), torch.cuda.Event()) for _ in range(2)
            ]
        return self._staging[len(shown)]


def fits(pixels: Tensor, device: torch.device) -> bool:
    """Whether images may lie on a device."""
    return device.type != "cuda" or pixels.nbytes <= _SHARE * torch.cuda.mem_get_info(device)[0]
