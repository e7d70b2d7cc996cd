"""MATLAB's level 5 files as far as SVHN's need it: named arrays of whole numbers, compressed or not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memloc.data._limits import check_limit, limit

_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x0800


def read_mat(path: Path) -> dict[str, NDArray]:
    """The numeric arrays of a file by name; others are passed over.

    Raises:
        ValueError: no file of this layout. DataError: more bytes than the limit.
    """
    check_limit("BYTES", path.stat().st_size, path)
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or len(content) < _HEADER:
        raise ValueError("no MATLAB file of level 5")
    found: dict[str, NDArray] = {}
    left = limit("BYTES")
    for kind, part in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            inner = zlib.decompressobj()
            unpacked = inner.decompress(part, left + 1)
            if len(unpacked) > left:
                check_limit("BYTES", limit("BYTES") + 1, path)
            left -= len(unpacked)
            parts = [body for what, body in _elements(unpacked, order) if what == _MATRIX]
        else:
            parts = [part] if kind == _MATRIX else []
        for each in parts:
            named = _array(each, order)
            if named is not None:
                found[named[0]] = named[1]
    return found


def _elements(content: bytes, order: str) -> list[tuple[int, bytes]]:
    """The elements that follow each other: kind and body."""
    found, place = [], 0
    while place + 8 <= len(content):
        first, length = struct.unpack_from(f"{order}II", content, place)
        if first >> 16:  # up to four bytes stand within the tag
            kind, length, begin, step = first & 0xFFFF, first >> 16, place + 4, 8
        else:
            kind, begin = first, place + 8
            step = 8 + (length if kind == _COMPRESSED else -(-length // 8) * 8)
        if length > len(content) - begin:
            raise ValueError("an element is cut off")
        found.append((kind, content[begin : begin + length]))
        place += step
    return found


def _array(content: bytes, order: str) -> tuple[str, NDArray] | None:
    """A name and its array; None for what is no array of numbers."""
    parts = _elements(content, order)
    if len(parts) < 4 or len(parts[0][1]) < 8:
        raise ValueError("an array without its parts")
    (flags,) = struct.unpack_from(f"{order}I", parts[0][1])
    name = parts[2][1].decode("ascii")
    wanted, stored = _CLASSES.get(flags & 0xFF), _NUMBERS.get(parts[3][0])
    if wanted is None or stored is None or flags & _COMPLEX:
        return None
    shape = tuple(int(each) for each in np.frombuffer(parts[1][1], dtype=f"{order}i4"))
    values = np.frombuffer(parts[3][1], dtype=f"{order}{stored}")
    count = 1
    for each in shape:
        count *= each
    if min(shape, default=0) < 0 or count != len(values):
        raise ValueError(f"{len(values)} numbers for the shape {shape}")
    return name, values.astype(wanted).reshape(shape, order="F")
