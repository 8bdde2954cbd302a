"""Checked access to buffers: any width, any alignment, lanes that are off, buffers smaller than an access."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wavefront.memory import Buffer, Memory, Missed


def _buffer(name: str, data: Any) -> Buffer:
    return Buffer(name, data.ctypes.data, data.nbytes, data)


def _addresses(base: int, offsets: Any) -> Any:
    return (np.uint64(base) + np.asarray(offsets, dtype=np.int64).view(np.uint64))[None]


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_loads_and_stores(size: int, shift: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, 100, dtype=np.uint8)
    before, memory = data.copy(), Memory([_buffer("data", data)])
    offsets = [shift, shift + size, 100 - size, shift]
    at, mask = _addresses(data.ctypes.data, offsets), np.array([[True, True, True, False]])
    for on in (True, mask):
        found = memory.load(at, size, on)
        for lane, offset in enumerate(offsets):
            if on is True or mask[0, lane]:
                assert found[0, lane].tobytes() == before[offset : offset + size].tobytes()
    memory.store(at[:, ::-1], found[:, ::-1], mask[:, ::-1])
    assert (data == before).all()


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 16])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7])
def test_lanes_that_are_off_may_point_anywhere(size: int, length: int) -> None:
    """A masked load of more bytes than the whole buffer has, which tiny tensors get."""
    data, other = np.arange(8, dtype=np.uint8)[:length], np.arange(32, dtype=np.uint8)
    for buffers in ([_buffer("data", data)], [_buffer("data", data), _buffer("other", other)]):
        memory = Memory(buffers)
        at, mask = _addresses(12345, [0, 1, 2]), np.zeros((1, 3), dtype=np.bool_)
        assert memory.load(at, size, mask).shape == (1, 3)
        memory.store(at, memory.load(at, size, mask), mask)
    assert data.tolist() == list(range(length))


@pytest.mark.parametrize(
    ("offset", "said"), [(-1, "1 bytes before data"), (97, "over the end of, 3 bytes inside, data")]
)
@pytest.mark.parametrize("store", [False, True])
def test_misses(offset: int, said: str, store: bool) -> None:
    data = np.zeros(100, dtype=np.uint8)
    memory = Memory([_buffer("data", data)])
    at, mask = _addresses(data.ctypes.data, [0, 4, offset, -999]), np.array([[True, True, True, False]])
    with pytest.raises(Missed) as caught:
        memory.store(at, np.ones((1, 4), np.uint32), mask) if store else memory.load(at, 4, mask)
    assert caught.value.lanes.tolist() == [2]
    assert said in memory.describe(caught.value.address, caught.value.size)
    assert caught.value.lanes_are_waves is False


def test_accesses_to_several_buffers() -> None:
    one, two = np.arange(4, dtype=np.uint32), np.arange(10, 14, dtype=np.uint32)
    memory = Memory([_buffer("one", one), _buffer("two", two)])
    at = np.concatenate([_addresses(a.ctypes.data, [4, 8]) for a in (one, two)], axis=1)
    assert memory.load(at, 4, True).tolist() == [[1, 2, 11, 12]]
    memory.store(at, np.array([[7, 8, 9, 6]], dtype=np.uint32), np.array([[True, False, True, True]]))
    assert (one.tolist(), two.tolist()) == ([0, 7, 2, 3], [10, 9, 6, 13])
