"""Train what a spec says into a run folder, resumable at any moment."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memloc.data import Images, LazyPixels, as_images, concatenate
from memloc.encoders import RANDOM, fingerprint, load_encoder, pick_device, read_weights, versions
from memloc.errors import CheckpointError, DataError, MemlocError, ResultsError, SpecError, warn
from memloc.machine import cores
from memloc.pretrain._checks import check_training
from memloc.pretrain._distributed import join, rank, wait, world
from memloc.pretrain._folder import reopens, write_plan
from memloc.pretrain._metrics import epochs_done, trim_metrics
from memloc.pretrain._one import encoder_steps, kept_weights, train_one
from memloc.pretrain._plan import Plan, make_plan, slots
from memloc.pretrain._private import delta_of
from memloc.pretrain._spec import LATER, TrainSpec
from memloc.pretrain._together import train_together
from memloc.progress import Report, silent
from memloc.results import (
    WRITES,
    check_held,
    claimed,
    list_files,
    read_json,
    read_table,
    remove_folder,
    set_aside,
    write_json,
)
from memloc.runs import Run, encoder_of, open_run
from memloc.workers import run_apart

_GRAY = "The images are gray and the encoder takes three channels: the gray channel is repeated."
_PRIVACY = (
    "each encoder alone, for one point of its training set added or taken away. Not covered: both encoders of a pair"
    " released together (f and g share most points), the mean and deviation of the training images beside the weights,"
    " and choices made after looking at other trainings. The noise is of torch's generator, which is not cryptographic"
)


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
        plan: who is trained on what, where it does not follow from the spec; it says who is held out, too.
        encoder: a module to copy instead of the spec's encoder by name; then training stays in this process.
    """
    training = as_images(images)
    known = training if external is None else concatenate(training, external)
    special = {} if plan is None else {"plan": plan.digest()}
    spec, before = _as_begun(spec, None if overwrite else out, planned=plan is not None)
    plan = plan or make_plan(known, spec, 0 if external is None else len(external))
    module = encoder if isinstance(encoder, nn.Module) else None
    device = pick_device(spec.device)
    sources = {
        "data": training.source,
        "external": None if external is None else external.source,
        "has_external": external is not None,
        "size": training.size,
    }
    read = (training.source, None if external is None else external.source)
    _check(known, spec, plan, module, sources, out)
    chosen = {name: value for name, value in asdict(spec).items() if (name, value) not in LATER.items()}
    identity = {**chosen, **sources, "fingerprint": known.fingerprint(), **special}
    if before and not spec.held_out:
        del identity["held_out"]
    join(device)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary if out is None else out)
        if rank() == 0:
            stack.enter_context(claimed(folder, identity, overwrite=overwrite, inputs=read))
        wait()
        if not (folder / "run.json").is_file():
            began = time.monotonic()
            if rank() == 0:
                plan = _begun(folder, spec, plan)
                write_plan(folder, plan, known, training, sources)
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
                _finish(folder, plan, record)
        if rank() == 0:
            _tidy(folder)
        wait()
        run = open_run(folder, module=module, trust=True)  # the caller named the encoder
        return run if out is not None else Run(None, run.points, run.membership, run.encoders, run.record)


def _as_begun(spec: TrainSpec, out: str | Path | None, *, planned: bool) -> tuple[TrainSpec, bool]:
    """The spec with the share that is held out, and whether the run in the folder was begun before any was.

    Raises:
        SpecError: a share beside a plan.
    """
    usual = TrainSpec.held_out
    if planned and spec.held_out not in (0, usual):
        raise SpecError(
            f"held_out is {spec.held_out} beside a plan, which already says which points no encoder sees. Expected one"
            " or the other. Leave held_out out."
        )
    stored: dict[str, Any] = {}
    if out is not None and (Path(out) / "spec.json").is_file():
        with suppress(ResultsError):  # which claiming the folder raises, where it is memloc's
            stored = read_json(Path(out) / "spec.json")
    before = "objective" in stored and "held_out" not in stored
    if before and spec.held_out == usual and not planned and rank() == 0:
        warn(
            f"{str(out)!r} was begun by a memloc that held no points out, and goes on so: held_out is 0.",
        )
    return (replace(spec, held_out=0.0) if planned or (before and spec.held_out in (0, usual)) else spec), before


def _begun(folder: Path, spec: TrainSpec, plan: Plan) -> Plan:
    """The plan of a run that was begun, which stays: the last digit of a sum can decide what is a near-duplicate, and
    differs between machines."""
    if not spec.held_out:
        return plan
    try:
        tables = [read_table(folder / f"{name}.parquet") for name in ("points", "membership")]
    except MemlocError:  # not there yet, or damaged
        return plan
    return replace(plan, points=tables[0], membership=tables[1])


def _finish(folder: Path, plan: Plan, record: dict[str, Any]) -> None:
    """List what the encoders' trainings wrote, and write the record."""
    written = [folder / f"{kind}/{name}.safetensors" for kind in ("encoders", "heads") for name in plan.encoders]
    list_files(folder, [*written, folder / "metrics.jsonl"])
    write_json(folder / "run.json", record)


def _tidy(folder: Path) -> None:
    """Remove what was for the training alone."""
    for name in (".work", "checkpoints"):
        remove_folder(folder / name)


def _check(
    known: Images,
    spec: TrainSpec,
    plan: Plan,
    module: nn.Module | None,
    sources: dict[str, Any],
    out: str | Path | None,
) -> None:
    """Raise what can be wrong before any training, and warn of weights that stay as they are."""
    if plan.points["point"].tolist() != known.ids.tolist():
        raise DataError(
            "the plan is of other images, or names them in another order. Expected a row per image, in their order."
            " Make it with memloc.pretrain.make_plan."
        )
    check_training(spec.encoder if module is None else module, known, spec, plan)
    kept = [] if module is None else kept_weights(module)
    if kept:
        warn(
            f"{len(kept)} parameters of {type(module).__name__} are not drawn anew and keep the values they have, such"
            f" as {kept[0]!r}: what they were trained on stays in f and g. Give the module that holds them a method"
            " reset_parameters, or pass 'FILE.py:FACTORY', which makes a new one.",
        )
    if isinstance(known.pixels, LazyPixels) and not reopens(sources):
        raise DataError(
            "the images are read from files as they are used, and are a part of what a folder holds. Expected a whole"
            " folder, which can be opened again. Pass memloc.open_images(FOLDER, size=...) as it is, or a folder with"
            " that part alone."
        )
    if world() > 1 and out is None:
        raise SpecError(
            "several processes train together and there is no folder. Expected one that all can read. Pass out=FOLDER."
        )


def _train_missing(
    folder: Path, spec: TrainSpec, plan: Plan, module: nn.Module | None, device: torch.device, progress: Report
) -> int:
    """Train the encoders that are not there yet, some at a time; returns how many at a time."""
    missing = [name for name in plan.encoders if not _is_trained(folder / f"encoders/{name}.safetensors")]
    apart = module is None and world() == 1 and device.type != "cuda"
    workers = min(spec.workers or cores(), len(plan.encoders)) if apart else 1
    if rank() == 0:
        trim_metrics(folder, missing)
    if workers > 1:
        _train_apart(folder, spec, missing, workers, progress)
        return workers
    shown = progress if rank() == 0 else silent
    if device.type == "cuda" and world() == 1 and spec.dp_epsilon is None:
        most = 1 if spec.step == "loop" else spec.workers
        return train_together(
            missing,
            lambda name: encoder_steps(folder, name, encoder=module, progress=shown),
            most=most,
            device=device,
        )
    for name in missing:
        train_one(folder, name, encoder=module, progress=shown)
    return workers


def _is_trained(path: Path) -> bool:
    """Whether an encoder's file is there and whole; a damaged one is set aside, and said."""
    if not path.is_file():
        return False
    try:
        read_weights(path)
    except (CheckpointError, ResultsError):
        set_aside(path, "the encoder", "it is trained again")
        return False
    return True


def _train_apart(folder: Path, spec: TrainSpec, missing: list[str], workers: int, progress: Report) -> None:
    """Train encoders in worker processes, a share of the processor's threads each."""
    everything = len(read_table(folder / "membership.parquet").columns) - 1

    def show() -> None:
        check_held(folder)
        progress(f"training {everything} encoders", epochs_done(folder), spec.epochs * everything)

    commands = {name: ["-m", "memloc.pretrain._worker", str(folder), name] for name in missing}
    run_apart(commands, workers=workers, logs=folder / ".work", what="training", show=show)


def _record(folder: Path, spec: TrainSpec, plan: Plan, known: Images, module: nn.Module | None) -> dict[str, Any]:
    """What is known of a finished run, but for its sources and times."""
    files = {name: folder / f"encoders/{name}.safetensors" for name in plan.encoders}
    prints = (
        {}
        if module is not None
        else {name: fingerprint(encoder_of(spec.encoder, file).module) for name, file in files.items()}
    )
    return {
        "writes": WRITES,
        "spec": asdict(spec),
        "skipped": [list(pair) for pair in known.skipped],
        "notes": list(plan.notes),
        "warnings": [_GRAY] if _repeats_gray(spec, module, known) else [],
        "class_names": list(known.class_names),
        "encoders": prints,
        "processes": world(),
        "versions": versions(),
        "augmentation": spec.scored_with,
        "privacy": _privacy(folder, spec, plan),
    }


def _repeats_gray(spec: TrainSpec, module: nn.Module | None, known: Images) -> bool:
    """Whether gray images are shown to an encoder of three channels."""
    if known.pixels.shape[1] != 1:
        return False
    shape = (1, known.pixels.shape[2], known.pixels.shape[3])
    weights = RANDOM if module is None else None
    return load_encoder(spec.encoder if module is None else module, weights=weights, shape=shape).channels == 3


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
