"""Float arithmetic that NumPy has no function for: fused multiply-add, and operations rounded once from wider ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fma32(a: Array, b: Array, c: Array) -> Array:
    """a·b + c of float32 arrays, rounded once.

    The product of two float32 is exact in float64, so only the sum rounds there, and rounding it again to float32 can
    differ from rounding once where the float64 sum lies in the middle between two float32 or below the normal ones.
    There the sum is rounded to odd first (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    product = a.astype(np.float64) * b
    wide = c.astype(np.float64)
    total = product + wide
    result = total.astype(np.float32)
    bits = total.view(np.uint64)
    risky = (bits & np.uint64(0x1FFFFFFF)) == np.uint64(0x10000000)
    risky |= np.abs(total) < np.float64(2.0**-126)
    if risky.any():
        product, wide = np.broadcast_arrays(product, wide)
        result = np.array(result)
        result[risky] = _to_odd(product[risky], wide[risky]).astype(np.float32)
    return result


def _to_odd(a: Array, b: Array) -> Array:
    """a + b of float64 arrays rounded to odd: the neighbour with an odd last bit wherever the sum is not exact."""
    total = a + b
    other = total - a
    error = (a - (total - other)) + (b - other)
    inexact = (error != 0) & np.isfinite(total)
    bits = total.view(np.int64)
    even = inexact & ((bits & 1) == 0)
    # Towards the true sum: one up in magnitude if the error has the sum's sign, one down if not.
    step = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(even, bits + step, bits).view(np.float64)


def scaled_fma32(a: Array, b: Array, c: Array, factor: Array) -> Array:
    """(a·b + c)·factor of float32 arrays and a power of two, rounded once, subnormal results too."""
    return (_to_odd(a.astype(np.float64) * b, c.astype(np.float64)) * factor).astype(np.float32)


def fma64(a: Array, b: Array, c: Array) -> Array:
    """a·b + c of float64 arrays through longer arithmetic where the machine has it, element by element in Python's
    exact integers otherwise: float64 FMA appears in divisions alone, and rarely."""
    from fractions import Fraction

    shape = np.broadcast_shapes(a.shape, b.shape, c.shape)
    result = np.empty(shape, dtype=np.float64)
    flat = [np.broadcast_to(x, shape).ravel() for x in (a, b, c)]
    out = result.reshape(-1)
    for i, (x, y, z) in enumerate(zip(*flat, strict=True)):
        if np.isfinite(x) and np.isfinite(y) and np.isfinite(z):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            try:
                out[i] = float(exact) if exact else x * y + z
            except OverflowError:
                out[i] = np.copysign(np.inf, x * y)
        else:
            out[i] = x * y + z
    return result


def fma16(a: Array, b: Array, c: Array) -> Array:
    """a·b + c of float16 arrays, rounded once: float64 holds product and sum exactly."""
    return (a.astype(np.float64) * b + c).astype(np.float16)


def rounded(function: Any) -> Any:
    """A float32 function computed in float64: correctly rounded but for ties closer than float64 sees."""

    def apply(x: Array) -> Array:
        return function(x.astype(np.float64)).astype(np.float32)

    return apply


def bf16_from_f32(value: Array) -> Array:
    """uint16 bits of the bfloat16 nearest to float32 values, ties to even; NaN stays NaN (quiet)."""
    bits = value.view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), nearest).astype(np.uint16)


def f32_from_bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def minimum(a: Array, b: Array) -> Array:
    """IEEE minNum: a number wins over NaN; −0 is below +0."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.where(_below(a, b), a, b)))


def maximum(a: Array, b: Array) -> Array:
    """IEEE maxNum: a number wins over NaN; +0 is above −0."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.where(_below(a, b), b, a)))


def _below(a: Array, b: Array) -> Array:
    return (a < b) | ((a == b) & np.signbit(a))


def to_integer(value: Array, kind: Any) -> Array:
    """Float to integer as v_cvt does: towards zero, saturated at the ends, NaN to 0."""
    limits = np.iinfo(kind)
    wide = np.trunc(value.astype(np.float64))
    wide = np.where(np.isnan(wide), 0.0, np.clip(wide, float(limits.min), float(limits.max)))
    return wide.astype(kind)


class Fp8:
    """One 8-bit float format: every code's value as float32, and rounding to it.

    fnuz: the format of gfx942, without infinity and negative zero, whose code is the only NaN. The others are OCP's:
    e4m3 has NaN and no infinity, e5m2 both.
    """

    def __init__(self, exponent_bits: int, bias: int, *, fnuz: bool) -> None:
        fraction_bits = 7 - exponent_bits
        values = []
        for code in range(128):
            exponent, fraction = divmod(code, 1 << fraction_bits)
            mantissa = fraction + (1 << fraction_bits if exponent else 0)
            values.append(mantissa * 2.0 ** (max(exponent, 1) - bias - fraction_bits))
        self.fnuz = fnuz
        # The largest number's code; where the next one's code would be, sums that round beyond the range end up.
        self.largest = 0x7F if fnuz else 0x7E if exponent_bits == 4 else 0x7B
        self.infinite = exponent_bits == 5 and not fnuz
        above = 2 * values[self.largest] - values[self.largest - 1]
        ladder = np.array([*values[: self.largest + 1], above])
        self._middles = (ladder[1:] + ladder[:-1]) / 2
        decoded = np.full(128, np.nan)
        decoded[: self.largest + 1] = ladder[:-1]
        if self.infinite:
            decoded[self.largest + 1] = np.inf
        self.values = np.concatenate([decoded, -decoded]).astype(np.float32)
        if fnuz:
            self.values[0x80] = np.nan

    def decode(self, codes: Array) -> Array:
        """float32 values of codes, an integer array."""
        return self.values[codes]

    def encode(self, values: Array, *, saturate: bool) -> Array:
        """uint8 codes of the nearest numbers, ties to even. Beyond the range: infinity where the format has one and NaN
        elsewhere; saturate: the largest number instead, for finite values."""
        magnitude = np.abs(values.astype(np.float64))
        below = np.searchsorted(self._middles, magnitude, side="left")
        above = np.searchsorted(self._middles, magnitude, side="right")
        code = np.where(below % 2 == 0, below, above)
        beyond = code > self.largest
        if saturate:
            code = np.where(beyond & np.isfinite(values), self.largest, code)
            beyond = beyond & ~np.isfinite(values)
        negative = np.signbit(values)
        if self.fnuz:
            result = np.where(negative & (code > 0), code | 0x80, code)
            return np.where(beyond | np.isnan(values), 0x80, result).astype(np.uint8)
        code = np.where(beyond, 0x7C if self.infinite else 0x7F, code)
        # NaN's code is what an RX 9070 was measured to give.
        return np.where(np.isnan(values), 0xFE if self.infinite else 0xFF, code | (negative * 0x80)).astype(np.uint8)


FP8 = {
    ("fp8", "fnuz"): Fp8(4, 8, fnuz=True),
    ("bf8", "fnuz"): Fp8(5, 16, fnuz=True),
    ("fp8", "ocp"): Fp8(4, 7, fnuz=False),
    ("bf8", "ocp"): Fp8(5, 15, fnuz=False),
}


def half_towards_zero(value: Array) -> Array:
    """float32 to float16 without ever growing: a finite value beyond the range becomes the largest number."""
    nearest = value.astype(np.float16)
    grew = np.abs(nearest.astype(np.float32)) > np.abs(value)
    return (nearest.view(np.uint16) - grew).astype(np.uint16).view(np.float16)


def to_float16(value: Array, addend: Array) -> Array:
    """The sum of two float64 arrays rounded once, to float16."""
    return _to_odd(value, addend).astype(np.float16)
