"""The row `loss`: each point's own loss under the objective its encoders were trained by, or under an assumed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from memloc.data import Images
from memloc.encoders import Encoder, Layer, features_at
from memloc.metrics import FEWEST_REFERENCES
from memloc.objectives import Objective, Shown, SimCLR
from memloc.results import sealing, unsealed
from memloc.streams import Stream, generator
from memloc.views import Views

if TYPE_CHECKING:
    from memloc.engine._job import Job

LOSS = "loss"  # the kind of the row, and its name where the objective is known
ASSUMED = "loss (NT-Xent, assumed)"
_POINTS, _VIEWS = 256, 2  # of references


@dataclass(frozen=True)
class OwnLoss:
    """What the row is computed from.

    Attributes:
        layer: the row. objectives: of each encoder.
        rows: which of the job's points are references, as their place. views: of references.
    """

    layer: Layer
    objectives: tuple[Objective, ...]
    rows: Tensor
    views: Views

    @property
    def reference_rows(self) -> Tensor:
        """The point that each reference shows, as its place."""
        return self.rows.repeat_interleave(self.views.count)


def plan_loss(
    encoders: Sequence[Encoder], images: Images, seen: Tensor, views: Views, seed: int
) -> tuple[OwnLoss | None, str | None]:
    """The row, or None and why there is none.

    Args:
        images: the points to score. seen: bool (encoder, point).
    """
    known = [encoder.objective for encoder in encoders]
    kinds = {type(each) for each in known}
    assumed = len(kinds) > 1 or None in known
    objectives = tuple(SimCLR(None).eval() if assumed else cast(Objective, each) for each in known)
    why = None if assumed else _lacking(objectives, images)
    never = (~seen.any(dim=0)).nonzero().flatten()
    if why is None and objectives[0].contrasts and len(never) < FEWEST_REFERENCES:
        why = (
            f"a point's own loss compares it with others that no encoder saw, and there are {len(never)}, fewer than"
            f" {FEWEST_REFERENCES}. Pass more with --external"
        )
    if why is not None:
        return None, f"There is no row for the training loss: {why}."
    drawn = generator(Stream.REFERENCES, seed).permutation(len(never))[:_POINTS]
    rows = never[torch.from_numpy(drawn)].sort().values if objectives[0].contrasts else never[:0]
    order = len(encoders[0].rows)
    layer = Layer(ASSUMED if assumed else LOSS, "", order, LOSS, None, 0, main=False)
    recipe = replace(
        views, n=_VIEWS, seed=Stream.REFERENCE_VIEWS.keyed(views.seed), sampling="independent", original=False
    )
    return OwnLoss(layer, objectives, rows, recipe), None


def _lacking(objectives: Sequence[Objective], images: Images) -> str | None:
    """What an objective would need and is not there."""
    if not all(each.has_own_losses for each in objectives):
        return "the run does not hold all that its objective computes it from. Train again to have it"
    if objectives[0].needs_labels:
        head = objectives[0].head_read()
        classes = next(iter(head.parameters())).shape[0] if head is not None else 0
        labels = images.labels
        if labels is None or bool((labels < 0).any()) or int(labels.max()) >= classes:
            return (
                f"the objective is trained with labels, and not every point has one of its {classes} classes. Label the"
                " points, those that no encoder saw too"
            )
    return None


def encode_references(job: Job, work: Path) -> tuple[Tensor, ...]:
    """What each encoder's objective makes of the references, once for all shards; from `work` where it lies there."""
    loss = job.loss
    if loss is None or not len(loss.rows):
        return ()
    path = work / "references.pt"
    stored = unsealed(path, "the references", "they are encoded again")
    if stored is not None:
        return tuple(each.to(job.device) for each in torch.load(stored, weights_only=True))
    found = []
    for number, encoder in enumerate(job.encoders):
        training = {name: part.training for name, part in encoder.module.named_modules()}
        try:
            encoder.module.eval()
            with job.repeatable():
                parts = job.batches.map(slice(0, len(loss.rows)), partial(_embedded, job, number))
                found.append(torch.cat(list(parts)))
        finally:
            for name, part in encoder.module.named_modules():
                part.training = training[name]
    with sealing(path) as temporary:
        torch.save([each.cpu() for each in found], temporary)
    return tuple(found)


@torch.no_grad()
def _embedded(job: Job, number: int, rows: slice) -> Tensor:
    """What an encoder's objective makes of some of the references."""
    assert job.loss is not None
    encoder, objective = job.encoders[number], job.loss.objectives[number]
    chosen = job.loss.rows[rows]
    pixels, points = job.images.pixels[chosen].to(job.device), job.images.ids[chosen].to(job.device)
    views = job.loss.views.draw(pixels, points).flatten(0, 1)
    views = views.double() if job.options.dtype == "float64" else views
    low = job.options.dtype == "bfloat16"
    with torch.autocast(job.device.type, torch.bfloat16, enabled=low):
        features = features_at(job.layers[job.output], encoder.module(encoder.prepare(views)))
    return objective.embed(features if features.dtype == torch.float64 else features.float())


def own_losses(job: Job, number: int, inputs: Tensor, features: Tensor, rows: slice) -> Tensor:
    """Losses of some points by one encoder, by its number: (point, view, view).

    Args:
        inputs: their prepared views. features: what the encoder makes of them, (point x view, feature).
    """
    loss = job.loss
    assert loss is not None
    places = torch.arange(rows.start, rows.stop, device=features.device)
    labels = job.images.labels
    shown = Shown(
        module=job.encoders[number].module,
        inputs=inputs,
        features=features if features.dtype == torch.float64 else features.float(),
        points=job.images.ids[rows].to(features.device),
        views=job.views.count,
        seed=job.views.seed,
        labels=None if labels is None else labels[rows].to(features.device),
        references=job.references[number] if job.references else None,
        same=places[:, None] == loss.reference_rows.to(features.device) if job.references else None,
    )
    return loss.objectives[number].own_losses(shown)
