"""What a run folder holds before its encoders are trained: the plan, the pixels, their mean and deviation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memloc.data import Images, LazyPixels
from memloc.pretrain._plan import Plan
from memloc.results import replacing, sealing, write_json, write_table

_AT_ONCE = 256  # images that are float64 at once
_SAMPLED, _SAMPLE = 1 << 27, 16_384  # bytes of pixels from which mean and deviation are of a sample, and images in it


def write_plan(folder: Path, plan: Plan, known: Images, training: Images, sources: dict[str, Any]) -> None:
    (folder / ".work").mkdir(exist_ok=True)
    if not reopens(sources):  # arrays from Python: the run keeps them, so that it can be audited later
        with replacing(folder / "images.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=known.pixels.permute(0, 2, 3, 1).numpy())
    pixels = training.pixels
    if isinstance(pixels, LazyPixels) or pixels.numel() > _SAMPLED:  # an even sample tells mean and deviation
        pixels = pixels[torch.linspace(0, len(pixels) - 1, min(len(pixels), _SAMPLE)).long()]
    mean, std = statistics(pixels)
    statistics_of = {"mean": mean.tolist(), "std": std.clamp_min(1e-3).tolist()}
    write_json(folder / ".work/preprocess.json", statistics_of, listed=False)
    if not isinstance(known.pixels, LazyPixels):
        with sealing(folder / ".work/pixels.npy") as temporary, temporary.open("wb") as file:
            np.save(file, known.pixels.numpy())
    write_table(folder / "points.parquet", plan.points)
    write_table(folder / "membership.parquet", plan.membership)


def statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel in [0, 1], without a copy of all images in float64."""
    number = pixels.numel() // pixels.shape[1]
    mean, spread = (torch.zeros(pixels.shape[1], dtype=torch.float64, device=pixels.device) for _ in range(2))
    for part in pixels.split(_AT_ONCE):
        mean += part.sum(dim=(0, 2, 3), dtype=torch.float64) / number
    for part in pixels.split(_AT_ONCE):
        spread += (part.transpose(0, 1).flatten(1).double() - mean[:, None]).square().sum(dim=1)
    return mean / 255, (spread / (number - 1)).sqrt() / 255


def reopens(sources: dict[str, Any]) -> bool:
    """Whether the images can be opened again from where they came."""
    return sources["data"] is not None and (sources["external"] is not None or not sources["has_external"])
