"""Rounding of exact numbers to float formats, in Python's integers: what the tests compare the semantics with."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

# (bits of the fraction, least exponent, greatest exponent)
FORMATS = {"f16": (10, -14, 15), "f32": (23, -126, 127)}
_KINDS = {"f16": np.float16, "f32": np.float32}


def rounded(value: Fraction, kind: str) -> float:
    """The nearest number of a format, ties to even, infinity beyond the range."""
    fraction_bits, least, greatest = FORMATS[kind]
    if value == 0:
        return 0.0
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, least) - fraction_bits)
    found = round(magnitude / unit) * unit  # round() of a Fraction takes ties to even
    if found >= Fraction(2) ** (greatest + 1):
        return math.copysign(math.inf, value)
    return math.copysign(float(found), value)


def fma(a: Any, b: Any, c: Any, kind: str) -> Any:
    """a·b + c of float arrays of any formats, rounded once to `kind`."""
    result = []
    for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True):
        if all(map(math.isfinite, (x, y, z))):
            total = Fraction(x) * Fraction(y) + Fraction(z)
            # An exact zero has the sign that IEEE's sum of zeros has.
            result.append(rounded(total, kind) if total else x * y * 0.0 + z * 0.0 if z == 0 else 0.0)
        elif (math.isinf(x) or math.isinf(y)) and not math.isnan(z) and x * y == x * y:
            product = math.copysign(math.inf, math.copysign(1, x) * math.copysign(1, y))
            result.append(product + z)
        elif math.isnan(x) or math.isnan(y) or math.isnan(x * y if math.isfinite(z) else 0.0):
            result.append(math.nan)
        else:
            result.append(z if not (math.isinf(x) or math.isinf(y)) else math.nan)
    return np.array(result, dtype=np.float64).astype(_KINDS[kind])
