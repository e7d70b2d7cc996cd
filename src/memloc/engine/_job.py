"""What an audit will do, decided before it starts: encoders, points, membership, shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from memloc.data import Images, LazyPixels, check_splits, duplicates_across
from memloc.encoders import RANDOM_NOTE, Encoder, Layer, check_images, fingerprint, same_architecture
from memloc.errors import DataError, SpecError
from memloc.metrics import DISTANCES, Distance
from memloc.views import Views

SHARED_SAMPLE = 1_000  # shared points scored beside all candidates, independents and external points
Mode = Literal["pair", "alone", "ensemble"]
GROUPS = ("trained", "trained_equal", "external_equal")


@dataclass(frozen=True)
class Options:
    """How scores are computed, beyond the views.

    Attributes:
        distance: between representations. rest: "mean" or "median" in UnitMem. signed: "rectify" or "raw" activations.
        dtype: "float32", "float64" or "bfloat16" (autocast). batch_size: points per batch. shard_size: points per
            shard.
        scale: "ratio" (SSLMem') or "range" (raw scores over their range, as the published code) in the layers' tables.
        seed: of bootstrap and sampling. thumbnails: whether pictures are kept for the report.
    """

    distance: Distance = "l2"
    rest: Literal["mean", "median"] = "mean"
    signed: Literal["rectify", "raw"] = "rectify"
    scale: Literal["ratio", "range"] = "ratio"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    batch_size: int = 32
    shard_size: int = 1024
    seed: int = 0
    thumbnails: bool = True

    def __post_init__(self) -> None:
        for name, known in (
            ("distance", DISTANCES),
            ("rest", ("mean", "median")),
            ("signed", ("rectify", "raw")),
            ("scale", ("ratio", "range")),
            ("dtype", ("float32", "float64", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise SpecError(
                    f"{name} is {getattr(self, name)!r}. Expected one of {', '.join(known)}. Pass --{name} {known[0]}."
                )
        for name in ("batch_size", "shard_size"):
            if getattr(self, name) < 1:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected at least 1. Pass --{name.replace('_', '-')} 32."
                )


@dataclass(frozen=True)
class Job:
    """Everything that computing a shard needs.

    Attributes:
        encoders: K encoders of one architecture; UnitMem and ClassMem are of the first.
        images: the points scored, in the order of their ids.
        split: split name of each point.
        membership: which encoder was trained on which point, bool (encoder, point).
        mode: "pair" (f against g), "alone" (f without a reference) or "ensemble".
        f_count: how many of the encoders, from the first, are f's.
        paired: whether the first of f's and of g's runs were trained together, and so on.
        groups: points that enter UnitMem, bool (point,) by name: trained, and equally many trained and external ones.
        prints: fingerprints of the encoders' weights.
        earlier: whether g is an earlier checkpoint of f's training.
        found: warnings from planning.
    """

    encoders: tuple[Encoder, ...]
    images: Images
    split: np.ndarray
    membership: Bool[Tensor, "encoder point"]
    mode: Mode
    views: Views
    options: Options
    device: torch.device
    f_count: int
    paired: bool
    groups: dict[str, Tensor]
    prints: tuple[str, ...]
    earlier: bool = False
    found: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers read, in the order of the forward pass."""
        return self.encoders[0].layers

    @property
    def classes(self) -> Tensor:
        """The class numbers that occur, in order."""
        labels = torch.empty(0, dtype=torch.int64) if self.images.labels is None else self.images.labels
        return labels[labels >= 0].unique()

    @cached_property
    def target(self) -> Tensor:
        """Which encoders stand for f at each point, bool (encoder, point): f's side, or those trained on the point.

        In an ensemble, points that no encoder (or every one) was trained on take the membership of random candidates:
        their scores say what chance alone gives.
        """
        if self.mode == "ensemble":
            count = self.membership.sum(dim=0)
            constant = (count == 0) | (count == len(self.membership))
            varying = np.flatnonzero(~constant.numpy() & (self.split == "candidate"))
            varying = varying if len(varying) else np.flatnonzero(~constant.numpy())
            rows = torch.arange(len(constant))
            drawn = np.random.default_rng([self.options.seed, 4]).choice(varying, int(constant.sum()))
            rows[constant] = torch.from_numpy(drawn)
            return self.membership[:, rows]
        side = torch.zeros_like(self.membership)
        side[: self.f_count] = True
        return side

    @property
    def reference(self) -> Tensor:
        """Which encoders stand for g at each point; none if f is alone."""
        return torch.zeros_like(self.membership) if self.mode == "alone" else ~self.target

    @property
    def shards(self) -> list[slice]:
        """Fixed-size ranges of points."""
        size = self.options.shard_size
        return [slice(start, min(start + size, len(self.images))) for start in range(0, len(self.images), size)]


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
    prints = tuple(fingerprint(encoder.module) for encoder in everyone)
    found = _warnings(everyone, prints, images, split, seen, mode, views)
    if earlier:
        found.append(
            "g is an earlier checkpoint of f, so it has seen the candidates too. Scores say what f's further training"
            " changed, not what it memorized in all, and there is no calibrated LayerMem: compare candidates with"
            " external points."
        )
    kept = _scored(images, split, options.seed)
    rows = torch.from_numpy(kept)
    images, split, seen = images.take(rows), split[kept], seen[:, rows]
    if int(seen[0].sum()) < 2:
        raise DataError(
            f"{everyone[0].name} was trained on {int(seen[0].sum())} of the points. Expected at least two, for UnitMem."
            " Pass the encoders in another order, or other membership."
        )
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
    )


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
        dropped = np.random.default_rng([seed, 1]).permutation(shared)[SHARED_SAMPLE:]
        order = order[~np.isin(order, dropped)]
    return order


def _groups(trained: Tensor, split: np.ndarray, seed: int) -> dict[str, Tensor]:
    """The points of UnitMem: those the first encoder was trained on; and equal numbers of those and of external
    points."""
    external = torch.from_numpy(split == "external") & ~trained
    groups = {"trained": trained}
    number = min(int(trained.sum()), int(external.sum()))
    if number >= 2:
        generator = np.random.default_rng([seed, 2])
        for name, member in (("trained_equal", trained), ("external_equal", external)):
            rows = generator.permutation(np.flatnonzero(member.numpy()))[:number]
            groups[name] = torch.zeros(len(trained), dtype=torch.bool).index_fill_(0, torch.from_numpy(rows), True)
    return groups


def _warnings(
    encoders: Sequence[Encoder],
    prints: Sequence[str],
    images: Images,
    split: np.ndarray,
    seen: Tensor,
    mode: Mode,
    views: Views,
) -> list[str]:
    found = []
    columns = ["".join(map(str, column)) for column in seen.int().T.tolist()]
    same = duplicates_across(images, columns if mode == "ensemble" else split.tolist())
    if same:
        one, two = same[0]
        found.append(
            f"{len(same)} images stand in different {'training sets' if mode == 'ensemble' else 'splits'} as identical"
            f" copies, such as {one} and {two}. A reference that has seen a candidate cannot show its memorization:"
            " remove the copies and train again."
        )
    if isinstance(images.pixels, LazyPixels):
        found.append(
            "The images are read from their files as they are used, so identical copies in different splits were not"
            " looked for, and a file that cannot be read stops the audit, which then resumes."
        )
    blank = [encoder.name for encoder in encoders if encoder.note == RANDOM_NOTE]
    if blank:
        found.append(
            f"The weights of {' and '.join(dict.fromkeys(blank))} are random, since no checkpoint was given: such an"
            " encoder has memorized nothing. Pass --f-weights FILE (and --g-weights FILE) to audit a trained one."
        )
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
