"""Lane masks in scalar registers: kept as booleans or as numbers, they are the same; and waves apart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wavefront.assembly import instruction
from wavefront.machine import Machine
from wavefront.semantics import table
from wavefront.target import target

from .drawn import MASK, mask_of, number_in, set_mask
from .one import One
from .test_scalar import LOGIC

VCC, EXEC = 106, 126
Function = Callable[..., Any]


SAVES = {
    "and": lambda s, e: s & e,
    "or": lambda s, e: s | e,
    "xor": lambda s, e: s ^ e,
    "andn2": lambda s, e: s & ~e,
    "andn1": lambda s, e: ~s & e,
    "and_not1": lambda s, e: s & ~e,
    "and_not0": lambda s, e: ~s & e,
}


def _drawn_mask(draw: Any, lanes: int) -> list[bool]:
    return (draw.random(lanes) < draw.choice([0, 0.5, 0.5, 1])).tolist()


def _as_number(mask: list[bool]) -> int:
    return sum(1 << lane for lane, on in enumerate(mask) if on)


CDNA_SAVES, RDNA_SAVES = ("and", "or", "xor", "andn2", "andn1"), ("and", "or", "xor", "and_not1", "and_not0")
SAVE_CASES = [("gfx942", s) for s in CDNA_SAVES] + [("gfx1100", s) for s in RDNA_SAVES]


@pytest.mark.parametrize(("name", "which"), SAVE_CASES)
def test_keeping_exec(name: str, which: str) -> None:
    pair = ("s[4:5]", "s[6:7]") if name == "gfx942" else ("s4", "s6")
    for seed in range(8):
        one, draw = One(name), np.random.default_rng(seed)
        lanes, whole = one.lanes, (1 << one.lanes) - 1
        exec_, given = _drawn_mask(draw, lanes), _drawn_mask(draw, lanes)
        one.lanes_on(exec_)
        source = 4 if seed % 2 else 6  # also onto its own source
        set_mask(one, source, given)
        if seed % 3:
            one.machine.get_mask(source)
        one.run(f"s_{which}_saveexec_b{lanes} {pair[0]}, {pair[0] if source == 4 else pair[1]}")
        wanted = SAVES[which](_as_number(given), _as_number(exec_)) & whole
        assert _as_number(mask_of(one, EXEC)) == wanted
        assert mask_of(one, 4) == exec_
        assert bool(one.machine.scc[0, 0]) == (wanted != 0)


@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("seed", range(40))
def test_masks_and_numbers_are_the_same_registers(name: str, seed: int) -> None:
    """A random program over few scalar registers, as masks and as numbers, against plain integers."""
    one, draw = One(name), np.random.default_rng(seed)
    words = one.lanes // 32
    state = {register: int(draw.integers(0, 1 << 32)) for register in range(4, 12)}
    for register, number in state.items():
        one.scalar(register, number)
    one.set(1, np.arange(one.lanes, dtype=np.uint32))
    exec_ = [True] * one.lanes

    def text(first: int, count: int) -> str:
        return f"s[{first}:{first + 1}]" if count == 2 else f"s{first}"

    def read(first: int) -> int:
        return state[first] | state[first + 1] << 32 if words == 2 else state[first]

    def write(first: int, number: int) -> None:
        state[first] = number & MASK[32]
        if words == 2:
            state[first + 1] = number >> 32 & MASK[32]

    for _ in range(30):
        into, left, right = (int(draw.integers(4, 12 - words + 1)) for _ in range(3))
        if words == 2:
            into, left, right = (x - x % 2 if draw.random() < 0.7 else x for x in (into, left, right))
        how = draw.choice(["compare", "logic", "move", "add", "exec", "not", "literal", "half"])
        if how == "compare":
            limit = int(draw.integers(0, one.lanes))
            one.run(f"v_cmp_gt_u32_e64 {text(into, words)}, {limit}, v1")
            write(into, _as_number([on and lane < limit for lane, on in enumerate(exec_)]))
        elif how == "logic":
            name_ = str(draw.choice(["and", "or", "xor", "nand", "xnor"]))
            one.run(f"s_{name_}_b{one.lanes} {text(into, words)}, {text(left, words)}, {text(right, words)}")
            write(into, LOGIC[name_](read(left), read(right)) & MASK[one.lanes])
        elif how == "move":
            one.run(f"s_mov_b{one.lanes} {text(into, words)}, {text(left, words)}")
            write(into, read(left))
        elif how == "not":
            one.run(f"s_not_b{one.lanes} {text(into, words)}, {text(left, words)}")
            write(into, ~read(left) & MASK[one.lanes])
        elif how == "literal":
            one.run(f"s_mov_b{one.lanes} {text(into, words)}, -1")
            write(into, MASK[one.lanes])
        elif how == "exec":
            vcc = "exec" if words == 2 else "exec_lo"
            one.run(f"s_mov_b{one.lanes} {vcc}, {text(left, words)}")
            exec_ = [bool(read(left) >> lane & 1) for lane in range(one.lanes)]
        elif how == "half":
            one.run(f"s_mov_b32 s{into}, s{left}")
            state[into] = state[left]
        else:
            one.run(f"s_add_u32 s{into}, s{left}, s{right}")
            state[into] = (state[left] + state[right]) & MASK[32]
    for register, number in state.items():
        assert number_in(one, register, 32) == number, register
    assert mask_of(one, EXEC) == exec_


@pytest.mark.parametrize(
    ("text", "register"),
    [
        ("s_add_u32 s4, s5, s6", 4),
        ("s_mov_b64 s[4:5], s[6:7]", 4),
        ("s_and_b64 s[4:5], s[6:7], s[8:9]", 4),
        ("s_lshl_b64 s[4:5], s[6:7], 3", 4),
        ("v_cmp_eq_u32_e64 s[4:5], v1, v2", 4),
        ("v_readfirstlane_b32 s4, v1", 4),
        ("v_readlane_b32 s4, v1, 3", 4),
        ("s_movk_i32 s4, 0x12", 4),
        ("s_and_saveexec_b64 s[4:5], s[6:7]", 4),
        ("s_mov_b64 exec, s[6:7]", EXEC),
        ("v_add_co_u32_e64 v0, s[4:5], v1, v2", 4),
    ],
)
def test_a_wave_that_does_not_take_part_is_left_alone(text: str, register: int) -> None:
    """Three waves, the middle one elsewhere: its registers, masks and condition code stay."""
    chosen = target("gfx942")
    machine = Machine(chosen, 3, 16, 0)
    for i in range(3):
        machine.u[i][...] = np.arange(64) + i
    for i in range(4, 12):
        machine.su[i][...] = 0x1000 * i + 1
    machine.scc[...] = True
    machine.set_mask(EXEC, np.ones((3, 64), dtype=np.bool_))
    machine.take_part(np.array([True, False, True]))
    before = [int(machine.number(r)[1, 0]) for r in (register, register + 1)]
    vector = machine.u[0][1].copy()
    with np.errstate(all="ignore"):
        step = table.build(instruction(text), chosen)
        step(SimpleNamespace(machine=machine, memory=None, lds=None))
    assert [int(machine.number(r)[1, 0]) for r in (register, register + 1)] == before
    assert (machine.u[0][1] == vector).all()
    assert machine.scc[1, 0]
    assert machine.exec[1].all()
    assert int(machine.number(register)[0, 0]) != before[0] or int(machine.number(register + 1)[0, 0]) != before[1]
