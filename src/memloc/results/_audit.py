"""The Audit: the tables of one run, as pandas, on disk and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from memloc.results._files import read_table
from memloc.results._manifest import listed_files
from memloc.results._record import read_record, save_results
from memloc.results._schema import conform, empty

_NAMES = ("points", "point_layers", "layers", "units", "thumbnails")
_Kind = TypeVar("_Kind", bound="Audit")
_LATER = ("separation",)  # tables that folders of 0.1 lack


@dataclass(frozen=True)
class Audit:
    """What an audit found; columns are described in `memloc.results.TABLES`.

    Attributes:
        points: one row per point scored.
        point_layers: one row per point and layer.
        layers: one row per layer, in the order of the forward pass.
        units: one row per unit.
        thumbnails: small pictures of points, empty where they were left out.
        separation: one row per reading and false-positive rate; empty of folders of memloc 0.1.
        record: the spec, seeds, versions, fingerprints, timings and warnings (audit.json).
    """

    points: pd.DataFrame = field(repr=False)
    point_layers: pd.DataFrame = field(repr=False)
    layers: pd.DataFrame
    units: pd.DataFrame = field(repr=False)
    thumbnails: pd.DataFrame = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    separation: pd.DataFrame = field(repr=False, default_factory=lambda: empty("separation"))

    @property
    def warnings(self) -> list[str]:
        """What may surprise, in words."""
        return list(self.record.get("warnings", []))

    def save(self, folder: str | Path) -> Path:
        """Write the tables and audit.json (last) to a folder."""
        return save_results(
            folder, {name: getattr(self, name) for name in (*_NAMES, *_LATER)}, self.record, "audit.json"
        )

    @classmethod
    def load(cls: type[_Kind], folder: str | Path) -> _Kind:
        """Read what `save` wrote.

        Raises:
            DataNotFoundError: no such folder, or none that an audit finished. ResultsError: another schema version.
        """
        folder = Path(folder)
        hint = f"memloc audit RUN --out {folder}"
        if (folder / "run.json").is_file():  # a training run was named instead of its audit
            hint = f"memloc audit {folder} --out {folder}-audit"
        record = read_record(folder, "audit.json", "finished audit", hint)
        listed = listed_files(folder) or ()
        there = (*_NAMES, *(name for name in _LATER if f"{name}.parquet" in listed))
        return cls(**{name: conform(name, read_table(folder / f"{name}.parquet")) for name in there}, record=record)
