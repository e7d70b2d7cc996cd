"""The settings of a training run, flat: flags, TOML keys and Python arguments map onto them one to one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from memloc.errors import SpecError, nearest
from memloc.views import policy_named


@dataclass(frozen=True)
class TrainSpec:
    """How encoders are trained.

    Attributes:
        objective: "simclr".
        encoder: "resnet9" or "file.py:factory".
        epochs, batch_size: of every encoder; the batches of an epoch are of equal size.
        learning_rate, weight_decay: of AdamW.
        temperature: of the contrastive loss.
        warmup: share of the steps over which the learning rate rises; then it falls by a cosine.
        policy: augmentations in training.
        precision: "auto" (bfloat16 where the device has units for it), "bfloat16" or "float32".
        seed: of splits, initial weights, order and views.
        candidates, independents, shared: points per split; a tenth, a tenth and the rest by default.
        runs: independent pairs of f and g on the same splits.
        unpaired: give g other initial weights, order and views, as published.
        ensemble, fraction: train this many encoders on random parts of the points instead of a pair.
        plant, repeats: show this many candidates `repeats` times per epoch (and as many independents to g).
        checkpoint_every: epochs between checkpoints; 0 means twenty in all.
        workers: encoders trained at the same time; 0 means one per processor core, one on a GPU.
    """

    objective: str = "simclr"
    encoder: str = "resnet9"
    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    temperature: float = 0.5
    warmup: float = 0.1
    policy: str = "normal"
    precision: str = "auto"
    seed: int = 0
    candidates: int | None = None
    independents: int | None = None
    shared: int | None = None
    runs: int = 1
    unpaired: bool = False
    ensemble: int = 0
    fraction: float = 0.5
    plant: int = 0
    repeats: int = 1
    checkpoint_every: int = 0
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.objective != "simclr":
            raise SpecError(f"there is no objective {self.objective!r}. Expected 'simclr'. Pass --objective simclr.")
        for name in ("epochs", "batch_size", "runs", "repeats"):
            if getattr(self, name) < 1:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected at least 1. Pass --{name.replace('_', '-')} 1 or more."
                )
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected a number above 0. Pass another --{name.replace('_', '-')}."
                )
        policy_named(self.policy)
        if self.plant < 0 or (self.plant > 0) != (self.repeats > 1):
            raise SpecError(
                f"plant is {self.plant} and repeats {self.repeats}. Expected points to plant and how often to show them, at least "
                "twice, or neither. Pass for instance --plant 10 --repeats 8."
            )
        if self.batch_size < 4:
            raise SpecError(
                f"batch_size is {self.batch_size}. Expected at least 4, since other points are the negatives. Pass --batch-size 64."
            )
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise SpecError(
                f"there is no precision {self.precision!r}. Expected auto, bfloat16 or float32. Pass --precision auto."
            )
        if self.ensemble and (
            self.runs > 1 or self.unpaired or {self.candidates, self.independents, self.shared} != {None}
        ):
            raise SpecError(
                "an ensemble has no pairs, so runs, unpaired and sizes of splits do not apply. Expected one or the other. Leave --ensemble out."
            )
        if not 0 <= self.warmup < 1:
            raise SpecError(f"warmup is {self.warmup}. Expected a share from 0 to below 1. Pass --warmup 0.1.")


def make_spec(kind: type, settings: dict[str, Any]) -> Any:
    """A frozen settings dataclass from keyword settings; an unknown key is an error with the nearest match.

    >>> make_spec(TrainSpec, {"temprature": 3})
    Traceback (most recent call last):
    memloc.errors.SpecError: there is no setting 'temprature'. Nearest: 'temperature'. Expected a field of TrainSpec. Correct the key.
    """
    known = [field.name for field in fields(kind)]
    for key in settings:
        if key not in known:
            raise SpecError(
                f"there is no setting {key!r}. {nearest(key, known)} Expected a field of {kind.__name__}. Correct the key."
            )
    return kind(**settings)
