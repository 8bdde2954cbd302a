"""LDS: the memory that the waves of a workgroup share, with a shadow that knows who touched what since which barrier.

Waves run here in lockstep, so a missing barrier would not change any value. The shadow reports it: between two barriers
a cell that one wave writes may be touched by no other wave. One thing is allowed: several waves that write the same
value, as Triton lets them where a tensor is smaller than the workgroup; each of them may then read it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .faults import LDS_OUT_OF_BOUNDS, LDS_RACE, LDS_UNWRITTEN
from .machine import ELEMENTS

Array = NDArray[Any]
POISON = 0xFF
NEVER = -1
SPAN, SEVERAL = 64, 63  # a workgroup has at most 32 waves


class Misuse(Exception):
    """kind: one of faults.KINDS; lane: flat index into (waves, lanes) of the first lane concerned."""

    def __init__(self, kind: str, message: str, lane: int) -> None:
        super().__init__(message)
        self.kind, self.message, self.lane = kind, message, lane


@dataclass(frozen=True)
class _Lanes:
    """The lanes that take part, one after another: where they point (flat bytes), which wave of its group each belongs
    to, the epoch of its group (one number where all are in step); and how to find a lane again."""

    flat: Array
    wave: Array
    epoch: Any
    mask: Any

    def original(self, first: int) -> int:
        return first if self.mask is True else int(np.flatnonzero(self.mask)[first])


class Lds:
    """`size` bytes for each of `groups` workgroups of `waves_per_group` waves.

    cell: bytes that are watched as one, the narrowest access that the kernel makes: two waves that write neighbouring
        halves of a word do not meet.
    """

    def __init__(self, groups: int, waves_per_group: int, lanes: int, size: int, cell: int) -> None:
        self.size, self._per_group = size, waves_per_group
        # Groups lie a whole number of the widest cells apart; behind the last one there is room for any element.
        self._stride = -(-size // 16) * 16
        self.bytes = np.full(groups * self._stride + 16, POISON, dtype=np.uint8)
        # Stamps: SPAN times the epoch, a count of barriers, plus the wave of the group, or SEVERAL. The last writer and
        # the last reader of a cell say in one look whether all is well; only where they do not, `_wrote` is asked, the
        # epoch in which each wave last wrote the cell.
        self._cell = cell
        cells = groups * self._stride // cell + 1
        self._writer = np.full(cells, NEVER, dtype=np.int32)
        self._reader = np.full(cells, NEVER, dtype=np.int32)
        self._wrote = np.full((waves_per_group, cells), NEVER, dtype=np.int32)
        self._epoch = np.zeros(groups, dtype=np.int32)
        self._in_step = True
        shape = (groups, waves_per_group, lanes)
        group, wave = np.arange(groups)[:, None, None], np.arange(waves_per_group)[None, :, None]
        self._offset = np.broadcast_to(group * self._stride, shape).reshape(-1, lanes)
        self._wave = np.broadcast_to(wave, shape).reshape(-1, lanes)
        self._group = np.broadcast_to(group, shape).reshape(-1, lanes)
        self._views: dict[int, Array] = {}

    def passed_barrier(self, group: int) -> None:
        """All waves of a group have met."""
        self._epoch[group] += 1
        self._in_step = bool((self._epoch == self._epoch[0]).all())

    def _view(self, size: int) -> Array:
        if size not in self._views:
            count = len(self.bytes) - size + 1
            self._views[size] = np.ndarray((count,), dtype=ELEMENTS[size], buffer=self.bytes, strides=(1,))
        return self._views[size]

    def _lanes(self, addresses: Array, size: int, mask: Any) -> _Lanes:
        """addresses: int64 (waves, lanes), not negative, in bytes of the group's memory. Raises Misuse."""
        wrong = addresses > self.size - size
        if mask is not True:
            wrong &= mask
        if wrong.any():
            lane = int(np.flatnonzero(wrong)[0])
            where = f"{size} bytes at offset {int(addresses.flat[lane])} of {self.size} bytes"
            raise Misuse(LDS_OUT_OF_BOUNDS, where, lane)
        flat = addresses + self._offset
        in_step = self._in_step
        epoch: Any = self._epoch[0] if in_step else self._epoch[self._group]
        if mask is True:
            flat, wave = flat.ravel(), self._wave.ravel()
            epoch = epoch if in_step else epoch.ravel()
        else:
            flat, wave = flat[mask], self._wave[mask]
            epoch = epoch if in_step else epoch[mask]
        if (flat & (self._cell - 1)).any():
            self._refine()
        return _Lanes(flat, wave, epoch, mask)

    def _refine(self) -> None:
        """An access that is not aligned to the cells: watch single bytes from now on."""
        self._wrote = np.repeat(self._wrote, self._cell, axis=1)
        self._writer, self._reader = np.repeat(self._writer, self._cell), np.repeat(self._reader, self._cell)
        self._cell = 1

    def load(self, addresses: Array, size: int, mask: Any) -> Array:
        """Elements of `size` bytes, of the addresses' shape; zero where `mask` is off. Raises Misuse."""
        lanes = self._lanes(addresses, size, mask)
        found = self._view(size)[lanes.flat]
        for part in range(0, size, self._cell):
            self._note_read((lanes.flat + part) // self._cell, lanes)
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
        for part in range(0, size, self._cell):
            cells = (lanes.flat + part) // self._cell
            if self._per_group > 1:
                self._note_write(cells, lanes, view, chosen)
            else:
                self._writer[cells] = 0
        view[lanes.flat] = chosen
        if self._per_group > 1:
            # Whoever does not find what it wrote was overwritten by a lane of the same instruction: of another wave?
            lost = view[lanes.flat] != chosen
            if lost.any():
                met = lost & (self._others(self._writer[lanes.flat // self._cell], lanes))
                _refuse(met, LDS_RACE, "two waves write different values at once", lanes)

    def _others(self, stamps: Array, lanes: _Lanes) -> Array:
        """Where a stamp is of this epoch and not of the lane's wave alone."""
        return (stamps >= lanes.epoch * SPAN) & (stamps != lanes.epoch * SPAN + lanes.wave)

    def _note_read(self, cells: Array, lanes: _Lanes) -> None:
        writer = self._writer[cells]
        _refuse(writer == NEVER, LDS_UNWRITTEN, "nothing was written there", lanes)
        if self._per_group == 1:
            return
        raced = self._others(writer, lanes)
        if raced.any():
            raced &= self._wrote[lanes.wave, cells] != lanes.epoch
            _refuse(raced, LDS_RACE, "read after another wave's write with no barrier between", lanes)
        self._stamp(self._reader, cells, lanes)

    def _note_write(self, cells: Array, lanes: _Lanes, view: Array, chosen: Array) -> None:
        """Against what other waves did in this epoch. A value that is there already may be written again."""
        for stamps, what in ((self._reader, "read"), (self._writer, "write")):
            others = self._others(stamps[cells], lanes)
            if others.any():
                raced = others & (view[lanes.flat] != chosen)
                _refuse(raced, LDS_RACE, f"write after another wave's {what} with no barrier between", lanes)
        self._stamp(self._writer, cells, lanes)
        self._wrote[lanes.wave, cells] = lanes.epoch

    def _stamp(self, stamps: Array, cells: Array, lanes: _Lanes) -> None:
        """Each lane's wave on its cell, or SEVERAL where another wave's of this epoch is there, or comes at once."""
        mine = lanes.epoch * SPAN + lanes.wave
        before = self._others(stamps[cells], lanes)
        stamps[cells] = mine
        several = before | (stamps[cells] != mine)
        if several.any():
            where = cells[several]
            stamps[where] = (lanes.epoch if np.ndim(lanes.epoch) == 0 else lanes.epoch[several]) * SPAN + SEVERAL


def _refuse(wrong: Array, kind: str, message: str, lanes: _Lanes) -> None:
    if wrong.any():
        raise Misuse(kind, message, lanes.original(int(np.flatnonzero(wrong)[0])))
