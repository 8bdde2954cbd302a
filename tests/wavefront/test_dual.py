"""RDNA's dual instructions: two results from the registers as they were before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction

from .one import One, words

VCC = 106


def _machine(name: str = "gfx1100", seed: int = 0) -> One:
    one = One(name).scalar(VCC, 0x5555_0F0F).scalar(4, 0x3FC00000)
    for register in range(8):
        draw = np.random.default_rng(seed * 8 + register)
        one.set(register, draw.normal(size=one.lanes).astype(np.float32))
    return one


SINGLE = {
    "fmac_f32": "v_fmac_f32 {d}, v2, v3",
    "fmamk_f32": "v_fmamk_f32 {d}, v2, 0x40490fdb, v3",
    "fmaak_f32": "v_fmaak_f32 {d}, v2, v3, 0x40490fdb",
    "mul_f32": "v_mul_f32 {d}, s4, v3",
    "add_f32": "v_add_f32 {d}, 1.0, v3",
    "sub_f32": "v_sub_f32 {d}, 0, v3",
    "subrev_f32": "v_subrev_f32 {d}, v2, v3",
    "mul_dx9_zero_f32": "v_mul_dx9_zero_f32 {d}, 0, v3",
    "mov_b32": "v_mov_b32 {d}, 0x12345678",
    "cndmask_b32": "v_cndmask_b32 {d}, 0x80000000, v3",
    "max_num_f32": "v_max_num_f32 {d}, v2, v3",
    "min_f32": "v_min_f32 {d}, v2, v3",
    "dot2acc_f32_f16": "v_dot2acc_f32_f16 {d}, v2, v3",
}
SECOND = {
    "add_nc_u32": "v_add_nc_u32 {d}, 0x80, v3",
    "lshlrev_b32": "v_lshlrev_b32 {d}, 4, v3",
    "and_b32": "v_and_b32 {d}, 63, v3",
}


def _dual(text: str) -> str:
    return text.replace("v_", "v_dual_", 1)


@pytest.mark.parametrize("first", SINGLE)
@pytest.mark.parametrize("second", [*SINGLE, *SECOND])
def test_halves_are_the_plain_instructions(first: str, second: str) -> None:
    left, right = SINGLE[first].format(d="v0"), {**SINGLE, **SECOND}[second].format(d="v5")
    plain = _machine().run(left).run(right)
    dual = _machine().run(f"{_dual(left)} :: {_dual(right)}")
    np.testing.assert_array_equal(dual.machine.vector, plain.machine.vector)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Neither, one, the other and both read what the other half writes.
        ("v_dual_mov_b32 v0, v2 :: v_dual_mov_b32 v1, v3", (2, 3)),
        ("v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v1, v3", (1, 3)),
        ("v_dual_mov_b32 v0, v2 :: v_dual_mov_b32 v1, v0", (2, 0)),
        ("v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v1, v0", (1, 0)),
    ],
)
@pytest.mark.parametrize("mask", [[True], [True, False, False]])
def test_both_read_before_either_writes(text: str, wanted: tuple[int, int], mask: list[bool]) -> None:
    one = _machine()
    before = [one.u(r) for r in range(4)]
    on = np.resize(mask, one.lanes)
    one.lanes_on(mask).run(text)
    for register, source in enumerate(wanted):
        np.testing.assert_array_equal(one.u(register), np.where(on, before[source], before[register]))


def test_accumulation_into_a_register_that_the_other_half_reads() -> None:
    one = _machine()
    before: list[Any] = [one.f(r).astype(np.float64) for r in range(4)]
    one.run("v_dual_fmac_f32 v0, v1, v2 :: v_dual_fmac_f32 v1, v0, v3")
    wanted = ((before[1] * before[2] + before[0]), (before[0] * before[3] + before[1]))
    for register, value in enumerate(wanted):
        np.testing.assert_array_equal(one.f(register), value.astype(np.float32))


def test_random_bits() -> None:
    for seed in range(8):
        dual, plain = _machine("gfx1201", seed), _machine("gfx1201", seed)
        for one in (dual, plain):
            one.set(2, words(seed, one.lanes)).set(3, words(seed + 50, one.lanes))
        dual.run("v_dual_max_num_f32 v0, v2, v3 :: v_dual_mul_f32 v1, v2, v3")
        plain.run("v_max_num_f32 v0, v2, v3").run("v_mul_f32 v1, v2, v3")
        np.testing.assert_array_equal(dual.machine.vector, plain.machine.vector)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gfx1100", "v_dual_and_b32 v0, v1, v2 :: v_dual_mov_b32 v3, v1"),
        ("gfx1100", "v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v0, v2"),
        ("gfx1100", "v_dual_mov_b32 v0, v1"),
        ("gfx1100", "v_dual_mov_b32 v0, v1 :: v_mov_b32 v3, v2"),
        ("gfx1100", "v_dual_mov_b32 v0, v1 surprise:1 :: v_dual_mov_b32 v3, v2"),
        ("gfx1100", "v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v3, v2 surprise:1"),
        ("gfx942", "v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v3, v2"),
    ],
)
def test_what_is_not_modelled_is_refused(name: str, text: str) -> None:
    with pytest.raises(UnsupportedInstruction):
        One(name).run(text)
