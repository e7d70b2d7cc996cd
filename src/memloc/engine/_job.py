"""What computing a shard needs: encoders, points, who was trained on what, views, options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from memloc.data import Images
from memloc.encoders import OUTPUT, Batches, Encoder, Layer
from memloc.engine._audit import Options
from memloc.engine._own_loss import OwnLoss
from memloc.streams import Stream, generator
from memloc.views import Views

Mode = Literal["pair", "alone", "ensemble"]


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
        loss: the row of the training loss, where there is one. references: what it compares with, by encoder.
        unit_views: those of UnitMem and ClassMem, where they are drawn apart.
        held_out: points that were drawn at random from the set that was trained on and kept out of it, bool (point,).
        chosen: points that no encoder saw because of what they are, bool (point,).
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
    loss: OwnLoss | None = None
    references: tuple[Tensor, ...] = ()
    unit_views: Views | None = None
    held_out: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    chosen: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def __post_init__(self) -> None:
        for name in ("held_out", "chosen"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, torch.zeros(len(self.images), dtype=torch.bool))

    @property
    def batch(self) -> int:
        """Points per batch."""
        assert self.options.batch_size is not None, "it was chosen when the job was prepared"
        return self.options.batch_size

    @cached_property
    def batches(self) -> Batches:
        """The points in batches, smaller ones once memory was used up."""
        return Batches(self.batch, "scoring points")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers read, in the order of the forward pass, those of the head and the loss after them."""
        return self.encoders[0].rows if self.loss is None else (*self.encoders[0].rows, self.loss.layer)

    @property
    def layers_with_units(self) -> tuple[Layer, ...]:
        """The layers read but the loss."""
        return self.encoders[0].rows

    @cached_property
    def output(self) -> int:
        """Place of the encoder's output among the layers."""
        return next(number for number, layer in enumerate(self.layers) if layer.kind == OUTPUT)

    @cached_property
    def never(self) -> Tensor:
        """Points that no encoder saw, bool (point,)."""
        return ~self.membership.any(dim=0)

    @contextmanager
    def repeatable(self) -> Iterator[None]:
        """The same bits again on a GPU, and float32 as on a processor, but for bfloat16."""
        cudnn = torch.backends.cudnn
        if self.device.type != "cuda" or self.options.dtype == "bfloat16":
            yield
            return
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
            yield

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
            drawn = generator(Stream.CHANCE_MEMBERSHIP, self.options.seed).choice(varying, int(constant.sum()))
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
