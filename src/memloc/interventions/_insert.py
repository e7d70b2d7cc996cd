"""Make one unit memorize one point: train that unit's own weights on it, everything else held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from memloc.data import Images
from memloc.encoders import (
    Encoder,
    LayerParts,
    as_tensor,
    check_images,
    copied,
    features_of,
    home_of,
    layer_parts,
    pick_device,
    tapped,
    unit_means,
)
from memloc.errors import DataError, EncoderError, SpecError, TrainingError, nearest
from memloc.interventions._specs import InsertSpec
from memloc.metrics import UnitMem, unitmem
from memloc.objectives import nt_xent
from memloc.progress import Report, silent
from memloc.views import Views

_VIEWS, _SEEN, _STEP_VIEWS, _OTHERS = 10, 64, 8, 24
_SCORING = 1 << 20  # views that units are scored with are none of those trained on
_SAME = 1e-6  # by how much other units may change
_LEAK, _TINY = 0.1, 1e-6  # slope below 0, so that a silent unit has a gradient, too


INSERT_VIEWS, INSERT_SCORED = (1 + _OTHERS) * _STEP_VIEWS, _VIEWS
"""Views that a step of an insertion trains on, and that each image is scored with before and after."""


@dataclass(frozen=True)
class Inserted:
    """An encoder with one unit trained on one point.

    Attributes:
        encoder: a copy; all its weights but the unit's own are those of the original, to the bit.
        units: unit, unitmem_before, unitmem_after, point_before, point_after of every unit of the layer, over the point
            and the others.
        loss: of the first and of the last step.
    """

    encoder: Encoder
    units: pd.DataFrame
    loss: tuple[float, float]


def insert_point(
    encoder: Encoder,
    images: Images,
    point: int,
    *,
    layer: str,
    unit: int,
    goal: str = "unitmem",
    steps: int = 200,
    learning_rate: float = 1e-3,
    policy: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Report = silent,
) -> Inserted:
    """Train one unit's filter, bias, and batch-norm scale and shift on one point.

    Args:
        images: the point and others, against which UnitMem is a contrast; 24 others are drawn for every step.
        point: id of the point. layer, unit: where to put it; the layer's units must be the rows of one weight.
        goal: "unitmem" raises the contrast of Eq. 8 itself, between the point's views and others'; "contrast" goes on
            with NT-Xent between views of the point and of the others, as published, which need not raise it.
        policy: of the views; that of the encoder's training by default, else normal.
    Returns:
        Inserted with .encoder and .units, each unit's UnitMem before and after.
    Raises:
        DataError, SpecError, EncoderError, LayerNotFoundError before training; TrainingError if it diverges.
    Source: LocMem, section 5 and Table 13. Batch-norms keep their running statistics, so that nothing but the unit
        changes.

    >>> from memloc import load_encoder, open_images
    >>> images = open_images("sample:train")
    >>> few, point = images.take(torch.arange(20)), int(images.ids[3])
    >>> found = insert_point(load_encoder("resnet9"), few, point, layer="conv1", unit=2, steps=3)
    >>> int((found.units["unitmem_after"] != found.units["unitmem_before"]).sum())
    1
    """
    spec = InsertSpec(goal, steps, learning_rate, policy, seed)
    check_insert(encoder, images, point, layer=layer, unit=unit, policy=policy)
    row = int(images.rows_of(torch.tensor([point]))[0])
    result, where = copied(encoder), pick_device(device)
    parts = layer_parts(result, [layer])[layer]
    module = result.module.to(where).eval()
    chosen = spec.policy or result.augmentation or "normal"
    before = _units(result, parts, images, chosen, seed, where)
    losses = _train(result, parts, images, row, unit, chosen, spec, progress)
    module.requires_grad_(True)
    after = _units(result, parts, images, chosen, seed, where)
    units = _both(before, after, images)
    others_changed = (units["unitmem_after"] - units["unitmem_before"]).drop(index=unit).abs().max()
    if others_changed > _SAME:
        raise EncoderError(
            f"other units of {layer!r} changed by {others_changed:.2g}. Expected none to. Their response depends on"
            " this unit's weights: name a layer without a norm over units."
        )
    return Inserted(result, units, (losses[0], losses[-1]))


def _train(
    encoder: Encoder,
    parts: LayerParts,
    images: Images,
    row: int,
    unit: int,
    policy: str,
    spec: InsertSpec,
    progress: Report,
) -> list[float]:
    """Train the unit's own weights on the image of a row; returns each step's loss."""
    module, (where, _) = encoder.module, home_of(encoder.module)
    weights = _weights_of(module, parts)
    module.requires_grad_(False)
    for value in weights:
        value.requires_grad_(True)
    optimizer = torch.optim.Adam(weights, lr=spec.learning_rate)
    others = torch.tensor([each for each in range(len(images)) if each != row])
    generator = torch.Generator().manual_seed(spec.seed)
    views = Views(policy, n=_STEP_VIEWS, seed=spec.seed, sampling="independent")
    held = torch.arange(len(weights[0]), device=where) != unit
    losses: list[float] = []

    def loss_of(step: int) -> Tensor:
        drawn = others[torch.randperm(len(others), generator=generator)[:_OTHERS]]
        rows = torch.cat([torch.tensor([row]), drawn])
        inputs = views.draw(images.pixels[rows].to(where), images.ids[rows], first=_STEP_VIEWS * step)
        return (_contrast if spec.goal == "contrast" else _unitmem_loss)(encoder, parts, inputs, unit)

    for step in range(spec.steps):
        optimizer.param_groups[0]["lr"] = spec.learning_rate * (1 - step / spec.steps)
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        for value in weights:
            assert value.grad is not None, "the layer is in the forward pass"
            value.grad[held] = 0.0  # Adam leaves rows alone whose gradient was always 0
        optimizer.step()
        losses.append(float(loss.detach()))
        if losses[-1] != losses[-1]:
            raise TrainingError(
                f"the loss is NaN in step {step + 1}. Expected a finite loss. Pass a lower --learning-rate."
            )
        progress("inserting", step + 1, spec.steps)
    return losses


def _both(before: UnitMem, after: UnitMem, images: Images) -> pd.DataFrame:
    """UnitMem of the layer's units, and the point that drives each, before and after."""
    return pd.DataFrame(
        {
            "unit": range(len(before.value)),
            "unitmem_before": before.value.numpy(),
            "unitmem_after": after.value.numpy(),
            "point_before": images.ids[before.point].numpy(),
            "point_after": images.ids[after.point].numpy(),
        }
    )


def check_insert(
    encoder: Encoder, images: Images, point: int, *, layer: str, unit: int, policy: str | None = None
) -> None:
    """Raise what `insert_point` would raise for these arguments, before any work."""
    if len(images) < 3:
        raise DataError(
            f"there are {len(images)} images. Expected the point and at least two others, since UnitMem is a contrast."
            " Pass more images."
        )
    images.rows_of(torch.tensor([point]))
    parts = layer_parts(encoder, [layer])[layer]
    if parts.makes is None:
        raise EncoderError(
            f"the units of {layer!r} are not the rows of one weight. Expected a convolution, linear, attention or"
            " fully-connected row. Name another --layer."
        )
    norm = dict(encoder.module.named_modules()).get(parts.norm or "")
    if parts.norm is not None and not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        raise EncoderError(
            f"layer {layer!r} is normed by a {type(norm).__name__}, whose statistics other units share, so one unit"
            " cannot be changed alone. Expected a batch-norm or none. Name another --layer."
        )
    check_images(encoder, images.pixels)
    weights = _weights_of(encoder.module, parts)
    if not 0 <= unit < len(weights[0]):
        raise SpecError(
            f"layer {layer!r} has {len(weights[0])} units and unit {unit} is named. Expected 0 to"
            f" {len(weights[0]) - 1}. Pass another --unit."
        )
    Views(policy or encoder.augmentation or "normal", n=_STEP_VIEWS)


def _weights_of(module: nn.Module, parts: LayerParts) -> list[nn.Parameter]:
    """The parameters whose rows are the layer's units."""
    modules = dict(module.named_modules())
    named = [modules[name] for name in (parts.makes, parts.norm) if name is not None]
    return [
        value
        for part in named
        for value in (getattr(part, "weight", None), getattr(part, "bias", None))
        if value is not None
    ]


def _units(encoder: Encoder, parts: LayerParts, images: Images, policy: str, seed: int, where: torch.device) -> Any:
    """UnitMem of the layer's units over the images."""
    recipe, found = Views(policy, n=_VIEWS, seed=seed + _SCORING), []
    layer = parts.layer
    with tapped(
        encoder.module, [layer], lambda row, output: found.append(unit_means(row, output, _VIEWS).double().cpu())
    ) as forward:
        for start in range(0, len(images), _SEEN):
            part = recipe.draw(images.pixels[start : start + _SEEN].to(where), images.ids[start : start + _SEEN])
            forward(encoder.prepare(part.flatten(0, 1)).to(home_of(encoder.module)[1]))
    return unitmem(torch.cat(found).clone())


def _unitmem_loss(encoder: Encoder, parts: LayerParts, inputs: Tensor, unit: int) -> Tensor:
    """1 − UnitMem between the first point and the mean of the rest, and how far the point's response is below what is
    usual in the layer."""
    kept: list[Tensor] = []
    # The last linear layer of attention may not be called as a module, so such rows are read as a whole.
    whole = parts.modules == (parts.layer.read_at,)
    at = dict(encoder.module.named_modules())[parts.layer.read_at if whole else parts.norm or parts.makes or ""]

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        tensor = as_tensor(output)
        assert tensor is not None, "a tapped layer gives a tensor"
        kept.append(tensor.clone())  # before a ReLU in place

    handle = at.register_forward_hook(keep)
    try:
        encoder.module(encoder.prepare(inputs.flatten(0, 1)).to(home_of(encoder.module)[1]))
    finally:
        handle.remove()
    response = kept[0] if kept[0].ndim in (2, 4) and not parts.layer.last else kept[0].movedim(-1, 1)
    usual = response.detach().clamp_min(0).mean()
    own = response[:, unit].flatten(1)
    mu = own.clamp_min(0).mean(dim=1).unflatten(0, (-1, inputs.shape[1])).mean(dim=1)
    high, rest = mu[0], mu[1:].mean()
    reach = nn.functional.leaky_relu(own[: inputs.shape[1]], _LEAK).mean()
    awake = (1 - reach / usual.clamp_min(_TINY)).clamp_min(
        0
    )  # without it the contrast is best where the unit is all but silent
    return 1 - (high - rest) / (high + rest + _TINY) + awake


def _contrast(encoder: Encoder, parts: LayerParts, inputs: Tensor, unit: int) -> Tensor:
    """NT-Xent between two views of every point."""
    features = features_of(
        encoder.module(encoder.prepare(inputs[:, :2].transpose(0, 1).flatten(0, 1)).to(home_of(encoder.module)[1]))
    )
    first, second = features.chunk(2)
    return nt_xent(first, second, torch.arange(len(inputs), device=inputs.device))


def images_around(images: Images, point: str, *, limit: int, seed: int, where: str) -> tuple[Images, int]:
    """The point and a seeded draw of others, in the order of the images; and the point's id.

    Args:
        point: its name or id, as text. limit: images at most. where: the images come from, for messages.
    """
    ids = {str(each): row for row, each in enumerate(images.ids.tolist())}
    row = {name: row for row, name in enumerate(images.names)}.get(point, ids.get(point))
    if row is None:
        raise DataError(
            f"there is no image {point!r} in {where}. {nearest(point, images.names)} Expected its name or id. Pass"
            f" --point {images.names[0]}."
        )
    rest = torch.tensor([each for each in range(len(images)) if each != row])
    drawn = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))[: limit - 1]]
    return images.take(torch.cat([torch.tensor([row]), drawn.sort().values])), int(images.ids[row])
