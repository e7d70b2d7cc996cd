"""The folder of an intervention: a new checkpoint, and a record of what was done to which encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from memloc.encoders import Encoder, fingerprint, save_weights, versions
from memloc.errors import FolderInUseError
from memloc.probe import Probe, paired_difference
from memloc.results import SCHEMA_VERSION, claimed, clear_folder, read_json, write_json, write_table

Result = tuple[Encoder, dict[str, Any], dict[str, pd.DataFrame]]
"""What an act gives: the new encoder, what to add to the record, tables to write."""
RECORD, CHECKPOINT = "intervention.json", "encoder.safetensors"
_UNCHANGED = "The new encoder has the weights of the old one: nothing was changed."


def intervene(
    kind: str,
    source: Encoder,
    metadata: Mapping[str, str],
    settings: Mapping[str, Any],
    act: Callable[[], Result],
    *,
    out: Path,
    measure: Callable[[Encoder], Probe] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Do something to an encoder and write the result into a folder; a folder that holds the same, finished, is read
    again.

    Args:
        kind: such as "prune". source: the encoder as it is; it stays so. metadata: text to keep with the new weights.
        settings: what was asked for; with the source's weights they identify the work.
        act: returns the new encoder, what to add to the record, and tables to write.
        measure: a probe of an encoder, fitted before and after.
    Returns:
        The record, also written as intervention.json.
    Raises:
        ResultsError: the folder holds other work. OutputError.
    """
    print_before = fingerprint(source.module)
    try:
        with claimed(out, {"kind": kind, "source": print_before, **settings}, overwrite=overwrite):
            if (out / RECORD).is_file():
                return read_json(out / RECORD)
            try:
                before = None if measure is None else measure(source)
                changed, more, tables = act()
                after = None if measure is None else measure(changed)
            except FolderInUseError:
                raise  # it is another process's now
            except BaseException:
                clear_folder(out)  # it was claimed for this work alone, which has nothing to show
                raise
            if before is not None and after is not None:
                tables = {**tables, "probe": pd.DataFrame({"right_before": before.right, "right_after": after.right})}
            print_after = fingerprint(changed.module)
            warned = [*more.pop("warnings", []), *([_UNCHANGED] if print_after == print_before else [])]
            for name, table in tables.items():
                write_table(out / f"{name}.parquet", table)
            save_weights(out / CHECKPOINT, changed.module, {**metadata, "intervention": kind})
            record: dict[str, Any] = {
                "schema_version": SCHEMA_VERSION,
                "kind": kind,
                "encoder": source.name,
                "settings": dict(settings),
                "checkpoint": CHECKPOINT,
                "fingerprint_before": print_before,
                "fingerprint_after": print_after,
                **more,
                "versions": versions(),
                "warnings": warned,
            }
            if before is not None and after is not None:
                record["probe"] = {
                    "before": before.to_dict(),
                    "after": after.to_dict(),
                    **paired_difference(after, before),
                }
            write_json(out / RECORD, record)
            return read_json(out / RECORD)
    except BaseException:
        with contextlib.suppress(OSError):  # there is something in it
            out.rmdir()
        raise
