"""What is right but may surprise in an audit, said before it starts and kept in its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from memloc.data import Images, LazyPixels, duplicates_across
from memloc.encoders import RANDOM_NOTE, Encoder
from memloc.engine._job import Mode
from memloc.views import Views


def surprises(
    encoders: Sequence[Encoder],
    prints: Sequence[str],
    images: Images,
    split: np.ndarray,
    seen: Tensor,
    mode: Mode,
    views: Views,
    copies: Mapping[int, int],
) -> list[str]:
    """Warnings in words.

    Args:
        copies: as `external_copies` finds them.
    """
    what = "training sets" if mode == "ensemble" else "splits"
    found = _copies_in_words(images, copies, [] if mode == "alone" else _parts(split, seen, mode), what)
    if isinstance(images.pixels, LazyPixels):
        found.append(
            "The images are read from their files as they are used, so identical copies in different splits were not"
            " looked for, and a file that cannot be read stops the audit, which then resumes."
        )
    blank = [encoder.name for encoder in encoders if encoder.note == RANDOM_NOTE]
    if blank:
        found.append(
            f"The weights of {' and '.join(dict.fromkeys(blank))} are random: such an"
            " encoder has memorized nothing. Pass --f-weights FILE (and --g-weights FILE) to audit a trained one."
        )
    unknown = [encoder.name for encoder in encoders if not encoder.is_normalization_known]
    if unknown:
        found.append(
            f"No mean and standard deviation are known for {' and '.join(dict.fromkeys(unknown))}: views reach it with"
            " values from 0 to 1. Pass --mean and --std as in its training (0 and 1 for none)."
        )
    found += [
        f"{encoder.name}: {encoder.note}." for encoder in encoders[:1] if encoder.note.startswith("its output is")
    ]
    if images.pixels.shape[1] == 1 and encoders[0].channels == 3:
        found.append(f"The images are gray and {encoders[0].name} takes three channels: the gray channel is repeated.")
    if len(set(prints)) < len(prints):
        found.append(
            "Two of the encoders have the same weights, so every score between them is 0. Pass a reference that was"
            " trained without the candidates."
        )
    policies = {encoder.augmentation for encoder in encoders}
    if None in policies:
        found.append(
            f"The augmentation that {encoders[0].name} was trained with is unknown; views are drawn with"
            f" '{views.policy}'. Scores hold for the views they were drawn with: pass --policy as in training."
        )
    elif policies != {views.policy}:
        found.append(
            f"The encoders were trained with {' and '.join(sorted(map(repr, policies)))} views and are scored with"
            f" {views.policy!r}."
        )
    found += _class_warnings(images, seen.any(dim=0))
    if images.skipped:
        found.append(
            f"{len(images.skipped)} images could not be read and were left out; they are listed in audit.json."
        )
    if mode == "alone":
        external = (split == "external").any()
        found.append(
            "There is one encoder and no reference. "
            + (
                "The alignment gap compares trained points with external ones, so it also holds whatever else differs"
                " between the two sets. "
                if external
                else "Without external points there is nothing to compare trained points with: pass --external. "
            )
            + "A reference g trained without the candidates would give SSLMem per point."
        )
    return found


def _parts(split: np.ndarray, seen: Tensor, mode: Mode) -> list[str]:
    """What must be told apart of each image: its split, of an ensemble which encoders saw it."""
    return split.tolist() if mode != "ensemble" else ["".join(map(str, column)) for column in seen.int().T.tolist()]


def _copies_in_words(images: Images, copies: Mapping[int, int], parts: Sequence[str], what: str) -> list[str]:
    """That external images are copies of trained ones, and that images of several parts are copies; without parts, of
    one encoder, the second is no matter."""
    found = []
    if copies:
        external, trained = next(iter(copies.items()))
        found.append(
            f"{len(copies)} external images are identical copies of images that were trained on, such as"
            f" {images.names[external]} of {images.names[trained]}. They are left out of every figure."
        )
    rows = [row for row in range(len(parts)) if row not in copies]
    others = images.take(torch.tensor(rows)) if copies and rows else images
    same = duplicates_across(others, [parts[row] for row in rows]) if rows else []
    if same:
        one, two = same[0]
        found.append(
            f"{len(same)} images stand in different {what} as identical copies, such as {one} and"
            f" {two}. A reference that has seen a candidate cannot show its memorization: remove the copies and train"
            " again."
        )
    return found


def external_copies(images: Images, split: np.ndarray, seen: Tensor) -> dict[int, int]:
    """Rows of external images that are identical to one that an encoder was trained on, and the row of that; none of
    images that are not in memory."""
    if isinstance(images.pixels, LazyPixels):
        return {}
    trained = seen.any(dim=0).numpy()
    digests = images.hashes().tolist()
    known: dict[int, int] = {}
    for row, digest in enumerate(digests):
        if trained[row]:
            known.setdefault(digest, row)
    return {
        row: known[digest]
        for row, digest in enumerate(digests)
        if split[row] == "external" and not trained[row] and digest in known
    }


def _class_warnings(images: Images, trained: Tensor) -> list[str]:
    """What makes ClassMem say less than it seems to: classes of one trained image, or one class alone."""
    if images.labels is None:
        return []
    labels, sizes = images.labels[trained & (images.labels >= 0)].unique(return_counts=True)
    if len(labels) == 1:
        return [
            "All labelled images that were trained on are of one class, so ClassMem contrasts it with nothing and is"
            " left out."
        ]
    alone = labels[sizes == 1].tolist()
    if not alone:
        return []
    name = images.class_names[alone[0]] if images.class_names else str(alone[0])
    which = f"The class {name!r} has" if len(alone) == 1 else f"{len(alone)} classes, such as {name!r}, have"
    return [
        f"{which} one image that was trained on: where ClassMem names such a class, it is that image. Merge or leave"
        " out small classes."
    ]
