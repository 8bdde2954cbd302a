"""Vector arithmetic, instruction by instruction, against Python's integers and fractions, lane by lane."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction
from wavefront.semantics import table

from .drawn import MASK, operands, pattern, result_bits, same, some_lanes, value
from .exact import fma, rounded
from .one import One, words

VCC = 106
FAMILIES = ("gfx942", "gfx1100", "gfx1201")
Function = Callable[..., Any]


# -- what each instruction computes, on Python numbers -----------------------------------------------------------------


def _sum(a: float, b: float, kind: str = "f32") -> float:
    return _fma(a, 1.0, b, kind)


def _product(a: float, b: float, kind: str = "f32") -> float:
    negative = (math.copysign(1, a) < 0) != (math.copysign(1, b) < 0)
    return _fma(a, b, -0.0 if negative else 0.0, kind)


def _fma(a: float, b: float, c: float, kind: str = "f32") -> float:
    if kind == "f64":
        if all(map(math.isfinite, (a, b, c))):
            exact = Fraction(a) * Fraction(b) + Fraction(c)
            try:
                return float(exact) if exact else a * b + c if not (a * b) else 0.0
            except OverflowError:
                return math.inf if exact > 0 else -math.inf
        return a * b + c
    return float(fma(np.array([a]), np.array([b]), np.array([c]), kind)[0])


def _lower(a: float, b: float) -> float:
    """IEEE minNum with −0 below +0."""
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min((a, math.copysign(1, a)), (b, math.copysign(1, b)))[0]


def _higher(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return max((a, math.copysign(1, a)), (b, math.copysign(1, b)))[0]


def _middle(a: float, b: float, c: float) -> float:
    if any(map(math.isnan, (a, b, c))):
        return _lower(_lower(a, b), c)
    return sorted((x, math.copysign(1, x)) for x in (a, b, c))[1][0]


def _nan_wins(choose: Function) -> Function:
    return lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else choose(a, b)


def _whole(function: Function) -> Function:
    """trunc and its kin keep infinities, NaN and the sign of zero."""
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def _scaled(x: float, power: int, kind: str = "f32") -> float:
    if not math.isfinite(x) or x == 0:
        return x
    exact = Fraction(x) * Fraction(2) ** min(
        max(power, -400 if kind == "f32" else -3000), 400 if kind == "f32" else 3000
    )
    if kind == "f32":
        return rounded(exact, kind)
    try:
        return float(exact)
    except OverflowError:
        return math.copysign(math.inf, x)


def _correct(function: Function) -> Function:
    """A function of mpmath, rounded once to float32. Specials by Python's own rules of IEEE."""

    def apply(x: float) -> float:
        with mpmath.workprec(200):
            found = function(mpmath.mpf(x))
            if mpmath.isnan(found):
                return math.nan
            if mpmath.isinf(found):
                return math.inf if found > 0 else -math.inf
            if found == 0:
                return 0.0
            sign, mantissa, exponent, _ = found._mpf_
            exact = Fraction(int(mantissa)) * Fraction(2) ** exponent
            return rounded(-exact if sign else exact, "f32")

    return apply


def _reciprocal(x: float) -> float:
    if math.isnan(x):
        return x
    if x == 0 or math.isinf(x):
        return math.copysign(math.inf if x == 0 else 0.0, x)
    return rounded(1 / Fraction(x), "f32")


def _root(x: float) -> float:
    if x == 0 or math.isnan(x) or x == math.inf:
        return x
    return _correct(mpmath.sqrt)(x) if x > 0 else math.nan


def _reciprocal_root(x: float) -> float:
    if x == 0 or math.isnan(x):
        return math.copysign(math.inf, x) if x == 0 else x
    if x < 0 or x == math.inf:
        return math.nan if x < 0 else 0.0
    return _correct(lambda y: 1 / mpmath.sqrt(y))(x)


def _power_of_two(x: float) -> float:
    if math.isnan(x) or x > 130:
        return x if math.isnan(x) else math.inf
    return 0.0 if x < -200 else _correct(lambda y: mpmath.power(2, y))(x)


def _logarithm(x: float) -> float:
    if math.isnan(x) or x < 0 or x == 0:
        return -math.inf if x == 0 else math.nan
    return x if x == math.inf else _correct(lambda y: mpmath.log(y, 2))(x)


def _fraction(x: float) -> float:
    if not math.isfinite(x):
        return math.nan
    exact = Fraction(x) - math.floor(x)
    # LLVM turns fmin(x - floor(x), largest below 1) into this instruction.
    return min(rounded(exact, "f32"), 1 - 2.0**-24)


def _shift(function: Function, bits: int) -> Function:
    return lambda count, x: function(x, count % bits)


def _left(x: int, count: int) -> int:
    return x << count


def _right(x: int, count: int) -> int:
    return x >> count


def _field(x: int, offset: int, size: int, *, is_signed: bool) -> int:
    size %= 32
    found = (x >> (offset % 32)) & ((1 << size) - 1)
    return found - (1 << size) if is_signed and size and found >> (size - 1) else found


def _bytes_of(a: int, b: int) -> list[int]:
    return [(b >> (8 * i)) & 255 for i in range(4)] + [(a >> (8 * i)) & 255 for i in range(4)]


def _permuted(a: int, b: int, selector: int) -> int:
    data, result = _bytes_of(a, b), 0
    for place in range(4):
        which = (selector >> (8 * place)) & 255
        if which < 8:
            found = data[which]
        elif which < 12:
            found = 255 if data[(which - 8) * 2 + 1] & 128 else 0
        else:
            found = 0 if which == 12 else 255
        result |= found << (8 * place)
    return result


def _u24(x: int) -> int:
    return x & 0xFFFFFF


def _i24(x: int) -> int:
    return (x & 0x7FFFFF) - (x & 0x800000)


def _leading(x: int) -> int:
    return 32 - x.bit_length() if x else -1


def _trailing(x: int) -> int:
    return (x & -x).bit_length() - 1 if x else -1


def _sign_bits(x: int) -> int:
    text = format(x, "032b")
    found = len(text) - len(text.lstrip(text[0]))
    return -1 if found == 32 else found


def _legacy_product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else _product(a, b)


U2, U3, I2, I3, F1, F2, F3 = (
    ("u32",) * 2,
    ("u32",) * 3,
    ("i32",) * 2,
    ("i32",) * 3,
    ("f32",),
    ("f32",) * 2,
    ("f32",) * 3,
)
D1, D2, D3 = ("f64",), ("f64",) * 2, ("f64",) * 3

# Mnemonic, kind of the result, kinds of the sources, the function.
INSTRUCTIONS: dict[str, tuple[str, tuple[str, ...], Function]] = {
    "v_mov_b32": ("u32", ("u32",), lambda x: x),
    "v_not_b32": ("u32", ("u32",), lambda x: ~x),
    "v_bfrev_b32": ("u32", ("u32",), lambda x: int(format(x, "032b")[::-1], 2)),
    "v_ffbh_u32": ("u32", ("u32",), _leading),
    "v_clz_i32_u32": ("u32", ("u32",), _leading),
    "v_ffbl_b32": ("u32", ("u32",), _trailing),
    "v_ctz_i32_b32": ("u32", ("u32",), _trailing),
    "v_ffbh_i32": ("u32", ("u32",), _sign_bits),
    "v_cls_i32": ("u32", ("u32",), _sign_bits),
    "v_bcnt_u32_b32": ("u32", U2, lambda a, b: a.bit_count() + b),
    "v_and_b32": ("u32", U2, lambda a, b: a & b),
    "v_or_b32": ("u32", U2, lambda a, b: a | b),
    "v_xor_b32": ("u32", U2, lambda a, b: a ^ b),
    "v_xnor_b32": ("u32", U2, lambda a, b: ~(a ^ b)),
    "v_lshlrev_b32": ("u32", U2, _shift(_left, 32)),
    "v_lshrrev_b32": ("u32", U2, _shift(_right, 32)),
    "v_ashrrev_i32": ("i32", ("u32", "i32"), _shift(_right, 32)),
    "v_lshlrev_b64": ("u64", ("u32", "u64"), _shift(_left, 64)),
    "v_lshrrev_b64": ("u64", ("u32", "u64"), _shift(_right, 64)),
    "v_ashrrev_i64": ("i64", ("u32", "i64"), _shift(_right, 64)),
    "v_and_or_b32": ("u32", U3, lambda a, b, c: a & b | c),
    "v_or3_b32": ("u32", U3, lambda a, b, c: a | b | c),
    "v_xor3_b32": ("u32", U3, lambda a, b, c: a ^ b ^ c),
    "v_lshl_or_b32": ("u32", U3, lambda a, s, c: a << s % 32 | c),
    "v_lshl_add_u32": ("u32", U3, lambda a, s, c: (a << s % 32) + c),
    "v_add_lshl_u32": ("u32", U3, lambda a, b, s: ((a + b) & MASK[32]) << s % 32),
    "v_xad_u32": ("u32", U3, lambda a, b, c: (a ^ b) + c),
    "v_add3_u32": ("u32", U3, lambda a, b, c: a + b + c),
    "v_bfe_u32": ("u32", U3, lambda x, o, s: _field(x, o, s, is_signed=False)),
    "v_bfe_i32": ("u32", ("i32", "u32", "u32"), lambda x, o, s: _field(x, o, s, is_signed=True)),
    "v_bfi_b32": ("u32", U3, lambda m, a, b: m & a | ~m & b),
    "v_bfm_b32": ("u32", U2, lambda w, o: ((1 << w % 32) - 1) << o % 32),
    "v_perm_b32": ("u32", U3, _permuted),
    "v_alignbit_b32": ("u32", U3, lambda a, b, s: ((a << 32 | b) >> s % 32) & MASK[32]),
    "v_alignbyte_b32": ("u32", U3, lambda a, b, s: ((a << 32 | b) >> 8 * (s % 4)) & MASK[32]),
    "v_add_u32": ("u32", U2, lambda a, b: a + b),
    "v_add_nc_u32": ("u32", U2, lambda a, b: a + b),
    "v_sub_u32": ("u32", U2, lambda a, b: a - b),
    "v_sub_nc_u32": ("u32", U2, lambda a, b: a - b),
    "v_subrev_u32": ("u32", U2, lambda a, b: b - a),
    "v_subrev_nc_u32": ("u32", U2, lambda a, b: b - a),
    "v_mul_lo_u32": ("u32", U2, lambda a, b: a * b),
    "v_mul_hi_u32": ("u32", U2, lambda a, b: a * b >> 32),
    "v_mul_hi_i32": ("i32", I2, lambda a, b: a * b >> 32),
    "v_mul_u32_u24": ("u32", U2, lambda a, b: _u24(a) * _u24(b)),
    "v_mul_i32_i24": ("i32", I2, lambda a, b: _i24(a) * _i24(b)),
    "v_mad_u32_u24": ("u32", U3, lambda a, b, c: _u24(a) * _u24(b) + c),
    "v_mad_i32_i24": ("i32", I3, lambda a, b, c: _i24(a) * _i24(b) + c),
    "v_min_u32": ("u32", U2, min),
    "v_max_u32": ("u32", U2, max),
    "v_min_i32": ("i32", I2, min),
    "v_max_i32": ("i32", I2, max),
    "v_min3_u32": ("u32", U3, min),
    "v_max3_u32": ("u32", U3, max),
    "v_min3_i32": ("i32", I3, min),
    "v_max3_i32": ("i32", I3, max),
    "v_med3_u32": ("u32", U3, lambda *x: sorted(x)[1]),
    "v_med3_i32": ("i32", I3, lambda *x: sorted(x)[1]),
    "v_sad_u32": ("u32", U3, lambda a, b, c: abs(a - b) + c),
    "v_add_f32": ("f32", F2, _sum),
    "v_sub_f32": ("f32", F2, lambda a, b: _sum(a, -b)),
    "v_subrev_f32": ("f32", F2, lambda a, b: _sum(b, -a)),
    "v_mul_f32": ("f32", F2, _product),
    "v_mul_legacy_f32": ("f32", F2, _legacy_product),
    "v_mul_dx9_zero_f32": ("f32", F2, _legacy_product),
    "v_fma_f32": ("f32", F3, _fma),
    "v_min_f32": ("f32", F2, _lower),
    "v_max_f32": ("f32", F2, _higher),
    "v_min_num_f32": ("f32", F2, _lower),
    "v_max_num_f32": ("f32", F2, _higher),
    "v_minimum_f32": ("f32", F2, _nan_wins(_lower)),
    "v_maximum_f32": ("f32", F2, _nan_wins(_higher)),
    "v_min3_f32": ("f32", F3, lambda a, b, c: _lower(_lower(a, b), c)),
    "v_max3_f32": ("f32", F3, lambda a, b, c: _higher(_higher(a, b), c)),
    "v_med3_f32": ("f32", F3, _middle),
    "v_min3_num_f32": ("f32", F3, lambda a, b, c: _lower(_lower(a, b), c)),
    "v_max3_num_f32": ("f32", F3, lambda a, b, c: _higher(_higher(a, b), c)),
    "v_med3_num_f32": ("f32", F3, _middle),
    "v_rcp_f64": ("f64", D1, lambda x: 1 / x if x else math.copysign(math.inf, x)),
    "v_rcp_f32": ("f32", F1, _reciprocal),
    "v_rcp_iflag_f32": ("f32", F1, _reciprocal),
    "v_rsq_f32": ("f32", F1, _reciprocal_root),
    "v_sqrt_f32": ("f32", F1, _root),
    "v_exp_f32": ("f32", F1, _power_of_two),
    "v_log_f32": ("f32", F1, _logarithm),
    "v_trunc_f32": ("f32", F1, _whole(math.trunc)),
    "v_floor_f32": ("f32", F1, _whole(math.floor)),
    "v_ceil_f32": ("f32", F1, _whole(math.ceil)),
    "v_rndne_f32": ("f32", F1, _whole(round)),
    "v_fract_f32": ("f32", F1, _fraction),
    "v_ldexp_f32": ("f32", ("f32", "i32"), _scaled),
    "v_frexp_mant_f32": ("f32", F1, lambda x: math.frexp(x)[0]),
    "v_frexp_exp_i32_f32": ("i32", F1, lambda x: math.frexp(x)[1] if math.isfinite(x) else 0),
    "v_add_f64": ("f64", D2, lambda a, b: a + b),
    "v_mul_f64": ("f64", D2, lambda a, b: a * b),
    "v_fma_f64": ("f64", D3, lambda a, b, c: _fma(a, b, c, "f64")),
    "v_min_f64": ("f64", D2, _lower),
    "v_max_f64": ("f64", D2, _higher),
    "v_trunc_f64": ("f64", D1, _whole(math.trunc)),
    "v_floor_f64": ("f64", D1, _whole(math.floor)),
    "v_ceil_f64": ("f64", D1, _whole(math.ceil)),
    "v_rndne_f64": ("f64", D1, _whole(round)),
    "v_ldexp_f64": ("f64", ("f64", "i32"), lambda x, p: _scaled(x, p, "f64")),
}
CDNA = {"v_lshl_add_u64": ("u64", ("u64", "u32", "u64"), lambda a, s, b: (a << s % 8) + b)}


def _finish(kind: str, number: Any, clamp: bool, factor: float) -> int:
    if kind[0] == "f" and not math.isnan(number):
        number = _product(number, factor) if factor != 1 else number
    if clamp:
        number = 0.0 if math.isnan(number) or number <= 0 else min(number, 1.0)
    return pattern(kind, number)


def _check(name: str, mnemonic: str, kind: str, kinds: tuple[str, ...], function: Function, seed: int) -> None:
    draw = np.random.default_rng([seed, zlib.crc32(mnemonic.encode())])
    one = One(name)
    mask = some_lanes(one, draw)
    for register in (0, 1):
        one.set(register, draw.integers(0, 1 << 32, one.lanes, dtype=np.uint32))
    before = result_bits(one, 0, int(kind[1:]))
    drawn = operands(one, draw, kinds, modifiers=seed > 0)
    clamp = kind == "f32" and seed % 3 == 2
    factor = float(draw.choice([1, 2, 4, 0.5])) if kind == "f32" and seed % 5 == 3 else 1.0
    modifiers = " clamp" * clamp + {1: "", 2: " mul:2", 4: " mul:4", 0.5: " div:2"}[factor]
    into = "v[0:1]" if kind.endswith("64") else "v0"
    text = f"{mnemonic}_e64 {into}, " + ", ".join(drawn.texts) + modifiers
    one.run(text)
    for lane, found in enumerate(result_bits(one, 0, int(kind[1:]))):
        if not mask[lane]:
            assert found == before[lane], f"{text}: lane {lane} is off and was written"
            continue
        given = [value(k, bits[lane]) for k, bits in zip(kinds, drawn.bits, strict=True)]
        wanted = _finish(kind, function(*given), clamp, factor)
        assert same(kind, found, wanted), f"{text}: {given} gave {found:#x}, not {wanted:#x}"


@pytest.mark.parametrize("mnemonic", INSTRUCTIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_instruction(name: str, mnemonic: str) -> None:
    kind, kinds, function = INSTRUCTIONS[mnemonic]
    slow = function in (_root, _reciprocal_root, _power_of_two, _logarithm) or "fma" in mnemonic
    for seed in range(4 if slow else 8):
        _check(name, mnemonic, kind, kinds, function, seed)


@pytest.mark.parametrize("mnemonic", CDNA)
def test_instruction_of_cdna(mnemonic: str) -> None:
    for seed in range(8):
        _check("gfx942", mnemonic, *CDNA[mnemonic], seed)


@pytest.mark.parametrize("seed", range(20))
def test_multiply_add_where_rounding_twice_would_show(seed: int) -> None:
    """Sums next to a float32 midpoint, and subnormal ones."""
    one, draw = One("gfx942"), np.random.default_rng(seed)
    product = draw.integers(1 << 23, 1 << 24, one.lanes).astype(np.float32)
    tiny = np.ldexp(np.float32(1), -draw.integers(20, 60, one.lanes)).astype(np.float32) * draw.choice([-1, 1])
    scale = np.ldexp(np.float32(1), draw.choice([0, 0, -149, -140, -130], one.lanes)).astype(np.float32)
    a, b, c = product + product % 2, (np.float32(0.5) + np.float32(2.0**-24)) * np.ones_like(product), tiny
    a, c = (a * scale).astype(np.float32), (c * scale).astype(np.float32)
    one.set(1, a).set(2, b).set(3, c).run("v_fma_f32 v0, v1, v2, v3")
    assert one.f(0).tolist() == fma(a, b, c, "f32").tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_saturating_sums(name: str) -> None:
    suffix = "" if name == "gfx942" else "nc_"
    for seed in range(6):
        one = One(name)
        a, b = words(seed, one.lanes), words(seed + 50, one.lanes)
        one.set(1, a).set(2, b)
        pairs = list(zip(a.tolist(), b.tolist(), strict=True))
        assert one.run(f"v_add_{suffix}u32_e64 v0, v1, v2 clamp").u(0).tolist() == [
            min(x + y, MASK[32]) for x, y in pairs
        ]
        assert one.run(f"v_sub_{suffix}u32_e64 v0, v1, v2 clamp").u(0).tolist() == [max(x - y, 0) for x, y in pairs]
        with pytest.raises(UnsupportedInstruction):
            one.run(f"v_subrev_{suffix}u32_e64 v0, v1, v2 clamp")


@pytest.mark.parametrize("name", FAMILIES)
def test_multiply_add_into_an_operand(name: str) -> None:
    for seed in range(3):
        one, draw = One(name), np.random.default_rng(seed)
        a, b, c = (words(seed * 3 + i, one.lanes).view(np.float32) for i in range(3))
        mask = np.array(some_lanes(one, draw))
        one.set(0, c).set(1, a).set(2, b).run("v_fmac_f32_e32 v0, v1, v2")
        for lane, (found, wanted) in enumerate(
            zip(one.u(0).tolist(), fma(a, b, c, "f32").view("u4").tolist(), strict=True)
        ):
            assert same("f32", found, wanted) if mask[lane] else found == int(c.view("u4")[lane])
        one.set(0, c).run("v_fmac_f32_e64 v0, -v1, |v2|")
        negated = fma(-a, np.abs(b), c, "f32").view("u4").tolist()
        assert all(same("f32", f, w) for f, w, on in zip(one.u(0).tolist(), negated, mask, strict=True) if on)
        half = np.full_like(a, 0.5)
        one.run("v_fmamk_f32 v3, v1, 0x3f000000, v2").run("v_fmaak_f32 v4, v1, v2, 0x3f000000")
        for register, wanted in ((3, fma(a, half, b, "f32")), (4, fma(a, b, half, "f32"))):
            pairs = zip(one.u(register).tolist(), wanted.view("u4").tolist(), mask, strict=True)
            assert all(same("f32", f, w) for f, w, on in pairs if on)


def test_multiply_add_that_rounds_twice() -> None:
    """The older instruction: product and sum each rounded, subnormal numbers zeros throughout."""
    one = One("gfx90a")
    cases = [  # a, b, constant, a·K + b, a·b + K
        (3.0, 1.0, "0x4f800000", 3 * 2.0**32, 2.0**32),  # the one is lost, and so are the three
        (1 + 2**-23, 1 - 2**-23, "0xbf800000", -(2.0**-22), 0.0),  # fused, the second would be -2**-46
        (2.0**-130, 1.0, "0x3f800000", 1.0, 1.0),  # a subnormal factor
        (2.0**-100, 0.0, "0x00800000", 0.0, 2.0**-126),  # a product below all normal numbers
        (-(2.0**-126), 1.5 * 2**-126, "0x3f800000", 0.0, 1.0),  # a sum below them
    ]
    for a, b, constant, first, second in cases:
        one.set(1, np.full(one.lanes, a, np.float32)).set(2, np.full(one.lanes, b, np.float32))
        one.run(f"v_madmk_f32 v3, v1, {constant}, v2").run(f"v_madak_f32 v4, v1, v2, {constant}")
        assert (float(one.f(3)[0]), float(one.f(4)[0])) == (first, second), (a, b, constant)


@pytest.mark.parametrize("name", FAMILIES)
def test_sine_and_cosine(name: str) -> None:
    """Of a whole turn times the source: within 2⁻²² of the right value for |x| ≤ 256, the domain of the instruction."""
    one = One(name)
    x = np.random.default_rng(0).uniform(-256, 256, one.lanes).astype(np.float32)
    x[:6] = [0, 0.25, -0.25, 0.125, 256, -255.875]
    one.set(1, x).run("v_sin_f32_e32 v0, v1").run("v_cos_f32_e32 v2, v1")
    for lane, turns in enumerate(x.tolist()):
        angle = 2 * mpmath.pi * (turns - round(turns))
        assert abs(float(one.f(0)[lane]) - float(mpmath.sin(angle))) < 2**-22
        assert abs(float(one.f(2)[lane]) - float(mpmath.cos(angle))) < 2**-22


@pytest.mark.parametrize(
    "selector", ["0x5040100", "0x7060302", "0x3020706", "0x0", "0x4030201", "0x7070404", "0xc0c0100", "0x3020d08"]
)
def test_one_selection_of_bytes_for_all_lanes(selector: str) -> None:
    one, draw = One("gfx942"), np.random.default_rng(5)
    a, b = (draw.integers(0, 1 << 32, one.lanes, dtype=np.uint32) for _ in range(2))
    one.set(1, a).set(2, b).scalar(6, int(selector, 16))
    wanted = [_permuted(x, y, int(selector, 16)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert one.run("v_perm_b32 v0, v1, v2, s6").u(0).tolist() == wanted
    one.scalar(7, 0x12345678)
    wanted = [_permuted(x, 0x12345678, int(selector, 16)) for x in a.tolist()]
    assert one.run("v_perm_b32 v0, v1, s7, s6").u(0).tolist() == wanted


@pytest.mark.parametrize(
    "text",
    [
        "v_add_f32_e64 v0, v1, v2 mul:8",
        "v_and_b32_e64 v0, v1, v2 clamp",
        "v_and_b32_e32 v0, -v1, v2",
        "v_add_f32_e64 v0, v1, v2 op_sel:[1,0]",
        "v_add_u32_sdwa v0, sext(v1), v2 dst_sel:DWORD src0_sel:WORD_0 src1_sel:DWORD",
        "v_add_f32_e32 v0, v1, v2, v3",
        "v_mov_b64 v[0:1], v2:3",
    ],
)
def test_what_is_not_modelled_is_refused(text: str) -> None:
    from wavefront.faults import AssemblyError

    with pytest.raises((UnsupportedInstruction, AssemblyError)):
        One("gfx942").run(text)


def test_every_vector_operation_is_tested() -> None:
    """Names of the tables that no test of this folder mentions."""
    from pathlib import Path

    text = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    own = {n for f in table.FAMILIES for n in table.mnemonics(f) if n.startswith("v_") and n.endswith(("32", "64"))}
    families = ("v_cmp", "v_cvt", "v_mfma", "v_wmma", "v_pk", "v_dot", "v_dual", "v_fma_mix", "v_s_", "v_smfmac")
    missing = sorted(n for n in own if not n.startswith(families) and n not in text)
    assert not missing, " ".join(missing)


@pytest.mark.parametrize("name", FAMILIES)
def test_swap(name: str) -> None:
    one = One(name).set(1, np.uint32(11)).set(2, np.uint32(22)).lanes_on(np.arange(64)[: One(name).lanes] % 2 == 0)
    one.run("v_swap_b32 v1, v2")
    assert (one.u(1)[:2].tolist(), one.u(2)[:2].tolist()) == ([22, 11], [11, 22])
    with pytest.raises(UnsupportedInstruction):
        one.run("v_swap_b32 v1, s2")
