"""An audit planned: everything that can be wrong is found, and the points to score are chosen, before work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from memloc.data import Images, check_splits
from memloc.encoders import Encoder, check_images, fingerprint, same_architecture
from memloc.engine._audit import Options
from memloc.engine._job import Job, Mode
from memloc.engine._own_loss import plan_loss
from memloc.engine._surprises import external_copies, surprises
from memloc.errors import DataError, EncoderError, SpecError
from memloc.streams import Stream, generator
from memloc.views import Views

SHARED_SAMPLE = 1_000  # shared points scored beside all candidates, independents and external points


def plan_job(
    f: Sequence[Encoder],
    g: Sequence[Encoder],
    encoders: Sequence[Encoder],
    *,
    images: Images,
    splits: Sequence[str] | None,
    membership: Tensor | None,
    views: Views,
    options: Options,
    device: torch.device,
    unit_views: Views | None = None,
    held_out: Sequence[bool] | None = None,
    chosen: Sequence[bool] | None = None,
    paired: bool = False,
    earlier: bool = False,
) -> Job:
    """Check everything that can be wrong before work starts, and choose the points to score.

    Raises:
        SpecError, DataError, EncoderError: what does not fit, and what to pass instead.
    """
    everyone = [*f, *g, *encoders]
    if not everyone:
        raise SpecError("there are no encoders. Expected at least one. Pass f=ENCODER.")
    for other in everyone[1:]:
        same_architecture(everyone[0], other)
    mode: Mode = "ensemble" if encoders else "pair" if g else "alone"
    _check_earlier(earlier, mode, splits)
    seen, split = _membership(mode, len(f), len(g), images, splits, membership, len(everyone))
    views.view_size(*images.pixels.shape[2:])
    for encoder in everyone:
        check_images(encoder, images.pixels)
    if int((split == "candidate").sum()) < 2:
        raise DataError(
            f"there is {int((split == 'candidate').sum())} candidate. Expected at least two points that f was trained"
            " on and g was not. Pass more images, or other splits."
        )
    if earlier:  # both were trained on the same points
        seen[len(f) :] = seen[0]
    everyone, said = _with_equal_heads(everyone)
    prints = tuple(fingerprint(encoder.module) for encoder in everyone)
    copies = external_copies(images, split, seen)
    found = [*surprises(everyone, prints, images, split, seen, mode, views, copies), *said]
    if earlier:
        found.append(
            "g is an earlier checkpoint of f, so it has seen the candidates too. Scores say what f's further training"
            " changed, not what it memorized in all, and there is no calibrated LayerMem: compare candidates with"
            " external points."
        )
    kept = _scored(images, split, options.seed)
    kept = kept[~np.isin(kept, list(copies))]
    rows = torch.from_numpy(kept)
    images, split, seen = images.take(rows), split[kept], seen[:, rows]
    if int(seen[0].sum()) < 2:
        raise DataError(
            f"{everyone[0].name} was trained on {int(seen[0].sum())} of the points. Expected at least two, for UnitMem."
            " Pass the encoders in another order, or other membership."
        )
    apart, aside = (
        torch.zeros(len(kept), dtype=torch.bool) if each is None else torch.tensor(each)[rows]
        for each in (held_out, chosen)
    )
    loss, why = plan_loss(everyone, images, seen, views, options.seed)
    if why is not None:
        found.append(why)
    return Job(
        tuple(everyone),
        images,
        split,
        seen,
        mode,
        views,
        options,
        device,
        len(f),
        paired and len(f) == len(g),
        _groups(seen[0], split, options.seed),
        prints,
        earlier,
        tuple(found),
        loss,
        unit_views=unit_views,
        held_out=apart,
        chosen=aside,
    )


def _with_equal_heads(encoders: list[Encoder]) -> tuple[list[Encoder], list[str]]:
    """The encoders, without heads unless all have one; and what to say of that."""
    lacking = [encoder.name for encoder in encoders if encoder.head is None]
    if lacking and len(lacking) < len(encoders):
        return [replace(encoder, head=None, objective=None) for encoder in encoders], [
            f"{lacking[0]} has no head to read and others have one, so heads are left out. Pass one for each with"
            " --f-head and --g-head."
        ]
    rows = [[(layer.name, layer.units) for layer in encoder.rows[len(encoder.layers) :]] for encoder in encoders]
    other = next((number for number, each in enumerate(rows) if each != rows[0]), None)
    if other is not None:
        raise EncoderError(
            f"the heads of {encoders[0].name} and {encoders[other].name} differ: {_in_words(rows[0])} against"
            f" {_in_words(rows[other])}. Expected heads of one form, since they are compared row by row. Pass the heads"
            " that were trained alike."
        )
    return encoders, []


def _in_words(rows: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({units})" for name, units in rows)


def _check_earlier(earlier: bool, mode: Mode, splits: Sequence[str] | None) -> None:
    if earlier and mode != "pair":
        raise SpecError(
            "earlier is set without g. Expected the earlier checkpoint. Pass g=ENCODER (--g), or leave earlier out."
        )
    if earlier and splits is not None and "independent" in set(splits):
        raise SpecError(
            "there are independent points and g is an earlier checkpoint of f. Expected none: it was trained on f's"
            " points. Pass them as external (--external) if f has not seen them."
        )


def _membership(
    mode: Mode,
    f_count: int,
    g_count: int,
    images: Images,
    splits: Sequence[str] | None,
    membership: Tensor | None,
    count: int,
) -> tuple[Tensor, np.ndarray]:
    """Who was trained on what, and the split names, from whichever of the two was given."""
    points = len(images)
    if splits is not None:
        check_splits(list(splits), points)
    if mode == "ensemble":
        if membership is None:
            raise SpecError(
                "encoders are given without membership. Expected which encoder was trained on which point. Pass"
                " membership=, bool (encoder, point)."
            )
        if tuple(membership.shape) != (count, points):
            raise SpecError(
                f"membership has shape {tuple(membership.shape)}. Expected ({count}, {points}): one row per encoder,"
                " one column per image. Transpose or complete it."
            )
        seen = membership.bool()
        split = np.array(
            (
                list(splits)
                if splits is not None
                else np.where(
                    seen.all(dim=0).numpy(), "shared", np.where(seen.any(dim=0).numpy(), "candidate", "external")
                )
            ),
            dtype=object,
        )
        if not (seen.any(dim=0) & ~seen.all(dim=0)).any():
            raise DataError(
                "no point is in some training sets and out of others, so nothing can be compared. Expected random"
                " subsets. Pass another membership."
            )
        return seen, split
    if membership is not None:
        raise SpecError(
            "membership goes with encoders, not with f and g. Expected one or the other. Pass encoders=[...] with"
            " membership, or splits with f and g."
        )
    split = np.array(list(splits) if splits is not None else ["candidate"] * points, dtype=object)
    if not (split == "candidate").any():
        raise DataError(
            "there are no candidates. Expected at least two points that f was trained on and g was not. Pass splits"
            " with 'candidate'."
        )
    in_f = torch.from_numpy(np.isin(split, ("shared", "candidate")))
    in_g = torch.from_numpy(np.isin(split, ("shared", "independent")))
    return torch.stack([in_f] * f_count + [in_g] * g_count), split


def _scored(images: Images, split: np.ndarray, seed: int) -> np.ndarray:
    """Rows to score, in the order of point ids: everything but shared points, of which a seeded sample."""
    order = np.argsort(images.ids.numpy(), kind="stable")
    shared = order[split[order] == "shared"]
    if len(shared) > SHARED_SAMPLE:
        dropped = generator(Stream.SHARED_SAMPLE, seed).permutation(shared)[SHARED_SAMPLE:]
        order = order[~np.isin(order, dropped)]
    return order


def _groups(trained: Tensor, split: np.ndarray, seed: int) -> dict[str, Tensor]:
    """The points of UnitMem: those the first encoder was trained on; and equal numbers of those and of external
    points."""
    external = torch.from_numpy(split == "external") & ~trained
    groups = {"trained": trained}
    number = min(int(trained.sum()), int(external.sum()))
    if number >= 2:
        random = generator(Stream.EQUAL_GROUPS, seed)
        for name, member in (("trained_equal", trained), ("external_equal", external)):
            rows = random.permutation(np.flatnonzero(member.numpy()))[:number]
            groups[name] = torch.zeros(len(trained), dtype=torch.bool).index_fill_(0, torch.from_numpy(rows), True)
    return groups
