"""Labels that stand in a table beside the images: metadata.csv, metadata.jsonl or metadata.parquet."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from memloc.data._labels import TABLE_LABELS, number_labels
from memloc.data._limits import read_parquet, readable
from memloc.errors import DataError, warn

_FRACTION = re.compile(r"-?\d*\.\d+(?:e[-+]?\d+)?", re.IGNORECASE)
_DIGITS = 18  # of a whole number at most
_FILES = ("file_name", "filename", "file", "path", "image")


def labels_beside(
    folder: Path, metadata: Sequence[str], names: Sequence[str]
) -> tuple[torch.Tensor, tuple[str, ...]] | None:
    """Class numbers and names of images by the tables beside them; None where no table names labels.

    Args:
        folder: of the images. metadata: paths of the tables. names: of the images, relative to the folder.
    Raises:
        DataError: an unreadable table, or one without a column of files.
    """
    found: dict[str, Any] = {}
    for path in metadata:
        found |= _labels_of(folder, path)
    if not found:
        return None
    values = [found.get(name) for name in names]
    without = sum(name not in found for name in names)
    beyond = len(set(found) - set(names))
    if 0 < beyond < len(found):
        warn(
            f"{beyond} of {len(found)} rows of {', '.join(metadata)} name images that are not there or cannot be read."
        )
    if without == len(names):
        raise DataError(
            f"{metadata[0]} in {folder} names none of the {len(names)} images beside it, but files such as"
            f" {next(iter(found))!r}. Expected their paths relative to it. Correct them, or remove the table."
        )
    if without:
        warn(
            f"{without} of {len(names)} images are not in {', '.join(metadata)} and have no label.",
        )
    return number_labels(values, len(names), metadata[0])


def _labels_of(folder: Path, path: str) -> dict[str, Any]:
    """The label of each image that a table names; {} where it has no labels."""
    with readable(folder / path, "a table with a column file_name. Save it again."):
        rows = _rows(folder / path)
    if not rows:
        return {}
    known = dict.fromkeys(key for row in rows[:100] for key in row)
    label = next((name for name in TABLE_LABELS if name in known), None)
    if label is None:
        warn(
            f"{folder / path} has the columns {', '.join(known)} and none of labels, so it is not read. Call the column"
            " of labels label, and that of paths file_name."
        )
        return {}
    file = next((name for name in _FILES if name in known), None)
    if file is None:
        raise DataError(
            f"{folder / path} has the columns {', '.join(known)}. Expected file_name with the path of each image."
            " Rename the column that holds it."
        )
    within = posixpath.dirname(path)
    return {posixpath.normpath(posixpath.join(within, str(row.get(file)))): row.get(label) for row in rows}


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = read_parquet(path).to_pylist()
        return rows
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in file if line.strip()]
        header = file.readline()
        file.seek(0)
        between = max((",", ";", "\t"), key=header.count)
        return [_numbers(row) for row in csv.DictReader(file, delimiter=between)]


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers of a row as such, so that 10 comes after 9, and fractions, which are no labels."""
    return {
        key: int(value) if _is_whole(value) else float(value) if _FRACTION.fullmatch(str(value)) else value
        for key, value in row.items()
    }


def _is_whole(value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) < _DIGITS
        and value.isascii()
        and value.isdigit()
        and str(int(value)) == value
    )
