"""Every error that memloc raises on purpose: what is wrong, what was expected, what to type next."""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_PYTHON = {  # what flags are in Python, where that is no argument of the same name
    "--f-weights FILE": "load_encoder(NAME, weights=FILE) as f",
    "--g-weights FILE": "load_encoder(NAME, weights=FILE) as g",
    "--policy": "views=Views(POLICY)",
    "--views": "views=Views(n=...)",
}
_PROSE = (
    *("and", "or", "to", "in", "for", "with", "as", "that", "again", "out", "where", "on", "of", "by", "if", "at"),
    *("only", "instead", "alone", "is", "are", "was", "were", "together", "too", "takes", "has", "have", "beside"),
    *("looks", "goes", "from", "than", "then", "since", "so", "which", "without", "also", "names", "given", "does"),
    *("do", "both", "twice", "asks", "reads", "needs", "cannot", "can", "must", "may", "says", "states", "would"),
    *("will", "the", "a", "once"),
)  # words that may follow a flag and are no value of it
_NO_VALUE = rf"(?:{'|'.join(_PROSE)})(?:[\s,;:)]|[.](?:\s|$)|$)"
_FLAG = re.compile(rf"(?<![\w-])--([a-z][a-z-]*)(?=[\s.,;:)']|$)(?: (?!{_NO_VALUE})([^\s,;:()]*[^\s,;:().]))?")
_COMMAND = re.compile(r"\b(?:memloc|pip|python3?|git|torchrun) -?[a-z]")
_SWITCHES = ("trust", "overwrite", "unpaired", "coin", "earlier", "quick")
_typed = [False]  # whether what is said is said to somebody who types commands


@contextmanager
def typed() -> Iterator[None]:
    """While a command runs: warnings name flags."""
    before, _typed[0] = _typed[0], True
    try:
        yield
    finally:
        _typed[0] = before


def in_python(text: str) -> str:
    """A message with arguments where it names flags.

    >>> in_python("Pass --external DATA, or --policy as in training. Type: memloc layers --size 32")
    'Pass external=DATA, or views=Views(POLICY) as in training. Type: memloc layers --size 32'
    """

    def argument(match: re.Match[str]) -> str:
        if _COMMAND.search(text[: match.start()].rpartition(". ")[2]):
            return match[0]  # of a command that a person may type
        if match[1] in _SWITCHES:
            return f"{match[1]}=True{f' {match[2]}' if match[2] else ''}"
        if match[1] == "policy" and match[2]:
            return f"views=Views({match[2]!r})"
        if match[1] == "views" and match[2]:
            return f"views=Views(n={match[2]})"
        known = next((words for flag, words in _PYTHON.items() if match[0].startswith(flag)), None)
        return known or f"{match[1].replace('-', '_')}={match[2] or ''}"

    return _FLAG.sub(argument, text)


def warn(text: str) -> None:
    """Warn of something once, at the line outside memloc that led to it: in arguments, or in flags while a command
    runs."""
    level, outermost = 1, 1
    frame: FrameType | None = sys._getframe(0)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "memloc":
            outermost = level
        frame, level = frame.f_back, level + 1
    warnings.warn(text if _typed[0] else in_python(text), MemlocWarning, stacklevel=outermost + 1)


class MemlocError(Exception):
    """Base of all memloc errors; the command line turns it into one message and an exit code.

    >>> issubclass(SpecError, MemlocError) and issubclass(SpecError, ValueError)
    True
    """

    exit_code = 2

    def __init__(self, text: str = "") -> None:
        super().__init__(text if _typed[0] else in_python(text))


class ShapeError(MemlocError, ValueError):
    """A tensor or table has another shape than the formula needs."""


class SpecError(MemlocError, ValueError):
    """A setting is unknown, out of range or in conflict with another."""


class DataError(MemlocError, ValueError):
    """The images, labels, splits or ids given cannot be used."""


class DataNotFoundError(MemlocError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class LayerNotFoundError(MemlocError, KeyError):
    """An encoder has no such layer, or never calls it."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class EncoderError(MemlocError, ValueError):
    """An encoder or a pair of encoders cannot be audited."""


class CheckpointError(MemlocError, ValueError):
    """A checkpoint is unreadable, unsafe or does not fit the architecture."""


class TrustError(MemlocError, PermissionError):
    """A folder names code that opening it would run, and nobody said that the folder is trusted."""


class NonFiniteError(MemlocError, ValueError):
    """Weights, activations or scores hold NaN or Inf."""


class TrainingError(MemlocError, RuntimeError):
    """Training stopped: a worker ended early, or the loss is no longer finite."""

    exit_code = 1


class ResultsError(MemlocError, ValueError):
    """A results folder is missing files, of another version or of another spec."""


class OutputError(MemlocError, OSError):
    """The output folder cannot be written."""

    exit_code = 1


class FolderInUseError(OutputError):
    """Another process works on the output folder."""


class MemoryUsedUpError(MemlocError, MemoryError):
    """There is not enough memory for the smallest batch."""

    exit_code = 1


class MissingExtraError(MemlocError, ImportError):
    """An optional dependency is needed; the message names the pip command."""

    exit_code = 4


class MemlocWarning(UserWarning):
    """A result that is right but may surprise; the same text is in audit.json and the report."""


def nearest_path(path: Path) -> str:
    """Files and folders beside a mistyped one with names like its own, as a sentence after another; "" of none."""
    try:
        beside = sorted(one.name for one in path.parent.iterdir())
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, beside, cutoff=0.7)
    return f" Nearest: {', '.join(repr(str(path.parent / name)) for name in close)}." if close else ""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The known names closest to a mistyped one, as text for an error message.

    >>> nearest("layer5", ["layer1", "layer4", "stem"])
    "Nearest: 'layer4', 'layer1'."
    >>> nearest("zebra", ["layer1"])
    "Known: 'layer1'."
    """
    names = [str(candidate) for candidate in known]
    plain: dict[str, str] = {}
    for candidate in names:
        plain.setdefault(candidate.casefold(), candidate)
    close = [plain[one] for one in difflib.get_close_matches(name.casefold(), plain, n=count, cutoff=0.5)]
    if close:
        return "Nearest: " + ", ".join(repr(match) for match in close) + "."
    shown = ", ".join(repr(known_name) for known_name in names[:8])
    return f"Known: {shown}{', ...' if len(names) > 8 else ''}."
