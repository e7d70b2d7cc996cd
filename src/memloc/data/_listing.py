"""What lies in a folder of images: files of images at any depth, and what is none of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from memloc.data._limits import check_limit
from memloc.errors import DataError

READ = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".jp2", ".j2k", ".avif", ".bmp", ".dib"),
    *(".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Ends of the names of images that are read."""
UNREAD = (
    *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".tga", ".ico", ".icns", ".svg", ".psd", ".xcf", ".eps", ".pcx"),
    *(".exr", ".hdr", ".dcm", ".nii", ".nii.gz", ".fits", ".fit", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf"),
    *(".rw2", ".raf", ".raw", ".qoi", ".sgi"),
)
"""Ends of the names of images that are not: they count as images that cannot be read."""
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_ARRAYS = (".npy", ".npz", ".mat")
_SYSTEM = (
    *("__macosx", "__pycache__", "lost+found", "system volume information", "$recycle.bin", "#recycle", "recycler"),
    *("#snapshot", "found.000", "node_modules"),
)
_STARTS = (".", "@", "$")  # of folders that systems and tools hide, such as .ipynb_checkpoints and @eaDir
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")


@dataclass
class Listing:
    """What a folder holds.

    Attributes:
        images: paths of image files, relative to the folder, sorted. metadata: of metadata.csv and the like.
        left_out: folders of the system that hold images, and how many. arrays: files of arrays beside the images.
    """

    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    arrays: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What a person should hear of it."""
        found = []
        if self.left_out:
            count = sum(self.left_out.values())
            found.append(
                f"{count} image files in hidden or system folders are left out: {_some(list(self.left_out))}. Move them"
                " to a folder with another name if they are data."
            )
        if self.arrays:
            found.append(
                f"{len(self.arrays)} files of arrays beside the images are not read: {_some(self.arrays)}. Pass a .npz"
                " file itself to read its images."
            )
        return found


def listed(folder: Path) -> Listing:
    """Image files at any depth, without looking into those that are named as such; links to folders above are not
    followed, hidden and system folders are left out.

    Raises:
        DataError: a folder that may not be read, or too deep a one.
    """
    found = Listing()
    for path in _everything(folder, found):
        name = path.rsplit("/", 1)[-1].lower()
        if name in METADATA:
            found.metadata.append(path)
        elif name.endswith(_ARRAYS):
            found.arrays.append(path)
        else:
            found.images.append(path)
    found.images.sort()
    return found


def is_hidden(name: str) -> bool:
    """Whether a folder of this name is one that systems and tools hide.

    >>> is_hidden(".ipynb_checkpoints"), is_hidden("@eaDir"), is_hidden("#tag")
    (True, True, False)
    """
    return name.startswith(_STARTS) or name.lower() in _SYSTEM


def _everything(folder: Path, found: Listing) -> Iterator[str]:
    """Paths of images, metadata and arrays; what links lead to comes last, so that it keeps its own name, and what is
    met a second time is left out."""
    seen: set[tuple[int, int]] = set()
    waiting = [(folder, "", 0)]
    for place, within, depth in waiting:  # which grows by the links that are met
        yield from _walk(place, within, depth, seen, found, waiting)


def _walk(
    folder: Path,
    within: str,
    depth: int,
    seen: set[tuple[int, int]],
    found: Listing,
    waiting: list[tuple[Path, str, int]],
) -> Iterator[str]:
    """Paths in a folder, relative to the first one; links to folders wait."""
    try:
        state = folder.stat()
        here = (state.st_dev, state.st_ino)
        if here in seen:
            return
        seen.add(here)
        check_limit("DEPTH", depth, folder)
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except PermissionError as problem:
        raise DataError(
            f"the folder {str(folder)!r} may not be read ({problem.strerror}). Expected a folder that you may list."
            " Change its permissions, or leave it out."
        ) from problem
    for entry in entries:
        if not _is_folder(entry):
            if not entry.name.startswith(".") and _is_wanted(entry):
                yield f"{within}{entry.name}"
        elif is_hidden(entry.name):
            count = sum(_is_image(name) for _, _, names in os.walk(entry.path) for name in names)
            if count:
                found.left_out[f"{within}{entry.name}"] = count
        elif entry.is_symlink():
            waiting.append((Path(entry.path), f"{within}{entry.name}/", depth + 1))
        else:
            yield from _walk(Path(entry.path), f"{within}{entry.name}/", depth + 1, seen, found, waiting)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    """Whether a file is an image, by its name or, without one, by how it begins; or metadata or an array. A link that
    leads nowhere is an image that cannot be read; pipes and devices are none."""
    name = entry.name.lower()
    try:
        is_file = entry.is_file()
    except OSError:  # a link to itself
        is_file = False
    if name.endswith((*READ, *UNREAD, *_ARRAYS)) or name in METADATA:
        return is_file or (entry.is_symlink() and not os.path.exists(entry.path))
    if "." in entry.name or not is_file:
        return False
    try:
        with open(entry.path, "rb") as file:
            start = file.read(8)
    except OSError:  # one that may not be read
        return False
    return start.startswith(_MAGIC)


def _is_image(name: str) -> bool:
    return name.lower().endswith((*READ, *UNREAD)) and not name.startswith("._")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
