"""Loads straight into LDS: where the bytes of each lane go, and what becomes of lanes that are off or outside."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wavefront.assembly import M0, Instruction, instruction
from wavefront.faults import LDS_OUT_OF_BOUNDS, UnsupportedInstruction
from wavefront.lds import Lds, Misuse
from wavefront.memory import Buffer, Memory, Missed
from wavefront.program import _cell
from wavefront.semantics import global_memory, table  # noqa: F401
from wavefront.target import target

from .one import One

WORDS = 1024
LDS_BYTES = 4096


class Loads:
    """A wave of 64 lanes with a buffer of 1024 numbered words, its descriptor in s[4:7], its address in s[8:9]."""

    def __init__(self, name: str, records: int = 4 * WORDS) -> None:
        self.data = np.arange(1, WORDS + 1, dtype=np.uint32)
        self.one = One(name)
        start = self.data.ctypes.data
        for register, value in zip(
            (4, 5, 6, 7, 8, 9),
            (start & 0xFFFFFFFF, start >> 32, records, 0x27000, start & 0xFFFFFFFF, start >> 32),
            strict=True,
        ):
            self.one.scalar(register, value)
        self.memory = Memory([Buffer("data", start, self.data.nbytes, self.data)])
        self.lds = Lds(1, 1, self.one.lanes, LDS_BYTES, 4)

    def run(self, text: str, m0: int) -> Any:
        """The words of LDS afterwards."""
        self.one.scalar(M0, m0)
        step = table.build(instruction(text), self.one.target)
        step(SimpleNamespace(machine=self.one.machine, memory=self.memory, lds=self.lds))
        return self.lds.bytes[:LDS_BYTES].view(np.uint32).copy()


UNTOUCHED = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("name", "suffix", "words"), [("gfx942", "", 1), ("gfx950", "", 1), ("gfx950", "x3", 3), ("gfx950", "x4", 4)]
)
@pytest.mark.parametrize("kind", ["buffer", "global", "scalar base"])
def test_lanes_lie_side_by_side(name: str, suffix: str, words: int, kind: str) -> None:
    """Whatever place a lane loads from, its bytes follow those of the lane before."""
    loads = Loads(name)
    lane = np.arange(64)
    first = (lane * 7) % 60 * words  # words, in no order
    text = {
        "buffer": f"buffer_load_dword{suffix} v0, s[4:7], s10 offen offset:16 lds",
        "global": f"global_load_lds_dword{suffix} v[0:1], off offset:16",
        "scalar base": f"global_load_lds_dword{suffix} v0, s[8:9] offset:16",
    }[kind]
    loads.one.scalar(10, 8)
    moved = 4 + (2 if kind == "buffer" else 0)  # the instruction's offset and, of the buffer alone, the scalar one
    if kind == "global":
        at = loads.data.ctypes.data + 4 * first.astype(np.uint64)
        loads.one.set(0, at.astype(np.uint32)).set(1, (at >> np.uint64(32)).astype(np.uint32))
    else:
        loads.one.set(0, (4 * first).astype(np.uint32))
    found = loads.run(text, m0=256)
    begin = (256 + 16) // 4
    wanted = (first[:, None] + moved + 1 + np.arange(words)).ravel()
    assert found[begin : begin + 64 * words].tolist() == wanted.tolist()
    assert (found[:begin] == UNTOUCHED).all()
    assert (found[begin + 64 * words :] == UNTOUCHED).all()


def test_lanes_that_are_off_keep_their_place() -> None:
    loads = Loads("gfx950")
    on = np.arange(64) % 3 != 0
    loads.one.set(0, np.arange(64, dtype=np.uint32) * 4).lanes_on(on)
    found = loads.run("buffer_load_dword v0, s[4:7], 0 offen lds", m0=0)
    assert found[:64].tolist() == [lane + 1 if on[lane] else UNTOUCHED for lane in range(64)]


def test_lanes_outside_of_the_buffer_write_zero() -> None:
    loads = Loads("gfx950", records=40)
    loads.one.set(0, np.arange(64, dtype=np.uint32) * 4).lanes_on(np.arange(64) < 20)
    found = loads.run("buffer_load_dword v0, s[4:7], 0 offen lds", m0=0)
    assert found[:64].tolist() == [*range(1, 11), *[0] * 10, *[UNTOUCHED] * 44]


def test_faults_on_both_sides() -> None:
    loads = Loads("gfx950")
    loads.one.set(0, np.arange(64, dtype=np.uint32) * 4)
    with pytest.raises(Misuse) as caught:
        loads.run("buffer_load_dword v0, s[4:7], 0 offen lds", m0=LDS_BYTES - 63 * 4)
    assert (caught.value.kind, caught.value.lane) == (LDS_OUT_OF_BOUNDS, 63)
    with pytest.raises(Missed):
        loads.run("global_load_lds_dword v0, s[8:9] offset:3844", m0=0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gfx942", "buffer_load_dwordx4 v0, s[4:7], 0 offen lds"),
        ("gfx942", "global_load_lds_dwordx4 v[0:1], off"),
        ("gfx950", "buffer_load_dwordx2 v0, s[4:7], 0 offen lds"),
        ("gfx950", "buffer_load_ushort v0, s[4:7], 0 offen lds"),
        ("gfx950", "global_load_lds_ushort v[0:1], off"),
        ("gfx1100", "buffer_load_b32 v0, s[4:7], 0 offen lds"),
    ],
)
def test_other_sizes_and_targets_are_refused(name: str, text: str) -> None:
    with pytest.raises(UnsupportedInstruction, match=r"_load_.*ushort|into LDS"):
        table.build(instruction(text), target(name))


def test_they_count_among_the_accesses_that_the_shadow_follows() -> None:
    def cell(*texts: str) -> int:
        instructions: list[Instruction] = [instruction(text) for text in texts]
        return _cell(SimpleNamespace(instructions=instructions))  # type: ignore[arg-type]

    assert cell("ds_read_b128 v[0:3], v4") == 16
    assert cell("ds_read_b128 v[0:3], v4", "buffer_load_dword v0, s[4:7], 0 offen lds") == 4
    assert cell("ds_read_b128 v[0:3], v4", "global_load_lds_dwordx4 v[0:1], off") == 4
