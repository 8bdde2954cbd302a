"""Comparisons against Python's: every relation on every kind, into vcc, scalar registers and exec; classes."""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wavefront.faults import AssemblyError, UnsupportedInstruction

from .drawn import mask_of, operands, set_mask, some_lanes, value
from .one import One, half_words, words

VCC, EXEC = 106, 126
Relation = Callable[[Any, Any], bool]


def _unordered(a: float, b: float) -> bool:
    return math.isnan(a) or math.isnan(b)


INTEGER: dict[str, Relation] = {
    "lt": operator.lt,
    "eq": operator.eq,
    "le": operator.le,
    "gt": operator.gt,
    "ne": operator.ne,
    "ge": operator.ge,
}
FLOAT: dict[str, Relation] = {
    "lt": operator.lt,
    "eq": operator.eq,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "lg": lambda a, b: not _unordered(a, b) and a != b,
    "o": lambda a, b: not _unordered(a, b),
    "u": _unordered,
    "nge": lambda a, b: not a >= b,
    "nlg": lambda a, b: _unordered(a, b) or a == b,
    "ngt": lambda a, b: not a > b,
    "nle": lambda a, b: not a <= b,
    "neq": operator.ne,
    "nlt": lambda a, b: not a < b,
}
ALL = [(r, f, k) for r, f in INTEGER.items() for k in ("u16", "i16", "u32", "i32", "u64", "i64")]
ALL += [(r, f, k) for r, f in FLOAT.items() for k in ("f16", "f32", "f64")]


def _some(name: str, text: str, seed: int) -> tuple[One, Any, list[bool]]:
    one, draw = One(name), np.random.default_rng([seed, zlib.crc32(text.encode())])
    return one, draw, some_lanes(one, draw)


def _operands(one: One, draw: Any, kind: str) -> tuple[list[str], list[tuple[Any, Any]]]:
    drawn = operands(one, draw, (kind, kind), modifiers=True)
    if drawn.texts[1].startswith("v") and draw.random() < 0.7:  # some lanes equal
        first, second = 4, 6
        same = draw.random(one.lanes) < 0.4
        if drawn.texts[0] in ("v4", "v[4:5]"):
            for offset in range(2):
                mixed = np.where(same, one.u(first + offset), one.u(second + offset))
                one.set(second + offset, mixed)
            drawn.bits[1] = [a if e else b for a, b, e in zip(*drawn.bits, same, strict=True)]
    pairs = [(value(kind, a), value(kind, b)) for a, b in zip(*drawn.bits, strict=True)]
    return drawn.texts, pairs


@pytest.mark.parametrize(("relation", "function", "kind"), ALL, ids=[f"{r}_{k}" for r, _, k in ALL])
@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
def test_into_a_mask(name: str, relation: str, function: Relation, kind: str) -> None:
    for seed in range(4):
        one, draw, mask = _some(name, relation + kind, seed)
        texts, pairs = _operands(one, draw, kind)
        vcc, pair = ("vcc", "s[30:31]") if one.lanes == 64 else ("vcc_lo", "s30")
        into, register = (vcc, VCC) if seed % 2 else (pair, 30)
        set_mask(one, register, [True] * one.lanes)
        text = f"v_cmp_{relation}_{kind}_e64 {into}, {texts[0]}, {texts[1]}"
        one.run(text)
        # A lane that is off gives 0, whatever was there.
        wanted = [on and function(a, b) for on, (a, b) in zip(mask, pairs, strict=True)]
        assert mask_of(one, register) == wanted, text


@pytest.mark.parametrize(
    ("relation", "kind"), [("gt", "i32"), ("eq", "u32"), ("neq", "f32"), ("lt", "i64"), ("nlt", "f16")]
)
@pytest.mark.parametrize("name", ["gfx942", "gfx1100", "gfx1201"])
def test_into_exec(name: str, relation: str, kind: str) -> None:
    function = (FLOAT if kind[0] == "f" else INTEGER)[relation]
    for seed in range(6):
        one, draw, mask = _some(name, relation, seed)
        texts, pairs = _operands(one, draw, kind)
        into = "s[30:31], " if name == "gfx942" else ""
        one.run(f"v_cmpx_{relation}_{kind}_e64 {into}{texts[0]}, {texts[1]}")
        wanted = [on and function(a, b) for on, (a, b) in zip(mask, pairs, strict=True)]
        assert mask_of(one, EXEC) == wanted
        if name == "gfx942":
            assert mask_of(one, 30) == wanted
        one.set(0, np.uint32(0)).run("v_mov_b32_e32 v0, 1")
        assert one.u(0).astype(bool).tolist() == wanted


def test_short_forms() -> None:
    one = One("gfx942").set(1, np.uint32([5, 9]))
    assert mask_of(one.run("v_cmp_lt_u32_e32 vcc, 7, v1"), VCC) == [False, True] * 32
    one.run("v_cmpx_lt_u32_e32 vcc, 7, v1")
    assert mask_of(one, EXEC) == mask_of(one, VCC) == [False, True] * 32
    one = One("gfx1100").set(1, np.uint32([5, 9]))
    assert mask_of(one.run("v_cmp_lt_u32_e32 vcc_lo, 7, v1"), VCC) == [False, True] * 16
    one.run("v_cmpx_lt_u32_e32 7, v1")
    assert mask_of(one, EXEC) == [False, True] * 16


def test_a_mask_feeds_what_comes_next() -> None:
    """As number and as mask: through scalar logic, a branch's condition, a selection."""
    one = One("gfx942").set(1, np.uint32([5, 9, 1, 7])).run("v_cmp_lt_u32_e64 s[4:5], 6, v1")
    one.run("s_mov_b32 s6, s4").run("s_not_b64 s[8:9], s[4:5]").run("v_cndmask_b32_e64 v0, 0, 1, s[8:9]")
    assert int(one.machine.number(6)[0, 0]) == 0xAAAAAAAA
    assert one.u(0).tolist() == [1, 0, 1, 0] * 16
    one.run("s_mov_b32 s5, 0").run("v_cndmask_b32_e64 v0, 0, 1, s[4:5]")
    assert one.u(0).tolist() == [0, 1] * 16 + [0] * 32


@pytest.mark.parametrize("seed", range(4))
def test_halves_of_registers(seed: int) -> None:
    one, lanes = One("gfx1100"), 32
    a, b = half_words(seed, lanes), half_words(seed + 10, lanes)
    one.set(1, a).set(2, b)
    texts = {
        "v_cmp_gt_f16_e64 s30, v1, v2 op_sel:[1,0]": (16, 0, 1, 1),
        "v_cmp_gt_f16_e64 s30, -v1, |v2| op_sel:[0,1]": (0, 16, -1, 0),
        "v_cmp_gt_f16_e64 s30, v1.h, v2.l": (16, 0, 1, 1),
    }
    for text, (left, right, sign, plain) in texts.items():
        wanted = []
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            p, q = value("f16", x >> left), value("f16", y >> right)
            wanted.append(sign * p > (q if plain else abs(q)))
        assert mask_of(one.run(text), 30) == wanted, text


def test_parts_of_registers() -> None:
    one = One("gfx942").set(1, np.uint32([0x00050007, 0x00090001])).set(2, np.uint32(0x00070006))
    text = "v_cmp_gt_u32_sdwa s[30:31], v1, v2 src0_sel:WORD_1 src1_sel:WORD_0"
    assert mask_of(one.run(text), 30) == [False, True] * 32
    text = "v_cmp_eq_u16_sdwa vcc, v1, v2 src0_sel:BYTE_0 src1_sel:BYTE_2"
    assert mask_of(one.run(text), VCC) == [True, False] * 32


@pytest.mark.parametrize("seed", range(6))
def test_with_a_source_from_another_lane(seed: int) -> None:
    one, _, mask = _some("gfx1201", "dpp", seed)
    a, b = words(seed, 32), words(seed + 1, 32)
    one.set(1, a).set(2, b)
    text = "v_cmp_gt_i32_e64_dpp s30, v1, v2 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf bound_ctrl:1"
    found = mask_of(one.run(text), 30)
    for lane in range(32):
        other = value("i32", int(a[lane ^ 1])) if mask[lane ^ 1] else 0
        assert found[lane] == (mask[lane] and other > value("i32", int(b[lane])))
    vopc = "v_cmp_gt_i32_dpp vcc_lo, v1, v2 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf bound_ctrl:1"
    assert mask_of(one.run(vopc), VCC) == found


CLASSES = (
    lambda bits, x: math.isnan(x) and not bits & 0x400000,
    lambda bits, x: math.isnan(x) and bool(bits & 0x400000),
    lambda bits, x: x == -math.inf,
    lambda bits, x: -math.inf < x <= -(2.0**-126),
    lambda bits, x: -(2.0**-126) < x < 0,
    lambda bits, x: bits == 0x80000000,
    lambda bits, x: bits == 0,
    lambda bits, x: 0 < x < 2.0**-126,
    lambda bits, x: 2.0**-126 <= x < math.inf,
    lambda bits, x: x == math.inf,
)


@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("seed", range(6))
def test_classes(name: str, seed: int) -> None:
    one, draw, mask = _some(name, "class", seed)
    x = words(seed, one.lanes)
    x[:3] = [0x7F800001, 0xFFBFFFFF, 0x7FC00000]
    asked = draw.integers(0, 1 << 10, one.lanes, dtype=np.uint32)
    into = "s[30:31]" if one.lanes == 64 else "s30"
    one.set(1, x).set(2, asked).run(f"v_cmp_class_f32_e64 {into}, -v1, v2")
    wanted = []
    for bits, bitset, on in zip((x ^ np.uint32(1 << 31)).tolist(), asked.tolist(), mask, strict=True):
        number = value("f32", bits)
        wanted.append(on and any(bitset >> i & 1 and member(bits, number) for i, member in enumerate(CLASSES)))
    assert mask_of(one, 30) == wanted
    vcc = "vcc" if one.lanes == 64 else "vcc_lo"
    one.run(f"v_cmp_class_f32_e64 {vcc}, v1, 0x1f8")
    finite = [on and bool(np.isfinite(value("f32", b))) for b, on in zip(x.tolist(), mask, strict=True)]
    assert mask_of(one, VCC) == finite


@pytest.mark.parametrize(
    "text",
    [
        "v_cmp_gt_i32_e64 s[30:31], -v1, v2",
        "v_cmp_gt_f32_e64 s[30:31], v1, v2 clamp",
        "v_cmp_gt_f32_e64 v0, v1, v2",
        "v_cmp_gt_u32_sdwa vcc, sext(v1), v2 src0_sel:WORD_1 src1_sel:WORD_0",
        "v_cmp_gt_u32_sdwa vcc, v1, v2 src0_sel:WORD_1 src1_sel:WORD_0 src1_sext",
    ],
)
def test_what_is_not_modelled_is_refused(text: str) -> None:
    with pytest.raises((UnsupportedInstruction, AssemblyError)):
        One("gfx942").run(text)


@pytest.mark.parametrize("modifiers", ["row_mask:0x3 bank_mask:0xf bound_ctrl:1", "row_mask:0xf bank_mask:0xf"])
def test_a_comparison_that_leaves_lanes_out_is_refused(modifiers: str) -> None:
    """What those lanes' bits become is not documented."""
    with pytest.raises(UnsupportedInstruction, match="leaves lanes out"):
        One("gfx1201").run(f"v_cmp_gt_i32_e64_dpp s30, v1, v2 row_shr:1 {modifiers}")
