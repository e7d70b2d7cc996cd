"""One encoder of a run, trained from its checkpoint if there is one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from memloc.data import LazyPixels, concatenate, open_images
from memloc.encoders import RANDOM, check_finite, is_out_of_memory, load_encoder, pick_device, save_weights
from memloc.errors import MemoryUsedUpError, ResultsError
from memloc.pretrain._distributed import join, rank, wait
from memloc.pretrain._loop import steps_of
from memloc.pretrain._plan import Plan, labels_of, slots
from memloc.pretrain._spec import LATER, TrainSpec
from memloc.progress import Report, silent
from memloc.results import read_json, read_table, seal_holds

_ANY = 1 << 60
_PAIR_SEED, _UNPAIRED = 1_000, 500  # seeds of runs lie apart, and those of an unpaired g apart from f's


def train_one(folder: Path, name: str, *, encoder: nn.Module | None = None, progress: Report = silent) -> None:
    """Train one encoder of a run folder, from its checkpoint if there is one, and write its weights."""
    with torch.random.fork_rng():
        for _ in encoder_steps(folder, name, encoder=encoder, progress=progress):
            pass


def encoder_steps(
    folder: Path, name: str, *, encoder: nn.Module | None = None, progress: Report = silent
) -> Iterator[None]:
    """`train_one`, one step at a time, so that several encoders can take turns; it uses the current generators."""
    stored = {"held_out": 0.0, **LATER, **read_json(folder / "spec.json")}  # begun before points were held out
    spec = TrainSpec(**{key: stored[key] for key in TrainSpec.__dataclass_fields__})
    plan = Plan(read_table(folder / "points.parquet"), read_table(folder / "membership.parquet"))
    work = read_json(folder / ".work/preprocess.json")
    pixels = _pixels_of(folder, stored)
    rows, points = slots(plan, name)
    seed, shape = seed_of(spec, name), (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = (
            _reinitialized(encoder)
            if encoder is not None
            else load_encoder(spec.encoder, weights=RANDOM, shape=shape).module
        )
    prepared = load_encoder(module, mean=work["mean"], std=work["std"], shape=shape)
    labels, classes = labels_of(plan, spec, rows)
    join(pick_device(spec.device))

    def log(line: dict[str, Any]) -> None:
        if rank():
            return
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"encoder": name, **line}) + "\n")
        progress(f"training {name}", line["epoch"], spec.epochs)

    with _room_for(name, spec):
        head = yield from steps_of(
            prepared,
            _rows_of(pixels, rows),
            points,
            spec,
            seed=seed,
            device=pick_device(spec.device),
            checkpoint=folder / f"checkpoints/{name}.pt",
            log=log,
            labels=labels,
            classes=classes,
        )
    wait()
    check_finite(module, name=name)
    if rank():
        return
    metadata = {
        "encoder": spec.encoder,
        "objective": spec.objective,
        "shape": " ".join(map(str, shape)),
        "mean": " ".join(map(repr, work["mean"])),
        "std": " ".join(map(repr, work["std"])),
        "augmentation": spec.scored_with,
        "format": "memloc",
    }
    save_weights(folder / f"heads/{name}.safetensors", head, {"format": "memloc"})
    save_weights(folder / f"encoders/{name}.safetensors", module, metadata)


@contextmanager
def _room_for(name: str, spec: TrainSpec) -> Iterator[None]:
    """Turn the allocators' errors into one of memloc's; smaller batches would be another training."""
    try:
        yield
    except Exception as problem:
        if not is_out_of_memory(problem):
            raise
        raise MemoryUsedUpError(
            f"memory is used up while training {name} with batches of {spec.batch_size}. Expected room for one. Pass a"
            " smaller --batch-size, which is another training, a smaller --size, or --workers 1."
        ) from problem


def _pixels_of(folder: Path, stored: dict[str, Any]) -> Any:
    """Pixels of a run's images: the array that the run keeps while it lasts, or the files that do not fit in memory."""
    stored_pixels = folder / ".work/pixels.npy"
    if stored_pixels.is_file():
        if not seal_holds(stored_pixels):
            raise ResultsError(
                f"{str(stored_pixels)!r} is damaged. Expected the images of the training. Repeat the command: they are"
                " written again."
            )
        return np.load(folder / ".work/pixels.npy", mmap_mode="r")
    images = open_images(stored["data"], size=stored["size"], max_bad=_ANY)  # how many may be bad was settled before
    if stored["has_external"]:
        images = concatenate(images, open_images(stored["external"], size=stored["size"], max_bad=_ANY))
    return images.pixels


def _rows_of(pixels: Any, rows: Tensor) -> Tensor:
    """Some rows of the images: in memory, or still unread."""
    return cast(Tensor, pixels.take(rows)) if isinstance(pixels, LazyPixels) else torch.from_numpy(pixels[rows.numpy()])


def seed_of(spec: TrainSpec, name: str) -> int:
    """Pairs share a seed unless unpaired; encoders of an ensemble, whose names differ in their number, do not."""
    return spec.seed * _PAIR_SEED + int(name[1:] or 0) + (_UNPAIRED if spec.unpaired and name.startswith("g") else 0)


def kept_weights(module: nn.Module) -> list[str]:
    """Parameters that no reset_parameters draws anew, such as a class token's."""
    return [
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        if not callable(getattr(part, "reset_parameters", None))
        for own, _ in part.named_parameters(recurse=False)
    ]


def _reinitialized(module: nn.Module) -> nn.Module:
    """A copy with fresh weights from the current generator, module by module."""
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh
