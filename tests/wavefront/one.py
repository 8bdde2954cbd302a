"""One instruction on one wave: registers in, registers out, without an executor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from wavefront.assembly import EXEC, instruction
from wavefront.machine import Machine
from wavefront.semantics import conversion, dots, dual, halves, packed, table, vector  # noqa: F401
from wavefront.target import target

REGISTERS = 16


class One:
    """A machine of one wave whose vector registers a test fills and reads as uint32 (lanes,)."""

    def __init__(self, name: str) -> None:
        self.target = target(name)
        self.machine = Machine(self.target, 1, REGISTERS, 4)
        self.lanes = self.target.wave

    def set(self, register: int, values: Any) -> One:
        """Fill a register; values repeat over the lanes."""
        bits = np.ascontiguousarray(values)
        if bits.dtype.itemsize == 2:
            bits = bits.view(np.uint16).astype(np.uint32)
        self.machine.u[register][0] = np.resize(bits.view(np.uint32), self.lanes)
        return self

    def scalar(self, register: int, value: int) -> One:
        self.machine.forget(register)
        self.machine.su[register][:] = value
        return self

    def lanes_on(self, mask: Any) -> One:
        self.machine.set_mask(EXEC, np.resize(np.asarray(mask, dtype=np.bool_), self.lanes)[None])
        return self

    def run(self, text: str) -> One:
        step = table.build(instruction(text), self.target)
        with np.errstate(all="ignore"):
            step(SimpleNamespace(machine=self.machine, memory=None, lds=None))
        return self

    def u(self, register: int) -> Any:
        return self.machine.u[register][0].copy()

    def f(self, register: int) -> Any:
        return self.machine.f[register][0].copy()

    def halves(self, register: int) -> tuple[Any, Any]:
        """The lower and the upper 16 bits as uint16."""
        word = self.u(register)
        return word.astype(np.uint16), (word >> np.uint32(16)).astype(np.uint16)


_WORDS = (
    *(0x0, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F7FFFFF, 0xFF7FFFFF),
    *(0x1, 0x80000001, 0x007FFFFF, 0x00800000, 0x33000000, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FF001, 0x38800000),
    *(0x3F8CCCCD, 0x3F802000, 0x3F803000, 0x3F801000, 0x4EFFFFFF, 0x4F000000, 0xCF000000, 0x4F7FFFFF, 0x4F800000),
    *(0x43E80000, 0x43E80001, 0x43780000, 0x47700000, 0xC0200000, 0x3F000000, 0x40490FDB, 0xFFFFFFFF, 0x12345678),
)
_HALVES = (
    *(0x0, 0x8000, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x7BFF, 0xFBFF, 0x1, 0x8001, 0x3FF, 0x400, 0x8400),
    *(0x3C01, 0x3BFF, 0x4248, 0xC500, 0x7BFE, 0x0401, 0x3555, 0xB555, 0x5640, 0xFFFF, 0x7FFF, 0x1234),
)


def words(seed: int, lanes: int) -> Any:
    """uint32 (lanes,): special float32 patterns in random order and random bits, half of each."""
    draw = np.random.default_rng(seed)
    special = draw.choice(np.array(_WORDS, dtype=np.uint32), lanes)
    return np.where(draw.random(lanes) < 0.5, special, draw.integers(0, 1 << 32, lanes, dtype=np.uint32))


def half_words(seed: int, lanes: int) -> Any:
    """uint32 (lanes,): two patterns of 16 bits each, special or random."""
    draw = np.random.default_rng(seed)

    def one() -> Any:
        special = draw.choice(np.array(_HALVES, dtype=np.uint16), lanes)
        return np.where(draw.random(lanes) < 0.5, special, draw.integers(0, 1 << 16, lanes, dtype=np.uint16))

    return one().astype(np.uint32) | (one().astype(np.uint32) << np.uint32(16))


def same_floats(found: Any, wanted: Any) -> None:
    """Equal bits; NaN equals NaN whatever its bits."""
    kind = {2: np.float16, 4: np.float32, 8: np.float64}[np.asarray(found).dtype.itemsize]
    found, wanted = np.asarray(found).view(kind), np.asarray(wanted, dtype=kind)
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), nan)
    unsigned = f"u{found.dtype.itemsize}"
    np.testing.assert_array_equal(found.view(unsigned)[~nan], wanted.view(unsigned)[~nan])
