"""The tables and the record of a results folder, written and read; the record is written last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memloc.errors import DataNotFoundError, ResultsError, warn
from memloc.results._files import make_folder, read_json, write_json, write_table
from memloc.results._manifest import MANIFEST, list_files, listed_files, verify
from memloc.results._schema import conform
from memloc.results._spec import spec_hash

SCHEMA_VERSION = 1
LACKS = {  # of folders of 0.1, by their record
    "audit.json": ", and its intervals were drawn from streams that several uses shared",
    "coreset.json": ", and its random picks from streams that several uses shared",
}
_RECORDED: dict[Any, tuple[str, ...]] = {  # of what records hold, by its type
    dict: (
        "spec", "views", "versions", "fingerprints", "timings", "training", "truth", "crust", "encoders",
        "column_values", "series", "reading", "naming", "components", "coins",
    ),
    list: ("class_names", "warnings", "skipped", "input", "columns", "labels", "worst_cells", "worst_rows", "answer"),
    str: (
        "spec_hash", "mode", "encoder", "reference", "run", "data", "external", "target", "fingerprint", "by",
        "learner", "augmentation",
    ),
    int: ("schema_version", "writes", "seed", "points", "learners", "processes", "size", "n_external", "workers"),
    (int, float): ("seconds", "oob_score"),
}  # fmt: skip
_IN_WORDS = {dict: "an object", list: "a list", str: "text", int: "a whole number", (int, float): "a number"}
WRITES = 3  # what folders hold besides their tables: 1 (memloc 0.1) had neither versions of states nor checksums


def save_results(folder: str | Path, tables: Mapping[str, pd.DataFrame], record: Mapping[str, Any], name: str) -> Path:
    """Write tables, then the record that says they are whole.

    Args:
        record: with "spec", and "spec_hash" and "seed" where those are not the spec's own. name: of its file.
    """
    folder = make_folder(Path(folder))
    spec = record.get("spec") or {}
    metadata = {
        "memloc_schema_version": str(SCHEMA_VERSION),
        "memloc_spec": str(record.get("spec_hash") or spec_hash(spec)),
        "memloc_seed": str(record.get("seed", spec.get("seed", 0))),
    }
    for each, table in tables.items():
        write_table(folder / f"{each}.parquet", conform(each, table), metadata)
    write_json(
        folder / name,
        {"schema_version": SCHEMA_VERSION, "writes": 1 if "schema_version" in record else WRITES, **record},
    )
    if listed_files(folder) is None:  # else each was listed when it was written
        list_files(folder, [*(folder / f"{each}.parquet" for each in tables), folder / name])
    return folder


def read_record(folder: Path, name: str, what: str, command: str) -> dict[str, Any]:
    """The record of a finished results folder, written last.

    Args:
        name: of the file. what: the folder should hold. command: that makes it.
    Raises:
        DataNotFoundError: no such file. ResultsError: it is of another schema version.
    """
    if not (folder / name).is_file():
        raise DataNotFoundError(
            f"{str(folder)!r} holds no {what}. Expected a folder with {name}. Make one with: {command}"
        )
    record = read_json(folder / name, checked=False)
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ResultsError(
            f"{str(folder)!r} was written with schema version {record.get('schema_version')}. Expected version"
            f" {SCHEMA_VERSION}. Run the command again with this memloc, into another folder."
        )
    verify(folder / name)
    check_record(folder / name, record)
    say_what_is_missing(folder, record, name)
    return record


def check_record(path: Path, record: Mapping[str, Any]) -> None:
    """Raise ResultsError where a record holds something of another type than memloc writes.

    >>> check_record(Path("audit.json"), {"warnings": "none"})
    Traceback (most recent call last):
    memloc.errors.ResultsError: 'audit.json' holds str under 'warnings'. Expected a list, as memloc wrote it. Restore \
the file, or run the command again that wrote it, into another folder.
    """
    for kind, names in _RECORDED.items():
        for name in names:
            if record.get(name) is not None and not isinstance(record[name], kind):
                raise ResultsError(
                    f"{str(path)!r} holds {type(record[name]).__name__} under {name!r}. Expected"
                    f" {_IN_WORDS[kind]}, as memloc wrote it. Restore the file, or run the command again that wrote"
                    " it, into another folder."
                )


def say_what_is_missing(folder: Path, record: Mapping[str, Any], kind: str = "") -> None:
    """Warn of what a folder of an older memloc, or one without its list of files, lacks; it opens all the same."""
    if int(record.get("writes", 1)) < WRITES:
        version = (record.get("versions") or {}).get("memloc", "0.1")
        lacks = "it does not say the versions of its stored states, and its files have no checksums"
        warn(
            f"{str(folder)!r} was written by an older memloc ({version}): {lacks}{LACKS.get(kind, '')}. It opens as it"
            " is; damage would go unseen.",
        )
    elif listed_files(folder) is None:
        warn(
            f"{str(folder)!r} has no {MANIFEST}, which memloc wrote: damage to its files would go unseen.",
        )
