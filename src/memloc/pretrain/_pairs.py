"""Train f and its reference g, or an ensemble on random parts of the images, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memloc.pretrain._spec import Optimizer, Precision, Step, TrainSpec, spec_of
from memloc.progress import Report, silent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from memloc.encoders import Encoder
    from memloc.runs import Run


@dataclass(frozen=True)
class EncoderPair:
    """An encoder f, its reference g, and which split each image is in; lists where there are several runs."""

    f: Encoder | list[Encoder]
    g: Encoder | list[Encoder]
    splits: list[str] = field(repr=False)
    run: Run = field(repr=False)


@dataclass(frozen=True)
class Ensemble:
    """Encoders trained on random parts of the images, and which was trained on which."""

    encoders: list[Encoder]
    membership: Tensor = field(repr=False)  # bool, (encoder, point)
    run: Run = field(repr=False)


def train_pair(
    images: object,
    *,
    recipe: str = "small",
    objective: str = "simclr",
    encoder: str | nn.Module | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    temperature: float | None = None,
    local_crops: int | None = None,
    alignment_penalty: float | None = None,
    dp_epsilon: float | None = None,
    dp_delta: float | None = None,
    dp_clip: float | None = None,
    warmup: float | None = None,
    policy: str | None = None,
    precision: Precision | None = None,
    step: Step | None = None,
    candidates: int | None = None,
    independents: int | None = None,
    shared: int | None = None,
    held_out: float | None = None,
    runs: int | None = None,
    unpaired: bool | None = None,
    coin: bool | None = None,
    plant: int | None = None,
    repeats: int | None = None,
    checkpoint_every: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
) -> EncoderPair:
    """Train f on shared and candidate points, and its reference g on shared and independent points.

    Args:
        images: a dataset, uint8 images, or Images (see `as_images`). A tenth each become candidates, independents and
            held-out points, which are external; so are images that no split takes.
        recipe: "small", or "published" for the papers' settings, where no argument says otherwise.
        objective, encoder, epochs, ...: settings as in TrainSpec; None takes the recipe's, else TrainSpec's default.
            The encoder is "resnet9" by default ("vit-tiny" for mae), the epochs 200.
        out: folder to keep the run in and resume from; None trains in a temporary folder.
        progress: called with what is going on, epochs done and epochs in all.
        overwrite: replace the work of other settings in `out`.
    Returns:
        EncoderPair with .f, .g and .splits, one name per image.
    Raises:
        SpecError, DataError, ResultsError, OutputError before any training; NonFiniteError if it diverges.
    Source: REFERENCE A1 and A9 (paired training).

    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    >>> pair = train_pair(images, epochs=1, candidates=8, batch_size=32, workers=1)
    >>> pair.splits.count("candidate"), pair.f.name
    (8, 'f')
    """
    from memloc.pretrain._train import train

    spec = spec_of(recipe=recipe, **_settings(locals()))
    run = train(images, spec, encoder=encoder, out=out, progress=progress, overwrite=overwrite)
    f, g = run.side("f"), run.side("g")
    return EncoderPair(f[0] if len(f) == 1 else f, g[0] if len(g) == 1 else g, run.points["split"].tolist(), run)


def train_ensemble(
    images: object,
    *,
    k: int = 8,
    fraction: float = 0.5,
    recipe: str = "small",
    objective: str = "simclr",
    encoder: str | nn.Module | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    temperature: float | None = None,
    local_crops: int | None = None,
    alignment_penalty: float | None = None,
    dp_epsilon: float | None = None,
    dp_delta: float | None = None,
    dp_clip: float | None = None,
    warmup: float | None = None,
    policy: str | None = None,
    precision: Precision | None = None,
    step: Step | None = None,
    held_out: float | None = None,
    plant: int | None = None,
    repeats: int | None = None,
    checkpoint_every: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
) -> Ensemble:
    """Train k encoders, each on a random part of the images, every image in round(k x fraction) of them but for the
    held-out tenth, which is in none.

    Args and errors as in `train_pair`.

    Returns:
        Ensemble with .encoders and .membership, bool (encoder, point).
    Source: REFERENCE A9; Feldman and Zhang, NeurIPS 2020.

    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    >>> train_ensemble(images, k=2, epochs=1, workers=1).membership.sum(dim=1).tolist()
    [11, 11]
    """
    import torch

    from memloc.pretrain._train import train

    spec = spec_of(recipe=recipe, ensemble=k, **_settings(locals()))
    run = train(images, spec, encoder=encoder, out=out, progress=progress, overwrite=overwrite)
    return Ensemble(list(run.encoders.values()), torch.from_numpy(run.sees), run)


def _settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a function's arguments that are settings of a training."""
    names = {each.name for each in fields(TrainSpec)}
    return {name: value for name, value in arguments.items() if name in names}
