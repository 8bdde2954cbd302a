"""VOP3P, one instruction at a time: halves, pairs, mixed formats and dot products, with every modifier."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction

from .exact import fma
from .one import One, half_words, same_floats, words

FAMILIES = ["gfx942", "gfx1100"]


def _clamped(values: Any) -> Any:
    return np.array([min(v, 1.0) if v > 0 else 0.0 for v in values.tolist()], dtype=values.dtype)


def _list(numbers: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, numbers)) + "]"


def _modifiers(draw: np.random.Generator, sources: int, *names: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(draw.integers(0, 2, sources).tolist()) for name in names}


def _text(chosen: dict[str, tuple[int, ...]]) -> str:
    return " ".join(f"{name}:{_list(numbers)}" for name, numbers in chosen.items())


def _ieee(function: Any) -> Any:
    def apply(a: Any, b: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(a, b)

    return apply


FLOATS = {
    "v_pk_add_f16": lambda a, b: fma(a, np.ones_like(a), b, "f16"),
    "v_pk_mul_f16": _ieee(np.multiply),
    "v_pk_fma_f16": lambda a, b, c: fma(a, b, c, "f16"),
    "v_pk_min_f16": _ieee(np.fmin),
    "v_pk_max_f16": _ieee(np.fmax),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mnemonic", FLOATS)
@pytest.mark.parametrize("seed", range(8))
def test_packed_float16(name: str, mnemonic: str, seed: int) -> None:
    one, draw = One(name), np.random.default_rng(seed)
    sources = 3 if "fma" in mnemonic else 2
    values = [half_words(seed * 3 + i, one.lanes) for i in range(sources)]
    for i, value in enumerate(values):
        one.set(i + 1, value)
    chosen = {} if seed == 0 else _modifiers(draw, sources, "op_sel", "op_sel_hi", "neg_lo", "neg_hi")
    clamp = " clamp" if seed % 2 else ""
    one.run(f"{mnemonic} v0, " + ", ".join(f"v{i + 1}" for i in range(sources)) + " " + _text(chosen) + clamp)
    for found, select, negate, default in zip(
        one.halves(0), ("op_sel", "op_sel_hi"), ("neg_lo", "neg_hi"), (0, 1), strict=True
    ):
        given = []
        for i, value in enumerate(values):
            half = (value >> np.uint32(16 * chosen.get(select, (default,) * 3)[i])).astype(np.uint16)
            given.append((half ^ np.uint16(0x8000 * chosen.get(negate, (0,) * 3)[i])).view(np.float16))
        wanted = FLOATS[mnemonic](*given)
        wanted = _clamped(wanted) if clamp else wanted
        if mnemonic in ("v_pk_min_f16", "v_pk_max_f16"):  # NumPy leaves the sign of zero open
            found, wanted = np.where(found == 0x8000, np.uint16(0), found), np.where(wanted == 0, 0, wanted)
        same_floats(found, wanted)


def test_packed_extremes_of_zero_and_nan() -> None:
    one = One("gfx1201").set(1, np.uint32(0x8000_0000)).set(2, np.uint32(0x0000_8000)).set(3, np.uint32(0x7E00_3C00))
    assert one.run("v_pk_max_num_f16 v0, v1, v2").u(0)[0] == 0
    assert one.run("v_pk_min_num_f16 v0, v1, v2").u(0)[0] == 0x8000_8000
    assert one.run("v_pk_max_num_f16 v0, v1, v3").u(0)[0] == 0x8000_3C00
    same_floats(one.run("v_pk_maximum_f16 v0, v1, v3").halves(0)[1], np.full(one.lanes, np.nan, np.float16))


def _signed(x: int) -> int:
    return x - 0x10000 if x & 0x8000 else x


INTEGERS = {
    "v_pk_add_u16": lambda a, b: a + b,
    "v_pk_add_i16": lambda a, b: a + b,
    "v_pk_sub_u16": lambda a, b: a - b,
    "v_pk_sub_i16": lambda a, b: a - b,
    "v_pk_mul_lo_u16": lambda a, b: a * b,
    "v_pk_mad_u16": lambda a, b, c: a * b + c,
    "v_pk_mad_i16": lambda a, b, c: a * b + c,
    "v_pk_lshlrev_b16": lambda a, b: b << (a & 15),
    "v_pk_lshrrev_b16": lambda a, b: b >> (a & 15),
    "v_pk_ashrrev_i16": lambda a, b: _signed(b) >> (a & 15),
    "v_pk_max_u16": lambda a, b: max(a, b),
    "v_pk_min_u16": lambda a, b: min(a, b),
    "v_pk_max_i16": lambda a, b: max(_signed(a), _signed(b)),
    "v_pk_min_i16": lambda a, b: min(_signed(a), _signed(b)),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mnemonic", INTEGERS)
@pytest.mark.parametrize("select", [{}, {"op_sel": (1, 0, 1), "op_sel_hi": (0, 0, 1)}])
def test_packed_integers(name: str, mnemonic: str, select: dict[str, tuple[int, ...]]) -> None:
    function = INTEGERS[mnemonic]
    sources = function.__code__.co_argcount
    one = One(name)
    values = [half_words(7 + i, one.lanes) for i in range(sources)]
    for i, value in enumerate(values):
        one.set(i + 1, value)
    text = _text({key: numbers[:sources] for key, numbers in select.items()})
    one.run(f"{mnemonic} v0, " + ", ".join(f"v{i + 1}" for i in range(sources)) + " " + text)
    for found, chosen in zip(
        one.halves(0), (select.get("op_sel", (0,) * 3), select.get("op_sel_hi", (1,) * 3)), strict=True
    ):
        given = [((v >> np.uint32(16 * c)) & np.uint32(0xFFFF)).tolist() for v, c in zip(values, chosen, strict=False)]
        assert found.tolist() == [function(*each) & 0xFFFF for each in zip(*given, strict=True)]


def test_packed_saturation() -> None:
    one = One("gfx942").set(1, np.uint32(0xFFFF_8000)).set(2, np.uint32(0x0002_8001))
    assert one.run("v_pk_add_u16 v0, v1, v2 clamp").u(0)[0] == 0xFFFF_FFFF
    assert one.run("v_pk_sub_u16 v0, v2, v1 clamp").u(0)[0] == 0x0000_0001
    assert one.run("v_pk_add_i16 v0, v1, v2 clamp").u(0)[0] == 0x0001_8000
    with pytest.raises(UnsupportedInstruction):
        one.run("v_pk_mul_lo_u16 v0, v1, v2 clamp")


def test_constants_of_packed_operations() -> None:
    one = One("gfx1100").set(1, np.uint32(0x40004000)).scalar(3, 0x3C00_4400)
    # A float constant stands in the low half, an integer is 32 bits wide, a literal is what is written.
    assert one.run("v_pk_add_f16 v0, v1, 1.0").u(0)[0] == 0x4000_4200
    assert one.run("v_pk_add_f16 v0, v1, 1.0 op_sel_hi:[1,0]").u(0)[0] == 0x4200_4200
    assert one.run("v_pk_add_f16 v0, v1, 0x3c004400").u(0)[0] == 0x4200_4600
    assert one.run("v_pk_add_f16 v0, v1, s3").u(0)[0] == 0x4200_4600
    assert one.run("v_pk_add_u16 v0, v1, -1").u(0)[0] == 0x3FFF_3FFF
    assert one.run("v_pk_add_u16 v0, v1, 1").u(0)[0] == 0x4000_4001
    assert one.run("v_pk_lshlrev_b16 v0, 1, v1 op_sel_hi:[0,1]").u(0)[0] == 0x8000_8000
    one.set(0, np.uint32(0x3C003C00))
    assert one.run("v_pk_fmac_f16 v0, v1, v1").u(0)[0] == 0x4500_4500


# -- pairs of registers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mnemonic", ["v_pk_add_f32", "v_pk_mul_f32", "v_pk_fma_f32"])
def test_packed_float32(mnemonic: str, seed: int) -> None:
    one, draw = One("gfx942"), np.random.default_rng(seed)
    sources = 3 if "fma" in mnemonic else 2
    for register in range(2, 8):
        one.set(register, words(seed * 6 + register, one.lanes))
    before = [one.f(register) for register in range(8)]
    chosen = {} if seed == 0 else _modifiers(draw, sources, "op_sel", "op_sel_hi", "neg_lo", "neg_hi")
    # The first source is the destination: both halves read before either is written.
    given = ("v[2:3]", "v[4:5]", "v[6:7]")[:sources]
    one.run(f"{mnemonic} v[2:3], " + ", ".join(given) + " " + _text(chosen))
    for half, (select, negate) in enumerate((("op_sel", "neg_lo"), ("op_sel_hi", "neg_hi"))):
        values = []
        for i in range(sources):
            value = before[2 + 2 * i + chosen.get(select, (half,) * 3)[i]]
            values.append(-value if chosen.get(negate, (0,) * 3)[i] else value)
        with np.errstate(all="ignore"):
            if sources == 3:
                wanted = fma(*values, "f32")
            else:
                wanted = np.add(*values) if "add" in mnemonic else np.multiply(*values)
        same_floats(one.u(2 + half), wanted)


def test_constants_of_packed_float32() -> None:
    one = One("gfx942").set(2, np.float32([3])).set(3, np.float32([5])).scalar(4, 0x40000000).scalar(5, 0x40400000)
    one.run("v_pk_add_f32 v[0:1], v[2:3], 1.0 op_sel_hi:[1,0]")
    assert (one.f(0)[0], one.f(1)[0]) == (4, 6)
    one.run("v_pk_mul_f32 v[0:1], v[2:3], s[4:5]")
    assert (one.f(0)[0], one.f(1)[0]) == (6, 15)
    one.run("v_pk_mul_f32 v[0:1], v[2:3], 0")
    assert (one.f(0)[0], one.f(1)[0]) == (0, 0)
    one.run("v_pk_add_f32 v[0:1], v[2:3], v[2:3] clamp neg_lo:[1,0]")
    assert (one.f(0)[0], one.f(1)[0]) == (0, 1)
    with pytest.raises(UnsupportedInstruction, match="64-bit constant"):
        one.run("v_pk_add_f32 v[0:1], v[2:3], 1.0")


@pytest.mark.parametrize("select", list(product((0, 1), repeat=2)))
def test_packed_move(select: tuple[int, int]) -> None:
    one = One("gfx942")
    for register in range(4):
        one.set(register, np.uint32(100 + register))
    one.run(f"v_pk_mov_b32 v[0:1], v[0:1], v[2:3] op_sel:{_list(select)}")
    assert (one.u(0)[0], one.u(1)[0]) == (100 + select[0], 102 + select[1])
    one.run("v_pk_mov_b32 v[0:1], v[0:1], v[0:1] op_sel:[1,0]")
    assert (one.u(0)[0], one.u(1)[0]) == (102 + select[1], 100 + select[0])


# -- mixed formats -----------------------------------------------------------------------------------------------------


def _mixed_value(word: Any, half: int, high: int) -> Any:
    if not half:
        return word.view(np.float32)
    return (word >> np.uint32(16 * high)).astype(np.uint16).view(np.float16).astype(np.float32)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(24))
def test_mixed(name: str, seed: int) -> None:
    one, draw = One(name), np.random.default_rng(seed)
    kinds = tuple(draw.integers(0, 2, 3).tolist()) if seed else (0, 0, 0)
    high = tuple(int(k and h) for k, h in zip(kinds, draw.integers(0, 2, 3).tolist(), strict=True))
    raw = [(half_words if k else words)(seed * 3 + i, one.lanes) for i, k in enumerate(kinds)]
    texts, values = [], []
    for i, word in enumerate(raw):
        negative, absolute = draw.integers(0, 2, 2)
        value = _mixed_value(word, kinds[i], high[i])
        value = np.abs(value) if absolute else value
        values.append(-value if negative else value)
        register = f"|v{i + 1}|" if absolute else f"v{i + 1}"
        texts.append(f"-{register}" if negative else register)
        one.set(i + 1, word)
    modifiers = f" op_sel:{_list(high)} op_sel_hi:{_list(kinds)}" if seed else ""
    modifiers += " clamp" if seed % 5 == 4 else ""
    one.set(0, np.uint32(0x11112222))
    sources = ", ".join(texts)
    for mnemonic, kind in (("v_fma_mix_f32", "f32"), ("v_fma_mixlo_f16", "f16"), ("v_fma_mixhi_f16", "f16")):
        wanted = fma(*values, kind)
        wanted = _clamped(wanted) if "clamp" in modifiers else wanted
        one.set(0, np.uint32(0x11112222)).run(f"{mnemonic} v0, {sources}{modifiers}")
        low, upper = one.halves(0)
        if kind == "f32":
            same_floats(one.f(0), wanted)
        else:
            found, kept = (low, upper) if mnemonic == "v_fma_mixlo_f16" else (upper, low)
            same_floats(found, wanted)
            assert set(kept.tolist()) == {0x1111 if mnemonic == "v_fma_mixlo_f16" else 0x2222}


@pytest.mark.parametrize("name", FAMILIES)
def test_mixed_takes_inline_constants_in_the_format_of_the_source(name: str) -> None:
    """As LLVM adds a float16 to a float32: times one, whose float16 is the lower half of the constant."""
    one = One(name).set(1, np.uint32(0x4000_3E00)).set(2, np.float32([0.25, -7.0]))  # 2.0 above 1.5
    texts = {
        "v1, 1.0, v2 op_sel_hi:[1,1,0]": 1.5,
        "v1, 1.0, v2 op_sel:[1,0,0] op_sel_hi:[1,1,0]": 2.0,
        "v1, -4.0, v2 op_sel_hi:[1,1,0]": -6.0,
        "v1, -4.0, v2 op_sel_hi:[1,0,0]": -6.0,
        "v1, 0.5, v2 neg_lo:[0,1,0] op_sel_hi:[1,1,0]": -0.75,
    }
    for text, part in texts.items():
        found = one.run(f"v_fma_mix_f32 v0, {text}").f(0)
        assert found[:2].tolist() == [part + 0.25, part - 7.0], text


def test_mixed_rounds_once() -> None:
    """What silicon was measured to do: 2912 of all 63488 finite float16 times 1.1 differ from rounding twice."""
    everything = np.arange(1 << 16, dtype=np.uint32)
    finite = everything[(everything & 0x7C00) != 0x7C00].astype(np.uint32)
    one, found = One("gfx1100"), []
    for start in range(0, len(finite), one.lanes):
        one.set(1, finite[start : start + one.lanes])
        one.run("v_fma_mixlo_f16 v0, v1, 0x3f8ccccd, 0 op_sel_hi:[1,0,0]")
        found.append(one.halves(0)[0])
    with np.errstate(over="ignore"):
        twice = (finite.astype(np.uint16).view(np.float16).astype(np.float32) * np.float32(1.1)).astype(np.float16)
    both = np.concatenate(found)[: len(finite)].view(np.float16)
    assert np.count_nonzero(both != twice) == 2912


# -- dot products ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "accumulate"), [("gfx942", "v_dot2c"), ("gfx1100", "v_dot2acc")])
def test_dot2_of_float16(name: str, accumulate: str) -> None:
    one, draw = One(name), np.random.default_rng(3)
    small = draw.integers(-64, 64, (4, one.lanes)).astype(np.float16)
    for register, (low, high) in ((1, small[:2]), (2, small[2:])):
        one.set(register, low.view(np.uint16).astype(np.uint32) | (high.view(np.uint16).astype(np.uint32) << 16))
    a0, a1, b0, b1 = small.astype(np.float64)
    one.set(3, np.float32([2.5]))
    assert (one.run("v_dot2_f32_f16 v0, v1, v2, v3").f(0) == 2.5 + a0 * b0 + a1 * b1).all()
    crossed = "v_dot2_f32_f16 v0, v1, v2, v3 op_sel:[1,0,0] op_sel_hi:[0,1,1] neg_lo:[1,0,1] neg_hi:[0,1,0]"
    assert (one.run(crossed).f(0) == -2.5 - a1 * b0 - a0 * b1).all()
    assert (one.run(f"{accumulate}_f32_f16 v3, v1, v2").f(3) == 2.5 + a0 * b0 + a1 * b1).all()


def test_dot2_of_bfloat16() -> None:
    for name in ("gfx950", "gfx1100"):
        one = One(name).set(1, np.uint32(0x40004040)).set(2, np.uint32(0x3F80C000)).set(3, np.float32([1.0]))
        assert one.run("v_dot2_f32_bf16 v0, v1, v2, v3").f(0)[0] == 3 * -2 + 2 * 1 + 1


def _bytes(word: int, signed: bool) -> list[int]:
    found = [(word >> (8 * i)) & 0xFF for i in range(4)]
    return [b - 256 if signed and b > 127 else b for b in found]


@pytest.mark.parametrize(
    ("name", "text", "signs"),
    [
        ("gfx942", "v_dot4_i32_i8 v0, v1, v2, v3", (True, True)),
        ("gfx942", "v_dot4_u32_u8 v0, v1, v2, v3", (False, False)),
        ("gfx942", "v_dot4c_i32_i8_e32 v0, v1, v2", (True, True)),
        ("gfx1100", "v_dot4_u32_u8 v0, v1, v2, v3", (False, False)),
        ("gfx1100", "v_dot4_i32_iu8 v0, v1, v2, v3", (False, False)),
        ("gfx1100", "v_dot4_i32_iu8 v0, v1, v2, v3 neg_lo:[1,0,0]", (True, False)),
        ("gfx1201", "v_dot4_i32_iu8 v0, v1, v2, v3 neg_lo:[1,1,0]", (True, True)),
    ],
)
def test_dot4(name: str, text: str, signs: tuple[bool, bool]) -> None:
    one = One(name)
    draw = np.random.default_rng(5)
    a, b, c = (draw.integers(0, 1 << 32, one.lanes, dtype=np.uint32) for _ in range(3))
    one.set(0, c).set(1, a).set(2, b).set(3, c).run(text)
    wanted = [
        (z + sum(p * q for p, q in zip(_bytes(x, signs[0]), _bytes(y, signs[1]), strict=True))) & 0xFFFFFFFF
        for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    assert one.u(0).tolist() == wanted


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gfx942", "v_pk_add_f16 v0, -v1, v2"),
        ("gfx942", "v_pk_add_u16 v0, v1, v2 neg_lo:[1,0]"),
        ("gfx942", "v_pk_add_f16 v0, v1, v2 surprise:1"),
        ("gfx942", "v_pk_add_f16 v0, v1, v2 op_sel:[1]"),
        ("gfx942", "v_pk_mov_b32 v[0:1], v[2:3], v[4:5] op_sel_hi:[0,1]"),
        ("gfx942", "v_pk_mul_f32 v[0:1], v2, v[4:5]"),
        ("gfx1100", "v_pk_add_f32 v[0:1], v[2:3], v[4:5]"),
        ("gfx1100", "v_fma_mix_f32 v0, v1, v2, 1.0 op_sel:[0,0,1] op_sel_hi:[1,1,1]"),
        ("gfx1100", "v_fma_mix_f32 v0, v1, v2, 7 op_sel_hi:[1,1,1]"),
        ("gfx1100", "v_fma_mix_f32 v0, v1, v2, v3 op_sel:[1,0,0]"),
        ("gfx1100", "v_dot2_f32_bf16 v0, v1, 1.0, v3"),
        ("gfx1100", "v_dot2_f32_f16 v0, v1, v2, v3 op_sel:[0,0,1]"),
        ("gfx1100", "v_dot4_i32_iu8 v0, v1, v2, v3 clamp"),
        ("gfx942", "v_dot2c_f32_f16 v0, v1, 1.0"),
    ],
)
def test_what_is_not_modelled_is_refused(name: str, text: str) -> None:
    with pytest.raises(UnsupportedInstruction):
        One(name).run(text)
