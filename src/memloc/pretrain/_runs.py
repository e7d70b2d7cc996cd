"""Train a pair of encoders or an ensemble into a run folder, in worker processes, resumable at any moment."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from memloc.data import Images, LazyPixels, as_images, concatenate, open_images
from memloc.encoders import (
    RANDOM,
    Encoder,
    Preprocess,
    check_finite,
    fingerprint,
    load_encoder,
    pick_device,
    save_weights,
    versions,
)
from memloc.errors import DataError, DataNotFoundError, MemlocWarning, SpecError
from memloc.pretrain._checks import check_training
from memloc.pretrain._dino import DINO
from memloc.pretrain._distributed import join, rank, wait, world
from memloc.pretrain._loop import train_encoder
from memloc.pretrain._plan import Plan, make_plan, slots
from memloc.pretrain._private import delta_of
from memloc.pretrain._processes import train_apart, trim_metrics
from memloc.pretrain._recipes import recipe as recipe_named
from memloc.pretrain._spec import TrainSpec, make_spec
from memloc.progress import Report, roughly, silent
from memloc.results import claim_folder, read_json, read_table, replacing, write_json, write_table

_ANY = 1 << 60
_AT_ONCE = 256  # images that are float64 at once
_GRAY = "The images are gray and the encoder takes three channels: the gray channel is repeated."
_SAMPLED, _SAMPLE = 1 << 27, 16_384  # bytes of pixels from which mean and deviation are of a sample, and images in it
_PRIVACY = (
    "each encoder alone, for one point of its training set added or taken away. Not covered: both encoders of a pair"
    " released together (f and g share most points), the mean and deviation of the training images beside the weights,"
    " and choices made after looking at other trainings. The noise is of torch's generator, which is not cryptographic"
)
_PAIR_SEED, _UNPAIRED = 1_000, 500  # seeds of runs lie apart, and those of an unpaired g apart from f's


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        folder: where it lies; None once a temporary one is gone.
        points: point, name, split, label, repeats.
        membership: point, then whether each encoder was trained on it.
        encoders: by name, in the order of the membership columns.
        record: the spec, sources of the images, versions, timings.
    """

    folder: Path | None
    points: pd.DataFrame = field(repr=False)
    membership: pd.DataFrame = field(repr=False)
    encoders: dict[str, Encoder] = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    @property
    def is_ensemble(self) -> bool:
        """Whether encoders were trained on random subsets instead of the four splits."""
        return bool(self.record["spec"]["ensemble"])

    def side(self, name: str) -> list[Encoder]:
        """The encoders of one side of a pair, "f" or "g"."""
        return [encoder for encoder_name, encoder in self.encoders.items() if encoder_name.startswith(name)]


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
    objective: str = "simclr",
    encoder: str | nn.Module | None = None,
    epochs: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
    **settings: Any,
) -> EncoderPair:
    """Train f on shared and candidate points, and its reference g on shared and independent points.

    Args:
        images: a dataset, uint8 images, or Images (see `as_images`). A tenth each become candidates and independents;
            images that no split takes are external.
        objective, encoder, epochs, seed: see TrainSpec, as any other setting by its name; `recipe="published"` takes
            the papers' settings
            where none is given. The encoder is "resnet9" by default ("vit-tiny" for mae), the epochs 200.
        out: folder to keep the run in and resume from; None trains in a temporary folder.
        progress: called with what is going on, epochs done and epochs in all.
        overwrite: replace the work of other settings in `out`.
    Returns:
        EncoderPair with .f, .g and .splits, one name per image.
    Raises:
        SpecError, DataError, ResultsError, OutputError before any training; NonFiniteError if it diverges.
    Source: REFERENCE A1 and A9 (paired training).

    >>> images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    >>> pair = train_pair(images, epochs=1, candidates=8, batch_size=32, workers=1)
    >>> pair.splits.count("candidate"), pair.f.name
    (8, 'f')
    """
    run = train(
        images,
        spec_of(objective=objective, encoder=encoder, epochs=epochs, seed=seed, **settings),
        encoder=encoder,
        out=out,
        progress=progress,
        overwrite=overwrite,
    )
    if run.is_ensemble:
        raise SpecError(
            "ensemble was set for a pair. Expected train_ensemble for an ensemble. Call memloc.train_ensemble(images,"
            " k=8)."
        )
    f, g = run.side("f"), run.side("g")
    return EncoderPair(f[0] if len(f) == 1 else f, g[0] if len(g) == 1 else g, run.points["split"].tolist(), run)


def train_ensemble(
    images: object,
    *,
    k: int = 8,
    fraction: float = 0.5,
    objective: str = "simclr",
    encoder: str | nn.Module | None = None,
    epochs: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
    **settings: Any,
) -> Ensemble:
    """Train k encoders, each on a random part of the images, every image in round(k x fraction) of them.

    Args and errors as in `train_pair`.

    Returns:
        Ensemble with .encoders and .membership, bool (encoder, point).
    Source: REFERENCE A9; Feldman and Zhang, NeurIPS 2020.

    >>> images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    >>> train_ensemble(images, k=2, epochs=1, workers=1).membership.sum(dim=1).tolist()
    [12, 12]
    """
    spec = spec_of(
        objective=objective, encoder=encoder, epochs=epochs, seed=seed, ensemble=k, fraction=fraction, **settings
    )
    run = train(images, spec, encoder=encoder, out=out, progress=progress, overwrite=overwrite)
    membership = torch.from_numpy(run.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy())
    return Ensemble(list(run.encoders.values()), membership, run)


def spec_of(*, recipe: str = "small", **settings: Any) -> TrainSpec:
    """A TrainSpec from a recipe and the settings that are not None; a module stands in the spec by its class name."""
    given = {key: value for key, value in settings.items() if value is not None}
    settings = {**recipe_named(recipe, given.get("objective", "simclr")), **given}
    if given.get("ensemble"):
        settings["unpaired"] = given.get("unpaired", False)  # ensembles have no pairs, whatever the recipe says
    if isinstance(settings.get("encoder"), nn.Module):
        settings["encoder"] = type(settings["encoder"]).__name__
    return make_spec(TrainSpec, settings)


def train(
    images: object,
    spec: TrainSpec,
    *,
    external: Images | None = None,
    plan: Plan | None = None,
    encoder: str | nn.Module | None = None,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
) -> Run:
    """Train what a spec says into a run folder; finished encoders there are kept, unfinished ones resumed.

    Args:
        images: training images. external: images that no encoder sees.
        plan: who is trained on what, where it does not follow from the spec.
        encoder: a module to copy instead of the spec's encoder by name; then training stays in this process.
    """
    training = as_images(images)
    known = training if external is None else concatenate(training, external)
    special = {} if plan is None else {"plan": plan.digest()}
    plan = plan or make_plan(known, spec, 0 if external is None else len(external))
    if plan.points["point"].tolist() != known.ids.tolist():
        raise DataError(
            "the plan is of other images, or names them in another order. Expected a row per image, in their order."
            " Make it with memloc.pretrain.make_plan."
        )
    module = encoder if isinstance(encoder, nn.Module) else None
    check_training(spec.encoder if module is None else module, known, spec, plan)
    kept = [] if module is None else _kept_weights(module)
    if kept:
        warnings.warn(
            f"{len(kept)} parameters of {type(module).__name__} are not drawn anew and keep the values they have, such"
            f" as {kept[0]!r}: what they were trained on stays in f and g. Give the module that holds them a method"
            " reset_parameters, or pass 'FILE.py:FACTORY', which makes a new one.",
            MemlocWarning,
            stacklevel=3,
        )
    device = pick_device(spec.device)
    sources = {
        "data": training.source,
        "external": None if external is None else external.source,
        "has_external": external is not None,
        "size": training.size,
    }
    if isinstance(known.pixels, LazyPixels) and not _reopens(sources):
        raise DataError(
            "the images are read from files as they are used, and are a part of what a folder holds. Expected a whole"
            " folder, which can be opened again. Pass memloc.open_images(FOLDER, size=...) as it is, or a folder with"
            " that part alone."
        )
    identity = {**asdict(spec), **sources, "fingerprint": known.fingerprint(), **special}
    if world() > 1 and out is None:
        raise SpecError(
            "several processes train together and there is no folder. Expected one that all can read. Pass out=FOLDER."
        )
    join(device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if out is None else out)
        if rank() == 0:
            claim_folder(folder, identity, overwrite=overwrite)
        wait()
        if not (folder / "run.json").is_file():
            began = time.monotonic()
            if rank() == 0:
                _write_plan(folder, plan, known, training, sources)
            wait()
            workers = _train_missing(folder, spec, plan, module, device, progress)
            if rank() == 0:
                record = {
                    **_record(folder, spec, plan, known, module),
                    **sources,
                    "fingerprint": identity["fingerprint"],
                    "n_external": 0 if external is None else len(external),
                    "seconds": time.monotonic() - began,
                    "workers": workers,
                }
                write_json(folder / "run.json", record)
                shutil.rmtree(folder / ".work", ignore_errors=True)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        wait()
        run = load_run(folder, module=module)
        return run if out is not None else Run(None, run.points, run.membership, run.encoders, run.record)


def _train_missing(
    folder: Path, spec: TrainSpec, plan: Plan, module: nn.Module | None, device: torch.device, progress: Report
) -> int:
    """Train the encoders that are not there yet, some at a time; returns how many at a time."""
    missing = [name for name in plan.encoders if not (folder / f"encoders/{name}.safetensors").is_file()]
    usual = 1 if device.type == "cuda" else os.cpu_count() or 1
    workers = 1 if module is not None or world() > 1 else min(spec.workers or usual, len(plan.encoders))
    if rank() == 0:
        trim_metrics(folder, missing)
    if workers > 1:
        train_apart(folder, spec, missing, workers, progress)
        return workers
    for name in missing:
        train_one(folder, name, encoder=module, progress=progress if rank() == 0 else silent)
    return workers


def _record(folder: Path, spec: TrainSpec, plan: Plan, known: Images, module: nn.Module | None) -> dict[str, Any]:
    """What is known of a finished run, but for its sources and times."""
    files = {name: folder / f"encoders/{name}.safetensors" for name in plan.encoders}
    prints = (
        {}
        if module is not None
        else {name: fingerprint(_opened(spec.encoder, file).module) for name, file in files.items()}
    )
    return {
        "spec": asdict(spec),
        "skipped": [list(pair) for pair in known.skipped],
        "warnings": [_GRAY] if _repeats_gray(spec, module, known) else [],
        "class_names": list(known.class_names),
        "encoders": prints,
        "processes": world(),
        "versions": versions(),
        "augmentation": _scoring_policy(spec),
        "privacy": _privacy(folder, spec, plan),
    }


def _repeats_gray(spec: TrainSpec, module: nn.Module | None, known: Images) -> bool:
    """Whether gray images are shown to an encoder of three channels."""
    if known.pixels.shape[1] != 1:
        return False
    shape = (1, known.pixels.shape[2], known.pixels.shape[3])
    weights = RANDOM if module is None else None
    return load_encoder(spec.encoder if module is None else module, weights=weights, shape=shape).channels == 3


def train_cost(images: Images, spec: TrainSpec, external: int = 0) -> dict[str, Any]:
    """What training will take: splits, images per epoch, forward passes, and expected seconds and memory from one timed
    epoch of a batch.

    Args:
        images: training images, then `external` ones that no encoder sees.
    """
    plan, device = make_plan(images, spec, external), pick_device(spec.device)
    check_training(spec.encoder, images, spec, plan)
    each = {name: len(slots(plan, name)[0]) for name in plan.encoders}
    rows, points = slots(plan, plan.encoders[0])
    few = slice(0, min(spec.batch_size, len(rows)))
    lines: list[dict[str, Any]] = []
    shape = (images.pixels.shape[1], *images.pixels.shape[2:])
    workers = min(spec.workers or (1 if device.type == "cuda" else os.cpu_count() or 1), len(plan.encoders))
    threads = torch.get_num_threads()
    held: dict[int, int] = {}  # bytes that the backward pass needs, by their address

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    encoder = load_encoder(spec.encoder, weights=RANDOM, shape=shape)
    hooks = torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), hooks:
        torch.set_num_threads(max((os.cpu_count() or 1) // workers, 1))
        objective = train_encoder(
            encoder,
            images.pixels[rows[few]],
            points[few],
            replace(spec, epochs=2),
            seed=0,
            device=device,
            checkpoint=Path(folder) / "trial.pt",
            log=lines.append,
            labels=None if spec.objective != "supervised" else torch.tensor(plan.points["label"].to_numpy())[rows[few]],
            classes=int(plan.points["label"].max()) + 1 if spec.objective == "supervised" else 0,
        )
        torch.set_num_threads(threads)
    steps = spec.epochs * sum(each.values())
    shown = objective.views + (2 if isinstance(objective, DINO) else 0)  # the teacher sees the two large views
    weights = 4 * sum(
        part.numel() for part in (*encoder.module.parameters(), *objective.parameters())
    )  # and gradients, and two of the optimizer's
    batch = sum(held.values()) + 4 * shown * min(spec.batch_size, len(rows)) * images.pixels[0].numel()
    return {
        "encoders": plan.encoders,
        "splits": plan.points["split"].value_counts().to_dict(),
        "images_per_epoch": each,
        "forward_passes": shown * steps,
        "seconds": roughly(steps / lines[-1]["images_per_second"] / workers),
        "memory_mb": round((workers * (batch + 4 * weights) + 2 * images.pixels.numel()) / 2**20),
    }


def load_run(folder: str | Path, *, module: nn.Module | None = None) -> Run:
    """Open a finished run.

    Args:
        module: the architecture, where the run was trained from an nn.Module.
    Raises:
        DataNotFoundError: no such folder, or a run that is not finished.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        begun = (folder / "spec.json").is_file()
        state = "holds a run that is not finished" if begun else "holds no run"
        step = (
            "Repeat the memloc train command that began it" if begun else "Make one with: memloc train DATA --out RUN"
        )
        raise DataNotFoundError(f"{str(folder)!r} {state}. Expected a folder that memloc train finished. {step}.")
    record, membership = read_json(folder / "run.json"), read_table(folder / "membership.parquet")
    encoders = {}
    for name in membership.columns[1:]:
        path = folder / f"encoders/{name}.safetensors"
        encoders[str(name)] = _opened(record["spec"]["encoder"], path) if module is None else _stored(module, path)
    return Run(folder, read_table(folder / "points.parquet"), membership, encoders, record)


def images_of(run: Run, *, max_bad: int = 0) -> tuple[Images, Images | None]:
    """The training images of a run, and the external ones that it was given, opened again.

    Raises:
        DataError: their contents changed. DataNotFoundError: they are gone.
    """
    record, points = run.record, run.points
    if run.folder is not None and (run.folder / "images.npz").is_file():
        with np.load(run.folder / "images.npz") as stored:
            labels = points["label"].tolist() if "label" in points else None
            known = as_images(stored["images"], points=points["point"].tolist(), labels=labels)
        known = replace(known, names=tuple(points["name"]), class_names=tuple(record["class_names"]))
        count = len(known) - int(record.get("n_external", 0))
        rows = torch.arange(len(known))
        images, external = known.take(rows[:count]), known.take(rows[count:]) if count < len(known) else None
    else:
        if record["data"] is None:
            raise DataNotFoundError(
                "the images of a run that was trained in a temporary folder are not kept. Expected a run in a folder."
                " Pass out=FOLDER when training."
            )
        max_bad = max(max_bad, len(record["skipped"]))
        images = open_images(record["data"], size=record["size"], max_bad=max_bad)
        external = (
            open_images(record["external"], size=record["size"], max_bad=max_bad)
            if record["external"] is not None
            else None
        )
        known = images if external is None else concatenate(images, external)
    if known.fingerprint() != record["fingerprint"]:
        raise DataError(
            f"the images are not those that {str(run.folder)!r} was trained on: their contents changed. Expected the"
            " same files. Restore them, or train again."
        )
    return images, external


def train_one(folder: Path, name: str, *, encoder: nn.Module | None = None, progress: Report = silent) -> None:
    """Train one encoder of a run folder, from its checkpoint if there is one, and write its weights."""
    stored = read_json(folder / "spec.json")
    spec = TrainSpec(**{key: stored[key] for key in TrainSpec.__dataclass_fields__})
    plan = Plan(read_table(folder / "points.parquet"), read_table(folder / "membership.parquet"))
    work = read_json(folder / ".work/preprocess.json")
    pixels = _pixels_of(folder, stored)
    rows, points = slots(plan, name)
    seed, shape = _seed(spec, name), (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = (
            _reinitialized(encoder)
            if encoder is not None
            else load_encoder(spec.encoder, weights=RANDOM, shape=shape).module
        )
    prepared = load_encoder(module, mean=work["mean"], std=work["std"], shape=shape)
    supervised = spec.objective == "supervised"
    labels = torch.tensor(plan.points["label"].to_numpy())[rows] if supervised else None
    classes = int(plan.points["label"].max()) + 1 if supervised else 0
    join(pick_device(spec.device))

    def log(line: dict[str, Any]) -> None:
        if rank():
            return
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"encoder": name, **line}) + "\n")
        progress(f"training {name}", line["epoch"], spec.epochs)

    with torch.random.fork_rng():
        head = train_encoder(
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
        "augmentation": _scoring_policy(spec),
        "format": "memloc",
    }
    save_weights(folder / f"heads/{name}.safetensors", head, {"format": "memloc"})
    save_weights(folder / f"encoders/{name}.safetensors", module, metadata)


def _pixels_of(folder: Path, stored: dict[str, Any]) -> Any:
    """Pixels of a run's images: the array that the run keeps while it lasts, or the files that do not fit in memory."""
    if (folder / ".work/pixels.npy").is_file():
        return np.load(folder / ".work/pixels.npy", mmap_mode="r")
    images = open_images(stored["data"], size=stored["size"], max_bad=_ANY)  # how many may be bad was settled before
    if stored["has_external"]:
        images = concatenate(images, open_images(stored["external"], size=stored["size"], max_bad=_ANY))
    return images.pixels


def _rows_of(pixels: Any, rows: Tensor) -> Tensor:
    """Some rows of the images: in memory, or still unread."""
    return cast(Tensor, pixels.take(rows)) if isinstance(pixels, LazyPixels) else torch.from_numpy(pixels[rows.numpy()])


def _scoring_policy(spec: TrainSpec) -> str:
    """The views an encoder is scored with: those of its training, but the usual ones for an MAE (REFERENCE A6)."""
    return "normal" if spec.objective == "mae" else spec.policy


def _seed(spec: TrainSpec, name: str) -> int:
    """Pairs share a seed unless unpaired; encoders of an ensemble, whose names differ in their number, do not."""
    return spec.seed * _PAIR_SEED + int(name[1:] or 0) + (_UNPAIRED if spec.unpaired and name.startswith("g") else 0)


def _kept_weights(module: nn.Module) -> list[str]:
    """Parameters that no reset_parameters draws anew, such as a class token's."""
    return [
        f"{name}.{own}" if name else own
        for name, part in module.named_modules()
        if not callable(getattr(part, "reset_parameters", None))
        for own, _ in part.named_parameters(recurse=False)
    ]


def _reinitialized(module: nn.Module) -> nn.Module:
    """A copy with fresh weights from the current generator, module by module."""
    import copy

    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return fresh


def _opened(encoder: str, path: Path) -> Encoder:
    """An encoder of a run: by the architecture that the run's own record names."""
    if ".py:" not in encoder:
        return load_encoder(path)
    return replace(load_encoder(encoder, weights=path), name=path.stem)


def _privacy(folder: Path, spec: TrainSpec, plan: Plan) -> dict[str, Any] | None:
    """The ε that each encoder's training spent, by its last line of metrics."""
    if spec.dp_epsilon is None:
        return None
    spent: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        spent[entry["encoder"]] = entry["epsilon"]
    points = {name: len(slots(plan, name)[0]) for name in plan.encoders}
    deltas = {name: delta_of(spec, count) for name, count in points.items()}
    return {
        "target_epsilon": spec.dp_epsilon,
        "delta": deltas,
        "clip": spec.dp_clip,
        "epsilon": spent,
        "accountant": "rdp",
        "holds_for": _PRIVACY,
    }


def _stored(module: nn.Module, path: Path) -> Encoder:
    import copy

    from memloc.encoders import load_weights, read_weights

    tensors, metadata = read_weights(path)
    fresh = copy.deepcopy(module)
    load_weights(fresh, tensors, name=str(path))
    mean, std = (tuple(float(part) for part in metadata[key].split()) for key in ("mean", "std"))
    found = load_encoder(fresh)
    return Encoder(
        found.module,
        found.layers,
        Preprocess(mean, std),
        path.stem,
        found.channels,
        metadata.get("augmentation"),
        shape=found.shape,
    )


def _write_plan(folder: Path, plan: Plan, known: Images, training: Images, sources: dict[str, Any]) -> None:
    (folder / ".work").mkdir(exist_ok=True)
    if not _reopens(sources):  # arrays from Python: the run keeps them, so that it can be audited later
        with replacing(folder / "images.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, images=known.pixels.permute(0, 2, 3, 1).numpy())
    pixels = training.pixels
    if isinstance(pixels, LazyPixels) or pixels.numel() > _SAMPLED:  # an even sample tells mean and deviation
        pixels = pixels[torch.linspace(0, len(pixels) - 1, min(len(pixels), _SAMPLE)).long()]
    mean, std = _statistics(pixels)
    write_json(folder / ".work/preprocess.json", {"mean": mean.tolist(), "std": std.clamp_min(1e-3).tolist()})
    if not isinstance(known.pixels, LazyPixels):
        with replacing(folder / ".work/pixels.npy") as temporary, temporary.open("wb") as file:
            np.save(file, known.pixels.numpy())
    write_table(folder / "points.parquet", plan.points)
    write_table(folder / "membership.parquet", plan.membership)


def _statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel in [0, 1], without a copy of all images in float64."""
    number = pixels.numel() // pixels.shape[1]
    mean, spread = (torch.zeros(pixels.shape[1], dtype=torch.float64, device=pixels.device) for _ in range(2))
    for part in pixels.split(_AT_ONCE):
        mean += part.sum(dim=(0, 2, 3), dtype=torch.float64) / number
    for part in pixels.split(_AT_ONCE):
        spread += (part.transpose(0, 1).flatten(1).double() - mean[:, None]).square().sum(dim=1)
    return mean / 255, (spread / (number - 1)).sqrt() / 255


def _reopens(sources: dict[str, Any]) -> bool:
    """Whether the images can be opened again from where they came."""
    return sources["data"] is not None and (sources["external"] is not None or not sources["has_external"])
