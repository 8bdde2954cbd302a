"""Loads and stores of global memory: scalar, global, flat and buffer instructions; and of scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..faults import OUT_OF_BOUNDS
from ..machine import ELEMENTS
from ..memory import Missed
from ..target import Target
from .lds_loads import into_lds
from .operands import Reader, source, spread
from .table import Step, add

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64

# Cache and scope hints: nothing here has a cache.
_HINTS = ("sc0", "sc1", "nt", "glc", "slc", "dlc", "th", "scope")


@dataclass(frozen=True)
class Access:
    """One memory instruction. size: bytes in memory; registers: of the value; signed: sign-extended when narrow;
    high: into or from the upper half of the register (d16_hi); half: the other half of the register is kept (d16)."""

    size: int
    registers: int
    signed: bool = False
    high: bool = False
    half: bool = False


_LOADS = {
    "ubyte": Access(1, 1),
    "sbyte": Access(1, 1, signed=True),
    "ushort": Access(2, 1),
    "sshort": Access(2, 1, signed=True),
    "ubyte_d16": Access(1, 1, half=True),
    "ubyte_d16_hi": Access(1, 1, half=True, high=True),
    "sbyte_d16": Access(1, 1, signed=True, half=True),
    "sbyte_d16_hi": Access(1, 1, signed=True, half=True, high=True),
    "short_d16": Access(2, 1, half=True),
    "short_d16_hi": Access(2, 1, half=True, high=True),
    "dword": Access(4, 1),
    "dwordx2": Access(8, 2),
    "dwordx3": Access(12, 3),
    "dwordx4": Access(16, 4),
}
_STORES = {
    "byte": Access(1, 1),
    "byte_d16_hi": Access(1, 1, high=True),
    "short": Access(2, 1),
    "short_d16_hi": Access(2, 1, high=True),
    "dword": Access(4, 1),
    "dwordx2": Access(8, 2),
    "dwordx3": Access(12, 3),
    "dwordx4": Access(16, 4),
}
# RDNA's names.
_RENAMED = {
    "u8": "ubyte",
    "i8": "sbyte",
    "u16": "ushort",
    "i16": "sshort",
    "d16_u8": "ubyte_d16",
    "d16_hi_u8": "ubyte_d16_hi",
    "d16_i8": "sbyte_d16",
    "d16_hi_i8": "sbyte_d16_hi",
    "d16_b16": "short_d16",
    "d16_hi_b16": "short_d16_hi",
    "b32": "dword",
    "b64": "dwordx2",
    "b96": "dwordx3",
    "b128": "dwordx4",
    "b8": "byte",
    "b16": "short",
    "d16_hi_b8": "byte_d16_hi",
}


# -- values in registers ----------------------------------------------------------


def registers_of(insn: Instruction, operand: Operand, count: int) -> Callable[[Run], list[Array]]:
    """The arrays of `count` vector registers."""
    if operand.kind not in ("v", "a"):
        raise insn.unsupported(f"data in {operand.text!r}")
    if operand.half:
        raise insn.unsupported("a 16-bit register as memory data")
    index, accumulator = operand.index, operand.kind == "a"

    def rows(run: Run) -> list[Array]:
        first = index + (run.machine.first_accumulator if accumulator else 0)
        return run.machine.u[first : first + count]

    return rows


def to_registers(run: Run, rows: list[Array], found: Array, access: Access) -> None:
    """Put loaded elements (waves, lanes) of access.size bytes into registers, under the mask."""
    mask = run.machine.mask
    if access.registers > 1:
        words = np.ascontiguousarray(found).view(U32).reshape(*found.shape, access.registers)
        for i, row in enumerate(rows):
            np.copyto(row, words[..., i], where=mask)
        return
    (row,) = rows
    if access.signed:
        found = found.view(np.int8 if access.size == 1 else np.int16).astype(np.int16 if access.half else np.int32)
        found = found.view(np.uint16 if access.half else U32)
    wide = found.astype(U32)
    if access.half:
        wide = (wide << U32(16)) | (row & U32(0xFFFF)) if access.high else wide | (row & U32(0xFFFF0000))
    np.copyto(row, wide, where=mask)


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def from_registers(rows: list[Array], access: Access) -> Array:
    """Elements of access.size bytes from registers."""
    if access.registers > 1:
        stacked = np.stack(rows, axis=-1)
        kind: Any = np.uint64 if access.size == 8 else np.dtype(f"V{access.size}")
        return stacked.view(kind)[..., 0]
    (row,) = rows
    return (row >> U32(16) if access.high else row).astype(_UNSIGNED[access.size])


# -- addresses ----------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where an instruction points: addresses uint64 (waves, lanes), and the lanes that touch memory (True: all)."""

    addresses: Array
    mask: Any


Placed = Callable[["Run"], Place]


def hints(insn: Instruction) -> None:
    for name in _HINTS:
        insn.take(name)


def global_place(insn: Instruction, address: Operand, base: Operand) -> Placed:
    """A 64-bit address in registers, or a scalar base with an unsigned 32-bit offset in a register."""
    constant = np.array(insn.number("offset"), dtype=np.int64).view(U64)
    if base.kind == "off":
        read = source(insn, address, "u64")
        return lambda run: Place(_wide(run, read(run) + constant), run.machine.mask)
    start, offset = source(insn, base, "u64"), source(insn, address, "u32")
    return lambda run: Place(_wide(run, start(run) + offset(run) + constant), run.machine.mask)


def _wide(run: Run, addresses: Array) -> Array:
    return spread(run, addresses)


def buffer_place(insn: Instruction, operands: tuple[Operand, ...], size: int) -> Placed:
    """A raw buffer: base and number of bytes in a descriptor of four scalars, an offset in a register, one in a scalar,
    and one in the instruction. Lanes beyond the number of bytes touch nothing (Triton masks lanes that way)."""
    vector, descriptor, scalar = operands
    if descriptor.kind != "s" or descriptor.count != 4 or insn.flag("idxen"):
        raise insn.unsupported("this buffer addressing")
    first = descriptor.index
    zero = np.zeros((), dtype=U32)
    offset: Reader = source(insn, vector, "u32") if insn.flag("offen") else (lambda run: zero)
    uniform = (lambda run: zero) if scalar.kind in ("null", "off") else source(insn, scalar, "u32")
    constant = U64(insn.number("offset"))

    def place(run: Run) -> Place:
        machine = run.machine
        low, high = machine.number(first), machine.number(first + 1)
        if (high & U32(0x3FFF0000)).any() and (machine.live & ((high & U32(0x3FFF0000)) != 0)).any():
            raise insn.unsupported("a buffer with a stride")
        base = low | ((high & U32(0xFFFF)).astype(U64) << U64(32))
        inside = offset(run).astype(U64) + constant
        limit = machine.number(first + 2).astype(U64)
        fits = inside + U64(size) <= limit
        addresses = _wide(run, base + inside + uniform(run))
        if fits.all():
            return Place(addresses, machine.mask)
        _refuse_dropped(machine, offset(run), ~fits & (limit >= U64(_UNLIMITED)), addresses, size)
        return Place(addresses, fits & machine.exec if machine.mask is True else fits & machine.mask)

    return place


# Triton's descriptors claim this many bytes whatever the tensor's size, and its masked lanes point at exactly _MASKED.
_UNLIMITED, _MASKED = 0x7FFFFFFE, U32(0x80000000)


def _refuse_dropped(machine: Any, offset: Array, beyond: Array, addresses: Array, size: int) -> None:
    """Raise Missed for lanes beyond an unlimited descriptor that no mask put there: a negative offset, whose access the
    hardware drops without a word."""
    wrong = beyond & (offset != _MASKED) & machine.lanes_on()
    if wrong.any():
        lane = int(np.flatnonzero(wrong)[0])
        back = (int(offset[np.unravel_index(lane, offset.shape)]) if offset.shape == wrong.shape else 0) >> 31 << 32
        raise Missed(np.array([lane]), int(addresses.flat[lane]) - back, size, lanes_are_waves=False)


def _scalar_words(count: int) -> Callable[[Instruction, Target], Step]:
    """s_load: `count` dwords from a uniform address into scalar registers."""

    def builder(insn: Instruction, target: Target) -> Step:
        into, base, *rest = insn.operands
        hints(insn)
        start = source(insn, base, "u64")
        constant = np.array(insn.number("offset"), dtype=np.int64).view(U64)
        zero = np.zeros((), dtype=U32)
        more: Reader = source(insn, rest[0], "u32") if rest else (lambda run: zero)
        if into.kind != "s" or into.count != count:
            raise insn.unsupported("this destination")
        index = into.index

        def step(run: Run) -> None:
            machine = run.machine
            address = (start(run) + more(run) + constant) & U64(0xFFFFFFFFFFFFFFFC)
            address = np.broadcast_to(address, (machine.waves, 1))
            words = [run.memory.load(address + U64(4 * i), 4, machine.live) for i in range(count)]
            for i, word in enumerate(words):
                machine.forget(index + i)
                np.copyto(machine.su[index + i], word, where=machine.live)

        return step

    return builder


# -- builders ----------------------------------------------------------


def _load(insn: Instruction, access: Access, place: Placed, into: Operand) -> Step:
    rows = registers_of(insn, into, access.registers)
    hints(insn)
    if insn.flag("tfe"):
        raise insn.unsupported("a load with a fail flag")

    def step(run: Run) -> None:
        at = place(run)
        found = run.memory.load(at.addresses, access.size, at.mask)
        if at.mask is not run.machine.mask:
            # Lanes outside of a buffer descriptor read 0.
            found = np.where(at.mask, found, np.zeros((), dtype=found.dtype))
        to_registers(run, rows(run), found, access)

    return step


def _store(insn: Instruction, access: Access, place: Placed, value: Operand) -> Step:
    rows = registers_of(insn, value, access.registers)
    hints(insn)

    def step(run: Run) -> None:
        at = place(run)
        run.memory.store(at.addresses, from_registers(rows(run), access), at.mask)

    return step


def _add_accesses(prefix: str, kind: str) -> None:
    for table, load in ((_LOADS, True), (_STORES, False)):
        names = dict(table) | {new: table[old] for new, old in _RENAMED.items() if old in table}
        for name, access in names.items():
            add(f"{prefix}_{'load' if load else 'store'}_{name}", _builder(kind, access, load=load))


def _builder(kind: str, access: Access, *, load: bool) -> Callable[[Instruction, Target], Step]:
    def buffer(insn: Instruction, target: Target) -> Step:
        direct = load and insn.flag("lds")
        data, *rest = (Operand("off"), *insn.operands) if direct else insn.operands
        # Without offen the vector offset is written as `off`, or left out.
        if len(rest) == 2:
            rest = [Operand("off"), *rest]
        place = buffer_place(insn, (rest[0], rest[1], rest[2]), access.size)
        if direct:
            hints(insn)
            return into_lds(insn, target, access.size, place)
        return _load(insn, access, place, data) if load else _store(insn, access, place, data)

    def to_lds(insn: Instruction, target: Target) -> Step:
        address, *base = insn.operands
        hints(insn)
        place = global_place(insn, address, base[0] if base else Operand("off"))
        return into_lds(insn, target, access.size, place)

    def plain(insn: Instruction, target: Target) -> Step:
        if load:
            data, address, *base = insn.operands
        else:
            address, data, *base = insn.operands
        place = global_place(insn, address, base[0] if base else Operand("off"))
        return _load(insn, access, place, data) if load else _store(insn, access, place, data)

    def scratch(insn: Instruction, target: Target) -> Step:
        if load:
            data, address, *base = insn.operands
        else:
            address, data, *base = insn.operands
        return _scratch(insn, access, data, address, base[0] if base else Operand("off"), load=load)

    return {"buffer": buffer, "plain": plain, "scratch": scratch, "lds": to_lds}[kind]


_add_accesses("buffer", "buffer")
_add_accesses("global", "plain")
_add_accesses("flat", "plain")
_add_accesses("scratch", "scratch")
for _name in ("dword", "dwordx3", "dwordx4"):
    add(f"global_load_lds_{_name}", _builder("lds", _LOADS[_name], load=True), "cdna")
for _count in (1, 2, 3, 4, 8, 16):
    add("s_load_dword" if _count == 1 else f"s_load_dwordx{_count}", _scalar_words(_count))
    add(f"s_load_b{32 * _count}", _scalar_words(_count))


# -- scratch: memory of one lane, where registers are spilled ----------------------------------------------------------


def _scratch(insn: Instruction, access: Access, data: Operand, address: Operand, base: Operand, *, load: bool) -> Step:
    rows = registers_of(insn, data, access.registers)
    hints(insn)
    constant = np.int64(insn.number("offset"))
    parts = [source(insn, o, "i32") for o in (address, base) if o.kind not in ("off", "null")]
    kind: Any = np.dtype(ELEMENTS[access.size])

    def step(run: Run) -> None:
        machine, memory = run.machine, run.private()
        shape = machine.exec.shape
        offset = np.broadcast_to(sum((p(run).astype(np.int64) for p in parts), constant), shape)
        size = memory.shape[-1]
        wrong = ((offset < 0) | (offset + access.size > size)) & machine.lanes_on()
        if wrong.any():
            lane = int(np.flatnonzero(wrong)[0])
            message = f"scratch offset {int(offset.flat[lane])} of {size} bytes"
            raise run.fault(OUT_OF_BOUNDS, message, insn, lane)
        flat = memory.reshape(-1)
        view = np.ndarray((flat.size - access.size + 1,), dtype=kind, buffer=flat, strides=(1,))
        at = offset + np.arange(shape[0] * shape[1]).reshape(shape) * size
        if load:
            to_registers(run, rows(run), view[np.where(machine.lanes_on(), at, 0)], access)
            return
        values, on = from_registers(rows(run), access), machine.lanes_on()
        view[at[on]] = values[on]

    return step
