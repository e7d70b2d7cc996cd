"""Whether given external points differ from the candidates in what has nothing to do with training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memloc.engine._job import Job
from memloc.metrics import auroc
from memloc.streams import Stream, generator

LIMIT = 0.6  # of the lower end of the AUROC without the encoder
_FEWEST, _MOST = 20, 400  # points of either set
_FOLDS = 5
_PENALTY = 1.0  # of the ridge, per point
_BANDS = 6  # of the spectrum
_SIDE = 64  # of the images looked at


@dataclass(frozen=True)
class Guard:
    """Whether nothing may be said of single points, since the two sets differ or could not be looked at, and why."""

    withholds: bool
    reason: str
    record: dict[str, Any]


def guarded(job: Job, candidate: Tensor, reference: Tensor) -> Guard:
    """A cross-fitted classifier without the encoder: colours, spectrum, an untrained net, and the kinds of files.

    The lower end of its AUROC's interval decides, since with few points its value alone exceeds .6 by chance.
    """
    rows = [_drawn(job, each, number) for number, each in enumerate((candidate, reference))]
    if min(map(len, rows)) < _FEWEST:
        text = (
            "whether the external points are like the candidates cannot be looked at, since there are"
            f" {min(map(len, rows))} of one of the two, fewer than {_FEWEST} (hold points of the same set out: memloc"
            " train --held-out)"
        )
        return Guard(True, text, {"auroc": None, "low": None, "high": None, "text": text, "alike": None})
    features = np.concatenate([_features(job, each) for each in rows])
    found = auroc(*_scores(features, len(rows[0]), job.options.seed))
    record = {"auroc": found.value, "low": found.low, "high": found.high}
    percent = (
        f"{100 * found.value:.0f} % of comparisons (95 % interval {100 * found.low:.0f} to {100 * found.high:.0f} %)"
    )
    if found.low > LIMIT:
        text = (
            "the external points differ from the candidates by themselves: without the encoder they are told apart in"
            f" {percent}, so nothing is said of single points (hold some of the same set out: memloc train --held-out)"
        )
    elif found.high > LIMIT:
        text = f"whether the external points are like the candidates cannot be told: without the encoder, {percent}"
    else:
        text = f"the external points are like the candidates: without the encoder they are told apart in {percent}"
    alike = False if found.low > LIMIT else None if found.high > LIMIT else True
    return Guard(found.low > LIMIT, text, record | {"text": text, "alike": alike})


def _drawn(job: Job, member: Tensor, number: int) -> np.ndarray:
    rows = member.nonzero().flatten().numpy()
    return generator(Stream.GUARD, job.options.seed, number, len(rows)).permutation(rows)[:_MOST]


def _scores(features: np.ndarray, first: int, seed: int) -> tuple[Tensor, Tensor]:
    """How much like the first set each point is, by ridge regression on the other folds: of the first set, and of the
    second."""
    label = np.arange(len(features)) < first
    fold = np.empty(len(features), dtype=int)
    for number, rows in enumerate((np.flatnonzero(label), np.flatnonzero(~label))):
        order = generator(Stream.GUARD, seed, 2 + number, len(rows)).permutation(rows)
        fold[order] = np.arange(len(rows)) % _FOLDS
    found = np.empty(len(features))
    for number in range(_FOLDS):
        inside = fold == number
        centre, spread = features[~inside].mean(axis=0), features[~inside].std(axis=0)
        scaled = np.clip((features - centre) / np.where(spread > 0, spread, 1.0), -5, 5)
        share = label[~inside].mean()
        weight = np.where(label[~inside], 0.5 / share, 0.5 / (1 - share))[:, None] * scaled[~inside]
        penalty = _PENALTY * len(weight) * np.eye(scaled.shape[1])
        slope = np.linalg.solve(weight.T @ scaled[~inside] + penalty, weight.T @ np.where(label[~inside], 1.0, -1.0))
        found[inside] = scaled[inside] @ slope
    return torch.from_numpy(found[:first]), torch.from_numpy(found[first:])


def _features(job: Job, rows: np.ndarray) -> np.ndarray:
    """What tells images apart without the encoder, (point, feature)."""
    images = torch.stack([_small(job.images.pixels[int(row)]) for row in rows])
    flat = images.flatten(2)
    quantiles = torch.quantile(flat, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), dim=2).permute(1, 2, 0).flatten(1)
    parts = [flat.mean(dim=2), flat.std(dim=2, correction=0), quantiles, _spectrum(images), _untrained(images)]
    traces = [_traces(str(job.images.names[int(row)])) for row in rows]
    return np.concatenate([torch.cat(parts, dim=1).double().numpy(), np.array(traces)], axis=1)


def _small(image: Tensor) -> Tensor:
    """An image from 0 to 1, of 64 pixels a side at most."""
    image = image.float() / 255
    height, width = image.shape[1:]
    if max(height, width) <= _SIDE:
        return image
    return nn.functional.adaptive_avg_pool2d(image, (min(_SIDE, height), min(_SIDE, width)))


def _spectrum(images: Tensor) -> Tensor:
    """Log power of rings of the gray image's spectrum, from coarse to fine: (point, band)."""
    gray = images.mean(dim=1)
    power = torch.fft.fft2(gray - gray.mean(dim=(1, 2), keepdim=True)).abs().square()
    height, width = gray.shape[1:]
    radius = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.fftfreq(width).square()).sqrt()
    band = (radius / radius.max().clamp_min(1e-9) * _BANDS).long().clamp(max=_BANDS - 1).flatten()
    sums = torch.zeros(len(images), _BANDS).index_add_(1, band, power.flatten(1))
    return (sums / torch.bincount(band, minlength=_BANDS).clamp_min(1) + 1e-9).log()


def _untrained(images: Tensor) -> Tensor:
    """Means and deviations of the channels of a small convolutional net with random weights: (point, feature)."""
    random = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(shape, generator=random) / (shape[1] * shape[2] * shape[3]) ** 0.5
        for shape in ((12, images.shape[1], 5, 5), (24, 12, 3, 3))
    )
    found = nn.functional.conv2d(images, first, stride=2, padding=2).relu()
    found = nn.functional.conv2d(found, second, stride=2, padding=1).relu().flatten(2)
    return torch.cat([found.mean(dim=2), found.std(dim=2, correction=0)], dim=1)


def _traces(name: str) -> list[float]:
    """What the name of a file says of its format."""
    suffix = PurePath(name).suffix.lower()
    return [float(suffix in kinds) for kinds in ((".jpg", ".jpeg"), (".png",), (".webp",), (".tif", ".tiff", ".bmp"))]
