"""Arguments of an audit to a job: encoders are loaded and everything is checked before it starts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from memloc.data import as_images
from memloc.encoders import Encoder, load_encoder, pick_device, with_head
from memloc.engine._audit import Options
from memloc.engine._job import Job
from memloc.engine._naming import check_decoys
from memloc.engine._plan import plan_job
from memloc.errors import SpecError
from memloc.settings import make_spec
from memloc.views import AUTO_COUNTS, Views, check_colour, policy_named

_VIEW_PIXELS = 512 * 32 * 32  # pixels of views per batch on a processor; eight times as many on a GPU


def prepare(
    f: Any = None,
    g: Any = None,
    *,
    images: object,
    points: Any = None,
    splits: Sequence[str] | None = None,
    labels: Any = None,
    encoders: Any = None,
    membership: Any = None,
    held_out: Sequence[bool] | None = None,
    chosen: Sequence[bool] | None = None,
    f_head: Any = None,
    g_head: Any = None,
    layers: str | Sequence[str] = "auto",
    mean: Any = None,
    std: Any = None,
    output: str = "auto",
    views: Views,
    unit_views: Views | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    paired: bool = False,
    earlier: bool = False,
    **options: Any,
) -> Job:
    """Everything that is checked before an audit starts; arguments as in `audit`.

    Args:
        held_out: which points were drawn at random from the set that was trained on and kept out of it.
        chosen: points that no encoder saw because of what they are, which candidates are not compared with.
    """
    settings: Options = make_spec(Options, {"batch_size": batch_size, "dtype": dtype, "seed": seed, **options})
    known = as_images(images, points=points, labels=labels)
    if len(known) < 2:
        raise SpecError(f"there is {len(known)} image. Expected at least two points. Pass more images.")
    if views.n != "auto" and views.count < 2:
        raise SpecError(f"n is {views.n} view. Expected at least 2, whose distance is the alignment. Pass --views 16.")
    for recipe in (views, *([] if unit_views is None else [unit_views])):
        check_colour(policy_named(recipe.policy), known.pixels.shape[1])
    shape = (known.pixels.shape[1], *views.view_size(*known.pixels.shape[2:]))
    if (f is None) == (encoders is None):
        raise SpecError(
            "expected either f (with or without g) or encoders with membership. Pass f=ENCODER, or encoders=[...] and"
            " membership=."
        )
    if encoders is not None and g is not None:
        raise SpecError("g goes with f, not with encoders. Expected one or the other. Leave g out.")
    how = {"layers": layers, "shape": shape, "mean": mean, "std": std, "output": output}
    loaded = [[load_encoder(each, **how) for each in _listed(side)] for side in (f, g, encoders)]
    loaded[0], loaded[1] = (
        _with_heads(side, heads, name) for side, heads, name in zip(loaded, (f_head, g_head), "fg", strict=False)
    )
    wanted = torch.float64 if dtype == "float64" else torch.float32
    loaded = [[_of_dtype(encoder, wanted) for encoder in side] for side in loaded]
    target = pick_device(device)
    views_count = max(AUTO_COUNTS) if views.n == "auto" else views.count
    budget = _VIEW_PIXELS * (8 if target.type == "cuda" else 1)
    if batch_size is None:
        settings = replace(settings, batch_size=max(1, min(256, budget // (views_count * shape[1] * shape[2]))))
    seen = None if membership is None else torch.as_tensor(membership)
    if views.n == "auto" and g is None and encoders is None:
        raise SpecError(
            "views are 'auto' for one encoder without a reference. Expected a number, since points then have no score"
            " to be reliable. Pass --views 16."
        )
    job = plan_job(
        *loaded,
        paired=paired,
        earlier=earlier,
        images=known,
        splits=splits,
        membership=seen,
        views=views,
        unit_views=unit_views,
        held_out=held_out,
        chosen=chosen,
        options=settings,
        device=target,
    )
    check_decoys(job)
    return job


def _with_heads(encoders: list[Encoder], heads: Any, name: str) -> list[Encoder]:
    """The encoders of a side with the heads given for them."""
    if heads is None:
        return encoders
    given = _listed(heads)
    if len(given) != len(encoders):
        raise SpecError(
            f"there are {len(given)} heads for {len(encoders)} encoders of {name}. Expected one for each. Pass"
            f" {name}_head (--{name}-head) as often as {name}."
        )
    return [with_head(encoder, head) for encoder, head in zip(encoders, given, strict=True)]


def _of_dtype(encoder: Encoder, dtype: torch.dtype) -> Encoder:
    """The encoder with parameters of a type; a copy where they are of another, so that the user's module stays as it
    is."""
    parameter = next(encoder.module.parameters(), None)
    if parameter is None or parameter.dtype == dtype:
        return encoder
    copies: dict[int, Any] = {}  # parts of one in another stay so
    module, head, objective = (
        None if part is None else copy.deepcopy(part, copies).to(dtype)
        for part in (encoder.module, None if encoder.head is None else encoder.head.module, encoder.objective)
    )
    assert module is not None
    kept = None if encoder.head is None or head is None else replace(encoder.head, module=head)
    return replace(encoder, module=module, head=kept, objective=objective)


def _listed(side: Any) -> list[Any]:
    return [] if side is None else list(side) if isinstance(side, (list, tuple)) else [side]
