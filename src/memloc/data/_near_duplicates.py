"""Near-duplicates: copies of an image that differ by compression, brightness, or a pixel of shift or crop."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

from memloc.data._images import Images
from memloc.data._lazy import LazyPixels

ALIKE, SAME = 0.93, 0.975  # correlations of edges of near-duplicates: where few images look alike, and everywhere
_MANY = 5  # images that one may look like before its kind is taken for one of which many look alike
LEAST_SIDE = 16  # pixels a side under which identical images alone are found
_SIDE = 32  # pixels a side that are compared at most
_FLAT = 2.0  # gray levels of contrast under which an image has no edges to compare
_BITS, _BAND = 64, 16  # of a hash, and of the part of it in which candidates agree
_FAR, _NEAR = 10, 64  # bits in which candidates differ at most; neighbours in a sorted band that are looked at
_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))  # the others are these with the two images exchanged
_LIKELY = ALIKE - 0.015  # correlation of edges in the lowest frequencies alone, from which candidates are compared
_AT_ONCE, _FEW = 4096, 8192  # pairs that are compared at once; images of which all pairs are candidates
_LOWEST = sorted(((v, h) for v in range(11) for h in range(11)), key=lambda each: (sum(each), each))[1 : _BITS + 1]
_COUNTS = np.array([bin(number).count("1") for number in range(1 << 16)], dtype=np.uint8)


def near_duplicates(images: Images) -> list[list[int]]:
    """Groups of images that are near-duplicates of one another, as rows.

    Two images are near-duplicates where their edges, smoothed, correlate by at least .93 at 32x32 gray pixels; by .975
    where one of them is that much like more than five others, as trousers on white are. One of the two may be shifted
    by a pixel, or cropped by one on every side. Among more than 8 192 images, those are compared that agree in a
    quarter of a hash's 64 bits and in at least 54 of all: whether each of the lowest frequencies, relative to the
    contrast, lies above the median of all images. Flat images have no edges, and images below 16 pixels a side too few:
    of those, identical ones alone are found. Mirror images are not looked for. Measured in
    docs/decisions/0016-held-out.md.

    Returns:
        Groups of two rows or more, in the order of their first. A near-duplicate of a near-duplicate is in its group.
        Of images that are not in memory none.

    >>> pixels = torch.randint(0, 200, (3, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    >>> pixels[2] = pixels[0] + 20
    >>> near_duplicates(Images(pixels.to(torch.uint8), torch.arange(3), ("a", "b", "a, brighter")))
    [[0, 2]]
    """
    if isinstance(images.pixels, LazyPixels) or len(images) < 2:
        return []
    _, first, same = np.unique(images.hashes(), return_index=True, return_inverse=True)
    group = np.arange(len(first))  # of identical images
    if min(images.pixels.shape[2:]) >= LEAST_SIDE:
        small = _small(images.pixels)[torch.from_numpy(first)]
        rows = np.flatnonzero(small.float().std(dim=(1, 2)).numpy() >= _FLAT)
        group[rows] = rows[_alike(small[torch.from_numpy(rows)])] if len(rows) else rows
    group = group[same]
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted(each.tolist() for each in groups if len(each) > 1)


def _small(pixels: Tensor) -> Tensor:
    """Gray images of at most 32x32 pixels, uint8 (point, height, width)."""
    side = [min(extent, _SIDE) for extent in pixels.shape[2:]]
    parts = []
    for part in pixels.split(_AT_ONCE):
        gray = part.float().mean(dim=1, keepdim=True)
        parts.append(functional.interpolate(gray, size=side, mode="area")[:, 0].round().to(torch.uint8))
    return torch.cat(parts)


def _alike(small: Tensor) -> np.ndarray:
    """A row of each image's group: images whose edges agree, whichever way the one may differ from the other."""
    group, alike = np.arange(len(small)), [np.empty((2, 0), dtype=np.int64)]
    plain = _frequencies_of(small, (0, 0))
    for shift in (*_SHIFTS, None):
        pairs = _likely(_frequencies_of(small, shift), plain)
        if shift == (0, 0):
            pairs = pairs[:, pairs[0] < pairs[1]]
        while len(
            (pairs := pairs[:, group[pairs[0]] != group[pairs[1]]])[0]
        ):  # what is in one group is compared no more
            part, pairs = pairs[:, :_AT_ONCE], pairs[:, _AT_ONCE:]
            found = _agreement(_seen(small[part[0]], shift), _seen(small[part[1]])).numpy()
            alike.append(part[:, found >= ALIKE])
            if (found >= SAME).any():
                group = _joined(group, part[:, found >= SAME])
    pairs = np.unique(np.sort(np.concatenate(alike, axis=1), axis=0), axis=1)
    few = np.bincount(pairs.ravel(), minlength=len(small)) <= _MANY
    return _joined(group, pairs[:, few[pairs].all(axis=0)])


def _likely(asked: Tensor, plain: Tensor) -> np.ndarray:
    """Pairs (2, pair) of images as they may differ, and as they are, whose lowest frequencies agree."""
    if len(plain) <= _FEW:
        return torch.nonzero(asked @ plain.T >= _LIKELY).T.numpy()
    middle = plain.median(dim=0).values
    pairs = _candidates(_bits(asked > middle), _bits(plain > middle))
    parts = np.array_split(pairs, len(pairs[0]) // _AT_ONCE + 1, axis=1)
    agrees = [(asked[part[0]] * plain[part[1]]).sum(dim=1).numpy() >= _LIKELY for part in parts]
    return pairs[:, np.concatenate(agrees)]


def _joined(group: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Groups, by a row of each, after those of pairs became one."""
    one, two = np.concatenate([np.stack([np.arange(len(group)), group]), pairs], axis=1)
    linked = coo_array((np.ones(len(one), dtype=bool), (one, two)), shape=(len(group), len(group)))
    _, number = connected_components(linked, directed=False)
    first: np.ndarray = np.unique(number, return_index=True)[1][number]
    return first


def _seen(small: Tensor, shift: tuple[int, int] | None = (0, 0)) -> Tensor:
    """The images without their outermost pixels, as if shifted, or as if cropped by a pixel on every side (None)."""
    height, width = small.shape[1:]
    gray = small.float()
    if shift is None:
        cropped = gray[:, None, 1:-1, 1:-1]
        gray = functional.interpolate(cropped, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    down, right = shift or (0, 0)
    return gray[:, 1 + down : height - 1 + down, 1 + right : width - 1 + right]


def _frequencies_of(small: Tensor, shift: tuple[int, int] | None) -> Tensor:
    """The edges of images in their 64 lowest frequencies, of length one, (point, frequency)."""
    weight = torch.tensor([math.hypot(*each) for each in _LOWEST])  # of a frequency in the differences of pixels
    down, right = torch.tensor(_LOWEST).T
    parts = []
    for part in small.split(_AT_ONCE):
        gray = _seen(part, shift)
        vertical, horizontal = (_cosines(extent) for extent in gray.shape[1:])
        found = weight * (vertical @ gray @ horizontal.T)[:, down, right]
        parts.append(found / found.norm(dim=1, keepdim=True).clamp_min(1e-6))
    return torch.cat(parts)


def _cosines(extent: int) -> Tensor:
    return torch.cos(torch.pi * torch.arange(11)[:, None] * (torch.arange(extent) + 0.5) / extent)


def _bits(above: Tensor) -> np.ndarray:
    """Hashes as uint64, whose bits are spread so that each band holds low and high frequencies alike."""
    packed = np.packbits(above.numpy().reshape(len(above), -1, 4).transpose(0, 2, 1).reshape(len(above), -1), axis=1)
    return packed.view(">u8")[:, 0].astype(np.uint64)


def _candidates(asked: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pairs (2, pair) of an asked and a known hash that agree in a band and differ in few bits, of two images."""
    found = []
    rows = np.arange(len(asked))
    for turn in range(0, _BITS, _BAND):
        mine, theirs = _turned(asked, turn), _turned(known, turn)
        order = np.argsort(theirs, kind="stable")
        theirs = theirs[order]
        place = np.searchsorted(theirs, mine)
        for step, start in ((1, place), (-1, place - 1)):
            active = rows
            for offset in range(_NEAR):
                at = start[active] + step * offset
                inside = (at >= 0) & (at < len(theirs))
                active, at = active[inside], at[inside]
                differ = mine[active] ^ theirs[at]
                agrees = differ >> np.uint64(_BITS - _BAND) == 0
                active, at, differ = active[agrees], at[agrees], differ[agrees]
                if not len(active):
                    break
                close = (_ones(differ) <= _FAR) & (active != order[at])
                found.append(np.stack([active[close], order[at[close]]]))
    whole = np.concatenate(found, axis=1) if found else np.empty((2, 0), dtype=np.int64)
    return np.unique(whole, axis=1)


def _turned(hashes: np.ndarray, by: int) -> np.ndarray:
    """Hashes with other bits first."""
    return hashes if by == 0 else (hashes << np.uint64(by)) | (hashes >> np.uint64(_BITS - by))


def _ones(words: np.ndarray) -> np.ndarray:
    """How many bits of each word are set."""
    return _COUNTS[words.view(np.uint16).reshape(-1, 4)].sum(axis=1)


def _agreement(one: Tensor, two: Tensor) -> Tensor:
    """Correlation of the smoothed images' edges, (pair,)."""
    first, second = (_edges(gray) for gray in (one, two))
    size = first.norm(dim=1) * second.norm(dim=1)
    return (first * second).sum(dim=1) / size.clamp_min(1e-6)


def _edges(gray: Tensor) -> Tensor:
    """Differences of neighbouring pixels after a binomial filter, which takes out what compression adds."""
    gray = (gray[:, :-2] + 2 * gray[:, 1:-1] + gray[:, 2:]) / 4
    gray = (gray[:, :, :-2] + 2 * gray[:, :, 1:-1] + gray[:, :, 2:]) / 4
    return torch.cat([gray.diff(dim=1).flatten(1), gray.diff(dim=2).flatten(1)], dim=1)
