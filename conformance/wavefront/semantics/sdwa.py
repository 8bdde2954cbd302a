"""SDWA, the encoding of CDNA that reads and writes parts of a register."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from .operands import DTYPES, Reader, Writer, raw, signed, width

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
_PARTS = {
    "BYTE_0": (0, 8),
    "BYTE_1": (8, 8),
    "BYTE_2": (16, 8),
    "BYTE_3": (24, 8),
    "WORD_0": (0, 16),
    "WORD_1": (16, 16),
    "DWORD": (0, 32),
}


def sdwa_source(insn: Instruction, operand: Operand, kind: str, number: int) -> Reader:
    """Source `number` through its src_sel. Raises UnsupportedInstruction."""
    chosen = insn.take(f"src{number}_sel", "DWORD")
    if insn.flag(f"src{number}_sext") or "sext(" in operand.text:
        raise insn.unsupported("a sign-extended SDWA source")
    shift, bits = _PARTS[chosen]
    bare = Operand(operand.kind, operand.index, operand.count, operand.value, operand.inline, text=operand.text)
    whole = raw(insn, bare, "u32")
    dtype, wide = DTYPES[kind], width(kind)
    if bits < wide and kind.startswith("f"):
        raise insn.unsupported(f"{chosen} as {kind}")

    def part(run: Run) -> Array:
        value = whole(run)
        if shift:
            value = value >> np.uint32(shift)
        if bits < 32 and bits != wide:
            value = value & np.uint32((1 << bits) - 1)
        return (value.astype(np.uint16) if wide == 16 else value).view(dtype)

    return signed(part, kind, negative=operand.negative, absolute=operand.absolute)


def sdwa_destination(insn: Instruction, operand: Operand, kind: str) -> Writer:
    """A writer through dst_sel and dst_unused. Raises UnsupportedInstruction."""
    shift, bits = _PARTS[insn.take("dst_sel", "DWORD")]
    unused = insn.take("dst_unused", "UNUSED_PRESERVE")
    if operand.kind != "v" or unused not in ("UNUSED_PAD", "UNUSED_PRESERVE") or width(kind) > 32:
        raise insn.unsupported("this SDWA destination")
    index, dtype = operand.index, DTYPES[kind]
    unsigned = np.uint16 if width(kind) == 16 else np.uint32
    field = np.uint32(((1 << bits) - 1) << shift)

    def write(run: Run, value: Array) -> None:
        register = run.machine.u[index]
        placed = (np.asarray(value, dtype=dtype).view(unsigned).astype(np.uint32) << np.uint32(shift)) & field
        if unused == "UNUSED_PRESERVE":
            placed = placed | (register & ~field)
        np.copyto(register, placed, where=run.machine.mask)

    return write
