"""What a user types for an encoder, read in one place and without torch."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memloc.errors import EncoderError

RESNETS, VITS = ("resnet9", "resnet18", "resnet34", "resnet50"), ("vit-tiny", "vit-base")
BUILT_IN = (*RESNETS, *VITS)
ADAPTERS = {  # by library, its file of this room and an example of its options
    "timm": ("from_timm", "img_size=32"),
    "torchvision": ("from_torchvision", "image_size=32"),
    "hf": ("from_transformers", "image_size=32"),
}
_CHECKPOINT = ".safetensors"
ARCHITECTURES = ", ".join([*BUILT_IN, *(f"{library}:NAME" for library in ADAPTERS), "file.py:factory"])
ENCODER_NAMES = f"{ARCHITECTURES} or a {_CHECKPOINT} file"
"""What a user may type for an encoder, in words."""
_LOADING = ("pretrained", "checkpoint", "cache", "weights", "trust", "local", "hf_hub", "file", "path", "url")
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[(]*[\])])")


@dataclass(frozen=True)
class EncoderName:
    """The name of an encoder.

    Attributes:
        text: as typed. library: whose it is, a key of ADAPTERS, "" for none.
        name: in its library. options: of its constructor. path, factory: of a function in a Python file.
    """

    text: str
    library: str = ""
    name: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    path: str = ""
    factory: str = ""

    @property
    def is_built_in(self) -> bool:
        """Whether it is one of memloc's own."""
        return self.text in BUILT_IN

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a file of weights that says which encoder it holds."""
        return self.text.endswith(_CHECKPOINT)

    @property
    def is_code(self) -> bool:
        """Whether loading it runs a function of a Python file."""
        return bool(self.path)

    @property
    def is_adapted(self) -> bool:
        """Whether another library makes it."""
        return bool(self.library)

    @property
    def has_own_size(self) -> bool:
        """Whether it may take images of one size alone, which only loading it tells."""
        return self.is_adapted or self.is_checkpoint


def encoder_name(text: str) -> EncoderName:
    """Read the name of an encoder.

    Raises:
        EncoderError: an option that is no key=value.

    >>> encoder_name("timm:vit_tiny,img_size=32").options, encoder_name("model.py:build").factory
    ((('img_size', 32),), 'build')
    """
    if text in BUILT_IN or text.endswith(_CHECKPOINT):
        return EncoderName(text)
    if ".py:" in text:
        path, _, factory = text.rpartition(":")
        return EncoderName(text, path=path, factory=factory)
    library, _, rest = text.partition(":")
    if library not in ADAPTERS or not rest:
        return EncoderName(text)
    name, *pairs = _OUTSIDE_BRACKETS.split(rest)
    options = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise EncoderError(
                f"{pair!r} in {text} is no option. Expected key=value. Pass for instance"
                f" {library}:{name},{ADAPTERS[library][1]}."
            )
        options.append((key, _value(value)))
    return EncoderName(text, library, name, tuple(options))


def is_inert(named: EncoderName) -> bool:
    """Whether the options of a name that a file brings say nothing but sizes: no paths, no names of files to load.

    >>> is_inert(encoder_name("timm:vit_tiny,img_size=32")), is_inert(encoder_name("timm:x,checkpoint_path='a.pth'"))
    (True, False)
    """
    return all(_is_size(value) and not key.startswith(_LOADING) for key, value in named.options)


def _is_size(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_size(each) for each in value)
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and value.isidentifier())


def file_of(text: str) -> Path:
    """The file that a name of an encoder or a path stands for, if any."""
    return Path(encoder_name(text).path or text)


def _value(text: str) -> Any:
    """A Python literal where it is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
