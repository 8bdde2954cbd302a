"""The registers of many waves at once, as NumPy arrays: (waves, lanes) a vector register, (waves, 1) a scalar one.

A lane mask (exec, vcc, a comparison's result in scalar registers) is kept as booleans of shape (waves, lanes) for as
long as nothing reads its bits: most masks are only ever combined with other masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assembly import EXEC, SCALARS
from .target import Target

Bools = NDArray[np.bool_]
Array = NDArray[Any]

# Elements of memory by their size in bytes.
ELEMENTS: dict[int, Any] = {
    1: np.uint8,
    2: np.uint16,
    4: np.uint32,
    8: np.uint64,
    12: np.dtype("V12"),
    16: np.dtype("V16"),
}

# What a register holds that nothing was written to: NaN as float, -1 as integer, a fault as address.
POISON = 0xFFFFFFFF


def _thrice(registers: Array) -> tuple[list[Array], list[Array], list[Array]]:
    """Each register as uint32, int32 and float32, all of the same memory."""
    return list(registers.view(np.uint32)), list(registers.view(np.int32)), list(registers.view(np.float32))


class Machine:
    """State of `waves` waves of one kernel.

    vector: uint32 (registers, waves, lanes), accumulators behind them from `first_accumulator` on; u, i, f: the same
        memory as a list of arrays, one a register, in uint32, int32 and float32.
    su, si, sf: the same for scalar registers, (waves, 1).
    scc: bool (waves, 1).
    live: True, or bool (waves, 1) where some waves do not take part in the present instruction.
    mask: True where every lane takes part, or bool (waves, lanes).
    """

    def __init__(self, target: Target, waves: int, registers: int, accumulators: int) -> None:
        self.target, self.waves, self.lanes = target, waves, target.wave
        self.first_accumulator = registers
        shape = (registers + accumulators, waves, self.lanes)
        self.vector = np.full(shape, POISON, dtype=np.uint32)
        self.scalar = np.full((SCALARS, waves, 1), POISON, dtype=np.uint32)
        self.u, self.i, self.f = _thrice(self.vector)
        self.su, self.si, self.sf = _thrice(self.scalar)
        self.scc: Bools = np.zeros((waves, 1), dtype=np.bool_)
        self.exec: Bools = np.ones((waves, self.lanes), dtype=np.bool_)
        self.live: Any = True
        self.mask: Any = True
        self.fp16_overflow = False  # the mode bit by which conversions to fp8 saturate
        self.shape = (waves, self.lanes)
        self.masks: dict[int, Bools] = {}  # first scalar register to the mask it holds
        self.stale: dict[int, int] = {}  # scalar registers that do not show it yet, to the first one of its mask
        self._words = range(target.mask_registers)

    # -- which waves take part --------------------------------------------------

    def take_part(self, active: Bools | None) -> None:
        """Only the waves of `active`, bool (waves,), take part from now on; None: all."""
        self.live = True if active is None else active[:, None]
        self._refresh()

    def _refresh(self) -> None:
        if self.live is True:
            self.mask = True if self.exec.all() else self.exec
        else:
            self.mask = self.exec & self.live

    def set_exec(self, mask: Bools) -> None:
        self.exec = mask if self.live is True else np.where(self.live, mask, self.exec)
        for offset in self._words:
            self.stale[EXEC + offset] = EXEC
        self._refresh()

    def lanes_on(self) -> Bools:
        """The lanes that take part, as an array."""
        return np.ones((self.waves, self.lanes), dtype=np.bool_) if self.mask is True else self.mask

    # -- scalar registers and the masks in them --------------------------------------------------

    def settle(self, register: int) -> None:
        """Make scalar registers show the mask that `register` is part of, before something reads it as a number."""
        first = self.stale[register]
        mask = self.exec if first == EXEC else self.masks[first]
        words = np.packbits(mask, axis=1, bitorder="little").view(np.uint32)
        for offset in self._words:
            del self.stale[first + offset]
            self.su[first + offset][:, 0] = words[:, offset]

    def forget(self, register: int) -> None:
        """`register` is about to be written as a number: a mask that it is part of is a number from now on."""
        if register in self.stale:
            self.settle(register)
        self.masks.pop(register, None)
        if len(self._words) == 2:
            self.masks.pop(register - 1, None)

    def number(self, register: int) -> Array:
        """uint32 (waves, 1): a scalar register read as a number."""
        if register in self.stale:
            self.settle(register)
        return self.su[register]

    def get_mask(self, register: int) -> Bools:
        """bool (waves, lanes): the mask that starts at a scalar register."""
        if register == EXEC:
            return self.exec
        found = self.masks.get(register)
        if found is None:
            found = self.masks[register] = self._bits(register)
        return found

    def _bits(self, register: int) -> Bools:
        words = np.concatenate([self.number(register + offset) for offset in self._words], axis=1)
        return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").view(np.bool_)

    def has_mask(self, register: int) -> bool:
        """Whether the registers hold a mask that is at hand as booleans."""
        return register == EXEC or register in self.masks

    def set_mask(self, register: int, mask: Bools) -> None:
        """Write a mask to scalar registers. Lanes of waves that do not take part keep theirs."""
        if self.live is not True:
            mask = np.where(self.live, mask, self.get_mask(register))
        if register == EXEC:
            self.set_exec(mask)
            return
        if len(self._words) == 2:
            # Neighbours that overlap this pair are numbers from now on.
            if register - 1 in self.masks:
                self.forget(register - 1)
            if register + 1 in self.masks:
                self.forget(register + 1)
        self.masks[register] = mask
        for offset in self._words:
            self.stale[register + offset] = register

    def wrote_number(self, register: int) -> None:
        """After a write to a scalar register as a number: exec has to be read anew."""
        if register in (EXEC, EXEC + 1):
            self.exec = self._bits(EXEC)
            self._refresh()
