"""A finished training run: its encoders, who was trained on what, and how."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from memloc.encoders import Encoder, Preprocess, encoder_name, is_inert, load_encoder, load_weights, read_weights
from memloc.errors import DataNotFoundError, ResultsError, TrustError
from memloc.results import as_memloc_wrote, check_record, read_json, read_table, say_what_is_missing
from memloc.runs._heads import with_objective


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        folder: where it lies; None once a temporary one is gone.
        points: point, name, split, label, repeats, origin.
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

    @property
    def sees(self) -> np.ndarray:
        """Whether each encoder was trained on each point, bool (encoder, point)."""
        return self.membership.iloc[:, 1:].to_numpy(dtype=bool).T.copy()

    @property
    def repeats(self) -> dict[int, int]:
        """How often each point was shown per epoch; empty where none was shown more than once."""
        if not (self.points["repeats"] > 1).any():
            return {}
        return dict(zip(self.points["point"].tolist(), self.points["repeats"].tolist(), strict=True))

    def side(self, name: str) -> list[Encoder]:
        """The encoders of one side of a pair, "f" or "g"."""
        return [encoder for encoder_name, encoder in self.encoders.items() if encoder_name.startswith(name)]


def open_run(folder: str | Path, *, module: nn.Module | None = None, trust: bool = False) -> Run:
    """Open a finished run.

    Args:
        module: the architecture, where the run was trained from an nn.Module.
        trust: whether a function that the folder names as the architecture may be run.
    Raises:
        DataNotFoundError: no such folder, or a run that is not finished. ResultsError: a damaged one. TrustError: it
            was trained from a function in a Python file, which opening it would run.
    """
    folder = Path(folder)
    with as_memloc_wrote(folder):
        return _opened(folder, module, trust)


load_run = open_run  # its name in 0.1


def _opened(folder: Path, module: nn.Module | None, trust: bool) -> Run:
    if not (folder / "run.json").is_file():
        begun = (folder / "spec.json").is_file()
        state = "holds a run that is not finished" if begun else "holds no run"
        step = (
            "Repeat the memloc train command that began it" if begun else "Make one with: memloc train DATA --out RUN"
        )
        raise DataNotFoundError(f"{str(folder)!r} {state}. Expected a folder that memloc train finished. {step}.")
    record, membership = read_json(folder / "run.json"), read_table(folder / "membership.parquet")
    check_record(folder / "run.json", record)
    missing = [key for key in ("ensemble", "unpaired", "encoder") if key not in (record.get("spec") or {})]
    if missing:
        raise ResultsError(
            f"{str(folder / 'run.json')!r} does not say {missing[0]!r} of the training. Expected the record that memloc"
            " train wrote. Restore the file, or train again into another folder."
        )
    say_what_is_missing(folder, record)
    known = str(record["spec"]["encoder"])
    if module is None:
        check_trust(folder, known, trust=trust)
    points = read_table(folder / "points.parquet")
    classes = int(points["label"].max()) + 1 if "label" in points else 0
    encoders = {}
    for name in membership.columns[1:]:
        path = folder / f"encoders/{name}.safetensors"
        encoder = encoder_of(known, path) if module is None else _encoder_like(module, path)
        slots = int((membership[name] * points["repeats"].clip(lower=1)).sum())
        head = folder / f"heads/{name}.safetensors"
        encoders[str(name)] = with_objective(encoder, head, record["spec"], classes=classes, slots=slots)
    return Run(folder, points, membership, encoders, record)


def check_trust(folder: Path, encoder: str, *, trust: bool) -> None:
    """Raise TrustError where a folder names a function of a Python file as its encoder, or options that load files, and
    is not trusted."""
    named = encoder_name(encoder)
    if trust:
        return
    if not is_inert(named):
        raise TrustError(
            f"{str(folder)!r} names the encoder {encoder!r}, whose options could load other files. Expected your word"
            " that you trust this folder. If you do, repeat the command with --trust (trust=True in Python)."
        )
    if named.is_code:
        raise TrustError(
            f"{str(folder)!r} names the function {encoder!r} as its encoder, and opening the folder would run it."
            " Expected your word that you trust this folder. If you do, repeat the command with --trust (trust=True in"
            " Python)."
        )


def encoder_of(encoder: str, path: Path) -> Encoder:
    """An encoder of a run: by the architecture that the run's own record names."""
    if not encoder_name(encoder).is_code:
        return load_encoder(path)
    return replace(load_encoder(encoder, weights=path), name=path.stem)


def _encoder_like(module: nn.Module, path: Path) -> Encoder:
    tensors, metadata = read_weights(path)
    fresh = copy.deepcopy(module)
    load_weights(fresh, tensors, name=str(path))
    mean, std = (tuple(float(part) for part in metadata[key].split()) for key in ("mean", "std"))
    shape = tuple(int(part) for part in metadata["shape"].split()) if "shape" in metadata else None
    found = load_encoder(fresh, shape=shape)  # type: ignore[arg-type]
    return Encoder(
        found.module,
        found.layers,
        Preprocess(mean, std),
        path.stem,
        found.channels,
        metadata.get("augmentation"),
        shape=found.shape,
    )
