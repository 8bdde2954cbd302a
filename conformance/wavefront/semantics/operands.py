"""Reading and writing operands: registers, masks and literals as arrays that broadcast to (waves, lanes).

A kind names how bits are taken: "u32", "i32", "f32", "u64", "i64", "f64", "u16", "i16", "f16", "bf16". A reader is a
function of the run that returns an array, which the caller must not write to; a writer takes a run and an array.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import EXEC, VCC, Instruction, Operand

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
Reader = Callable[["Run"], Array]
Writer = Callable[["Run", Array], None]

DTYPES: dict[str, Any] = {
    "u32": np.uint32,
    "i32": np.int32,
    "f32": np.float32,
    "u64": np.uint64,
    "i64": np.int64,
    "f64": np.float64,
    "u16": np.uint16,
    "i16": np.int16,
    "f16": np.float16,
    "bf16": np.uint16,
}
_BANKS = {"u32": "u", "i32": "i", "f32": "f"}
_SCALAR_BANKS = {"u32": "su", "i32": "si", "f32": "sf"}
_ONE_HALF = 0.15915494  # the inline constant 1/(2π), as the assembler prints it
_INLINE = {"f16": "<e", "f32": "<f", "f64": "<d"}


def spread(run: Run, value: Array) -> Array:
    """The value in the shape (waves, lanes)."""
    return value if value.shape == run.machine.shape else np.broadcast_to(value, run.machine.shape)


def width(kind: str) -> int:
    """Bits of a kind."""
    return int(kind.lstrip("uifb"))


def literal(operand: Operand, kind: str) -> Array:
    """A literal as a 0-d array. Inline floats take the format of the operand; 32-bit floats stand for the upper half of
    a 64-bit one; other literals are bits, sign-extended where they are wider than written."""
    bits = width(kind)
    if operand.inline is not None:
        # An integer operation reads the bits of the float of its width; bf16 operands read the upper half of an fp32.
        if kind == "bf16":
            number = struct.unpack("<I", struct.pack("<f", operand.inline))[0] >> 16
        else:
            code, letters = {16: ("<e", "<H"), 32: ("<f", "<I"), 64: ("<d", "<Q")}[bits]
            number = struct.unpack(letters, struct.pack(code, operand.inline))[0]
    else:
        number = operand.value
        if kind == "f64" and not -16 <= number <= 64:
            number <<= 32
    number &= (1 << bits) - 1
    return np.array(number, dtype=f"u{bits // 8}").view(DTYPES[kind])


def register_index(run_first_accumulator: int, operand: Operand) -> int:
    return operand.index + (run_first_accumulator if operand.kind == "a" else 0)


def raw(insn: Instruction, operand: Operand, kind: str) -> Reader:
    """A reader of an operand without its input modifiers. Raises UnsupportedInstruction."""
    if operand.kind == "literal":
        constant = literal(operand, kind)
        return lambda run: constant
    bits = width(kind)
    if operand.half and bits != 16:
        raise insn.unsupported(f"{operand.text!r} as {kind}")
    if operand.kind in ("v", "a"):
        return _vector(operand, kind)
    if operand.kind == "s":
        if bits == 64 and operand.count == 1:
            raise insn.unsupported(f"a 64-bit read of {operand.text}")
        return _scalar(operand, kind)
    if operand.kind == "null":
        zero = np.zeros((), dtype=DTYPES[kind])
        return lambda run: zero
    if operand.kind == "scc" and bits == 32:
        return lambda run: run.machine.scc.astype(np.uint32).view(DTYPES[kind])
    raise insn.unsupported(f"operand {operand.text!r} is not modelled here")


def _vector(operand: Operand, kind: str) -> Reader:
    index, accumulator, bits = operand.index, operand.kind == "a", width(kind)
    if bits == 32:
        bank = _BANKS[kind]
        if accumulator:
            return lambda run: getattr(run.machine, bank)[index + run.machine.first_accumulator]
        if kind == "u32":
            return lambda run: run.machine.u[index]
        if kind == "i32":
            return lambda run: run.machine.i[index]
        return lambda run: run.machine.f[index]
    if bits == 64:

        def pair(run: Run) -> Array:
            u = run.machine.u
            at = index + (run.machine.first_accumulator if accumulator else 0)
            return _joined(u[at], u[at + 1]).view(DTYPES[kind])

        return pair
    high = operand.half == "h"

    def half(run: Run) -> Array:
        u = run.machine.u[index + (run.machine.first_accumulator if accumulator else 0)]
        return (u >> np.uint32(16) if high else u).astype(np.uint16).view(DTYPES[kind])

    return half


def _joined(low: Array, high: Array) -> Array:
    return low | (high.astype(np.uint64) << np.uint64(32))


def _scalar(operand: Operand, kind: str) -> Reader:
    index, bits = operand.index, width(kind)
    if kind == "u32":
        return lambda run: run.machine.number(index)
    if bits == 32:
        bank = _SCALAR_BANKS[kind]

        def one(run: Run) -> Array:
            machine = run.machine
            if index in machine.stale:
                machine.settle(index)
            found: Array = getattr(machine, bank)[index]
            return found

        return one
    if bits == 64:
        return lambda run: _joined(run.machine.number(index), run.machine.number(index + 1)).view(DTYPES[kind])
    return lambda run: run.machine.number(index).astype(np.uint16).view(DTYPES[kind])


_SIGNS: dict[str, Any] = {
    "f16": np.uint16(0x8000),
    "f32": np.uint32(1 << 31),
    "f64": np.uint64(1 << 63),
    "bf16": np.uint16(0x8000),
}


def signed(reader: Reader, kind: str, *, negative: bool, absolute: bool) -> Reader:
    """With the input modifiers of floats: they touch the sign bit and nothing else, of NaNs too."""
    if not (negative or absolute):
        return reader
    sign = _SIGNS[kind]
    bits, dtype = sign.dtype, DTYPES[kind]

    def changed(run: Run) -> Array:
        value = reader(run).view(bits)
        if absolute:
            value = value & ~sign
        return (value ^ sign if negative else value).view(dtype)

    return changed


def source(insn: Instruction, operand: Operand, kind: str) -> Reader:
    """A reader of an operand, input modifiers included. Raises UnsupportedInstruction."""
    reader = raw(insn, operand, kind)
    if (operand.negative or operand.absolute) and kind not in _SIGNS:
        raise insn.unsupported(f"sign modifiers of an integer operand {operand.text!r}")
    return signed(reader, kind, negative=operand.negative, absolute=operand.absolute)


def mask_source(insn: Instruction, operand: Operand, lanes_per_mask: int) -> Reader:
    """A reader of a lane mask, bool (waves, lanes)."""
    if operand.kind == "s":
        index = operand.index
        return lambda run: run.machine.get_mask(index)
    if operand.kind == "literal" and operand.value in (0, -1):
        value = operand.value == -1
        return lambda run: np.full((run.machine.waves, run.machine.lanes), value)
    raise insn.unsupported(f"a lane mask from {operand.text!r}")


def mask_destination(insn: Instruction, operand: Operand) -> Writer:
    """A writer of a lane mask: what the lanes that take part found; 0 for the others."""
    if operand.kind == "null":
        return lambda run, value: None
    if operand.kind != "s":
        raise insn.unsupported(f"a lane mask into {operand.text!r}")
    index = operand.index

    def write(run: Run, value: Array) -> None:
        # Comparisons give arrays of their own, so one that has the right shape is kept as it is.
        machine = run.machine
        whole = machine.mask is True and value.shape == machine.shape
        machine.set_mask(index, value if whole else value & machine.exec)

    return write


def destination(insn: Instruction, operand: Operand, kind: str, *, keep_high: bool = True) -> Writer:
    """A writer of a vector register under the mask. keep_high: a 16-bit result leaves the upper half as it was; else it
    is zeroed. Raises UnsupportedInstruction."""
    if operand.kind not in ("v", "a"):
        raise insn.unsupported(f"a vector result into {operand.text!r}")
    index, accumulator, bits, dtype = operand.index, operand.kind == "a", width(kind), DTYPES[kind]

    def at(run: Run) -> int:
        return index + (run.machine.first_accumulator if accumulator else 0)

    def write_accumulator(run: Run, value: Array) -> None:
        np.copyto(run.machine.u[at(run)], _bits(value, dtype, np.uint32), where=run.machine.mask)

    bank = _BANKS.get(kind, "u")

    def write32(run: Run, value: Array) -> None:
        machine = run.machine
        if value.dtype != dtype:
            value = value.astype(dtype)
        if machine.mask is True:
            getattr(machine, bank)[index][...] = value
        else:
            np.copyto(getattr(machine, bank)[index], value, where=machine.mask)

    def write64(run: Run, value: Array) -> None:
        value = _bits(value, dtype, np.uint64)
        machine, first = run.machine, at(run)
        np.copyto(machine.u[first], value.astype(np.uint32), where=machine.mask)
        np.copyto(machine.u[first + 1], (value >> np.uint64(32)).astype(np.uint32), where=machine.mask)

    def write16(run: Run, value: Array) -> None:
        wide = _bits(value, dtype, np.uint16).astype(np.uint32)
        register = run.machine.u[at(run)]
        if operand.half == "h":
            wide = (wide << np.uint32(16)) | (register & np.uint32(0xFFFF))
        elif keep_high:
            wide = wide | (register & np.uint32(0xFFFF0000))
        np.copyto(register, wide, where=run.machine.mask)

    return {16: write16, 32: write_accumulator if accumulator else write32, 64: write64}[bits]


def _bits(value: Array, dtype: Any, unsigned: Any) -> Array:
    return np.asarray(value, dtype=dtype).view(unsigned)


def out_array(operand: Operand, kind: str) -> Callable[[Run], Array] | None:
    """The register itself as an output array for 32-bit kinds, for operations that can write in place."""
    if operand.kind != "v" or width(kind) != 32:
        return None
    return _vector(operand, kind)


def scalar_destination(insn: Instruction, operand: Operand, bits: int) -> Writer:
    """A writer of scalar registers: uint32 or uint64 values of shape (waves, 1) or 0-d."""
    if operand.kind == "null":
        return lambda run, value: None
    if operand.kind != "s" or (bits == 64 and operand.count == 1):
        raise insn.unsupported(f"a scalar result into {operand.text!r}")
    index = operand.index
    special = index + (bits // 32) > EXEC

    def write32(run: Run, value: Array) -> None:
        machine = run.machine
        if index in machine.masks or index - 1 in machine.masks:
            machine.forget(index)
        if machine.live is True:
            machine.su[index][...] = value
        else:
            np.copyto(machine.su[index], value, where=machine.live)

    def write(run: Run, value: Array) -> None:
        machine = run.machine
        parts = (value,) if bits == 32 else (value.astype(np.uint32), (value >> np.uint64(32)).astype(np.uint32))
        for offset, part in enumerate(parts):
            machine.forget(index + offset)
            np.copyto(machine.su[index + offset], part, where=machine.live)
        if special:
            machine.wrote_number(index)

    return write32 if bits == 32 and not special else write


def implicit_vcc(insn: Instruction, count: int) -> Operand:
    """vcc as an operand that short encodings leave out."""
    return Operand("s", VCC, count, text="vcc")
