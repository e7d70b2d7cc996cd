"""The four splits, subset ensembles, and checks that splits are what they claim to be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from memloc.data._images import Images
from memloc.data._lazy import LazyPixels
from memloc.errors import DataError, SpecError, nearest

SPLITS = ("shared", "candidate", "independent", "external")


def split_points(
    points: Int[Tensor, " point"],
    *,
    candidates: int | None = None,
    independents: int | None = None,
    shared: int | None = None,
    seed: int = 0,
) -> list[str]:
    """Assign every training point to shared, candidate, independent, or "" (left out), by a seeded draw over ids.

    By default a tenth each are candidates and independents and the rest is shared, as in REFERENCE A1. The order in
    which points are listed does not matter.

    Raises:
        SpecError: the splits do not fit the points.

    >>> names = split_points(torch.arange(20), seed=1)
    >>> sorted(set(names)), names.count("candidate")
    (['candidate', 'independent', 'shared'], 2)
    """
    number = len(points)
    candidates = number // 10 if candidates is None else candidates
    independents = candidates if independents is None else independents
    shared = max(number - candidates - independents, 0) if shared is None else shared
    if min(candidates, independents) < 2 or shared < 0 or candidates + independents + shared > number:
        room = number - candidates - independents
        step = (
            f"--shared {room}"
            if room >= 0 and min(candidates, independents) >= 2
            else f"--candidates {max(number // 10, 2)}"
        )
        raise SpecError(
            f"{shared} shared, {candidates} candidate and {independents} independent points do not fit {number} images."
            f" Expected at least two candidates and two independents, and no more than {number} in all. Pass"
            f" {step}{' or fewer' if 'shared' in step else ''}."
        )
    order = np.argsort(points.numpy(), kind="stable")
    drawn = order[np.random.default_rng([seed, number]).permutation(number)]
    names = np.full(number, "", dtype=object)
    names[drawn[:candidates]] = "candidate"
    names[drawn[candidates : candidates + independents]] = "independent"
    names[drawn[candidates + independents : candidates + independents + shared]] = "shared"
    return names.tolist()


def subset_membership(
    points: Int[Tensor, " point"], *, encoders: int, fraction: float = 0.5, seed: int = 0
) -> Bool[Tensor, "encoder point"]:
    """Random training sets for an ensemble: every point in exactly round(encoders x fraction) of them, sets of equal
    size.

    Within each group of `encoders` points, drawn at random, the memberships are the rotations of one pattern with its
    encoders shuffled; the order in which points are listed does not matter.

    >>> seen = subset_membership(torch.arange(16), encoders=4, fraction=0.5)
    >>> seen.sum(dim=0).unique().tolist(), seen.sum(dim=1).tolist()
    ([2], [8, 8, 8, 8])
    """
    times = round(encoders * fraction)
    if encoders < 2 or not 1 <= times < encoders:
        raise SpecError(
            f"an ensemble of {encoders} encoders with fraction {fraction} puts every point in {times} of them. Expected"
            " at least one in and one out, from two encoders on. Pass --ensemble 8 --fraction 0.5."
        )
    generator = np.random.default_rng([seed, len(points), encoders])
    order = np.argsort(points.numpy(), kind="stable")[generator.permutation(len(points))]
    seen = np.zeros((encoders, len(points)), dtype=bool)
    for start in range(0, len(points), encoders):
        group, shuffled, base = (
            order[start : start + encoders],
            generator.permutation(encoders),
            generator.permutation(encoders),
        )
        for turn, row in enumerate(group):
            seen[shuffled[(base[turn] + np.arange(times)) % encoders], row] = True
    return torch.from_numpy(seen)


def origins(splits: Sequence[str], given: int) -> list[str]:
    """Where external points come from: "held-out" of the images that were trained on, or "given" beside them; "" of
    other points.

    Args:
        given: how many points, the last ones, are of another set.

    >>> origins(["candidate", "external", "external"], given=1)
    ['', 'held-out', 'given']
    """
    own = len(splits) - given
    return ["" if split != "external" else "held-out" if row < own else "given" for row, split in enumerate(splits)]


def check_splits(splits: Sequence[str], points: int) -> None:
    """Raise DataError unless there is one known split name per point.

    >>> check_splits(["candidate", "extrenal"], 2)
    Traceback (most recent call last):
    memloc.errors.DataError: there is no split 'extrenal'. Nearest: 'external'. Pass one of shared, candidate, \
independent, external for every point.
    """
    if len(splits) != points:
        raise DataError(
            f"splits has {len(splits)} names for {points} images. Expected one per image. Pass one name for each point."
        )
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise DataError(
            f"there is no split {unknown[0]!r}. {nearest(unknown[0], SPLITS)} Pass one of {', '.join(SPLITS)} for every"
            " point."
        )


def duplicates_across(images: Images, splits: Sequence[str]) -> list[tuple[str, str]]:
    """Names of identical images that stand in different splits: they break the reference. None are looked for in sets
    that are not in memory.

    >>> same = Images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(2), ("a", "b"))
    >>> duplicates_across(same, ["candidate", "external"])
    [('a', 'b')]
    """
    if isinstance(images.pixels, LazyPixels):  # their hashes are of names: contents are not read before they are needed
        return []
    first: dict[int, int] = {}
    found = []
    for row, digest in enumerate(images.hashes().tolist()):
        seen = first.setdefault(digest, row)
        if splits[seen] != splits[row]:
            found.append((images.names[seen], images.names[row]))
    return found
