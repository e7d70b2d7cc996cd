"""The audit, one straight line: plan, shards, fold, finalize, write."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from memloc.data import as_images
from memloc.encoders import Encoder, load_encoder, pick_device, versions
from memloc.engine._finalize import finalize
from memloc.engine._job import Job, Options, plan_job
from memloc.engine._protocols import protocol_settings
from memloc.engine._shard import ShardState, audit_shard
from memloc.engine._thumbnails import thumbnails
from memloc.errors import MemlocWarning, SpecError, nearest
from memloc.metrics import reliability, sslmem
from memloc.progress import Report, roughly, silent
from memloc.results import SCHEMA_VERSION, Audit, claim_folder, conform, replacing, spec_hash
from memloc.stats import ClassState, PointState, UnitState
from memloc.views import AUTO_COUNTS, Views

PILOT_POINTS, PILOT_RELIABILITY = 256, 0.8
_VIEW_PIXELS = 512 * 32 * 32  # pixels of views per batch on a processor; eight times as many on a GPU
AnyEncoder = str | Path | nn.Module | Encoder


def audit(
    f: AnyEncoder | Sequence[AnyEncoder] | None = None,
    g: AnyEncoder | Sequence[AnyEncoder] | None = None,
    *,
    images: object,
    points: Sequence[int] | Tensor | None = None,
    splits: Sequence[str] | None = None,
    labels: Sequence[int] | Tensor | None = None,
    encoders: Sequence[AnyEncoder] | None = None,
    membership: Tensor | np.ndarray | None = None,
    layers: str | Sequence[str] = "auto",
    views: Views | None = None,
    protocol: str = "memloc",
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    paired: bool = False,
    earlier: bool = False,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
    **options: Any,
) -> Audit:
    """Score memorization per point, layer, unit and class in one pass of views through each encoder.

    Args:
        f: the encoder, or several training runs of it. g: the reference that never saw the candidates, likewise;
            without it UnitMem and ClassMem are computed and, where there are external points, the alignment gap.
        images: a dataset, uint8 images (see `memloc.as_images`) or Images.
        points: ids, 0 to N-1 by default. labels: class numbers, for ClassMem.
        splits: "shared", "candidate", "independent" or "external" per point; all candidates by default.
        encoders, membership: instead of f and g, any number of encoders and which was trained on which point, bool
            (encoder, point).
        layers: "auto" (main chain), "fine", or names and globs.
        protocol: "memloc", "paper" (their text) or "published-code": sets what is not given of views, rest and scale.
        views: the recipe for views, by the protocol by default (Views() for "memloc"); `Views(n="auto")` chooses their
            number by a pilot.
        batch_size: points per batch; chosen by image size by default.
        dtype: "float32", "float64", or "bfloat16" (autocast).
        seed: of bootstrap and sampling only.
        paired: whether f[0] and g[0] were trained in a pair, and so on, as `train_pair(runs=...)` does; they are then
            resampled together.
        earlier: g is an earlier checkpoint of f's training rather than a reference that never saw the candidates.
        out: folder for the tables and audit.json, which an interrupted audit resumes from.
        progress: called with what is going on, points done and points in all.
        options: distance, rest, signed, scale, shard_size, thumbnails; see Options.
    Returns:
        Audit with .points, .layers, .units and .point_layers.
    Raises:
        MemlocError: one of its children, before work starts, for anything that cannot be audited.
    Source: REFERENCE Part A.

    >>> from memloc.encoders import ResNet9
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> splits = ["candidate"] * 6 + ["independent"] * 6
    >>> found = audit(ResNet9(), ResNet9(), images=images, splits=splits, views=Views(n=4))
    >>> found.layers[["layer", "layermem_calibrated"]].shape
    (11, 2)
    """
    wanted = protocol_settings(protocol, {key: options.get(key) for key in ("rest", "scale")})
    options |= {key: wanted[key] for key in ("rest", "scale")}
    if views is None:
        views = Views(wanted["policy"], n=wanted["views"], sampling=wanted["sampling"], original=wanted["original"])
    job = prepare(
        f,
        g,
        images=images,
        points=points,
        splits=splits,
        labels=labels,
        encoders=encoders,
        membership=membership,
        layers=layers,
        views=views,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        paired=paired,
        earlier=earlier,
        **options,
    )
    for text in job.found:
        warnings.warn(text, MemlocWarning, stacklevel=2)
    return run_job(job, out=out, progress=progress, overwrite=overwrite)


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
    layers: str | Sequence[str] = "auto",
    views: Views,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    paired: bool = False,
    earlier: bool = False,
    **options: Any,
) -> Job:
    """Everything that is checked before an audit starts; arguments as in `audit`."""
    unknown = set(options) - set(Options.__dataclass_fields__)
    if unknown:
        key = sorted(unknown)[0]
        raise SpecError(
            f"there is no setting {key!r}. {nearest(key, Options.__dataclass_fields__)} Expected an argument of audit."
            " Correct its name."
        )
    known = as_images(images, points=points, labels=labels)
    if len(known) < 2:
        raise SpecError(f"there is {len(known)} image. Expected at least two points. Pass more images.")
    if views.n != "auto" and views.count < 2:
        raise SpecError(f"n is {views.n} view. Expected at least 2, whose distance is the alignment. Pass --views 16.")
    shape = (known.pixels.shape[1], *views.view_size(*known.pixels.shape[2:]))
    if (f is None) == (encoders is None):
        raise SpecError(
            "expected either f (with or without g) or encoders with membership. Pass f=ENCODER, or encoders=[...] and"
            " membership=."
        )
    if encoders is not None and g is not None:
        raise SpecError("g goes with f, not with encoders. Expected one or the other. Leave g out.")
    loaded = [[load_encoder(each, layers=layers, shape=shape) for each in _listed(side)] for side in (f, g, encoders)]
    wanted = torch.float64 if dtype == "float64" else torch.float32
    loaded = [[_of_dtype(encoder, wanted) for encoder in side] for side in loaded]
    target = pick_device(device)
    views_count = max(AUTO_COUNTS) if views.n == "auto" else views.count
    budget = _VIEW_PIXELS * (8 if target.type == "cuda" else 1)
    batch = max(1, min(256, budget // (views_count * shape[1] * shape[2]))) if batch_size is None else batch_size
    chosen = Options(batch_size=batch, dtype=dtype, seed=seed, **options)  # type: ignore[arg-type]
    seen = None if membership is None else torch.as_tensor(membership)
    if views.n == "auto" and g is None and encoders is None:
        raise SpecError(
            "views are 'auto' for one encoder without a reference. Expected a number, since points then have no score"
            " to be reliable. Pass --views 16."
        )
    return plan_job(
        *loaded,
        paired=paired,
        earlier=earlier,
        images=known,
        splits=splits,
        membership=seen,
        views=views,
        options=chosen,
        device=target,
    )


def run_job(
    job: Job,
    *,
    out: str | Path | None = None,
    progress: Report = silent,
    overwrite: bool = False,
    extra: dict[str, Any] | None = None,
) -> Audit:
    """Compute a prepared job, resuming from the shards that lie in `out`.

    Args:
        extra: what else the record should hold (audit.json).
    """
    began = time.monotonic()
    spec = job_spec(job)
    with ExitStack() as stack:
        folder = (
            claim_folder(Path(out), spec, overwrite=overwrite)
            if out is not None
            else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        )
        work = folder / ".shards"
        if (folder / "audit.json").is_file():
            shutil.rmtree(work, ignore_errors=True)
            return Audit.load(folder)
        work.mkdir(exist_ok=True)
        with _on_device(job):
            job, pilot = _with_view_count(job, progress)
            states = []
            for number, shard in enumerate(job.shards):
                progress("scoring points", shard.start, len(job.images))
                path = work / f"{number:05d}.pt"
                if not path.is_file():
                    _save_shard(path, audit_shard(job, shard))
                states.append(_load_shard(path))
            progress("scoring points", len(job.images), len(job.images))
        scored = time.monotonic() - began
        tables = finalize(job, fold(states), sorted(work.glob("*.npy")))
        tables = _with_repeats(tables, extra)
        pictures = (
            thumbnails(job, tables)
            if job.options.thumbnails
            else pd.DataFrame({"point": pd.Series(dtype="int64"), "png": pd.Series(dtype=object)})
        )
        record = (
            _record(job, spec, scored, time.monotonic() - began)
            | ({"pilot": pilot} if pilot else {})
            | {key: value for key, value in (extra or {}).items() if key != "repeats"}
        )
        tables = {name: conform(name, table) for name, table in {**tables, "thumbnails": pictures}.items()}
        result = Audit(**tables, record=record)
        if out is not None:
            result.save(folder)
            shutil.rmtree(work)
        return result


def fold(states: list[ShardState]) -> ShardState:
    """Merge shard states in shard order, pair by pair, so that no row is copied more than log(shards) times."""
    while len(states) > 1:
        pairs = [states[number : number + 2] for number in range(0, len(states), 2)]
        states = [pair[0].merge(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
    return states[0]


def job_spec(job: Job) -> dict[str, Any]:
    """What decides the figures of a job, as text and numbers; the same spec gives the same tables."""
    return {
        "schema": SCHEMA_VERSION,
        "mode": job.mode,
        "f_count": job.f_count,
        "paired": job.paired,
        "earlier": job.earlier,
        "described": job.images.described(),
        "views": asdict(job.views),
        "options": asdict(job.options),
        "device": job.device.type,
        "layers": [[layer.name, layer.read_at] for layer in job.layers],
        "encoders": list(job.prints),
        "preprocess": [[list(encoder.preprocess.mean), list(encoder.preprocess.std)] for encoder in job.encoders],
        "images": job.images.fingerprint(),
        "points": len(job.images),
        "splits": {
            str(name): int(count)
            for name, count in zip(*np.unique(job.split.astype(str), return_counts=True), strict=True)
        },
        "membership": spec_hash({"rows": job.membership.int().tolist(), "split": job.split.tolist()}),
    }


def plan_cost(job: Job) -> dict[str, Any]:
    """What an audit will take: points, views, forward passes, and expected seconds and memory from one timed batch."""
    views = max(AUTO_COUNTS) if job.views.n == "auto" else job.views.count
    trial = job if job.views.n != "auto" else replace(job, views=replace(job.views, n=views))
    rows = slice(0, min(job.options.batch_size, len(job.images)))
    with _on_device(trial):
        audit_shard(trial, rows)
        began = time.monotonic()
        audit_shard(trial, rows)
    seconds = (time.monotonic() - began) * len(job.images) / (rows.stop - rows.start)
    tables = len(job.images) * (len(job.layers) * (3 * len(job.encoders) + 8) + 16) * 8
    batch = (
        rows.stop * views * job.images.pixels[0].numel() * 4 * 24
    )  # views and the widest activations of small convolutional nets
    return {
        "points": len(job.images),
        "splits": job_spec(job)["splits"],
        "views": job.views.n,
        "encoders": len(job.encoders),
        "layers": len(job.layers),
        "forward_passes": len(job.images) * views * len(job.encoders),
        "shards": len(job.shards),
        "seconds": roughly(seconds),
        "memory_mb": round((tables + batch + job.images.pixels.numel()) / 2**20),
    }


@contextmanager
def _on_device(job: Job) -> Iterator[None]:
    """The job's encoders on its device, then back where they were."""
    places = [next(encoder.module.parameters(), torch.empty(0)).device for encoder in job.encoders]
    try:
        for encoder in job.encoders:
            encoder.module.to(job.device)
        yield
    finally:
        for encoder, place in zip(job.encoders, places, strict=True):
            encoder.module.to(place)


def _of_dtype(encoder: Encoder, dtype: torch.dtype) -> Encoder:
    """The encoder with parameters of a type; a copy where they are of another, so that the user's module stays as it
    is."""
    parameter = next(encoder.module.parameters(), None)
    if parameter is None or parameter.dtype == dtype:
        return encoder
    return replace(encoder, module=copy.deepcopy(encoder.module).to(dtype))


def _listed(side: Any) -> list[Any]:
    return [] if side is None else list(side) if isinstance(side, (list, tuple)) else [side]


def _with_view_count(job: Job, progress: Report) -> tuple[Job, dict[str, Any]]:
    """Resolve n="auto": the fewest views at which the output's score has a reliability of .8 on a pilot of
    candidates."""
    if job.views.n != "auto":
        return job, {}
    candidates = np.flatnonzero(job.split == "candidate")
    rows = np.sort(np.random.default_rng([job.options.seed, 4]).permutation(candidates)[:PILOT_POINTS])
    progress("choosing the number of views", 0, 1)
    index = torch.from_numpy(rows)
    layers = (job.layers[-1],)
    encoders = tuple(replace(encoder, layers=layers) for encoder in job.encoders)
    groups = {"trained": torch.zeros(len(rows), dtype=torch.bool)}
    chosen, found = max(AUTO_COUNTS), {}
    for count in AUTO_COUNTS:
        pilot = replace(
            job,
            encoders=encoders,
            images=job.images.take(index),
            split=job.split[rows],
            membership=job.membership[:, index],
            groups=groups,
            views=replace(job.views, n=count),
        )
        columns = audit_shard(pilot, slice(0, len(rows))).points.columns
        half = columns["half"][:, 0]
        scores = [
            sslmem(
                *(
                    (half[..., number] * side.T).sum(dim=1) / side.T.sum(dim=1)
                    for side in (pilot.target, pilot.reference)
                )
            )
            for number in (0, 1)
        ]
        found[str(count)] = reliability(scores[0], scores[1])
        if found[str(count)] >= PILOT_RELIABILITY:
            chosen = count
            break
    else:
        text = (
            f"Even {chosen} views give the output's scores a reliability of {found[str(chosen)]:.2f} on {len(rows)}"
            f" candidates, below {PILOT_RELIABILITY}."
        )
        job = replace(job, found=(*job.found, text))
    progress("choosing the number of views", 1, 1)
    return replace(job, views=replace(job.views, n=chosen)), {"points": len(rows), "reliability": found}


def _with_repeats(tables: dict[str, pd.DataFrame], extra: dict[str, Any] | None) -> dict[str, pd.DataFrame]:
    repeats = (extra or {}).get("repeats")
    if repeats is not None:
        tables["points"]["repeats"] = tables["points"]["point"].map(repeats).fillna(0).astype(np.int64)
    return tables


def _record(job: Job, spec: dict[str, Any], scored: float, total: float) -> dict[str, Any]:
    views = len(job.images) * job.views.count * len(job.encoders)
    return {
        "schema_version": SCHEMA_VERSION,
        "spec": spec,
        "spec_hash": spec_hash(spec),
        "seed": job.options.seed,
        "mode": job.mode,
        "encoder": job.encoders[0].name,
        "reference": "earlier checkpoint" if job.earlier else None,
        "weights": [encoder.note for encoder in job.encoders],
        "views": asdict(job.views),
        "class_names": list(job.images.class_names),
        "versions": versions(),
        "warnings": list(job.found),
        "skipped": [list(pair) for pair in job.images.skipped],
        "fingerprints": {"encoders": spec["encoders"], "images": spec["images"]},
        "timings": {
            "scoring_seconds": scored,
            "total_seconds": total,
            "forward_passes": views,
            "forward_passes_per_second": views / max(scored, 1e-9),
        },
    }


def _save_shard(path: Path, state: ShardState) -> None:
    for group, block in state.activations.items():
        with replacing(path.with_suffix(f".{group}.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, block.numpy())
    content = {
        "points": (state.points.points, dict(state.points.columns)),
        "units": {
            group: {name: list(vars(each).values()) for name, each in states.items()}
            for group, states in state.units.items()
        },
        "classes": {
            group: {name: list(vars(each).values()) for name, each in states.items()}
            for group, states in state.classes.items()
        },
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def _load_shard(path: Path) -> ShardState:
    content = torch.load(path, weights_only=True)
    return ShardState(
        PointState(*content["points"]),
        {
            group: {name: UnitState(*each) for name, each in states.items()}
            for group, states in content["units"].items()
        },
        {
            group: {name: ClassState(*each) for name, each in states.items()}
            for group, states in content["classes"].items()
        },
        {},
    )
