"""Images that are files of their own, or encoded in the rows of a parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from memloc.data._arrays import numbered_labels
from memloc.data._decode import decode_one
from memloc.data._images import Images, name_id
from memloc.data._lazy import ImageFiles, LazyPixels
from memloc.data._limits import check_limit, read_parquet, readable
from memloc.errors import DataError, SpecError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
Encoded = list[tuple[str, "Path | bytes | None"]]  # images by name: a file, or its bytes
MEMORY_LIMIT = 2 * 2**30  # bytes of decoded pixels: a folder that needs more is read as it is used


def open_folder(folder: Path, size: int | None, max_bad: int) -> Images:
    """Image files at any depth; the folders that hold them are classes."""
    paths = sorted(_listed(folder))
    names = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
    tables = [] if names else sorted(path.name for path in folder.glob("*.parquet"))
    if tables:
        raise DataError(
            f"the folder {str(folder)!r} holds no images but {len(tables)} tables. Expected one table, or a folder of"
            f" image files. Pass {folder / tables[-1]}."
        )
    if not names:
        raise DataError(
            f"the folder {str(folder)!r} holds no images. Expected files that end in {', '.join(SUFFIXES)}. Pass the"
            " folder that holds them, at any depth."
        )
    if size is not None and len(names) * 3 * size * size > MEMORY_LIMIT:
        if 0 < max_bad < len(names):
            raise SpecError(
                f"max_bad is {max_bad} for {len(names)} images that do not fit in memory. Expected 0: they are read as"
                " they are used, so bad ones cannot be left out beforehand. Remove those, or pass a smaller --size."
            )
        kept = list(range(len(names)))
        skipped: tuple[tuple[str, str], ...] = ()
        pixels = cast(torch.Tensor, LazyPixels.of_files(ImageFiles(folder, paths, size)))
    else:
        encoded: Encoded = [(name, folder / path) for name, path in zip(names, paths, strict=True)]
        kept, pixels, skipped = decoded(encoded, size, max_bad, str(folder))
    classes = sorted({names[row].rsplit("/", 1)[0] for row in kept if "/" in names[row]})
    number = {name: index for index, name in enumerate(classes)}
    labels = (
        torch.tensor([number.get(names[row].rsplit("/", 1)[0] if "/" in names[row] else "", -1) for row in kept])
        if classes
        else None
    )
    ids = torch.tensor([name_id(names[row]) for row in kept])
    return Images(pixels, ids, tuple(names[row] for row in kept), labels, tuple(classes), skipped)


def open_parquet(path: Path, size: int | None, max_bad: int) -> Images:
    """A column of encoded images, and perhaps one of labels."""
    with readable(path, "one. Write or fetch it again.", state="is no readable parquet file"):
        table = read_parquet(path)
    column = next((name for name in ("image", "img") if name in table.column_names), None)
    if column is None:
        raise DataError(
            f"{path} has the columns {', '.join(table.column_names)}. Expected `image` or `img` with encoded bytes. "
            "Rename the column that holds them."
        )
    cells = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in table.column(column).to_pylist()]
    encoded: Encoded = [
        (f"{path.name}[{row}]", cell if isinstance(cell, bytes) else None) for row, cell in enumerate(cells)
    ]
    kept, pixels, skipped = decoded(encoded, size, max_bad, str(path))
    label = next((name for name in ("label", "labels", "fine_label") if name in table.column_names), None)
    labels: torch.Tensor | None = None
    names: tuple[str, ...] = ()
    if label:
        values = np.array(table.column(label).to_pylist(), dtype=object)[kept]
        labels, names = numbered_labels(values, len(kept), path.name)
    return Images(pixels, torch.tensor(kept), tuple(encoded[row][0] for row in kept), labels, names, skipped)


def _listed(folder: Path, within: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Paths of image files at any depth, relative to the folder, without looking into the files; a link to a folder
    above is not followed."""
    state = folder.stat()
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    check_limit("DEPTH", len(above), folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _listed(Path(entry.path), f"{within}{entry.name}/", (*above, here))
            elif (
                entry.name.lower().endswith(SUFFIXES) and entry.is_file() and not entry.name.startswith("._")
            ):  # macOS keeps notes of its own
                yield f"{within}{entry.name}"


def decoded(
    encoded: Encoded, size: int | None, max_bad: int, where: str
) -> tuple[list[int], torch.Tensor, tuple[tuple[str, str], ...]]:
    """Decode every image: rows kept, pixels, and what was skipped."""
    pictures: list[torch.Tensor] = []
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for row, (name, content) in enumerate(encoded):
        try:
            picture = decode_one(content, size, name)
        except DataError:  # too small: a wrong size rather than a bad file
            raise
        except Exception as problem:  # Pillow raises whatever the bytes lead it to
            skipped.append((name, str(problem) or type(problem).__name__))
            continue
        pictures.append(picture)
        kept.append(row)
        if len(pictures) * pictures[0].numel() > 4 * MEMORY_LIMIT:
            raise DataError(
                f"{where} needs more than {4 * MEMORY_LIMIT // 2**30} GiB decoded. Expected a set that fits in memory,"
                " or a folder and a size, which is read as it is used. Pass --size 224, or a part of the images."
            )
    if len(skipped) > max_bad:
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise DataError(
            f"{len(skipped)} of {len(encoded)} images in {where} cannot be read ({listed}). Expected at most {max_bad}."
            f" Mend or remove them, or accept their loss with --max-bad {len(skipped)}."
        )
    if not pictures:
        raise DataError(f"no image in {where} can be read. Expected at least two. Pass other images.")
    sizes = {tuple(picture.shape[1:]) for picture in pictures}
    if len(sizes) > 1:
        smallest = min(min(height, width) for height, width in sizes)
        raise DataError(
            f"the images in {where} have {len(sizes)} sizes, from {smallest} pixels up. Expected one size. "
            f"Pass --size {smallest} (or less) to resize and crop them all."
        )
    return kept, torch.stack(pictures), tuple(skipped)
