"""Images that are files of their own: a folder of them, its classes and its metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import torch

from memloc.data._decode import decode_one
from memloc.data._images import Images, name_id
from memloc.data._lazy import ImageFiles, LazyPixels
from memloc.data._listing import UNREAD, Listing, listed
from memloc.data._metadata import labels_beside
from memloc.errors import DataError, SpecError, warn
from memloc.fit import Fit

Encoded = list[tuple[str, "Path | bytes | None"]]  # images by name: a file, or its bytes
MEMORY_LIMIT = 2 * 2**30  # bytes of decoded pixels: a folder that needs more is read as it is used
_DARK = 20  # of 255: a set that is nowhere brighter is no set of 8 or 16 bits
_SEVERAL = 2
_SETS = (("train", "training"), ("val", "valid", "validation", "dev"), ("test", "testing"))


def open_folder(folder: Path, within: Listing, fit: Fit, max_bad: int, part: str | None = None) -> Images:
    """Image files at any depth; the folders that hold them are classes, unless metadata beside them names labels.

    Args:
        within: what the folder holds. part: the folder of a set within it, such as train.
    Raises:
        DataError: no images, or several sets (folders train and test) of which none is named.
    """
    chosen = chosen_set(str(folder), within.images, part)
    if chosen:
        folder = folder / chosen
        within = listed(folder)
    for text in within.notes():
        warn(text)
    paths = within.images
    names = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
    if fit.size is not None and len(names) * 3 * fit.size * fit.size > MEMORY_LIMIT:
        paths, names, skipped = _without_unread(folder, paths, names, max_bad)
        kept = list(range(len(names)))
        pixels = cast(torch.Tensor, LazyPixels.of_files(ImageFiles(folder, paths, fit)))
    else:
        encoded: Encoded = [(name, folder / path) for name, path in zip(names, paths, strict=True)]
        kept, pixels, skipped = decoded(encoded, fit, max_bad, str(folder))
    names = [names[row] for row in kept]
    labels, classes = labels_beside(folder, within.metadata, names) or labels_of_folders(names)
    ids = torch.tensor([name_id(name) for name in names])
    return Images(pixels, ids, tuple(names), labels, classes, skipped)


def labels_of_folders(names: list[str]) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Classes by the folders that hold the images, and -1 for images beside them; None where there are no folders.

    >>> labels_of_folders(["cat/1.png", "dog/1.png", "2.png"])
    (tensor([ 0,  1, -1]), ('cat', 'dog'))
    """
    folders = [name.rsplit("/", 1)[0] if "/" in name else "" for name in names]
    classes = sorted({folder for folder in folders if folder})
    number = {folder: place for place, folder in enumerate(classes)}
    return (torch.tensor([number.get(folder, -1) for folder in folders]) if classes else None), tuple(classes)


def chosen_set(where: str, names: Sequence[str], part: str | None) -> str:
    """Where the paths of the set that is meant begin: "" where images are of no sets.

    Folders train and test, or train and val, are sets and no classes, whatever lies beside them.

    Raises:
        DataError: several sets of which none is named, or no such set.

    >>> chosen_set("pets", ["train/cat/1.png", "test/cat/2.png"], "train")
    'train/'
    """
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    sets = {top: kind for top in tops if (kind := _kind(top)) is not None}
    if part is None:
        if len(set(sets.values())) < _SEVERAL:
            return ""
        raise DataError(
            f"{where} holds the sets {', '.join(sorted(sets))}, each with folders of its own. Expected one set, since"
            f" they are no classes. Pass {where}:{min(sets, key=_train_first)}, or the folder of another."
        )
    match = [top for top in tops if top == part] or [top for top, kind in sets.items() if kind == _kind(part)]
    if len(match) == 1:
        return f"{match[0]}/"
    raise DataError(
        f"{where} has no set {part!r}. Expected a folder of that name in it, beside others such as train and test."
        f" Leave ':{part}' out."
    )


def _kind(name: str) -> int | None:
    """Which of the known sets a folder's name is; None of others. Years do not matter, as in train2017."""
    plain = name.lower().rstrip("0123456789").rstrip("-_ ")
    return next((number for number, names in enumerate(_SETS) if plain in names), None)


def _train_first(name: str) -> tuple[bool, str]:
    return _kind(name) != 0, name


def _without_unread(
    folder: Path, paths: list[str], names: list[str], max_bad: int
) -> tuple[list[str], list[str], tuple[tuple[str, str], ...]]:
    """Images of a folder that is read as it is used, without those of formats that are not read."""
    gone = {name for name, path in zip(names, paths, strict=True) if not (folder / path).exists()}
    skipped = tuple(
        (name, "a link that leads nowhere" if name in gone else _UNREAD)
        for name in names
        if name in gone or name.lower().endswith(UNREAD)
    )
    _check_bad(skipped, len(names), max_bad, str(folder))
    if 0 < max_bad < len(names) and not skipped:
        raise SpecError(
            f"max_bad is {max_bad} for {len(names)} images that do not fit in memory. Expected 0: they are read as"
            " they are used, so bad ones cannot be left out beforehand. Remove those, or pass a smaller --size."
        )
    left_out = {name for name, _ in skipped}
    rows = [row for row, name in enumerate(names) if name not in left_out]
    return [paths[row] for row in rows], [names[row] for row in rows], skipped


_UNREAD = "a format that memloc does not read; save it as PNG or JPEG"


def decoded(
    encoded: Iterable[tuple[str, Path | bytes | None]], fit: Fit, max_bad: int, where: str
) -> tuple[list[int], torch.Tensor, tuple[tuple[str, str], ...]]:
    """Decode every image: rows kept, pixels, and what was skipped."""
    pictures: list[torch.Tensor] = []
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    row = -1
    for row, (name, content) in enumerate(encoded):
        try:
            if name.lower().endswith(UNREAD):
                raise OSError(_UNREAD)
            picture = decode_one(content, fit, name)
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
    _check_bad(skipped, row + 1, max_bad, where)
    if not pictures:
        raise DataError(f"no image in {where} can be read. Expected at least two. Pass other images.")
    check_one_size({tuple(picture.shape[1:]) for picture in pictures}, f"the images in {where}", "--size {size}", fit)
    found = torch.stack(pictures)
    if 0 < int(found.max()) <= _DARK:
        warn(
            f"No pixel of {where} is brighter than {int(found.max())} of 255. Were they saved with 12 bits in files of"
            " 16? Scale them to the whole range first.",
        )
    return kept, found, tuple(skipped)


def check_one_size(sizes: set[tuple[int, ...]], what: str, flag: str, fit: Fit) -> None:
    """Raise DataError where images have several sizes, (height, width)."""
    if len(sizes) < 2:
        return
    smallest = min(min(height, width) for height, width in sizes)
    if fit.suggested is not None and fit.suggested <= smallest:
        step = (
            f"Pass {flag.format(size=fit.suggested)}, with which the encoder is published, to resize and crop them all."
        )
    else:
        whose = "the size that your encoder was trained with" if fit.suggested is None else f"{fit.suggested} pixels"
        step = f"Pass {flag.format(size=smallest)} or less to resize and crop them all; best is {whose}, if that fits."
    raise DataError(f"{what} have {len(sizes)} sizes, from {smallest} pixels up. Expected one size. {step}")


def _check_bad(skipped: Sequence[tuple[str, str]], count: int, max_bad: int, where: str) -> None:
    """Raise DataError where more images cannot be read than may be."""
    if len(skipped) > max_bad:
        listed_bad = "; ".join(f"{name}: {reason}" for name, reason in skipped[:3])
        raise DataError(
            f"{len(skipped)} of {count} images in {where} cannot be read ({listed_bad}). Expected at most {max_bad}."
            f" Mend or remove them, or accept their loss with --max-bad {len(skipped)}."
        )
