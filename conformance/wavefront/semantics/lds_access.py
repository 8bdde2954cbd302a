"""Loads and stores of LDS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from .global_memory import Access, from_registers, registers_of, to_registers
from .operands import source, spread
from .table import Step, add, instruction

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]

_LOADS = {
    "u8": Access(1, 1),
    "i8": Access(1, 1, signed=True),
    "u16": Access(2, 1),
    "i16": Access(2, 1, signed=True),
    "u8_d16": Access(1, 1, half=True),
    "u8_d16_hi": Access(1, 1, half=True, high=True),
    "i8_d16": Access(1, 1, signed=True, half=True),
    "i8_d16_hi": Access(1, 1, signed=True, half=True, high=True),
    "u16_d16": Access(2, 1, half=True),
    "u16_d16_hi": Access(2, 1, half=True, high=True),
    "b32": Access(4, 1),
    "b64": Access(8, 2),
    "b96": Access(12, 3),
    "b128": Access(16, 4),
}
_STORES = {
    "b8": Access(1, 1),
    "b8_d16_hi": Access(1, 1, high=True),
    "b16": Access(2, 1),
    "b16_d16_hi": Access(2, 1, high=True),
    "b32": Access(4, 1),
    "b64": Access(8, 2),
    "b96": Access(12, 3),
    "b128": Access(16, 4),
}


def _addresses(insn: Instruction, operand: Any) -> Callable[[Run], Array]:
    """int64 (waves, lanes): the byte offsets in a register. An offset above 2³¹ is far outside, and stays positive."""
    read = source(insn, operand, "u32")

    def addresses(run: Run) -> Array:
        return spread(run, read(run).astype(np.int64))

    return addresses


def _load(access: Access) -> Callable[[Instruction, Target], Step]:
    def builder(insn: Instruction, target: Target) -> Step:
        into, address = insn.operands
        where, rows, offset = (
            _addresses(insn, address),
            registers_of(insn, into, access.registers),
            insn.number("offset"),
        )

        def step(run: Run) -> None:
            found = run.lds.load(where(run) + offset, access.size, run.machine.mask)
            to_registers(run, rows(run), found, access)

        return step

    return builder


def _store(access: Access) -> Callable[[Instruction, Target], Step]:
    def builder(insn: Instruction, target: Target) -> Step:
        address, value = insn.operands
        where, rows = _addresses(insn, address), registers_of(insn, value, access.registers)
        offset = insn.number("offset")

        def step(run: Run) -> None:
            run.lds.store(where(run) + offset, from_registers(rows(run), access), run.machine.mask)

        return step

    return builder


def _load_two(access: Access, stride: int) -> Callable[[Instruction, Target], Step]:
    """Two elements at two offsets, counted in elements times `stride`, into registers side by side."""

    def builder(insn: Instruction, target: Target) -> Step:
        into, address = insn.operands
        where, rows = _addresses(insn, address), registers_of(insn, into, 2 * access.registers)
        offsets = [insn.number(f"offset{i}") * access.size * stride for i in (0, 1)]

        def step(run: Run) -> None:
            at, registers = where(run), rows(run)
            found = [run.lds.load(at + offset, access.size, run.machine.mask) for offset in offsets]
            to_registers(run, registers[: access.registers], found[0], access)
            to_registers(run, registers[access.registers :], found[1], access)

        return step

    return builder


def _store_two(access: Access, stride: int) -> Callable[[Instruction, Target], Step]:
    def builder(insn: Instruction, target: Target) -> Step:
        address, *values = insn.operands
        where = _addresses(insn, address)
        rows = [registers_of(insn, value, access.registers) for value in values]
        offsets = [insn.number(f"offset{i}") * access.size * stride for i in (0, 1)]

        def step(run: Run) -> None:
            at = where(run)
            for offset, registers in zip(offsets, rows, strict=True):
                run.lds.store(at + offset, from_registers(registers(run), access), run.machine.mask)

        return step

    return builder


for _name, _access in _LOADS.items():
    add(f"ds_read_{_name}", _load(_access))
    add(f"ds_load_{_name}", _load(_access))
for _name, _access in _STORES.items():
    add(f"ds_write_{_name}", _store(_access))
    add(f"ds_store_{_name}", _store(_access))
for _bits, _access in (("b32", Access(4, 1)), ("b64", Access(8, 2))):
    add(f"ds_read2_{_bits}", _load_two(_access, 1))
    add(f"ds_load_2addr_{_bits}", _load_two(_access, 1))
    add(f"ds_read2st64_{_bits}", _load_two(_access, 64))
    add(f"ds_load_2addr_stride64_{_bits}", _load_two(_access, 64))
    add(f"ds_write2_{_bits}", _store_two(_access, 1))
    add(f"ds_store_2addr_{_bits}", _store_two(_access, 1))
    add(f"ds_write2st64_{_bits}", _store_two(_access, 64))
    add(f"ds_store_2addr_stride64_{_bits}", _store_two(_access, 64))


@instruction("ds_read_b64_tr_b16", family="cdna")
def _transposed(insn: Instruction, target: Target) -> Step:
    """gfx950: 16 lanes load 4 halves each and exchange them, so that each ends with a column of the tile that they hold
    together: half j of lane i comes from half i % 4 of lane 4·j + i // 4."""
    into, address = insn.operands
    where, rows, offset = _addresses(insn, address), registers_of(insn, into, 2), insn.number("offset")
    access = Access(8, 2)
    lane = np.arange(target.wave)
    row, inside = lane // 16 * 16, lane % 16
    # A 4 x 16 tile lies over 16 lanes as 4 rows of 4 lanes with 4 halves; every lane gets one of its 16 columns.
    from_lane = np.stack([row + 4 * j + inside // 4 for j in range(4)], axis=1)
    from_half = np.stack([inside % 4 for _ in range(4)], axis=1)

    def step(run: Run) -> None:
        if run.machine.mask is not True and not (run.machine.mask.all(axis=1) | ~run.machine.mask.any(axis=1)).all():
            raise insn.unsupported("a transposing load with lanes switched off")
        found = run.lds.load(where(run) + offset, 8, run.machine.mask)
        halves = np.ascontiguousarray(found).view(np.uint16).reshape(*found.shape, 4)
        crossed = np.ascontiguousarray(halves[:, from_lane, from_half]).view(np.uint64)[..., 0]
        to_registers(run, rows(run), crossed, access)

    return step
