"""Functions of bit patterns, for the vector and the scalar unit."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64


def reverse_bits(x: Array) -> Array:
    """uint32 with its bits in the opposite order."""
    x = ((x >> U32(1)) & U32(0x55555555)) | ((x & U32(0x55555555)) << U32(1))
    x = ((x >> U32(2)) & U32(0x33333333)) | ((x & U32(0x33333333)) << U32(2))
    x = ((x >> U32(4)) & U32(0x0F0F0F0F)) | ((x & U32(0x0F0F0F0F)) << U32(4))
    return x.byteswap()


def leading_zeros(x: Array) -> Array:
    """uint32: zeros above the highest one; 0xFFFFFFFF where there is none."""
    _, exponent = np.frexp(x.astype(np.float64))
    return np.where(x == 0, U32(0xFFFFFFFF), (32 - exponent).astype(U32))


def trailing_zeros(x: Array) -> Array:
    """uint32: zeros below the lowest one; 0xFFFFFFFF where there is none."""
    lowest = x & (~x + U32(1))
    _, exponent = np.frexp(lowest.astype(np.float64))
    return np.where(x == 0, U32(0xFFFFFFFF), (exponent - 1).astype(U32))


def sign_leading(x: Array) -> Array:
    """int32: equal bits at the top, the sign included (v_ffbh_i32); −1 where all are equal."""
    magnitude = (x ^ (x >> np.int32(31))).view(U32)
    return np.where(magnitude == 0, U32(0xFFFFFFFF), leading_zeros(magnitude))


def count_bits(x: Array, more: Array) -> Array:
    return np.bitwise_count(x).astype(U32) + more


def byte_permute(a: Array, b: Array, selector: Array) -> Array:
    """v_perm_b32: each byte of the selector picks a byte of b (0 to 3) or a (4 to 7), a sign (8 to 11), 0 or 0xFF."""
    first = int(selector.flat[0])
    if first | 0x7070707 == 0x7070707 and (selector == first).all():
        return _same_bytes(a, b, first)
    shape = np.broadcast_shapes(a.shape, b.shape, selector.shape)
    pool = (np.broadcast_to(a, shape).astype(U64) << U64(32)) | np.broadcast_to(b, shape)
    result = np.zeros(shape, dtype=U32)
    for byte in range(4):
        chosen = (selector >> U32(8 * byte)) & U32(0xFF)
        value = ((pool >> (np.minimum(chosen, U32(7)).astype(U64) * U64(8))) & U64(0xFF)).astype(U32)
        if np.any(chosen > 7):
            signs = np.zeros(shape, dtype=U32)
            for index, bit in ((8, 15), (9, 31), (10, 47), (11, 63)):
                signs = np.where(chosen == index, ((pool >> U64(bit)) & U64(1)).astype(U32) * U32(0xFF), signs)
            value = np.where(
                chosen <= 7, value, np.where(chosen < 12, signs, np.where(chosen == 12, U32(0), U32(0xFF)))
            )
        result |= value << U32(8 * byte)
    return result


def _same_bytes(a: Array, b: Array, selector: int) -> Array:
    """byte_permute where every lane selects the same bytes, none of them a sign or a constant."""
    result: Array = np.zeros((), dtype=U32)
    for start, size, byte in _runs(selector):
        source = a if byte > 3 else b
        field = (source >> U32(8 * (byte % 4))) & U32((1 << 8 * size) - 1)
        result = result | (field << U32(8 * start))
    return result


@lru_cache(maxsize=256)
def _runs(selector: int) -> tuple[tuple[int, int, int], ...]:
    """(first byte of the result, bytes, first byte of the source) of bytes that lie side by side in one source too."""
    chosen = [selector >> 8 * place & 0xFF for place in range(4)]
    starts = [p for p in range(4) if p == 0 or chosen[p] != chosen[p - 1] + 1 or chosen[p] == 4]
    ends = [*starts[1:], 4]
    return tuple((start, end - start, chosen[start]) for start, end in zip(starts, ends, strict=True))
