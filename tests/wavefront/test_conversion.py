"""v_cvt_*, one instruction at a time, against Python's exact numbers and PyTorch's formats."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from wavefront.faults import UnsupportedInstruction

from .exact import rounded
from .one import One, half_words, same_floats, words

FAMILIES = ["gfx942", "gfx1100"]
SEEDS = range(6)


def _float32(bits: Any) -> Any:
    return bits.view(np.float32)


def _nearest(value: float, kind: str) -> float:
    return rounded(Fraction(value), kind) if math.isfinite(value) and value else value


def _to_int(value: float, low: int, high: int) -> int:
    if math.isnan(value):
        return 0
    if math.isinf(value):
        return high if value > 0 else low
    return min(max(math.trunc(value), low), high)


LIMITS = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1), "u16": (0, 65535), "i16": (-32768, 32767)}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_float16_and_float32(name: str, seed: int) -> None:
    one = One(name)
    x = words(seed, one.lanes)
    one.set(1, x).set(0, np.uint32(0xABCD0000)).run("v_cvt_f16_f32_e32 v0, v1")
    wanted = np.array([_nearest(v, "f16") for v in _float32(x).tolist()], dtype=np.float16)
    same_floats(one.halves(0)[0], wanted)
    assert set(one.halves(0)[1].tolist()) == {0 if name == "gfx942" else 0xABCD}
    h = half_words(seed, one.lanes)
    one.set(1, h).run("v_cvt_f32_f16_e32 v0, v1")
    same_floats(one.u(0), h.astype(np.uint16).view(np.float16).astype(np.float32))


def test_float16_from_the_upper_half() -> None:
    one = One("gfx942").set(1, np.array([3.0, -2.5], dtype=np.float16))
    one.machine.u[1][0] = np.uint32(0xC100_4200)
    sdwa = "v_cvt_f32_f16_sdwa v0, v1 dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:WORD_1"
    assert one.run(sdwa).f(0)[0] == -2.5
    one = One("gfx1100").set(1, np.uint32(0xC100_4200))
    assert one.run("v_cvt_f32_f16_e64 v0, v1 op_sel:[1,0]").f(0)[0] == -2.5
    assert one.run("v_cvt_f32_f16_e32 v0, v1.h").f(0)[0] == -2.5
    assert one.run("v_cvt_f16_f32_e64 v1, -v0 op_sel:[0,1]").u(1)[0] == 0x4100_4200


@pytest.mark.parametrize("kind", ["u32", "i32"])
@pytest.mark.parametrize("seed", SEEDS)
def test_integers_of_32_bits(kind: str, seed: int) -> None:
    one = One("gfx942")
    x = words(seed, one.lanes)
    one.set(1, x).run(f"v_cvt_{kind}_f32_e32 v0, v1")
    wanted = [_to_int(v, *LIMITS[kind]) & 0xFFFFFFFF for v in _float32(x).tolist()]
    assert one.u(0).tolist() == wanted
    integers = x.view({"u32": np.uint32, "i32": np.int32}[kind]).tolist()
    one.run(f"v_cvt_f32_{kind}_e32 v0, v1")
    same_floats(one.u(0), np.array([_nearest(float(v), "f32") for v in integers], dtype=np.float32))
    one.run(f"v_cvt_f64_{kind}_e32 v[2:3], v1")
    assert _float64(one, 2).tolist() == [float(v) for v in integers]
    one.run(f"v_cvt_{kind}_f64_e32 v0, v[2:3]")
    assert one.u(0).tolist() == x.tolist()


def _float64(one: One, register: int) -> Any:
    return (one.u(register) | (one.u(register + 1).astype(np.uint64) << np.uint64(32))).view(np.float64)


def _set64(one: One, register: int, bits: Any) -> None:
    one.set(register, bits.astype(np.uint32)).set(register + 1, (bits >> np.uint64(32)).astype(np.uint32))


@pytest.mark.parametrize("seed", SEEDS)
def test_float64(seed: int) -> None:
    one = One("gfx942")
    x = words(seed, one.lanes)
    one.set(1, x).run("v_cvt_f64_f32_e32 v[2:3], v1")
    same_floats(_float64(one, 2), _float32(x).astype(np.float64))
    draw = np.random.default_rng(seed)
    near = _float32(x).astype(np.float64).view(np.uint64) + draw.integers(0, 1 << 30, one.lanes, dtype=np.uint64)
    _set64(one, 4, near)
    one.run("v_cvt_f32_f64_e32 v0, v[4:5]")
    wanted = [_nearest(v, "f32") for v in near.view(np.float64).tolist()]
    with np.errstate(invalid="ignore"):  # signalling NaN
        same_floats(one.u(0), np.array(wanted).astype(np.float32))
    for kind in ("u32", "i32"):
        one.run(f"v_cvt_{kind}_f64_e32 v0, v[4:5]")
        integers = [_to_int(v, *LIMITS[kind]) & 0xFFFFFFFF for v in near.view(np.float64).tolist()]
        assert one.u(0).tolist() == integers


@pytest.mark.parametrize("kind", ["u16", "i16"])
@pytest.mark.parametrize("seed", SEEDS)
def test_integers_of_16_bits(kind: str, seed: int) -> None:
    one = One("gfx1100")
    h = half_words(seed, one.lanes)
    half = h.astype(np.uint16)
    one.set(1, h).run(f"v_cvt_{kind}_f16_e32 v0, v1")
    wanted = [_to_int(v, *LIMITS[kind]) & 0xFFFF for v in half.view(np.float16).tolist()]
    assert one.halves(0)[0].tolist() == wanted
    one.run(f"v_cvt_f16_{kind}_e32 v0, v1")
    integers = half.view({"u16": np.uint16, "i16": np.int16}[kind]).tolist()
    same_floats(one.halves(0)[0], np.array([_nearest(float(v), "f16") for v in integers]))
    one.run(f"v_cvt_{kind[0]}32_{kind}_e32 v0, v1")
    assert one.u(0).tolist() == [v & 0xFFFFFFFF for v in integers]


def test_bytes() -> None:
    one = One("gfx942").set(1, np.uint32(0x80FF0107))
    for byte, value in enumerate((7, 1, 255, 128)):
        assert one.run(f"v_cvt_f32_ubyte{byte}_e32 v0, v1").f(0)[0] == value


def _towards_zero(value: float) -> float:
    if not math.isfinite(value) or value == 0:
        return value
    exact = abs(Fraction(value))
    candidates = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    found = candidates[np.searchsorted(candidates, float(exact), side="right") - 1]
    return math.copysign(float(found), value)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "mnemonic"), [("gfx942", "pkrtz"), ("gfx1100", "pk_rtz")])
def test_pairs_of_float16_towards_zero(name: str, mnemonic: str, seed: int) -> None:
    one = One(name)
    a, b = words(seed, one.lanes), words(seed + 100, one.lanes)
    one.set(1, a).set(2, b).run(f"v_cvt_{mnemonic}_f16_f32 v0, v1, |v2|")
    for found, given in zip(one.halves(0), (_float32(a), np.abs(_float32(b))), strict=True):
        same_floats(found, np.array([_towards_zero(v) for v in given.tolist()]))


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_on_gfx950(seed: int) -> None:
    one = One("gfx950")
    a, b = words(seed, one.lanes), words(seed + 100, one.lanes)
    one.set(1, a).set(2, b).run("v_cvt_pk_f16_f32 v0, v1, -v2").run("v_cvt_pk_bf16_f32 v3, v1, -v2")
    for index, given in enumerate((_float32(a), -_float32(b))):
        same_floats(one.halves(0)[index], np.array([_nearest(v, "f16") for v in given.tolist()]))
        wanted = torch.from_numpy(given.copy()).to(torch.bfloat16).float().numpy()
        same_floats(one.halves(3)[index].astype(np.uint32) << np.uint32(16), wanted)
    with pytest.raises(UnsupportedInstruction, match="gfx942"):
        One("gfx942").run("v_cvt_pk_bf16_f32 v0, v1, v2")


FP8 = {
    ("gfx942", "fp8"): torch.float8_e4m3fnuz,
    ("gfx942", "bf8"): torch.float8_e5m2fnuz,
    ("gfx950", "fp8"): torch.float8_e4m3fn,
    ("gfx950", "bf8"): torch.float8_e5m2,
    ("gfx1201", "fp8"): torch.float8_e4m3fn,
    ("gfx1201", "bf8"): torch.float8_e5m2,
}


def _decoded(codes: Any, kind: torch.dtype) -> Any:
    return torch.from_numpy(codes.astype(np.uint8)).view(kind).float().numpy()


@pytest.mark.parametrize(("name", "short"), FP8)
def test_float8_to_float32(name: str, short: str) -> None:
    kind = FP8[name, short]
    one = One(name)
    for start in range(0, 256, one.lanes):
        codes = np.arange(start, start + one.lanes, dtype=np.uint32)
        word = codes | ((255 - codes) << np.uint32(8)) | ((codes ^ np.uint32(85)) << np.uint32(16))
        one.set(1, word.astype(np.uint32)).run(f"v_cvt_f32_{short}_e32 v0, v1")
        same_floats(one.u(0), _decoded(codes, kind))
        third = f"v_cvt_f32_{short}_sdwa v0, v1 src0_sel:BYTE_2"
        one.run(f"v_cvt_f32_{short}_e64 v0, v1 byte_sel:2" if name == "gfx1201" else third)
        same_floats(one.u(0), _decoded(codes ^ 85, kind))
        one.run(f"v_cvt_pk_f32_{short}_e32 v[2:3], v1")
        same_floats(one.u(2), _decoded(codes, kind))
        same_floats(one.u(3), _decoded(255 - codes, kind))
        high = f"v_cvt_pk_f32_{short}_sdwa v[2:3], v1 src0_sel:WORD_1"
        one.run(f"v_cvt_pk_f32_{short}_e64 v[2:3], v1 op_sel:[1,0]" if name == "gfx1201" else high)
        same_floats(one.u(2), _decoded(codes ^ 85, kind))
        if name == "gfx950":
            one.run(f"v_cvt_scalef32_pk_f32_{short} v[2:3], v1, 1.0 op_sel:[1,0]")
            same_floats(one.u(2), _decoded(codes ^ 85, kind))


def _grid(kind: torch.dtype) -> Any:
    """Every number of a format, the middles between neighbours, and float32 next to both."""
    numbers = _decoded(np.arange(256), kind)
    numbers = np.unique(numbers[np.isfinite(numbers)].astype(np.float64))
    points = np.concatenate([numbers, (numbers[1:] + numbers[:-1]) / 2]).astype(np.float32)
    return np.concatenate([points, np.nextafter(points, np.float32(9e9)), np.nextafter(points, np.float32(-9e9))])


@pytest.mark.parametrize(("name", "short"), FP8)
def test_float32_to_float8(name: str, short: str) -> None:
    kind = FP8[name, short]
    values = np.concatenate([_grid(kind), np.float32([0.0, -0.0, np.nan])])
    largest = float(torch.finfo(kind).max)
    values = values[~(np.abs(values) > largest)]
    one = One(name)
    for start in range(0, len(values), one.lanes):
        part = np.resize(values[start:], one.lanes).astype(np.float32)
        one.set(0, np.uint32(0x12345678)).set(1, part).set(2, part[::-1])
        texts = [f"v_cvt_pk_{short}_f32 v0, v1, v2", f"v_cvt_pk_{short}_f32 v0, v2, v1 op_sel:[0,0,1]"]
        if name == "gfx950":
            texts = [f"v_cvt_scalef32_pk_{short}_f32 v0, v1, v2, 1.0", texts[1]]
        low, high = one.run(texts[0]).halves(0)
        assert set(high.tolist()) == {0x1234}
        kept, high = one.run(texts[1]).halves(0)
        assert (kept == low).all()
        for code, given in ((low & 0xFF, part), (low >> 8, part[::-1]), (high & 0xFF, part[::-1]), (high >> 8, part)):
            wanted = torch.from_numpy(given.copy()).to(kind)
            same_floats(_decoded(code, kind), wanted.float().numpy())
            nan = np.isnan(given)
            assert (code[~nan] == wanted.view(torch.uint8).numpy()[~nan]).all()


@pytest.mark.parametrize(
    ("name", "short", "beyond"),
    [
        ("gfx942", "fp8", np.nan),
        ("gfx942", "bf8", np.nan),
        ("gfx1201", "fp8", np.nan),
        ("gfx1201", "bf8", np.inf),
    ],
)
def test_float8_beyond_the_range(name: str, short: str, beyond: float) -> None:
    kind = FP8[name, short]
    largest = float(torch.finfo(kind).max)
    values = np.float32([largest * 1.5, np.inf, 3e38])
    one = One(name).set(1, values).set(2, -values)
    low, _ = one.run(f"v_cvt_pk_{short}_f32 v0, v1, v2").halves(0)
    same_floats(_decoded(low & 0xFF, kind)[:3], np.float32([beyond] * 3))
    same_floats(_decoded(low >> 8, kind)[:3], np.float32([-beyond] * 3))
    one.machine.fp16_overflow = True
    low, _ = one.run(f"v_cvt_pk_{short}_f32 v0, v1, v2").halves(0)
    same_floats(_decoded(low & 0xFF, kind)[:3], np.float32([largest, beyond, largest]))
    same_floats(_decoded(low >> 8, kind)[:3], np.float32([-largest, -beyond, -largest]))


def test_float8_from_bfloat16() -> None:
    one = One("gfx950").set(0, np.uint32(0)).set(1, np.uint32(0x3F80C040))
    assert one.run("v_cvt_scalef32_pk_fp8_bf16 v0, v1, 1.0 op_sel:[0,0,1]").u(0)[0] == 0x38C40000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gfx1100", "v_cvt_pk_fp8_f32 v0, v1, v2"),
        ("gfx950", "v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, 2.0"),
        ("gfx942", "v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, 1.0"),
        ("gfx942", "v_cvt_pk_u8_f32 v0, v1, v2, v3"),
        ("gfx942", "v_cvt_pk_fp8_f32 v0, v1, v2 op_sel:[1,0,0]"),
        ("gfx942", "v_cvt_f16_f32_e64 v0, v1 op_sel:[1,0]"),
    ],
)
def test_what_is_not_modelled_is_refused(name: str, text: str) -> None:
    with pytest.raises(UnsupportedInstruction):
        One(name).run(text)
