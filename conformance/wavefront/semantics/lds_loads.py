"""Loads from global memory straight into LDS, past the vector registers.

The bytes of a wave lie side by side in LDS, in the order of its lanes: m0 and the instruction's offset say where they
begin, and every lane, on or off, has its place. A lane that is off writes nothing; a lane outside of a buffer's
descriptor reads 0 as it does into a register, and writes that (Triton's masked lanes rely on it).

Sources: the CDNA3 instruction set document on buffer loads to LDS; LLVM's description of the intrinsics
`raw.ptr.buffer.load.lds` and `global.load.lds` (offset on both sides; 12 and 16 bytes on gfx950). Narrow loads, which
the hardware widens, are not modelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..assembly import M0, Instruction
from ..target import Target
from .operands import spread
from .table import Step

if TYPE_CHECKING:
    from ..executor import Run
    from .global_memory import Placed

# Bytes a lane, by target. What is not listed has none of these instructions, or another form of them.
_SIZES = {"gfx90a": (4,), "gfx942": (4,), "gfx950": (4, 12, 16)}


def into_lds(insn: Instruction, target: Target, size: int, place: Placed) -> Step:
    """A load of `size` bytes a lane into LDS. Raises UnsupportedInstruction for sizes that the target lacks."""
    if size not in _SIZES.get(target.name, ()):
        raise insn.unsupported(f"a load into LDS of {size} bytes a lane on {target.name}")
    offset = np.arange(target.wave, dtype=np.int64) * size + insn.number("offset")

    def step(run: Run) -> None:
        at = place(run)
        found = run.memory.load(at.addresses, size, at.mask)
        if at.mask is not run.machine.mask:
            found = np.where(at.mask, found, np.zeros((), dtype=found.dtype))
        to = spread(run, run.machine.number(M0).astype(np.int64) + offset)
        run.lds.store(to, found, run.machine.mask)

    return step
