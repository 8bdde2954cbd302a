"""Scalar arithmetic against Python's integers: value and condition code."""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction

from .drawn import MASK, number_in, pattern, same, scalar_operand, value, words32
from .exact import fma
from .one import One
from .test_vector import INSTRUCTIONS as VECTOR

VCC, EXEC = 106, 126
Function = Callable[..., Any]


def _signed(x: int, bits: int) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def _fits(x: int) -> bool:
    return -(1 << 31) <= x < 1 << 31


def _field(x: int, spec: int, bits: int, *, is_signed: bool) -> int:
    offset, size = spec & (bits - 1), (spec >> 16) & 127
    found = (x >> offset) & ((1 << size) - 1)
    return _signed(found, size) if is_signed and 0 < size < bits else found


def _ones(size: int, offset: int, bits: int) -> int:
    return ((1 << size % bits) - 1) << offset % bits


def _lowest(x: int) -> int:
    return (x & -x).bit_length() - 1 if x else -1


def _zeros(x: int, bits: int) -> int:
    return bits - x.bit_length() if x else -1


def _pair(a: int, b: int, left: int, right: int) -> int:
    return (a >> 16 * left & 0xFFFF) | (b >> 16 * right & 0xFFFF) << 16


NONZERO = "nonzero"
U2, I2, L2 = ("u32",) * 2, ("i32",) * 2, ("u64",) * 2
# Mnemonics of both families, kind of the result, kinds of the sources, the function of sources and condition code,
# and the condition code after: "" untouched, "nonzero" whether the result is not 0, or a function like the other.
TABLE: list[tuple[str, str, tuple[str, ...], Function, Any]] = [
    ("s_brev_b32", "u32", ("u32",), lambda x, c: int(format(x, "032b")[::-1], 2), ""),
    ("s_abs_i32", "i32", ("i32",), lambda x, c: abs(x), NONZERO),
    ("s_sext_i32_i16", "i32", ("u32",), lambda x, c: _signed(x, 16), ""),
    ("s_sext_i32_i8", "i32", ("u32",), lambda x, c: _signed(x, 8), ""),
    ("s_bcnt1_i32_b32", "u32", ("u32",), lambda x, c: x.bit_count(), NONZERO),
    ("s_bcnt1_i32_b64", "u32", ("u64",), lambda x, c: x.bit_count(), NONZERO),
    ("s_ff1_i32_b32 s_ctz_i32_b32", "i32", ("u32",), lambda x, c: _lowest(x), ""),
    ("s_ff1_i32_b64 s_ctz_i32_b64", "i32", ("u64",), lambda x, c: _lowest(x), ""),
    ("s_flbit_i32_b32 s_clz_i32_u32", "i32", ("u32",), lambda x, c: _zeros(x, 32), ""),
    ("s_flbit_i32_b64 s_clz_i32_u64", "i32", ("u64",), lambda x, c: _zeros(x, 64), ""),
    ("s_flbit_i32 s_cls_i32", "u32", ("u32",), lambda x, c: VECTOR["v_cls_i32"][2](x), ""),
    ("s_add_u32 s_add_co_u32", "u32", U2, lambda a, b, c: a + b, lambda a, b, c: a + b > MASK[32]),
    ("s_sub_u32 s_sub_co_u32", "u32", U2, lambda a, b, c: a - b, lambda a, b, c: b > a),
    ("s_addc_u32 s_add_co_ci_u32", "u32", U2, lambda a, b, c: a + b + c, lambda a, b, c: a + b + c > MASK[32]),
    ("s_subb_u32 s_sub_co_ci_u32", "u32", U2, lambda a, b, c: a - b - c, lambda a, b, c: b + c > a),
    ("s_add_i32 s_add_co_i32", "i32", I2, lambda a, b, c: a + b, lambda a, b, c: not _fits(a + b)),
    ("s_sub_i32 s_sub_co_i32", "i32", I2, lambda a, b, c: a - b, lambda a, b, c: not _fits(a - b)),
    ("s_mul_i32", "u32", U2, lambda a, b, c: a * b, ""),
    ("s_mul_hi_u32", "u32", U2, lambda a, b, c: a * b >> 32, ""),
    ("s_mul_hi_i32", "i32", I2, lambda a, b, c: a * b >> 32, ""),
    ("s_mul_u64", "u64", L2, lambda a, b, c: a * b, ""),
    ("s_add_u64 s_add_nc_u64", "u64", L2, lambda a, b, c: a + b, ""),
    ("s_sub_u64 s_sub_nc_u64", "u64", L2, lambda a, b, c: a - b, ""),
    ("s_lshl_b32", "u32", U2, lambda x, s, c: x << s % 32, NONZERO),
    ("s_lshr_b32", "u32", U2, lambda x, s, c: x >> s % 32, NONZERO),
    ("s_ashr_i32", "i32", ("i32", "u32"), lambda x, s, c: x >> s % 32, NONZERO),
    ("s_lshl_b64", "u64", ("u64", "u32"), lambda x, s, c: x << s % 64, NONZERO),
    ("s_lshr_b64", "u64", ("u64", "u32"), lambda x, s, c: x >> s % 64, NONZERO),
    ("s_ashr_i64", "i64", ("i64", "u32"), lambda x, s, c: x >> s % 64, NONZERO),
    ("s_min_u32", "u32", U2, lambda a, b, c: min(a, b), lambda a, b, c: a < b),
    ("s_max_u32", "u32", U2, lambda a, b, c: max(a, b), lambda a, b, c: a >= b),
    ("s_min_i32", "i32", I2, lambda a, b, c: min(a, b), lambda a, b, c: a < b),
    ("s_max_i32", "i32", I2, lambda a, b, c: max(a, b), lambda a, b, c: a >= b),
    ("s_bfe_u32", "u32", U2, lambda x, s, c: _field(x, s, 32, is_signed=False), NONZERO),
    ("s_bfe_i32", "i32", ("i32", "u32"), lambda x, s, c: _field(x, s, 32, is_signed=True), NONZERO),
    ("s_bfe_u64", "u64", ("u64", "u32"), lambda x, s, c: _field(x, s, 64, is_signed=False), NONZERO),
    ("s_bfm_b32", "u32", U2, lambda s, o, c: _ones(s, o, 32), ""),
    ("s_bfm_b64", "u64", U2, lambda s, o, c: _ones(s, o, 64), ""),
    ("s_pack_ll_b32_b16", "u32", U2, lambda a, b, c: _pair(a, b, 0, 0), ""),
    ("s_pack_lh_b32_b16", "u32", U2, lambda a, b, c: _pair(a, b, 0, 1), ""),
    ("s_pack_hl_b32_b16", "u32", U2, lambda a, b, c: _pair(a, b, 1, 0), ""),
    ("s_pack_hh_b32_b16", "u32", U2, lambda a, b, c: _pair(a, b, 1, 1), ""),
    ("s_bitreplicate_b64_b32", "u64", ("u32",), lambda x, c: int("".join(b * 2 for b in format(x, "032b")), 2), ""),
    ("s_cselect_b32", "u32", U2, lambda a, b, c: a if c else b, ""),
    ("s_cselect_b64", "u64", L2, lambda a, b, c: a if c else b, ""),
    ("s_not_b32", "u32", ("u32",), lambda x, c: ~x, NONZERO),
    ("s_not_b64", "u64", ("u64",), lambda x, c: ~x, NONZERO),
    ("s_mov_b32", "u32", ("u32",), lambda x, c: x, ""),
    ("s_mov_b64", "u64", ("u64",), lambda x, c: x, ""),
]
for _by in (1, 2, 3, 4):
    TABLE.append(
        (
            f"s_lshl{_by}_add_u32",
            "u32",
            U2,
            lambda a, b, c, n=_by: (a << n) + b,
            lambda a, b, c, n=_by: (a << n) + b > MASK[32],
        )
    )
LOGIC: dict[str, Function] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "andn2": lambda a, b: a & ~b,
    "orn2": lambda a, b: a | ~b,
    "and_not1": lambda a, b: a & ~b,
    "or_not1": lambda a, b: a | ~b,
    "nand": lambda a, b: ~(a & b),
    "nor": lambda a, b: ~(a | b),
    "xnor": lambda a, b: ~(a ^ b),
}
for _name, _logic in LOGIC.items():
    for _bits in (32, 64):
        TABLE.append(
            (f"s_{_name}_b{_bits}", f"u{_bits}", (f"u{_bits}",) * 2, lambda a, b, c, f=_logic: f(a, b), NONZERO)
        )
FLOATS = {
    "s_add_f32": "v_add_f32",
    "s_sub_f32": "v_sub_f32",
    "s_mul_f32": "v_mul_f32",
    "s_max_num_f32": "v_max_f32",
    "s_min_num_f32": "v_min_f32",
    "s_trunc_f32": "v_trunc_f32",
    "s_floor_f32": "v_floor_f32",
    "s_ceil_f32": "v_ceil_f32",
    "s_rndne_f32": "v_rndne_f32",
    "v_s_rcp_f32": "v_rcp_f32",
    "v_s_exp_f32": "v_exp_f32",
    "v_s_log_f32": "v_log_f32",
    "v_s_sqrt_f32": "v_sqrt_f32",
    "v_s_rsq_f32": "v_rsq_f32",
}
for _name, _vector in FLOATS.items():
    _kind, _kinds, _function = VECTOR[_vector]
    TABLE.append((_name, _kind, _kinds, lambda *x, f=_function: f(*x[:-1]), ""))
TABLE += [
    ("s_cvt_f32_u32", "f32", ("u32",), lambda x, c: float(np.float32(x)), ""),
    ("s_cvt_f32_i32", "f32", ("i32",), lambda x, c: float(np.float32(x)), ""),
    ("s_cvt_u32_f32", "u32", ("f32",), lambda x, c: _to_integer(x, 0, MASK[32]), ""),
    ("s_cvt_i32_f32", "i32", ("f32",), lambda x, c: _to_integer(x, -(1 << 31), (1 << 31) - 1), ""),
]


def _to_integer(x: float, low: int, high: int) -> int:
    if math.isnan(x):
        return 0
    return low if x < low else high if x > high else math.trunc(x)


EACH = [(mnemonic, *row[1:]) for row in TABLE for mnemonic in row[0].split()]


@pytest.mark.parametrize(("mnemonic", "kind", "kinds", "function", "code"), EACH, ids=[row[0] for row in EACH])
@pytest.mark.parametrize("name", ["gfx942", "gfx1201"])
def test_instruction(
    name: str, mnemonic: str, kind: str, kinds: tuple[str, ...], function: Function, code: Any
) -> None:
    bits = int(kind[1:])
    for seed in range(24):
        one, draw = One(name), np.random.default_rng([seed, zlib.crc32(mnemonic.encode())])
        before = bool(draw.integers(0, 2))
        one.machine.scc[:] = before
        chosen = [scalar_operand(one, draw, k, i) for i, k in enumerate(kinds)]
        if "bfe" in mnemonic:  # reserved bits are 0, and no field is wider than the register
            spec = int(draw.integers(0, 64 if "64" in mnemonic else 32)) | int(draw.integers(0, bits + 1)) << 16
            one.scalar(30, spec)
            chosen[1] = ("s30", spec)
        elif len(chosen) == 2 and draw.random() < 0.2 and kinds[0] == kinds[1]:
            chosen[1] = chosen[0]
        into = "s[4:5]" if bits == 64 else "s4"
        text = f"{mnemonic} {into}, " + ", ".join(t for t, _ in chosen)
        given = [value(k, b) for k, (_, b) in zip(kinds, chosen, strict=True)]
        wanted = pattern(kind, function(*given, before))
        found = number_in(one.run(text), 4, bits)
        assert same(kind, found, wanted), f"{text}: {given} gave {found:#x}, not {wanted:#x}"
        flag = before if code == "" else wanted != 0 if code == NONZERO else bool(code(*given, before))
        assert bool(one.machine.scc[0, 0]) == flag, f"{text}: {given} set the code to {not flag}"


RELATIONS = {
    "eq": operator.eq,
    "lg": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


@pytest.mark.parametrize("kind", ["u32", "i32", "u64", "f32"])
@pytest.mark.parametrize("relation", RELATIONS)
def test_comparisons(kind: str, relation: str) -> None:
    if kind == "u64" and relation not in ("eq", "lg"):
        return
    for seed in range(60):
        one, draw = One("gfx1201"), np.random.default_rng([seed, zlib.crc32((kind + relation).encode())])
        chosen = [scalar_operand(one, draw, kind, i) for i in range(2)]
        chosen[1] = chosen[0] if draw.random() < 0.3 else chosen[1]
        a, b = (value(kind, bits) for _, bits in chosen)
        wanted = RELATIONS[relation](a, b)
        if kind == "f32" and relation == "lg":
            wanted = a < b or a > b
        one.run(f"s_cmp_{relation}_{kind} {chosen[0][0]}, {chosen[1][0]}")
        assert bool(one.machine.scc[0, 0]) == wanted, (a, relation, b)


@pytest.mark.parametrize("relation", ["nlt", "nle", "ngt", "nge", "neq"])
def test_negated_comparisons_of_floats(relation: str) -> None:
    function = {"neq": operator.eq} | {"n" + r: RELATIONS[r] for r in ("lt", "le", "gt", "ge")}
    for a in (1.0, 2.0, -0.0, math.nan, math.inf):
        for b in (1.0, 0.0, math.nan):
            one = One("gfx1201").scalar(4, pattern("f32", a)).scalar(5, pattern("f32", b))
            one.run(f"s_cmp_{relation}_f32 s4, s5")
            assert bool(one.machine.scc[0, 0]) == (not function[relation](a, b))


@pytest.mark.parametrize("relation", RELATIONS)
def test_comparisons_with_a_short_constant(relation: str) -> None:
    for constant in (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x1234):
        signed = _signed(constant, 16)
        for given in (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFFFF, 0xFFFF8000, 0x1234):
            one = One("gfx942").scalar(4, given)
            for kind, left, right in (("u32", given, constant), ("i32", _signed(given, 32), signed)):
                one.run(f"s_cmpk_{relation}_{kind} s4, {constant:#x}")
                assert bool(one.machine.scc[0, 0]) == RELATIONS[relation](left, right), (kind, left, right)


def test_short_constants() -> None:
    one = One("gfx942").run("s_movk_i32 s4, 0x8001")
    assert number_in(one, 4, 32) == 0xFFFF8001
    one.run("s_movk_i32 s5, 0x7fff").run("s_addk_i32 s4, 0xffff")
    assert number_in(one, 4, 32) == 0xFFFF8000
    assert not one.machine.scc.any()
    one.scalar(6, 0x7FFFFFFF).run("s_addk_i32 s6, 1")
    assert number_in(one, 6, 32) == 0x80000000
    assert one.machine.scc.all()
    one.run("s_mulk_i32 s5, 0xfffe")
    assert number_in(one, 5, 32) == (-2 * 0x7FFF) & MASK[32]
    assert One("gfx1201").scalar(4, 5).run("s_addk_co_i32 s4, 0xfffb").machine.number(4)[0, 0] == 0


@pytest.mark.parametrize("seed", range(10))
def test_single_bits(seed: int) -> None:
    one, draw = One("gfx942"), np.random.default_rng(seed)
    given, place = int(draw.integers(0, 1 << 64, dtype=np.uint64)), int(draw.integers(0, 200))
    one.scalar(4, given & MASK[32]).scalar(5, given >> 32).scalar(6, place)
    for bits, text in ((32, "s4"), (64, "s[4:5]")):
        bit = given >> place % bits & 1
        assert bool(one.run(f"s_bitcmp1_b{bits} {text}, s6").machine.scc[0, 0]) == bool(bit)
        assert bool(one.run(f"s_bitcmp0_b{bits} {text}, s6").machine.scc[0, 0]) == (not bit)
    low = given & MASK[32]
    assert number_in(one.run("s_bitset1_b32 s4, s6"), 4, 32) == low | 1 << place % 32
    assert number_in(one.run("s_bitset0_b32 s4, s6"), 4, 32) == low & ~(1 << place % 32)


@pytest.mark.parametrize("code", [False, True])
def test_conditional_moves(code: bool) -> None:
    one = One("gfx942").scalar(4, 1).scalar(5, 2).scalar(6, 3).scalar(7, 4)
    one.machine.scc[:] = code
    assert number_in(one.run("s_cmov_b32 s4, s6"), 4, 64) == (2 << 32 | (3 if code else 1))
    assert number_in(one.run("s_cmov_b64 s[4:5], s[6:7]"), 4, 64) == (4 << 32 | 3 if code else 2 << 32 | 1)


def test_multiply_add() -> None:
    for seed in range(20):
        one, draw = One("gfx1201"), np.random.default_rng(seed)
        a, b, c = (words32(draw, 1).view(np.float32) for _ in range(3))
        for register, number in ((4, a), (5, b), (6, c)):
            one.scalar(register, int(number.view(np.uint32)[0]))
        half = np.float32([0.5])
        one.run("s_fmamk_f32 s7, s4, 0x3f000000, s5").run("s_fmaak_f32 s8, s4, s5, 0x3f000000").run(
            "s_fmac_f32 s6, s4, s5"
        )
        for register, wanted in ((6, fma(a, b, c, "f32")), (7, fma(a, half, b, "f32")), (8, fma(a, b, half, "f32"))):
            assert same("f32", number_in(one, register, 32), int(wanted.view(np.uint32)[0]))


@pytest.mark.parametrize(
    "text",
    ["s_getpc_b64 s[4:5]", "s_sendmsg sendmsg(MSG_INTERRUPT)", "s_barrier_signal 2", "s_sext_i64_i32 s[4:5], s6"],
)
def test_what_is_not_modelled_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedInstruction):
        One("gfx1201").run(text)
