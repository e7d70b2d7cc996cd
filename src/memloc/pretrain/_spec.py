"""The settings of a training run, flat: flags, TOML keys and Python arguments map onto them one to one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from memloc.errors import SpecError, nearest
from memloc.views import policy_named

OBJECTIVE_NAMES = ("simclr", "simsiam", "vicreg", "dino", "mae", "supervised")


@dataclass(frozen=True)
class TrainSpec:
    """How encoders are trained.

    Attributes:
        objective: "simclr", "simsiam", "vicreg", "dino", "mae" or "supervised".
        encoder: a name that `load_encoder` takes, but a file of weights; its weights are drawn anew.
        epochs, batch_size: of every encoder; the batches of an epoch are of equal size.
        optimizer: "adamw", "sgd" or "lars" (both with momentum .9). learning_rate, weight_decay: of it.
        temperature: of the contrastive loss. local_crops: further small crops per point for DINO's student.
        alignment_penalty: weight of the distance between two views' features in the loss (SSLMem Eq. 3).
        warmup: share of the steps over which the learning rate rises; then it falls by a cosine.
        policy: augmentations in training.
        precision: "auto" (bfloat16 where the device has units for it), "bfloat16" or "float32".
        seed: of splits, initial weights, order and views.
        candidates, independents, shared: points per split; a tenth, a tenth and the rest by default.
        runs: independent pairs of f and g on the same splits.
        unpaired: give g other initial weights, order and views, as published.
        ensemble, fraction: train this many encoders on random parts of the points instead of a pair.
        plant, repeats: show this many candidates `repeats` times per epoch (and as many independents to g).
        dp_epsilon, dp_delta, dp_clip: train with differential privacy (mae alone): the budget, its δ (by default half
            of one over the number of points), and the norm that each point's gradient is clipped to.
        checkpoint_every: epochs between checkpoints; 0 means twenty in all.
        workers: encoders trained at the same time; 0 means one per processor core, one on a GPU.
    """

    objective: str = "simclr"
    encoder: str = "resnet9"
    epochs: int = 200
    batch_size: int = 256
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    temperature: float = 0.5
    local_crops: int = 0
    alignment_penalty: float = 0.0
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
    dp_epsilon: float | None = None
    dp_delta: float | None = None
    dp_clip: float = 1.0
    checkpoint_every: int = 0
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, known in (("objective", OBJECTIVE_NAMES), ("optimizer", ("adamw", "sgd", "lars"))):
            if getattr(self, name) not in known:
                raise SpecError(
                    f"there is no {name} {getattr(self, name)!r}. {nearest(getattr(self, name), known)} Expected one of"
                    f" {', '.join(known)}. Pass --{name} {known[0]}."
                )
        for name in ("weight_decay", "alignment_penalty", "local_crops"):
            if not getattr(self, name) >= 0:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected 0 or more. Pass --{name.replace('_', '-')} 0."
                )
        for name, usual, holds, where in (
            ("temperature", 0.5, self.objective == "simclr", "simclr alone"),
            ("dp_clip", 1.0, self.dp_epsilon is not None, "private training, with --dp-epsilon"),
            ("fraction", 0.5, self.ensemble > 0, "an ensemble, with --ensemble"),
        ):
            if getattr(self, name) != usual and not holds:
                raise SpecError(
                    f"{name} is {getattr(self, name)} and would do nothing. Expected it for {where}. Leave"
                    f" --{name.replace('_', '-')} out."
                )
        if self.local_crops and self.objective != "dino":
            raise SpecError(
                f"local_crops is {self.local_crops} for {self.objective}. Expected it for dino alone. Leave"
                " --local-crops out."
            )
        self._check_privacy()
        for name in ("epochs", "batch_size", "runs", "repeats"):
            if getattr(self, name) < 1:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected at least 1. Pass --{name.replace('_', '-')} 1 or more."
                )
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise SpecError(
                    f"{name} is {getattr(self, name)}. Expected a number above 0. Pass another"
                    f" --{name.replace('_', '-')}."
                )
        policy_named(self.policy)
        if self.plant < 0 or (self.plant > 0) != (self.repeats > 1):
            raise SpecError(
                f"plant is {self.plant} and repeats {self.repeats}. Expected points to plant and how often to show"
                " them, at least twice, or neither. Pass for instance --plant 10 --repeats 8."
            )
        if self.batch_size < 4:
            raise SpecError(
                f"batch_size is {self.batch_size}. Expected at least 4, since other points are the negatives. Pass"
                " --batch-size 64."
            )
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise SpecError(
                f"there is no precision {self.precision!r}. Expected auto, bfloat16 or float32. Pass --precision auto."
            )
        if self.ensemble and (
            self.runs > 1 or self.unpaired or {self.candidates, self.independents, self.shared} != {None}
        ):
            raise SpecError(
                "an ensemble has no pairs, so runs, unpaired and sizes of splits do not apply. Expected one or the"
                " other. Leave --ensemble out."
            )
        if not 0 <= self.warmup < 1:
            raise SpecError(f"warmup is {self.warmup}. Expected a share from 0 to below 1. Pass --warmup 0.1.")

    def _check_privacy(self) -> None:
        """Raise SpecError where a privacy budget would be false or cannot be kept."""
        if self.dp_epsilon is None:
            if self.dp_delta is not None:
                raise SpecError("dp_delta is given without dp_epsilon. Expected both. Pass --dp-epsilon 8.")
            return
        if self.objective != "mae":
            why = (
                "its loss compares the points of a batch with each other, so clipping each point's gradient does not"
                " bound what a point changes, and the ε would be false"
                if self.objective != "supervised"
                else "its encoders have batch-norms, which mix the points of a batch"
            )
            raise SpecError(
                f"dp_epsilon is set for {self.objective}: {why}. Expected mae, a sum over points. Pass --objective mae."
            )
        if not self.dp_epsilon > 0 or not self.dp_clip > 0 or not (self.dp_delta is None or 0 < self.dp_delta < 1):
            raise SpecError(
                f"dp_epsilon is {self.dp_epsilon}, dp_delta {self.dp_delta}, dp_clip {self.dp_clip}. Expected ε and the"
                " norm above 0, δ between 0 and 1. Pass for instance --dp-epsilon 8 --dp-delta 1e-5 --dp-clip 1."
            )
        if self.precision == "bfloat16":
            raise SpecError(
                "dp_epsilon is set with precision bfloat16. Expected float32, in which gradients are clipped one by"
                " one. Leave --precision out."
            )
        if self.plant or self.alignment_penalty:
            raise SpecError(
                "dp_epsilon is set with plant or alignment_penalty. Expected neither: ε counts each point once and a"
                " loss that is a sum over points. Leave --plant and --alignment-penalty out."
            )


def make_spec(kind: type, settings: dict[str, Any]) -> Any:
    """A frozen settings dataclass from keyword settings; an unknown key is an error with the nearest match.

    >>> make_spec(TrainSpec, {"temprature": 3})
    Traceback (most recent call last):
    memloc.errors.SpecError: there is no setting 'temprature'. Nearest: 'temperature'. Expected a field of TrainSpec.
    Correct the key.
    """
    known = [field.name for field in fields(kind)]
    for key in settings:
        if key not in known:
            raise SpecError(
                f"there is no setting {key!r}. {nearest(key, known)} Expected a field of {kind.__name__}. Correct the"
                " key."
            )
    return kind(**settings)
