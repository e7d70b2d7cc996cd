"""The settings of a training run, flat: flags, TOML keys and Python arguments map onto them one to one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from memloc.encoders import ARCHITECTURES
from memloc.errors import SpecError
from memloc.objectives import OBJECTIVES, objective_named
from memloc.objectives import recipe as recipe_named
from memloc.settings import SEEDS, check_limits, documented, flag_of, make_spec, setting
from memloc.views import policy_named

Optimizer = Literal["adamw", "sgd", "lars"]
Precision = Literal["auto", "bfloat16", "float32"]
Step = Literal["auto", "graph", "loop"]


LATER: dict[str, Any] = {
    "coin": False,
    "step": "auto",
}  # settings since 0.2 that, at these values, change nothing: runs go on without


@documented
@dataclass(frozen=True)
class TrainSpec:
    """How encoders are trained."""

    objective: str = setting("simclr", "What is minimized.", choices=OBJECTIVES)
    encoder: str = setting("resnet9", f"{ARCHITECTURES}; its weights are drawn anew; vit-tiny by default for mae.")
    epochs: int = setting(200, "Of every encoder.", low=1)
    batch_size: int = setting(256, "Largest batch; batches of an epoch are of equal size.", low=1)
    optimizer: Optimizer = setting("adamw", "sgd and lars have momentum .9.", choices=("adamw", "sgd", "lars"))
    learning_rate: float = setting(1e-3, "At its highest.", above=0)
    weight_decay: float = setting(1e-4, "Of the optimizer.", low=0)
    temperature: float = setting(0.5, "Of the contrastive loss.", above=0)
    local_crops: int = setting(0, "Further small crops per point for dino's student.", low=0)
    alignment_penalty: float = setting(
        0.0, "Weight of the distance between two views in the loss, which limits memorization (SSLMem Eq. 3).", low=0
    )
    dp_epsilon: float | None = setting(None, "Train mae with differential privacy: the budget, such as 8.", above=0)
    dp_delta: float | None = setting(
        None, "Of the budget; half of one over the number of points by default.", above=0, below=1
    )
    dp_clip: float = setting(1.0, "Norm that each point's gradient is clipped to in private training.", above=0)
    warmup: float = setting(0.1, "Share of steps with a rising learning rate, before the cosine.", low=0, below=1)
    policy: str = setting("normal", "Augmentations: weak, normal, strong, independent, crop (for mae).")
    precision: Precision = setting(
        "auto",
        "auto is bfloat16 where the device has units for it.",
        choices=("auto", "bfloat16", "float32"),
    )
    step: Step = setting(
        "auto",
        "auto is one graph per step on a GPU and the plain loop elsewhere; graph on a processor takes the graph's steps"
        " one by one.",
        choices=("auto", "graph", "loop"),
    )
    candidates: int | None = setting(None, "Points that only f sees; a tenth of the images by default.")
    independents: int | None = setting(None, "Points that only g sees; as many as candidates by default.")
    shared: int | None = setting(None, "Points that both see; the rest by default.")
    held_out: float = setting(
        0.1, "Share of the images that no encoder sees, for comparison; near-duplicates stay together.", low=0, below=1
    )
    runs: int = setting(1, "Pairs of f and g on the same splits.", low=1)
    unpaired: bool = setting(False, "Other initial weights, order and views for g, as published; paired by default.")
    coin: bool = setting(
        False,
        "Fair coins decide which of two points f sees, and g the other: an audit then bounds this training's epsilon"
        " from below.",
    )
    ensemble: int = setting(0, "Train this many encoders on random parts instead of a pair.")
    fraction: float = setting(0.5, "Share of the points in each encoder of an ensemble.")
    plant: int = setting(0, "Candidates to show --repeats times per epoch (and as many independents to g).")
    repeats: int = setting(1, "How often planted candidates are shown.", low=1)
    checkpoint_every: int = setting(0, "Epochs between checkpoints; 0: twenty in all.")
    workers: int = setting(0, "Encoders trained at once; 0: one per core, as many as fit on a GPU.")
    seed: int = setting(0, "Of splits, initial weights, order and views.", low=0, high=SEEDS)
    device: str = setting("auto", "auto, cpu or cuda.")

    def __post_init__(self) -> None:
        check_limits(self)
        policy_named(self.policy)
        self._check_idle()
        self._check_privacy()
        self._check_batches()

    @property
    def scored_with(self) -> str:
        """The policy of views that the encoders are scored with."""
        return objective_named(self.objective).scored_with(self.policy)

    def _check_idle(self) -> None:
        """Raise SpecError for a setting that would do nothing."""
        for owner in OBJECTIVES:
            for name in objective_named(owner).own_settings:
                if getattr(self, name) != _usual(name) and name not in objective_named(self.objective).own_settings:
                    raise SpecError(
                        f"{name} is {getattr(self, name)} for {self.objective} and would do nothing. Expected it for"
                        f" {owner} alone. Leave {flag_of(name)} out."
                    )
        for name, holds, where in (
            ("dp_clip", self.dp_epsilon is not None, "private training, with --dp-epsilon"),
            ("fraction", self.ensemble > 0, "an ensemble, with --ensemble"),
        ):
            if getattr(self, name) != _usual(name) and not holds:
                raise SpecError(
                    f"{name} is {getattr(self, name)} and would do nothing. Expected it for {where}. Leave"
                    f" {flag_of(name)} out."
                )

    def _check_batches(self) -> None:
        """Raise SpecError where points cannot be shown as asked."""
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
        if self.ensemble and self.coin:
            raise SpecError(
                "coin is set with ensemble. Expected one or the other: coins decide which of two points f sees, and an"
                " ensemble has no f. Leave --coin or --ensemble out."
            )
        if self.ensemble and (
            self.runs > 1 or self.unpaired or {self.candidates, self.independents, self.shared} != {None}
        ):
            raise SpecError(
                "an ensemble has no pairs, so runs, unpaired and sizes of splits do not apply. Expected one or the"
                " other. Leave --ensemble out."
            )

    def _check_privacy(self) -> None:
        """Raise SpecError where a privacy budget would be false or cannot be kept."""
        if self.dp_epsilon is None:
            if self.dp_delta is not None:
                raise SpecError("dp_delta is given without dp_epsilon. Expected both. Pass --dp-epsilon 8.")
            return
        why = objective_named(self.objective).not_private
        if why:
            raise SpecError(
                f"dp_epsilon is set for {self.objective}: {why}. Expected mae, a sum over points. Pass --objective mae."
            )
        if self.precision == "bfloat16":
            raise SpecError(
                "dp_epsilon is set with precision bfloat16. Expected float32, in which gradients are clipped one by"
                " one. Leave --precision out."
            )
        if self.step == "graph":
            raise SpecError(
                "dp_epsilon is set with step graph. Expected the plain loop, in which gradients are clipped one by one."
                " Leave --step out."
            )
        if self.plant or self.alignment_penalty:
            raise SpecError(
                "dp_epsilon is set with plant or alignment_penalty. Expected neither: ε counts each point once and a"
                " loss that is a sum over points. Leave --plant and --alignment-penalty out."
            )


def spec_of(*, recipe: str = "small", **settings: Any) -> TrainSpec:
    """A TrainSpec from a recipe and the settings that are not None; a module stands in the spec by its class name.

    >>> spec_of(recipe="published", objective="simsiam", epochs=3).epochs
    3
    """
    given = {key: value for key, value in settings.items() if value is not None}
    whole = {**recipe_named(recipe, given.get("objective", _usual("objective"))), **given}
    if given.get("ensemble"):
        whole["unpaired"] = given.get("unpaired", False)  # ensembles have no pairs, whatever the recipe says
    if not isinstance(whole.get("encoder", ""), str):
        whole["encoder"] = type(whole["encoder"]).__name__
    spec: TrainSpec = make_spec(TrainSpec, whole)
    return spec


def _usual(name: str) -> Any:
    return next(each.default for each in fields(TrainSpec) if each.name == name)
