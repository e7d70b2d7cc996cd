"""The images of a run, opened again and checked to be the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from memloc.data import Images, as_images, concatenate, open_images
from memloc.errors import DataError, DataNotFoundError, ResultsError
from memloc.results import as_memloc_wrote, verify
from memloc.runs._run import Run


def images_of(run: Run, *, max_bad: int = 0) -> tuple[Images, Images | None]:
    """The training images of a run, and the external ones that it was given, opened again.

    Raises:
        DataError: their contents changed. DataNotFoundError: they are gone. ResultsError: the run is damaged.
    """
    with as_memloc_wrote(run.folder or ""):
        return _opened(run, max_bad)


def _opened(run: Run, max_bad: int) -> tuple[Images, Images | None]:
    record, points = run.record, run.points
    if run.folder is not None and (run.folder / "images.npz").is_file():
        labels = points["label"].tolist() if "label" in points else None
        known = as_images(_kept(run.folder / "images.npz"), points=points["point"].tolist(), labels=labels)
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


def _kept(path: Path) -> np.ndarray:
    """The images that a run keeps, since they came from arrays."""
    verify(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            found: np.ndarray = stored["images"]
            return found
    except Exception as problem:  # NumPy raises whatever the bytes lead it to
        raise ResultsError(
            f"{str(path)!r} is missing or damaged ({type(problem).__name__}). Expected the images of the training."
            " Train again into another folder."
        ) from problem
