"""Read pickles of dictionaries, lists, text, numbers and arrays, such as CIFAR's, without building anything else.

Nothing that a pickle names is imported or called: constructors of arrays are stand-ins that keep what they are given,
and an array is made when its shape, number format and length were found to agree.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FORMATS = {"u1": "u1", "i1": "i1", "u2": "<u2", "i2": "<i2", "u4": "<u4", "i4": "<i4", "u8": "<u8", "i8": "<i8"}
_FORMATS |= {"f4": "<f4", "f8": "<f8", "b1": "?"}
_AXES = 8


class _Kind:
    """A number format: the arguments of numpy.dtype, and the byte order that follows."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        if order not in ("<", "|", "=", b"<", b"|", b"="):
            raise pickle.UnpicklingError("numbers in another byte order")

    def made(self) -> np.dtype[Any]:
        """The format, of plain numbers alone."""
        if self.code not in _FORMATS:
            raise pickle.UnpicklingError(f"numbers of the format {str(self.code)[:20]!r}")
        return np.dtype(_FORMATS[self.code])


class _Array:
    """An array: the state that numpy.ndarray.__setstate__ would be given."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def made(self) -> NDArray[Any]:
        """The array, where its parts agree."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise pickle.UnpicklingError("an array without its parts")
        _, shape, kind, by_columns, content = self.state
        if isinstance(content, str):  # of Python 2
            content = content.encode("latin1")
        sizes = (
            isinstance(shape, tuple) and len(shape) <= _AXES and all(type(each) is int and each >= 0 for each in shape)
        )
        if not sizes or not isinstance(kind, _Kind) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of other parts")
        known, count = kind.made(), 1
        for each in shape:
            count *= each
        if len(content) != count * known.itemsize:
            raise pickle.UnpicklingError(f"an array of {len(content)} bytes for the shape {str(shape)[:40]}")
        return np.frombuffer(content, dtype=known).reshape(shape, order="F" if by_columns else "C")


class _Scalar:
    """A number of NumPy."""

    def __init__(self, kind: Any, content: Any) -> None:
        self.kind, self.content = kind, content

    def made(self) -> Any:
        """The number."""
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        if (
            not isinstance(self.kind, _Kind)
            or not isinstance(content, bytes)
            or len(content) != self.kind.made().itemsize
        ):
            raise pickle.UnpicklingError("a number of other parts")
        return np.frombuffer(content, dtype=self.kind.made())[0].item()


class _Marker:
    """The class of arrays, which is named but not built."""


def _encoded(text: Any, how: Any = "latin1") -> bytes:
    """Bytes that Python 3 wrote as text."""
    if not isinstance(text, str) or how not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("text in another encoding")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _Array), ("scalar", _Scalar))
    },
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encoded,
}


def _refused(_self: Any) -> None:
    raise pickle.UnpicklingError("a set, or an entry by something else than text or a number")


class _Unpickler(pickle._Unpickler):  # in Python: the one in C makes room for any index of a memo
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; anything else is refused."""
        found = _STAND_INS.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"it would call {module}.{name}"[:200])
        return found


def _of_plain_keys(load: Any, first: Any) -> Any:
    """An instruction that fills a dictionary, for keys that are text or numbers: others take for ever to hash."""

    def filling(self: Any) -> None:
        for key in first(self):
            if type(key) not in (bytes, str, int):
                _refused(self)
        load(self)

    return filling


_READS: dict[int, Any] = pickle._Unpickler.dispatch  # what each instruction does
_Unpickler.dispatch = {
    **_READS,
    **{code[0]: _refused for code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)},
    pickle.SETITEM[0]: _of_plain_keys(_READS[pickle.SETITEM[0]], lambda self: self.stack[-2:-1]),
    pickle.SETITEMS[0]: _of_plain_keys(_READS[pickle.SETITEMS[0]], lambda self: self.stack[::2]),
    pickle.DICT[0]: _of_plain_keys(_READS[pickle.DICT[0]], lambda self: self.stack[::2]),
}


def unpickled(content: bytes) -> dict[Any, Any]:
    """A dictionary from a pickle, one level of lists and arrays deep.

    Raises:
        UnpicklingError, or what Python's reader raises of other content.

    >>> unpickled(pickle.dumps({b"data": np.arange(4, dtype=np.uint8).reshape(2, 2), b"labels": [3, 1]}, protocol=2))
    {b'data': array([[0, 1],
           [2, 3]], dtype=uint8), b'labels': [3, 1]}
    """
    found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    if type(found) is not dict:
        raise pickle.UnpicklingError("no dictionary")
    return {key: _made(value) for key, value in found.items()}


def _made(value: Any) -> Any:
    if isinstance(value, (_Array, _Scalar)):
        return value.made()
    if type(value) is list:
        if any(type(each) not in (int, float, bytes, str, _Scalar) for each in value):
            raise pickle.UnpicklingError("a list of something else than text and numbers")
        return [each.made() if isinstance(each, _Scalar) else each for each in value]
    if type(value) not in (bytes, str, int, float, bool, type(None)):
        raise pickle.UnpicklingError("something else than lists, arrays, text and numbers")
    return value
