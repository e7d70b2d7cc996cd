"""Images of the datasets library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from memloc.data._files import decoded
from memloc.data._images import Images
from memloc.data._labels import TABLE_LABELS, number_labels
from memloc.errors import DataError, DataNotFoundError, MissingExtraError
from memloc.fit import Fit


def open_hub(text: str, fit: Fit, max_bad: int) -> Images:
    """A set of the datasets library: NAME or NAME:SPLIT, from the hub, its cache, or a folder."""
    try:
        import datasets
    except ImportError as problem:
        raise MissingExtraError(
            "datasets is not installed. Expected it for hf: images. Install it with: pip install 'memloc[datasets]'"
        ) from problem
    name, _, split = text.rpartition(":") if ":" in text else (text, "", "train")
    try:
        on_disk = (Path(name) / "dataset_info.json").is_file() or (Path(name) / "dataset_dict.json").is_file()
        loaded: Any = datasets.load_from_disk(name) if on_disk else datasets.load_dataset(name, split=split)
        table = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        if on_disk and ":" in text and not isinstance(loaded, datasets.DatasetDict):
            raise ValueError(f"it has no splits, so none is {split!r}; leave ':{split}' out")
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetNotFoundError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise DataNotFoundError(
            f"'hf:{text}' cannot be opened ({reason}). Expected a set on the hub and a network, one in the cache, or a"
            " folder. Check its name and split."
        ) from problem
    column = next((key for key, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise DataError(
            f"'hf:{text}' has the columns {', '.join(table.features)}. Expected one of images. Pass another set."
        )
    table = table.cast_column(column, datasets.Image(decode=False))
    encoded: list[tuple[str, Path | bytes | None]] = []
    for row, cell in enumerate(table[column]):
        encoded.append((f"{name}[{row}]", cell["bytes"] if cell["bytes"] is not None else Path(cell["path"])))
    kept, pixels, skipped = decoded(encoded, fit, max_bad, f"hf:{text}")
    label = next((key for key in TABLE_LABELS if key in table.features), None)
    labels: torch.Tensor | None = None
    names: tuple[str, ...] = ()
    if label is not None:
        known = tuple(getattr(table.features[label], "names", None) or ())
        labels, names = number_labels(np.array(table[label], dtype=object)[kept], len(kept), f"hf:{text}", known)
    return Images(pixels, torch.tensor(kept), tuple(encoded[row][0] for row in kept), labels, names, skipped)
