"""16-bit vector arithmetic, one instruction at a time."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction

from .exact import fma, rounded
from .one import One, half_words, same_floats

TARGETS = ["gfx942", "gfx1100"]
KEPT = 0xABCD0000


def _run(name: str, text: str, seed: int = 0) -> tuple[One, list[Any]]:
    one = One(name)
    values = [half_words(seed + i, one.lanes) for i in range(3)]
    for i, value in enumerate(values):
        one.set(i + 1, value)
    one.set(0, np.uint32(KEPT | 0x1111)).run(text)
    return one, [value.astype(np.uint16) for value in values]


def _check_high(one: One, kept: bool) -> None:
    assert set(one.halves(0)[1].tolist()) == {KEPT >> 16 if kept else 0}


def _exactly(function: Any, *values: Any) -> Any:
    found = []
    for each in zip(*(v.view(np.float16).tolist() for v in values), strict=True):
        found.append(function(*each))
    with np.errstate(over="ignore"):
        return np.array(found).astype(np.float16)


def _sum(a: float, b: float) -> float:
    if math.isfinite(a) and math.isfinite(b) and a + b:
        return rounded(Fraction(a) + Fraction(b), "f16")
    return a + b


def _product(a: float, b: float) -> float:
    if math.isfinite(a) and math.isfinite(b) and a * b:
        return rounded(Fraction(a) * Fraction(b), "f16")
    return a * b


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("mnemonic", "function"),
    [
        ("v_add_f16", _sum),
        ("v_sub_f16", lambda a, b: _sum(a, -b)),
        ("v_subrev_f16", lambda a, b: _sum(b, -a)),
        ("v_mul_f16", _product),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_sums_and_products(name: str, mnemonic: str, function: Any, seed: int) -> None:
    one, (a, b, _) = _run(name, f"{mnemonic}_e32 v0, v1, v2", seed * 3)
    same_floats(one.halves(0)[0], _exactly(function, a, b))
    _check_high(one, name == "gfx1100")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", range(4))
def test_fma(name: str, seed: int) -> None:
    one, values = _run(name, "v_fma_f16 v0, v1, -v2, |v3|", seed * 3)
    a, b, c = (v.view(np.float16) for v in values)
    same_floats(one.halves(0)[0], fma(a, -b, np.abs(c), "f16"))
    _check_high(one, True)


def test_fmac_adds_to_its_half() -> None:
    one, (a, b, _) = _run("gfx1100", "v_fmac_f16_e32 v0, v1, v2")
    addend = np.full(one.lanes, 0x1111, np.uint16).view(np.float16)
    same_floats(one.halves(0)[0], fma(a.view(np.float16), b.view(np.float16), addend, "f16"))
    one = One("gfx1100").set(0, np.uint32(0x3C004000)).set(1, np.uint32(0x40000000)).set(2, np.uint32(0x00003C00))
    assert one.run("v_fmac_f16_e32 v0.h, v1.h, v2.l").u(0)[0] == 0x42004000


def _least(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return a if (a, -math.copysign(1, -a)) < (b, -math.copysign(1, -b)) else b


@pytest.mark.parametrize(("name", "suffix"), [("gfx942", ""), ("gfx1201", "_num")])
def test_minimum_and_maximum(name: str, suffix: str) -> None:
    one, (a, b, _) = _run(name, f"v_min{suffix}_f16_e32 v0, v1, v2")
    same_floats(one.halves(0)[0], _exactly(_least, a, b))
    one, (a, b, _) = _run(name, f"v_max{suffix}_f16_e32 v0, v1, v2")
    same_floats(one.halves(0)[0], _exactly(lambda x, y: -_least(-x, -y), a, b))


def _or_nan(function: Any) -> Any:
    def apply(x: float) -> float:
        try:
            return float(function(x))
        except ValueError:
            return math.nan
        except (OverflowError, ZeroDivisionError):
            return math.copysign(math.inf, x) if x == 0 else math.inf

    return apply


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    ("mnemonic", "function"),
    [
        ("v_rcp_f16", lambda x: 1 / x),
        ("v_sqrt_f16", math.sqrt),
        ("v_rsq_f16", lambda x: 1 / math.sqrt(x)),
        ("v_exp_f16", lambda x: 2.0**x),
        ("v_floor_f16", lambda x: math.floor(x) if math.isfinite(x) and x else x),
        ("v_ceil_f16", lambda x: math.copysign(math.ceil(x), x) if math.isfinite(x) else x),
        ("v_trunc_f16", lambda x: math.copysign(math.trunc(x), x) if math.isfinite(x) else x),
        ("v_rndne_f16", lambda x: math.copysign(round(x), x) if math.isfinite(x) else x),
    ],
)
def test_functions_of_one(name: str, mnemonic: str, function: Any) -> None:
    for seed in range(4):
        one, (a, _, _) = _run(name, f"{mnemonic}_e32 v0, v1", seed * 3)
        same_floats(one.halves(0)[0], _exactly(_or_nan(function), a))
        _check_high(one, name == "gfx1100")


def test_logarithm() -> None:
    one = One("gfx1100").set(1, np.array([1, 2, 0.25, 1024, 0, -1, np.inf, 3], dtype=np.float16))
    found = one.run("v_log_f16_e32 v0, v1").halves(0)[0][:8]
    same_floats(found, np.array([0, 1, -2, 10, -np.inf, np.nan, np.inf, math.log2(3)], dtype=np.float16))


def test_ldexp() -> None:
    one = One("gfx942").set(1, np.array([1, -3, 1, 1.5, 1], dtype=np.float16))
    one.set(2, np.array([3, 2, -24, 0x7FFF, -0x8000], dtype=np.int16)).run("v_ldexp_f16_e32 v0, v1, v2")
    same_floats(one.halves(0)[0][:5], np.array([8, -12, 2.0**-24, np.inf, 0]))


def test_div_fixup() -> None:
    n = np.array([0, -1, 1, np.inf, np.inf, -6, 1, np.nan], dtype=np.float16)
    d = np.array([0, 0, -np.inf, np.inf, -2, 3, np.nan, 1], dtype=np.float16)
    one = One("gfx942").set(1, np.array([7], dtype=np.float16)).set(2, d).set(3, n)
    wanted = [np.nan, -np.inf, -0.0, np.nan, -np.inf, -7, np.nan, np.nan]
    same_floats(one.run("v_div_fixup_f16 v0, v1, v2, v3").halves(0)[0][:8], np.array(wanted))


def _signed(x: int) -> int:
    return x - 0x10000 if x & 0x8000 else x


INTEGERS = {
    "v_add_u16": (lambda a, b: a + b, False),
    "v_sub_u16": (lambda a, b: a - b, False),
    "v_subrev_u16": (lambda a, b: b - a, False),
    "v_mul_lo_u16": (lambda a, b: a * b, False),
    "v_lshlrev_b16": (lambda a, b: b << (a & 15), False),
    "v_lshrrev_b16": (lambda a, b: b >> (a & 15), False),
    "v_ashrrev_i16": (lambda a, b: _signed(b) >> (a & 15), False),
    "v_max_u16": (max, False),
    "v_min_u16": (min, False),
    "v_max_i16": (lambda a, b: max(_signed(a), _signed(b)), False),
    "v_min_i16": (lambda a, b: min(_signed(a), _signed(b)), False),
    "v_mad_u16": (lambda a, b, c: a * b + c, True),
    "v_med3_i16": (lambda a, b, c: sorted(map(_signed, (a, b, c)))[1], True),
    "v_max3_u16": (lambda a, b, c: max(a, b, c), True),
    "v_min3_i16": (lambda a, b, c: min(map(_signed, (a, b, c))), True),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("mnemonic", INTEGERS)
def test_integers(name: str, mnemonic: str) -> None:
    function, newer = INTEGERS[mnemonic]
    sources = function.__code__.co_argcount if hasattr(function, "__code__") else 2
    one, values = _run(name, f"{mnemonic} v0, " + ", ".join(f"v{i + 1}" for i in range(sources)))
    wanted = [function(*each) & 0xFFFF for each in zip(*(v.tolist() for v in values[:sources]), strict=True)]
    assert one.halves(0)[0].tolist() == wanted
    _check_high(one, newer or name == "gfx1100")


@pytest.mark.parametrize(("mnemonic", "function"), [("and", int.__and__), ("or", int.__or__), ("xor", int.__xor__)])
def test_logic(mnemonic: str, function: Any) -> None:
    one, (a, b, _) = _run("gfx1100", f"v_{mnemonic}_b16 v0, v1, v2")
    assert one.halves(0)[0].tolist() == [function(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]


def test_half_registers_and_op_sel() -> None:
    one = One("gfx1100").set(0, np.uint32(0x11112222)).set(1, np.uint32(0x00070003)).set(2, np.uint32(0x01000200))
    assert one.run("v_add_nc_u16 v0, v1, v2 op_sel:[1,0,1]").u(0)[0] == 0x02072222
    assert one.run("v_mov_b16_e32 v0.l, v1.h").u(0)[0] == 0x02070007
    one = One("gfx942").set(0, np.uint32(0x11112222)).set(1, np.uint32(0x00070003))
    assert one.run("v_mad_u16 v0, v1, v1, 1 op_sel:[1,0,0,0]").u(0)[0] == 0x11110016


def test_saturation() -> None:
    one = (
        One("gfx1201").set(0, np.uint32(0)).set(1, np.uint32(0x80)).set(2, np.uint32(0x8001)).set(3, np.uint32(0xFFFE))
    )
    assert one.run("v_sub_nc_u16 v0, v1, 0x90 clamp").u(0)[0] == 0
    assert one.run("v_sub_nc_u16 v0, v1, 0x90").u(0)[0] == 0xFFF0
    assert one.run("v_add_nc_u16 v0, v2, v3 clamp").u(0)[0] == 0xFFFF
    assert one.run("v_add_nc_i16 v0, v2, v3 clamp").u(0)[0] == 0x8000
    assert one.run("v_sub_nc_i16 v0, 1, v2 clamp").u(0)[0] == 0x7FFF
    with pytest.raises(UnsupportedInstruction):
        one.run("v_add_nc_u16 v0, v2, v3 clamp surprise:1")
    with pytest.raises(UnsupportedInstruction):
        one.run("v_mul_lo_u16 v0, v2, v3 clamp")


def test_pack() -> None:
    for name in TARGETS:
        one = One(name).set(1, np.uint32(0x11112222)).set(2, np.uint32(0xB3334444))
        assert one.run("v_pack_b32_f16 v0, v1, v2").u(0)[0] == 0x44442222
        assert one.run("v_pack_b32_f16 v0, v1, v2 op_sel:[1,1,0]").u(0)[0] == 0xB3331111
        assert one.run("v_pack_b32_f16 v0, -v1, |v2| op_sel:[0,1,0]").u(0)[0] == 0x3333A222
        assert one.run("v_pack_b32_f16 v0, 1.0, 0").u(0)[0] == 0x00003C00


def test_selection() -> None:
    one = One("gfx1100").set(0, np.uint32(0xFFFFFFFF)).set(1, np.uint32(5)).set(2, np.uint32(7)).scalar(106, 2)
    assert one.run("v_cndmask_b16 v0, v1, v2, vcc_lo").u(0)[:3].tolist() == [0xFFFF0005, 0xFFFF0007, 0xFFFF0005]


def test_lanes_that_are_off_keep_their_value() -> None:
    one = One("gfx942").set(0, np.uint32(9)).set(1, np.uint32(1)).lanes_on([True, False])
    assert one.run("v_add_u16_e32 v0, v1, v1").u(0)[:2].tolist() == [2, 9]


def test_what_is_not_modelled_is_refused() -> None:
    for text in ("v_fmac_f16 v0, v1, v2 op_sel:[1,0,0]", "v_add_f16 v0, v1, v2 surprise:1"):
        with pytest.raises(UnsupportedInstruction):
            One("gfx1100").run(text)
    with pytest.raises(UnsupportedInstruction):
        One("gfx942").run("v_mov_b16 v0, v1")
