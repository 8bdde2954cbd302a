"""Global memory: the buffers that a launch may touch, and checked access to them at their real addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .machine import ELEMENTS, Bools

Array = NDArray[Any]


@dataclass(frozen=True)
class Buffer:
    """`size` bytes at `start`, called `name` in reports. keep: whatever must outlive the use of the address."""

    name: str
    start: int
    size: int
    keep: Any = None

    @property
    def end(self) -> int:
        return self.start + self.size


class Missed(Exception):
    """An access in no buffer: flat indices into (waves, lanes), or waves of a scalar access; the first address."""

    def __init__(self, lanes: Array, address: int, size: int, *, lanes_are_waves: bool) -> None:
        super().__init__()
        self.lanes, self.address, self.size, self.lanes_are_waves = lanes, address, size, lanes_are_waves


class _Window:
    """The bytes of a buffer as arrays of elements of every width, aligned ones where the buffer is aligned."""

    def __init__(self, buffer: Buffer) -> None:
        self.low, self.high = np.uint64(buffer.start), np.uint64(buffer.end)
        kind: Any = ctypes.c_uint8 * buffer.size
        self.bytes = (
            np.frombuffer(kind.from_address(buffer.start), dtype=np.uint8) if buffer.size else np.empty(0, np.uint8)
        )
        self._start = buffer.start
        self._views: dict[int, Array] = {}

    def view(self, size: int) -> Array:
        """Elements of `size` bytes that start at every byte: unaligned accesses are as good as any."""
        found = self._views.get(size)
        if found is None:
            count = max(len(self.bytes) - size + 1, 0)
            found = (
                np.ndarray((count,), dtype=ELEMENTS[size], buffer=self.bytes, strides=(1,))
                if count
                else np.empty(0, ELEMENTS[size])
            )
            self._views[size] = found
        return found

    def aligned(self, size: int) -> Array | None:
        """Elements of `size` bytes side by side, where the start is aligned to them."""
        key = -size
        if key not in self._views:
            if self._start % size or size == 12:
                return None
            self._views[key] = self.bytes[: len(self.bytes) // size * size].view(ELEMENTS[size])
        return self._views[key]


class Memory:
    """The buffers of one launch. Accesses are given as addresses uint64 (waves, lanes) of the lanes that take part."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self.buffers = sorted((b for b in buffers if b.size), key=lambda b: b.start)
        self._windows = [_Window(b) for b in self.buffers]
        self._last: _Window | None = self._windows[0] if self._windows else None

    def load(self, addresses: Array, size: int, mask: Any) -> Array:
        """Elements of `size` bytes, of the addresses' shape; undefined where `mask` (True or bool) is off.

        Raises Missed.
        """
        window = self._one(addresses, size, mask)
        if window is None:
            return self._scattered(addresses, size, mask)
        if len(window.bytes) < size:  # so no lane takes part
            return np.zeros(addresses.shape, dtype=ELEMENTS[size])
        offsets = addresses - window.low
        if mask is not True:
            offsets = np.where(mask, offsets, np.uint64(0))
        aligned = window.aligned(size)
        if aligned is not None and not (offsets & np.uint64(size - 1)).any():
            return aligned.take((offsets // np.uint64(size)).view(np.int64), mode="clip")
        return window.view(size)[offsets.view(np.int64)]

    def store(self, addresses: Array, values: Array, mask: Any) -> None:
        """Elements of the values' item size, in the order of waves and lanes: the last one wins. Raises Missed."""
        size = values.dtype.itemsize
        window = self._one(addresses, size, mask)
        if window is None:
            self._scatter(addresses, values, mask)
            return
        offsets = (addresses - window.low).view(np.int64)
        if mask is not True:
            offsets, values = offsets[mask], values[mask]
        window.view(size)[offsets] = values

    def _one(self, addresses: Array, size: int, mask: Any) -> _Window | None:
        """The one window that holds all accesses; None where there are several. The last one found is tried first."""
        chosen = addresses if mask is True else addresses[mask]
        if not chosen.size:
            return self._last
        low, high = chosen.min(), chosen.max() + np.uint64(size)
        last = self._last
        if last is not None and low >= last.low and high <= last.high:
            return last
        for window in self._windows:
            if low >= window.low and high <= window.high and high > low:
                self._last = window
                return window
        return None

    def _each(self, addresses: Array, size: int, mask: Any) -> list[tuple[_Window, Bools]]:
        left = (
            np.ones(addresses.shape, dtype=np.bool_) if mask is True else np.broadcast_to(mask, addresses.shape).copy()
        )
        found = []
        for window in self._windows:
            end = addresses + np.uint64(size)
            inside = left & (addresses >= window.low) & (end <= window.high) & (end > addresses)
            if inside.any():
                found.append((window, inside))
                left &= ~inside
        if left.any():
            lanes = np.flatnonzero(left)
            raise Missed(lanes, int(addresses.flat[lanes[0]]), size, lanes_are_waves=addresses.shape[-1] == 1)
        return found

    def _scattered(self, addresses: Array, size: int, mask: Any) -> Array:
        result = np.zeros(addresses.shape, dtype=ELEMENTS[size])
        for window, inside in self._each(addresses, size, mask):
            result[inside] = window.view(size)[(addresses[inside] - window.low).view(np.int64)]
        return result

    def _scatter(self, addresses: Array, values: Array, mask: Any) -> None:
        for window, inside in self._each(addresses, values.dtype.itemsize, mask):
            window.view(values.dtype.itemsize)[(addresses[inside] - window.low).view(np.int64)] = values[inside]

    def describe(self, address: int, size: int) -> str:
        """An address that was missed, relative to the nearest buffer."""
        if not self.buffers:
            return f"{size} bytes at {address:#x}, where no buffer was passed at all"
        near = min(self.buffers, key=lambda b: min(abs(address - b.start), abs(address - b.end)))
        if address >= near.end:
            where = f"{address - near.end} bytes past the end of"
        elif address < near.start:
            where = f"{near.start - address} bytes before"
        else:
            where = f"over the end of, {near.end - address} bytes inside,"
        return f"{size} bytes {where} {near.name} ({near.size} bytes)"
