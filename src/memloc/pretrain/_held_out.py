"""Which of the training images no encoder sees: a random share, near-duplicates kept together."""

from __future__ import annotations

import math

import numpy as np

from memloc.data import LEAST_SIDE, Images, LazyPixels, near_duplicates
from memloc.errors import SpecError
from memloc.pretrain._spec import TrainSpec
from memloc.streams import Stream, generator


def hold_out(images: Images, spec: TrainSpec, training: int) -> tuple[np.ndarray, list[list[int]], tuple[str, ...]]:
    """Whether each image is held out, bool (image,), true of those after the first `training` too; groups of
    near-duplicates, as rows; and what to say.

    A random share of the first `training` images is held out, and all that the sizes of the splits leave over. A group
    of near-duplicates is held out or trained on as a whole. The order in which images are listed does not matter.

    Raises:
        SpecError: the share leaves too few images to train on.
    """
    held = np.arange(len(images)) >= training
    count = _count(spec, training)
    groups = near_duplicates(images)
    if not count:
        return held, groups, ()
    own = [[row for row in group if row < training] for group in groups]
    held[_drawn(images.ids.numpy()[:training], own, count, spec.seed)] = True
    return held, groups, (_note(images, held, training, groups),)


def keep_together(ids: np.ndarray, split: np.ndarray, groups: list[list[int]]) -> int:
    """Bring the near-duplicates of a group into one split, in place, by exchange with points that have no copy; how
    many changed places. They become shared where there are shared points to take their places.

    Args:
        ids: of the points, whose order decides. split: of each. groups: rows.
    Raises:
        SpecError: too few points without a copy.

    >>> split = np.array(["candidate", "shared", "shared", "independent"], dtype=object)
    >>> keep_together(np.arange(4), split, [[0, 1]]), split.tolist()
    (1, ['shared', 'shared', 'candidate', 'independent'])
    """
    copied = {row for group in groups for row in group}
    free: dict[str, list[int]] = {}
    for row in np.argsort(ids, kind="stable")[::-1].tolist():
        if row not in copied:
            free.setdefault(split[row], []).append(row)
    moved = 0
    for group in groups:
        wrong = [row for row in group if split[row] != split[group[0]]]
        if not wrong:
            continue
        others = sum(split[row] != "shared" for row in group)
        target = "shared" if len(free.get("shared", [])) >= others else split[group[0]]
        for row in (row for row in group if split[row] != target):
            if not free.get(target):
                raise SpecError(
                    f"{len(copied)} of the images are copies of others, and copies must stand in one split: where g saw"
                    " a copy of what f saw, f's memorization of it does not show. Expected more images without a copy."
                    " Remove the copies, or pass fewer --candidates and --independents."
                )
            other = free[target].pop()
            split[row], split[other] = split[other], split[row]
            moved += 1
    return moved


def sizes(spec: TrainSpec, training: int) -> tuple[int, int, int]:
    """Candidates, independents, and shared points at least, of the splits of so many images."""
    candidates = training // 10 if spec.candidates is None else spec.candidates
    independents = candidates if spec.independents is None else spec.independents
    return candidates, independents, spec.shared or 0


def _count(spec: TrainSpec, training: int) -> int:
    """How many images to hold out."""
    if not spec.held_out:
        return 0
    asked = max(round(spec.held_out * training), 1)
    needed = max(spec.ensemble, 4) if spec.ensemble else sum(sizes(spec, training))
    if needed > training:  # with or without any held out: splits say what is wrong
        return 0
    if needed > training - asked:
        what = (
            f"for {spec.ensemble} encoders"
            if spec.ensemble
            else "for {} candidates, {} independents and {} shared points".format(*sizes(spec, training))
        )
        most = math.floor(1000 * (training - needed) / training) / 1000
        raise SpecError(
            f"held_out is {spec.held_out}, which leaves {training - asked} of {training} images to train on. Expected"
            f" at least {needed}, {what}. Pass --held-out {most:g}{'' if spec.ensemble else ', or smaller splits'}."
        )
    return asked if spec.ensemble or spec.shared is None else training - needed


def _drawn(ids: np.ndarray, groups: list[list[int]], count: int, seed: int) -> list[int]:
    """Rows of whole groups, `count` in all, or as many below it as the groups allow."""
    first = ids.copy()  # the smallest id of each row's group
    for group in groups:
        first[group] = ids[group].min() if group else 0
    order = np.lexsort([ids, first])
    units = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    rows: list[int] = []
    for number in generator(Stream.HELD_OUT, seed, len(ids)).permutation(len(units)):
        if len(rows) + len(units[number]) <= count:
            rows += units[number].tolist()
        if len(rows) == count:
            break
    return rows


def _note(images: Images, held: np.ndarray, training: int, groups: list[list[int]]) -> str:
    text = f"{int(held[:training].sum())} of {training} images are held out: no encoder sees them."
    if isinstance(images.pixels, LazyPixels):
        return (
            f"{text} Near-duplicates were not looked for, since the images are read from their files as they are used:"
            " a held-out image may be a copy of one that was trained on."
        )
    together = [len(own) for group in groups if len(own := [row for row in group if row < training]) > 1]
    kind = "near-duplicates" if min(images.pixels.shape[2:]) >= LEAST_SIDE else "identical copies"
    text += (
        f" {sum(together)} are {kind} of others, in {len(together)} groups, each held out or trained on as a whole."
        if together
        else f" No {kind} were found among them."
    )
    if kind != "near-duplicates":
        text += f" Near-duplicates were not looked for in images below {LEAST_SIDE} pixels a side."
    given = sum(row >= training for group in groups if not held[group].all() for row in group)
    return text + (f" {given} of the external images given are {kind} of images trained on." if given else "")
