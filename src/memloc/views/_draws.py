"""Random numbers that belong to a point and a view, not to the loop that asks for them.

`philox` is the counter-based generator of Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011;
`owen_scramble` the hash-based nested uniform scramble of Burley, Practical Hash-based Owen Scrambling, JCGT 2020,
with Vegdahl's mixing constants. Both use integer arithmetic alone, so every device gives the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Sampling = Literal["sobol", "independent"]

_MASK = 0xFFFFFFFF
_PLAIN, _SCRAMBLE = 0, 1  # streams: the same (seed, point) never feeds two purposes


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int | Tensor, int | Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four 32-bit words for each 128-bit counter.

    Args:
        counter: four int64 tensors that broadcast, each holding values in [0, 2**32).
        key: two integers in [0, 2**32), or tensors of one.
    Returns:
        Four int64 tensors with values in [0, 2**32).

    >>> zero = torch.zeros((), dtype=torch.int64)
    >>> [hex(int(word)) for word in philox((zero, zero, zero, zero), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        (low0, high0), (low2, high2) = _product(c0, 0xD2511F53), _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The low and the high word of a 64-bit product, by halves of the factor: a compiler may take int64 for something
    that never overflows."""
    low, high = word * (factor & 0xFFFF), word * (factor >> 16)
    return (low + ((high & 0xFFFF) << 16)) & _MASK, (high + (low >> 16)) >> 16


def owen_scramble(value: Tensor, key: Tensor) -> Tensor:
    """Owen-scramble 32-bit integers (bit 31 first) by a 32-bit key; a bijection for every key.

    >>> value = torch.arange(4) << 30                       # four points, one in each quarter
    >>> sorted((owen_scramble(value, torch.tensor(77)) >> 30).tolist())
    [0, 1, 2, 3]
    """
    x = _reverse_bits(value)
    x = x ^ ((x * 0x3D20ADEA) & _MASK)
    x = (x + key) & _MASK
    x = (x * ((key >> 16) | 1)) & _MASK
    x = x ^ ((x * 0x05526C56) & _MASK)
    x = x ^ ((x * 0x53A22864) & _MASK)
    return _reverse_bits(x)


def words(seed: int | Tensor, point: Tensor, index: Tensor, count: int, stream: int = _PLAIN) -> Tensor:
    """32-bit words for every (point, index): shape of their broadcast plus a last axis of `count`."""
    blocks = torch.arange((count + 3) // 4, device=point.device) | (stream << 24)
    low, high = (point & _MASK)[..., None], ((point >> 32) & _MASK)[..., None]
    drawn = philox((index[..., None] & _MASK, blocks, low, high), (seed & _MASK, (seed >> 32) & _MASK))
    return torch.stack(torch.broadcast_tensors(*drawn), dim=-1).flatten(-2)[..., :count]


def retries(seed: int | Tensor, point: Tensor, index: Tensor, stream: int, count: int) -> Tensor:
    """The first four words of `count` streams that follow each other, at once: shape (draw, count, 4).

    >>> ids, views = torch.tensor([7, 9]), torch.tensor([0, 1])
    >>> bool((retries(0, ids, views, 3, 2)[:, 1] == words(0, ids, views, 4, stream=4)).all())
    True
    """
    streams = torch.arange(stream, stream + count, device=point.device) << 24
    low, high = (point & _MASK)[:, None], ((point >> 32) & _MASK)[:, None]
    drawn = philox((index[:, None] & _MASK, streams[None], low, high), (seed & _MASK, (seed >> 32) & _MASK))
    return torch.stack(torch.broadcast_tensors(*drawn), dim=-1)


def uniforms(
    seed: int | Tensor,
    point: Tensor,
    view: Tensor,
    count: int,
    sampling: Sampling = "sobol",
    *,
    stream: int = _PLAIN,
    sequence: Tensor | None = None,
) -> Tensor:
    """Uniform numbers in (0, 1) for every point and view, a function of (seed, point, view number) alone.

    With `sampling="sobol"` even views are the elements of one scrambled Sobol sequence of the point and odd views of
    another; with "independent" every view is a plain draw.

    Args:
        seed: any integer of up to 64 bits, or a tensor of one.
        point: int64 ids, shape (point,).
        view: int64 view numbers, shape (view,).
        count: numbers per view.
        sequence: `sobol_points` up to the highest view number; else they are found by looking at `view`.
    Returns:
        float64, shape (point, view, count).

    >>> ids = torch.tensor([7, 9])
    >>> both = uniforms(0, ids, torch.arange(4), 3)
    >>> bool((both[1:, 2:] == uniforms(0, ids[1:], torch.arange(2, 4), 3)).all())
    True
    """
    if sampling == "independent":
        bits = words(seed, point[:, None], view[None, :], count, stream)
    else:
        net = torch.arange(2, device=point.device)
        keys = words(seed, point[:, None], net[None, :], count, stream | _SCRAMBLE)  # (point, net, count)
        index = view // 2
        if sequence is None:
            sequence = sobol_points(count, int(view.max()) + 1, point.device)
        bits = owen_scramble(sequence[index][None], keys[:, view % 2])
    return (bits.double() + 0.5) / 2.0**32


def sobol_points(dimension: int, views: int, device: torch.device) -> Tensor:
    """The Sobol points that so many views need, which come from two nets: 32-bit integers, shape (point, dimension)."""
    return _sobol_integers(dimension, _next_power((views - 1) // 2 + 1), device)


@lru_cache(maxsize=32)
def _sobol_integers(dimension: int, count: int, device: torch.device) -> Tensor:
    drawn = torch.quasirandom.SobolEngine(dimension).draw(count, dtype=torch.float64)
    return (drawn * 2.0**32).to(device, torch.int64)


def _next_power(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def _reverse_bits(value: Tensor) -> Tensor:
    value = ((value >> 1) & 0x55555555) | ((value & 0x55555555) << 1)
    value = ((value >> 2) & 0x33333333) | ((value & 0x33333333) << 2)
    value = ((value >> 4) & 0x0F0F0F0F) | ((value & 0x0F0F0F0F) << 4)
    value = ((value >> 8) & 0x00FF00FF) | ((value & 0x00FF00FF) << 8)
    return ((value >> 16) & 0xFFFF) | ((value & 0xFFFF) << 16)
