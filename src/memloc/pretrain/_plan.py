"""Who is trained on what: splits, membership, planted repeats, and the slots of every encoder's epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from memloc.data import Images, origins, split_points, subset_membership
from memloc.errors import SpecError
from memloc.objectives import objective_named
from memloc.pretrain._held_out import hold_out, keep_together, sizes
from memloc.pretrain._spec import TrainSpec
from memloc.streams import Stream, generator


@dataclass(frozen=True)
class Plan:
    """Points with their splits, and which encoder is trained on which.

    Attributes:
        points: point, name, split, label, repeats, origin, and with coins pair; one row per image, in the order of the
            images.
        membership: point, then one column per encoder.
        notes: what is to be said of it, in words.
    """

    points: pd.DataFrame
    membership: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders: f, g (f0, g0, f1, ... with several runs), or e00, e01, ... of an ensemble."""
        return [str(name) for name in self.membership.columns[1:]]

    def digest(self) -> str:
        """A hash of who is trained on what."""
        content = [self.points[["point", "split", "repeats"]].to_csv(index=False), self.membership.to_csv(index=False)]
        return hashlib.blake2b("".join(content).encode(), digest_size=8).hexdigest()

    def seen_by(self, encoder: str) -> np.ndarray:
        """Whether the encoder was trained on each point."""
        return self.membership[encoder].to_numpy()


def make_plan(images: Images, spec: TrainSpec, external: int = 0) -> Plan:
    """Plan a run; external are the last `external` images, those held out, and training images that no split takes.

    >>> from memloc.data import as_images
    >>> images = as_images(torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8))
    >>> plan = make_plan(images, TrainSpec(held_out=0), external=10)
    >>> plan.points.split.value_counts().to_dict()
    {'shared': 24, 'external': 10, 'candidate': 3, 'independent': 3}
    """
    training = len(images) - external
    held, groups, notes = hold_out(images, spec, training)
    copies = [own for group in groups if len(own := [row for row in group if not held[row]]) > 1]
    trained = np.flatnonzero(~held)
    ids = images.ids[torch.from_numpy(trained)]
    split = np.full(len(images), "external", dtype=object)
    pair: np.ndarray | None = None
    if spec.ensemble:
        seen = subset_membership(ids, encoders=spec.ensemble, fraction=spec.fraction, seed=spec.seed).numpy()
        split[trained] = "candidate"
        names = [f"e{number:02d}" for number in range(spec.ensemble)]
        membership = {name: np.zeros(len(images), dtype=bool) for name in names}
        for name, row in zip(names, seen, strict=True):
            membership[name][trained] = row
            for group in copies:  # who saw one saw all
                membership[name][group] = membership[name][group[0]]
    else:
        candidates, independents, _ = sizes(spec, training)
        drawn = split_points(ids, candidates=candidates, independents=independents, shared=spec.shared, seed=spec.seed)
        split[trained] = [name or "external" for name in drawn]
        moved = keep_together(images.ids.numpy(), split, copies)
        if moved:
            notes += (f"{moved} images changed places with others, so that copies of one image stand in one split.",)
        if spec.coin:
            pair = _tossed(images.ids.numpy(), split, spec.seed)
        sides = {"f": np.isin(split, ("shared", "candidate")), "g": np.isin(split, ("shared", "independent"))}
        numbers = [""] if spec.runs == 1 else [str(run) for run in range(spec.runs)]
        membership = {f"{side}{number}": sides[side] for number in numbers for side in ("f", "g")}
        if not spec.unpaired and sides["f"].sum() != sides["g"].sum():
            raise SpecError(
                "paired training needs as many independents as candidates, since each takes the other's place in a"
                " batch. Expected equal numbers. Pass --unpaired, or the same number for both."
            )
    repeats = np.ones(len(images), dtype=np.int64)
    for name in ("candidate", "independent"):
        planted = _planted(images.ids.numpy(), split == name, spec.plant)
        repeats[planted if pair is None else (split == name) & (pair < spec.plant)] = spec.repeats
    labels = {} if images.labels is None else {"label": images.labels.numpy()}
    point = {"point": images.ids.numpy()}
    points = pd.DataFrame(
        {
            **point,
            "name": list(images.names),
            "split": split,
            **labels,
            "repeats": repeats,
            "origin": origins(split.tolist(), given=external),
            **({} if pair is None else {"pair": pair}),
        }
    )
    return Plan(points, pd.DataFrame({**point, **membership}), notes)


def _tossed(ids: np.ndarray, split: np.ndarray, seed: int) -> np.ndarray:
    """The pair of each candidate and independent point, -1 of others; a fair coin decides which of the two f sees,
    written into `split`.

    Raises:
        SpecError: other numbers of candidates and independents.
    """
    rows = _by_id(ids, np.flatnonzero(np.isin(split, ("candidate", "independent"))))
    candidates = int((split == "candidate").sum())
    if 2 * candidates != len(rows):
        raise SpecError(
            f"coin is set with {candidates} candidates and {len(rows) - candidates} independents. Expected equal"
            " numbers, since each coin is about two points. Leave --independents out."
        )
    random = generator(Stream.COINS, seed, len(rows))
    order = random.permutation(rows).reshape(-1, 2)
    heads = random.integers(0, 2, len(order)).astype(bool)
    pair = np.full(len(ids), -1, dtype=np.int64)
    for number, (both, head) in enumerate(zip(order, heads, strict=True)):
        pair[both] = number
        split[both[::-1] if head else both] = np.array(["candidate", "independent"], dtype=object)
    return pair


def slots(plan: Plan, encoder: str) -> tuple[Tensor, Tensor]:
    """The rows of the images that an encoder sees in an epoch, planted ones repeated, and the point of each.

    Slot s of f and slot s of g draw the same views and stand in the same batches; where f's slot holds a candidate, g's
    holds an independent point.
    """
    seen = plan.seen_by(encoder)
    split, ids, repeats = (plan.points[name].to_numpy() for name in ("split", "point", "repeats"))
    rows = np.concatenate(
        [_by_id(ids, np.flatnonzero(seen & (split == name))) for name in ("shared", "candidate", "independent")]
    )
    extra = np.repeat(rows, repeats[rows] - 1)
    chosen = np.concatenate([_planted_first(rows, repeats, split), extra])
    return torch.from_numpy(chosen), torch.from_numpy(ids[chosen])


def labels_of(plan: Plan, spec: TrainSpec, rows: Tensor) -> tuple[Tensor | None, int]:
    """The class of each slot and how many classes there are; None and 0 for an objective without labels."""
    if not objective_named(spec.objective).needs_labels:
        return None, 0
    labels = torch.tensor(plan.points["label"].to_numpy())
    return labels[rows], int(labels.max()) + 1


def _by_id(ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(ids[rows], kind="stable")]


def _planted_first(rows: np.ndarray, repeats: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Shared points, then planted ones, then the rest, so that planted candidates meet planted independents slot by
    slot."""
    rank = np.where(split[rows] == "shared", 0, np.where(repeats[rows] > 1, 1, 2))
    return rows[np.argsort(rank, kind="stable")]


def _planted(ids: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    rows = _by_id(ids, np.flatnonzero(candidates))
    if count > len(rows) and len(rows):
        raise SpecError(
            f"{count} planted points do not fit {len(rows)} candidates. Expected at most as many. Pass --plant"
            f" {len(rows)}."
        )
    return rows[np.random.default_rng([count, len(rows)]).permutation(len(rows))[:count]]
