"""Values that cross lanes: DPP, permutes, swizzles, single-lane reads and writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from .operands import Reader, destination, raw, scalar_destination, source, spread
from .table import Step, instruction

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
ROW = 16  # lanes of a row, the unit of DPP
_OUTSIDE = -1


def _quad(text: str, lane: int, lanes: int) -> int:
    return lane // 4 * 4 + [int(part) for part in text.strip("[]").split(",")][lane % 4]


def _within_row(lane: int, place: int) -> int:
    return lane // ROW * ROW + place if 0 <= place < ROW else _OUTSIDE


def _wave_shift(lane: int, lanes: int, by: int) -> int:
    return lane + by if 0 <= lane + by < lanes else _OUTSIDE


# The lane that each lane reads, or _OUTSIDE. Amounts are the modifier's text.
_PATTERNS: dict[str, Callable[[str, int, int], int]] = {
    "quad_perm": _quad,
    "row_shl": lambda text, lane, lanes: _within_row(lane, lane % ROW + int(text)),
    "row_shr": lambda text, lane, lanes: _within_row(lane, lane % ROW - int(text)),
    "row_ror": lambda text, lane, lanes: _within_row(lane, (lane - int(text)) % ROW),
    "row_share": lambda text, lane, lanes: _within_row(lane, int(text)),
    "row_newbcast": lambda text, lane, lanes: _within_row(lane, int(text)),
    "row_xmask": lambda text, lane, lanes: _within_row(lane, lane % ROW ^ int(text, 0)),
    "wave_shl": lambda text, lane, lanes: _wave_shift(lane, lanes, 1),
    "wave_shr": lambda text, lane, lanes: _wave_shift(lane, lanes, -1),
    "wave_rol": lambda text, lane, lanes: (lane + 1) % lanes,
    "wave_ror": lambda text, lane, lanes: (lane - 1) % lanes,
    # Lane 15 of each row to the next row; lane 31 to the upper half.
    "row_bcast": lambda text, lane, lanes: (
        lane // ROW * ROW - 1 if int(text) == 15 and lane >= ROW else 31 if int(text) == 31 and lane >= 32 else _OUTSIDE
    ),
}


def _dpp_pattern(insn: Instruction, lanes: int) -> Array:
    """int64 (lanes,): the lane that each reads."""
    text = insn.modifiers.get("dpp8")
    if text is not None:
        order = [int(part) for part in text.strip("[]").split(",")]
        return np.array([lane // 8 * 8 + order[lane % 8] for lane in range(lanes)])
    if "row_mirror" in insn.modifiers:
        return np.array([lane // ROW * ROW + ROW - 1 - lane % ROW for lane in range(lanes)])
    if "row_half_mirror" in insn.modifiers:
        return np.array([lane // 8 * 8 + 7 - lane % 8 for lane in range(lanes)])
    for name, pattern in _PATTERNS.items():
        if name in insn.modifiers:
            return np.array([pattern(insn.modifiers[name], lane, lanes) for lane in range(lanes)])
    raise insn.unsupported("a DPP pattern that is not modelled")


_DPP_NAMES = (*_PATTERNS, "row_mirror", "row_half_mirror", "dpp8")


def dpp_source(insn: Instruction, reader: Reader, lanes: int) -> Reader:
    """The first source of a DPP instruction: its value from the lane that the pattern names, 0 from outside.

    Which lanes write at all is `under_dpp`'s business.
    """
    found = _dpp_pattern(insn, lanes)
    pattern, outside = np.maximum(found, 0), found == _OUTSIDE
    some_outside = bool(outside.any())

    def read(run: Run) -> Array:
        machine = run.machine
        value = spread(run, reader(run)).take(pattern, axis=1)
        if machine.mask is not True and not machine.exec.all():
            value[~machine.exec.take(pattern, axis=1)] = 0
        if some_outside:
            value[:, outside] = 0
        return value

    return read


def under_dpp(insn: Instruction, target: Target, step: Step) -> Step:
    """`step` for the lanes that a DPP instruction writes: row_mask and bank_mask switch rows and quarters of rows off,
    and without bound_ctrl so is a lane whose source lies outside or does not take part."""
    lanes = target.wave
    pattern = _dpp_pattern(insn, lanes)
    for name in _DPP_NAMES:
        insn.take(name)
    rows, banks = insn.number("row_mask", 15), insn.number("bank_mask", 15)
    # The assembler writes bound_ctrl:0 or bound_ctrl:1 for the same set bit: a source outside reads as 0.
    zero_outside = insn.flag("bound_ctrl")
    if insn.flag("fi") and insn.modifiers["fi"] != "0":
        raise insn.unsupported("fi, the fetch from lanes that do not take part")
    lane = np.arange(lanes)
    # A wave has four rows of 16 lanes where it has 64, two where it has 32.
    on = ((rows >> (lane // ROW)) & 1).astype(bool) & ((banks >> (lane % ROW // 4)) & 1).astype(bool)
    outside, place = pattern == _OUTSIDE, np.maximum(pattern, 0)
    fixed = on if zero_outside else on & ~outside
    plain = bool(fixed.all()) and zero_outside

    def run_under(run: Run) -> None:
        machine = run.machine
        if plain:
            step(run)
            return
        before = machine.mask
        if before is True:
            machine.mask = np.broadcast_to(fixed, machine.shape)
        elif zero_outside:
            machine.mask = fixed & before
        else:
            machine.mask = fixed & before & machine.exec.take(place, axis=1)
        try:
            step(run)
        finally:
            machine.mask = before

    return run_under


@instruction("v_readfirstlane_b32")
def _readfirstlane(insn: Instruction, target: Target) -> Step:
    into, value = insn.operands
    read, write = source(insn, value, "u32"), scalar_destination(insn, into, 32)

    def step(run: Run) -> None:
        machine = run.machine
        values = read(run)
        if machine.mask is True or values.shape != machine.shape:
            write(run, values[:, :1])
            return
        # With no lane on, lane 0 is read.
        first = machine.exec.argmax(axis=1)
        write(run, np.take_along_axis(values, first[:, None], axis=1))

    return step


@instruction("v_readlane_b32")
def _readlane(insn: Instruction, target: Target) -> Step:
    into, value, lane = insn.operands
    read, which, write = source(insn, value, "u32"), source(insn, lane, "u32"), scalar_destination(insn, into, 32)
    limit = np.uint32(target.wave - 1)
    if lane.kind == "literal" and value.kind in ("v", "a"):
        fixed = slice(lane.value % target.wave, lane.value % target.wave + 1)
        return lambda run: write(run, read(run)[:, fixed])

    def step(run: Run) -> None:
        machine = run.machine
        chosen = np.broadcast_to((which(run) & limit).astype(np.int64), (machine.waves, 1))
        write(run, np.take_along_axis(spread(run, read(run)), chosen, axis=1))

    return step


@instruction("v_writelane_b32")
def _writelane(insn: Instruction, target: Target) -> Step:
    into, value, lane = insn.operands
    if into.kind not in ("v", "a"):
        raise insn.unsupported("this destination")
    read, which = source(insn, value, "u32"), source(insn, lane, "u32")
    limit = np.uint32(target.wave - 1)
    if lane.kind == "literal" and into.kind == "v":
        fixed = slice(lane.value % target.wave, lane.value % target.wave + 1)
        index = into.index

        def one_lane(run: Run) -> None:
            np.copyto(run.machine.u[index][:, fixed], read(run), where=run.machine.live)

        return one_lane

    def step(run: Run) -> None:
        machine = run.machine
        register = machine.u[into.index + (machine.first_accumulator if into.kind == "a" else 0)]
        chosen = np.broadcast_to((which(run) & limit).astype(np.int64), (machine.waves, 1))
        values = np.broadcast_to(read(run), (machine.waves, 1))
        if machine.live is True:
            np.put_along_axis(register, chosen, values, axis=1)
            return
        rows = np.flatnonzero(machine.live[:, 0])
        register[rows, chosen[rows, 0]] = values[rows, 0]

    return step


def _permute(insn: Instruction, lanes_of: Any) -> Step:
    into, address, value = insn.operands
    offset = np.uint32(insn.number("offset"))
    where, read, write = source(insn, address, "u32"), source(insn, value, "u32"), destination(insn, into, "u32")

    def step(run: Run) -> None:
        machine = run.machine
        shape = machine.exec.shape
        lane = np.broadcast_to((((where(run) + offset) >> np.uint32(2)) & np.uint32(machine.lanes - 1)), shape)
        write(run, lanes_of(machine, spread(run, read(run)), lane.astype(np.int64)))

    return step


@instruction("ds_bpermute_b32")
def _bpermute(insn: Instruction, target: Target) -> Step:
    def pulled(machine: Any, values: Array, lane: Array) -> Array:
        found = np.take_along_axis(values, lane, axis=1)
        # A source lane that does not take part reads as 0.
        return np.where(np.take_along_axis(machine.lanes_on(), lane, axis=1), found, np.uint32(0))

    return _permute(insn, pulled)


@instruction("ds_permute_b32")
def _forward_permute(insn: Instruction, target: Target) -> Step:
    def pushed(machine: Any, values: Array, lane: Array) -> Array:
        found = np.zeros(values.shape, dtype=np.uint32)
        on = machine.lanes_on()
        waves = np.broadcast_to(np.arange(machine.waves)[:, None], values.shape)
        found[waves[on], lane[on]] = values[on]
        return found

    return _permute(insn, pushed)


def _swizzle_pattern(insn: Instruction, lanes: int) -> Array:
    text = insn.take("offset", "0")
    lane = np.arange(lanes)
    if match := re.fullmatch(r"swizzle\((\w+),\s*(.*)\)", text):
        mode, rest = match[1], match[2]
        if mode == "QUAD_PERM":
            order = np.array([int(part) for part in rest.split(",")])
            return lane // 4 * 4 + order[lane % 4]
        if mode == "SWAP":
            return lane ^ int(rest)
        if mode == "REVERSE":
            return lane ^ (int(rest) - 1)
        if mode == "BROADCAST":
            size, which = (int(part) for part in rest.split(","))
            return lane // size * size + which
        if mode == "BITMASK_PERM":
            return _bitmask(rest.strip().strip('"'), lane)
        raise insn.unsupported(f"swizzle mode {mode}")
    number = int(text, 0)
    if number & 0x8000:
        return lane // 4 * 4 + np.array([(number >> (2 * q)) & 3 for q in range(4)])[lane % 4]
    keep, one, flip = number & 31, (number >> 5) & 31, (number >> 10) & 31
    return lane // 32 * 32 + (((lane % 32 & keep) | one) ^ flip)


def _bitmask(letters: str, lane: Array) -> Array:
    """Five letters from the highest bit to the lowest: 0, 1, p (keep), i (invert)."""
    result = lane // 32 * 32
    for letter, bit in zip(letters, (4, 3, 2, 1, 0), strict=True):
        own = (lane >> bit) & 1
        value = {"0": 0 * own, "1": 0 * own + 1, "p": own, "i": 1 - own}[letter]
        result = result + (value << bit)
    return result


@instruction("ds_swizzle_b32")
def _swizzle(insn: Instruction, target: Target) -> Step:
    into, value = insn.operands
    pattern = _swizzle_pattern(insn, target.wave)
    read, write = source(insn, value, "u32"), destination(insn, into, "u32")

    def step(run: Run) -> None:
        machine = run.machine
        values = spread(run, read(run))[:, pattern]
        if machine.mask is not True:
            values = np.where(machine.mask[:, pattern], values, np.uint32(0))
        write(run, values)

    return step


@instruction("v_permlanex16_b32", "v_permlane16_b32", family="rdna")
def _permlane16(insn: Instruction, target: Target) -> Step:
    """Each lane reads lane `selector` of its own row, or of its neighbour row (x); 4 bits a lane in two scalars."""
    into, value, low, high = insn.operands
    chosen = insn.numbers("op_sel", (0, 0))
    fetch_inactive, zero_outside = bool(chosen[0]), bool(chosen[1])
    lane = np.arange(target.wave)
    row = lane // ROW * ROW ^ (ROW if insn.mnemonic == "v_permlanex16_b32" else 0)
    read, first, second = source(insn, value, "u32"), source(insn, low, "u32"), source(insn, high, "u32")
    write = destination(insn, into, "u32")
    shift = (lane % 8 * 4).astype(np.uint32)

    def step(run: Run) -> None:
        machine = run.machine
        shape = machine.exec.shape
        words = np.where(lane % ROW < 8, np.broadcast_to(first(run), shape), np.broadcast_to(second(run), shape))
        place = row + ((words >> shift) & np.uint32(15)).astype(np.int64)
        found = np.take_along_axis(spread(run, read(run)), place, axis=1)
        before = machine.mask
        if not fetch_inactive and before is not True:
            there = np.take_along_axis(machine.exec, place, axis=1)
            found = np.where(there, found, np.uint32(0))
            if not zero_outside:
                machine.mask = before & there
        try:
            write(run, found)
        finally:
            machine.mask = before

    return step


@instruction("v_mbcnt_lo_u32_b32", "v_mbcnt_hi_u32_b32")
def _count_below(insn: Instruction, target: Target) -> Step:
    """The bits of the first source that stand for lower lanes, counted, plus the second; lo: of lanes 0 to 31."""
    into, bits, more = insn.operands
    read, addend, write = source(insn, bits, "u32"), source(insn, more, "u32"), destination(insn, into, "u32")
    lane = np.arange(target.wave) - (32 if "_hi_" in insn.mnemonic else 0)
    below = ((np.uint64(1) << np.clip(lane, 0, 32).astype(np.uint64)) - np.uint64(1)).astype(np.uint32)
    return lambda run: write(run, np.bitwise_count(read(run) & below).astype(np.uint32) + addend(run))


@instruction("v_permlane32_swap_b32", "v_permlane16_swap_b32", family="cdna")
def _lane_swap(insn: Instruction, target: Target) -> Step:
    """Two registers exchange halves: the upper one of the first goes to where the lower one of the second was."""
    left, right = insn.operands
    for operand in (left, right):
        if operand.kind != "v":
            raise insn.unsupported("this operand")
    size = 32 if "32_swap" in insn.mnemonic else 16
    a, b = raw(insn, left, "u32"), raw(insn, right, "u32")
    write_a, write_b = destination(insn, left, "u32"), destination(insn, right, "u32")
    lane = np.arange(target.wave)
    upper = (lane // size) % 2 == 1

    def step(run: Run) -> None:
        x, y = a(run), b(run)
        crossed_x = np.where(upper, y[:, lane - np.where(upper, size, 0)], x)
        crossed_y = np.where(upper, y, x[:, lane + np.where(upper, 0, size)])
        write_a(run, crossed_x)
        write_b(run, crossed_y)

    return step
