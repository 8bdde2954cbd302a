"""Division of float32, the whole sequence as the compiler writes it, against exact quotients."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from .drawn import pattern, same, value
from .exact import rounded
from .one import One

VCC = 106
FAMILIES = ("gfx942", "gfx1100", "gfx1201")
Function = Callable[..., Any]


def _division(name: str) -> list[str]:
    """x / y of float32 as LLVM writes it: v1 / v2 into v0."""
    none, vcc = ("s[20:21]", "vcc") if name.startswith("gfx9") else ("null", "vcc_lo")
    return [
        f"v_div_scale_f32 v3, {none}, v2, v2, v1",
        "v_rcp_f32_e32 v4, v3",
        "v_fma_f32 v5, -v3, v4, 1.0",
        "v_fmac_f32_e32 v4, v5, v4",
        f"v_div_scale_f32 v5, {vcc}, v1, v2, v1",
        "v_mul_f32_e32 v6, v5, v4",
        "v_fma_f32 v7, -v3, v6, v5",
        "v_fmac_f32_e32 v6, v7, v4",
        "v_fma_f32 v3, -v3, v6, v5",
        "v_div_fmas_f32 v3, v3, v4, v6",
        "v_div_fixup_f32 v0, v3, v2, v1",
    ]


def _quotient(x: float, y: float) -> float:
    if math.isnan(x) or math.isnan(y) or (x == 0 and y == 0) or (math.isinf(x) and math.isinf(y)):
        return math.nan
    negative = (math.copysign(1, x) < 0) != (math.copysign(1, y) < 0)
    if y == 0 or math.isinf(x):
        return -math.inf if negative else math.inf
    if x == 0 or math.isinf(y):
        return -0.0 if negative else 0.0
    return math.copysign(rounded(abs(Fraction(x) / Fraction(y)), "f32"), -1 if negative else 1)


def _pairs(count: int) -> tuple[Any, Any]:
    """float32 pairs: random bits; subnormal ones; quotients at both ends of the range; equal ones; specials."""
    draw = np.random.default_rng(2024)

    def random() -> Any:
        return draw.integers(0, 1 << 32, count, dtype=np.uint32)

    def exponent(low: int, high: int) -> Any:
        return (random() & np.uint32(0x807FFFFF)) | (draw.integers(low, high, count, dtype=np.uint32) << np.uint32(23))

    special = np.array(
        [0, 1 << 31, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32
    )
    x = np.stack([random(), random() & np.uint32(0x807FFFFF), exponent(200, 255), exponent(0, 40), exponent(100, 150)])
    y = np.stack([random(), random() & np.uint32(0x807FFFFF), exponent(0, 60), exponent(100, 255), exponent(0, 255)])
    which = draw.integers(0, 5, (2, count))
    which[1, : count // 2] = which[0, : count // 2]
    a, b = (np.take_along_axis(s, w[None], axis=0)[0] for s, w in zip((x, y), which, strict=True))
    near = draw.random(count) < 0.05
    b = np.where(near, a ^ draw.integers(0, 4, count, dtype=np.uint32), b)
    for values in (a, b):
        at = draw.random(count) < 0.03
        values[at] = draw.choice(special, int(at.sum()))
    return a, b


@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
def test_division_is_correctly_rounded(name: str) -> None:
    one, texts = One(name), _division(name)
    a, b = _pairs(20032 if name == "gfx942" else 5024)
    wrong = []
    for start in range(0, len(a), one.lanes):
        x, y = a[start : start + one.lanes], b[start : start + one.lanes]
        one.set(1, x).set(2, y)
        for text in texts:
            one.run(text)
        for p, q, found in zip(x.tolist(), y.tolist(), one.u(0).tolist(), strict=True):
            wanted = pattern("f32", _quotient(value("f32", p), value("f32", q)))
            if not same("f32", found, wanted):
                wrong.append((hex(p), hex(q), hex(found), hex(wanted)))
    assert not wrong, f"{len(wrong)} of {len(a)}: {wrong[:10]}"
