"""The formats of images, one object each: what a user may type, and how it is opened.

A new format is one entry of FORMATS. No entry can hide another: each says what it takes, and two that take the same are
an error that a test finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memloc.data._archives import ARCHIVES, members, read_archive, stl10, svhn
from memloc.data._arrays import open_idx, open_npz, open_sample, published
from memloc.data._files import open_folder
from memloc.data._hub import open_hub
from memloc.data._images import Images
from memloc.data._limits import check_limit
from memloc.data._listing import READ, listed
from memloc.data._shards import braced, open_archive, open_parquet, shards_of
from memloc.errors import DataError, DataNotFoundError, nearest_path
from memloc.fit import Fit


@dataclass(frozen=True)
class Asked:
    """What a user asks for.

    Attributes:
        text: as typed. path, part: the file or folder, and the part of a set after a colon.
        fit: to which size, and how. max_bad: as in `open_images`.
    """

    text: str
    path: Path
    part: str | None
    fit: Fit
    max_bad: int

    @property
    def is_file(self) -> bool:
        """Whether it is a path, and none to a folder."""
        return not self.text.startswith(("sample:", "hf:")) and not self.path.is_dir()


@dataclass(frozen=True)
class Format:
    """A format of images.

    Attributes:
        what: it is, in messages. takes: whether something is of this format, by its name or kind alone.
        open: it. has_parts: whether ":test" may follow it. needs_path: whether it must be there.
    """

    what: str
    takes: Callable[[Asked], bool]
    open: Callable[[Asked], Images]
    has_parts: bool = False
    needs_path: bool = True


def _suffix(*suffixes: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.is_file and asked.path.suffix in suffixes


def _is_idx(asked: Asked) -> bool:
    """By a name as the published files have it, whose end is not another format's."""
    name = asked.path.name
    other = name.endswith((".npz", ".parquet", ".mat", "_X.bin", *ARCHIVES))
    return asked.is_file and not other and ("idx3-ubyte" in name or "idx3" in asked.path.suffix)


def _open_archive(asked: Asked) -> Images:
    """A published set, or images of any other."""
    part = asked.part or "train"
    found = read_archive(members(asked.path), part, str(asked.path))
    if found is not None:
        return published(found, f"{asked.path.name}:{part}")
    return open_archive([asked.path], asked.fit, asked.max_bad, asked.part)


def _open_directory(asked: Asked) -> Images:
    """The files of a published set where a folder holds them, else its images, or shards of them."""
    part = asked.part or "train"
    found = read_archive(members(asked.path), part, str(asked.path))
    if found is not None:
        return published(found, f"{asked.path.name}:{part}")
    within = listed(asked.path)
    tables = [path.name for path in asked.path.rglob("*-of-*.parquet")] if within.images else []
    if tables:
        raise DataError(
            f"the folder {str(asked.path)!r} holds {len(within.images)} images and {len(tables)} shards of tables, such"
            f" as {tables[0]}. Expected one or the other. Pass the folder that holds the shards, or the images."
        )
    if within.images:
        return open_folder(asked.path, within, asked.fit, asked.max_bad, asked.part)
    for suffix, reader in ((".parquet", open_parquet), (".tar", open_archive), (".tar.gz", open_archive)):
        shards = shards_of(asked.path, suffix, asked.part) if any(asked.path.rglob(f"*{suffix}")) else []
        if shards:
            return reader(shards, asked.fit, asked.max_bad)
    raise DataError(
        f"the folder {str(asked.path)!r} holds no images. Expected files that end in {', '.join(READ)}, or shards that"
        " end in .parquet or .tar. Pass the folder that holds them, at any depth."
    )


def _open_braced(asked: Asked) -> Images:
    """Shards by the numbers in their names."""
    paths = [path.expanduser() for path in braced(asked.text)]
    gone = next((path for path in paths if not path.is_file()), None)
    if gone is not None:
        raise DataNotFoundError(
            f"there is no file {str(gone)!r}, one of {len(paths)} shards. Expected all of them. Check the numbers."
        )
    reader = open_parquet if paths[0].suffix == ".parquet" else open_archive
    return reader(paths, asked.fit, asked.max_bad)


def _open_stl10(asked: Asked) -> Images:
    labels = asked.path.with_name(asked.path.name.replace("_X.bin", "_y.bin"))
    known = labels.read_bytes() if labels.is_file() else None
    check_limit("BYTES", asked.path.stat().st_size, asked.path)
    return published(stl10(asked.path.read_bytes(), known, ()), asked.path.name)


FORMATS = (
    Format(
        "sample:train",
        lambda asked: asked.text.startswith("sample:"),
        lambda asked: open_sample(asked.text.removeprefix("sample:")),
        needs_path=False,
    ),
    Format(
        "hf:NAME",
        lambda asked: asked.text.startswith("hf:"),
        lambda asked: open_hub(asked.text.removeprefix("hf:"), asked.fit, asked.max_bad),
        needs_path=False,
    ),
    Format(
        "shards such as train-{000..123}.tar", lambda asked: bool(braced(asked.text)), _open_braced, needs_path=False
    ),
    Format("a folder", lambda asked: asked.path.is_dir(), _open_directory, has_parts=True),
    Format(".parquet", _suffix(".parquet"), lambda asked: open_parquet([asked.path], asked.fit, asked.max_bad)),
    Format(".npz", _suffix(".npz"), lambda asked: open_npz(asked.path)),
    Format(
        "an IDX file (…-images-idx3-ubyte, also .gz)",
        _is_idx,
        lambda asked: open_idx(asked.path),
    ),
    Format(
        "an archive of CIFAR or STL-10, of WebDataset, or of folders of images",
        lambda asked: asked.is_file and asked.path.name.endswith(ARCHIVES),
        _open_archive,
        has_parts=True,
    ),
    Format("a _X.bin file of STL-10", lambda asked: asked.is_file and asked.path.name.endswith("_X.bin"), _open_stl10),
    Format("a .mat file of SVHN", _suffix(".mat"), lambda asked: published(svhn(asked.path), asked.path.name)),
)


def format_of(asked: Asked) -> Format:
    """The one format that takes what is asked for.

    Raises:
        DataNotFoundError: there is nothing there. DataError: it is of no format, or has no parts.
    """
    taking = [each for each in FORMATS if each.takes(asked)]
    if taking and not taking[0].needs_path:
        return taking[0]
    if not asked.path.exists():
        raise DataNotFoundError(
            f"there is no file or folder {asked.text!r}.{nearest_path(asked.path)} Expected images: a folder, .parquet,"
            " IDX or .npz, an archive, or sample:train. Check the path, or try: memloc demo"
        )
    if not asked.path.is_dir() and not asked.path.is_file():
        raise DataError(
            f"{asked.text!r} is no file but a device, pipe or socket. Expected images in a file or folder. Save what it"
            " gives into a file first."
        )
    if not taking or not taking[0].has_parts:
        _refuse_part(asked)
    if not taking:
        raise DataError(
            f"{asked.text!r} is of no kind that memloc reads. Expected {', '.join(each.what for each in FORMATS[3:-1])}"
            f" or {FORMATS[-1].what}. Pass one of these."
        )
    return taking[0]


def _refuse_part(asked: Asked) -> None:
    """Raise DataError where a part is named of what has none."""
    if asked.part is not None:
        raise DataError(
            f"{asked.text!r} has no parts. Expected an archive of CIFAR or STL-10 before ':{asked.part}'. Leave"
            f" ':{asked.part}' out."
        )
