"""LDS: the memory that the waves of a workgroup share, with a shadow that knows who touched what since which barrier.

Waves run here in lockstep, so a missing barrier would not change any value. The shadow reports it: between two barriers a
cell that one wave writes may be touched by no other wave. One thing is allowed: several waves that write the same value,
as Triton lets them where a tensor is smaller than the workgroup; each of them may then read it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .faults import LDS_OUT_OF_BOUNDS, LDS_RACE, LDS_UNWRITTEN

Array = NDArray[Any]
_UNITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 12: np.dtype("V12"), 16: np.dtype("V16")}
POISON = 0xFF
NEVER = -1


class Misuse(Exception):
    """kind: one of faults.KINDS; lane: flat index into (waves, lanes) of the first lane concerned."""

    def __init__(self, kind: str, message: str, lane: int) -> None:
        super().__init__(message)
        self.kind, self.message, self.lane = kind, message, lane


@dataclass(frozen=True)
class _Lanes:
    """The lanes that take part, one after another: where they point (flat bytes), which wave of its group each belongs
    to as a bit, the epoch of its group; and how to find a lane again."""

    flat: Array
    bit: Array
    epoch: Array
    mask: Any
    shape: tuple[int, ...]

    def original(self, first: int) -> int:
        return first if self.mask is True else int(np.flatnonzero(np.broadcast_to(self.mask, self.shape))[first])


class Lds:
    """`size` bytes for each of `groups` workgroups of `waves_per_group` waves (at most 32).

    cell: bytes that are watched as one, the narrowest access that the kernel makes: two waves that write neighbouring
        halves of a word do not meet.
    """

    def __init__(self, groups: int, waves_per_group: int, size: int, cell: int) -> None:
        self.size, self.cell, self._per_group = size, cell, waves_per_group
        # A few bytes behind the last group, so that an element of every width exists at every byte.
        self.bytes = np.full(groups * size + 16, POISON, dtype=np.uint8)
        cells = groups * (size // cell + 1)
        # Bits of the waves that touched a cell in the epoch beside it; epochs count a group's barriers.
        self._writers, self._written = np.zeros(cells, dtype=np.uint32), np.full(cells, NEVER, dtype=np.int32)
        self._readers, self._read = np.zeros(cells, dtype=np.uint32), np.full(cells, NEVER, dtype=np.int32)
        self._epoch = np.zeros(groups, dtype=np.int32)
        waves = np.arange(groups * waves_per_group)
        self._group = (waves // waves_per_group)[:, None]
        self._bit = (np.uint32(1) << (waves % waves_per_group).astype(np.uint32))[:, None]
        self._views: dict[int, Array] = {}

    def passed_barrier(self, group: int) -> None:
        """All waves of a group have met."""
        self._epoch[group] += 1

    def _view(self, size: int) -> Array:
        if size not in self._views:
            count = len(self.bytes) - size + 1
            self._views[size] = np.ndarray((count,), dtype=_UNITS[size], buffer=self.bytes, strides=(1,))
        return self._views[size]

    def _lanes(self, addresses: Array, size: int, mask: Any) -> _Lanes:
        """addresses: int64 (waves, lanes), in bytes of the group's memory. Raises Misuse."""
        wrong = (addresses < 0) | (addresses + size > self.size)
        if mask is not True:
            wrong &= mask
        if wrong.any():
            lane = int(np.flatnonzero(wrong)[0])
            where = f"{size} bytes at offset {int(addresses.flat[lane])} of {self.size} bytes"
            raise Misuse(LDS_OUT_OF_BOUNDS, where, lane)
        shape = addresses.shape
        flat = addresses + self._group * self.size
        bit, epoch = np.broadcast_to(self._bit, shape), np.broadcast_to(self._epoch[self._group], shape)
        if mask is True:
            return _Lanes(flat.ravel(), bit.ravel(), epoch.ravel(), True, shape)
        return _Lanes(flat[mask], bit[mask], epoch[mask], mask, shape)

    def load(self, addresses: Array, size: int, mask: Any) -> Array:
        """Elements of `size` bytes, of the addresses' shape; zero where `mask` is off. Raises Misuse."""
        lanes = self._lanes(addresses, size, mask)
        found = self._view(size)[lanes.flat]
        for part in range(0, size, self.cell):
            self._note_read((lanes.flat + part) // self.cell, lanes)
        if mask is True:
            return found.reshape(addresses.shape)
        result = np.zeros(addresses.shape, dtype=found.dtype)
        result[mask] = found
        return result

    def store(self, addresses: Array, values: Array, mask: Any) -> None:
        """Elements of the values' item size. Raises Misuse."""
        size = values.dtype.itemsize
        lanes, view = self._lanes(addresses, size, mask), self._view(size)
        chosen = values.ravel() if mask is True else values[mask]
        before = view[lanes.flat]
        view[lanes.flat] = chosen
        # Whoever does not find what it wrote was overwritten by another lane of the same instruction.
        lost, same = view[lanes.flat] != chosen, before == chosen
        for part in range(0, size, self.cell):
            self._note_write((lanes.flat + part) // self.cell, lanes, same, lost)

    def _note_read(self, cells: Array, lanes: _Lanes) -> None:
        written = self._written[cells]
        _refuse(written == NEVER, LDS_UNWRITTEN, "nothing was written there", lanes)
        raced = (written == lanes.epoch) & ((self._writers[cells] & lanes.bit) == 0)
        _refuse(raced, LDS_RACE, "read after another wave's write with no barrier between", lanes)
        self._mark(self._readers, self._read, cells, lanes)

    def _note_write(self, cells: Array, lanes: _Lanes, same: Array, lost: Array) -> None:
        read = (self._read[cells] == lanes.epoch) & ((self._readers[cells] & ~lanes.bit) != 0)
        _refuse(read & ~same, LDS_RACE, "write after another wave's read with no barrier between", lanes)
        written = (self._written[cells] == lanes.epoch) & ((self._writers[cells] & ~lanes.bit) != 0)
        _refuse(written & ~same, LDS_RACE, "write after another wave's write with no barrier between", lanes)
        self._mark(self._writers, self._written, cells, lanes)
        _refuse(lost & (self._writers[cells] != lanes.bit), LDS_RACE, "two waves write different values at once", lanes)

    def _mark(self, waves: Array, epochs: Array, cells: Array, lanes: _Lanes) -> None:
        """Add each lane's wave to its cell's waves. One wave after another: lanes of a wave add the same bit."""
        stale = epochs[cells] != lanes.epoch
        if stale.any():
            waves[cells[stale]] = 0
            epochs[cells] = lanes.epoch
        if self._per_group == 1:
            waves[cells] = lanes.bit
            return
        for wave in range(self._per_group):
            bit = np.uint32(1 << wave)
            mine = cells[lanes.bit == bit]
            waves[mine] |= bit


def _refuse(wrong: Array, kind: str, message: str, lanes: _Lanes) -> None:
    if wrong.any():
        raise Misuse(kind, message, lanes.original(int(np.flatnonzero(wrong)[0])))
