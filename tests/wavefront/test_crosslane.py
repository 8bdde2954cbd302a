"""Values from other lanes, lane by lane in Python: DPP, permutes, swizzles, single lanes."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction

from .drawn import set_mask, some_lanes
from .one import One, words

VCC = 106


def _outside(lane: int) -> int | None:
    return None


def _row(lane: int, place: int) -> int | None:
    return lane - lane % 16 + place if 0 <= place < 16 else None


# The lane that a lane reads, by the pattern as the assembler writes it.
PATTERNS: dict[str, Any] = {
    **{f"row_shl:{n}": lambda i, n=n: _row(i, i % 16 + n) for n in (1, 2, 4, 8, 15)},
    **{f"row_shr:{n}": lambda i, n=n: _row(i, i % 16 - n) for n in (1, 2, 4, 8, 15)},
    **{f"row_ror:{n}": lambda i, n=n: _row(i, (i % 16 - n) % 16) for n in (1, 4, 15)},
    "quad_perm:[1,0,3,2]": lambda i: i ^ 1,
    "quad_perm:[2,3,0,1]": lambda i: i ^ 2,
    "quad_perm:[3,0,0,1]": lambda i: i - i % 4 + (3, 0, 0, 1)[i % 4],
    "row_mirror": lambda i: _row(i, 15 - i % 16),
    "row_half_mirror": lambda i: i - i % 8 + 7 - i % 8,
}
CDNA = {
    # The last lane of a row goes to all lanes of the next one; lane 31 to the two rows behind it.
    "row_bcast:15": lambda i: i - i % 16 - 1 if i >= 16 else None,
    "row_bcast:31": lambda i: 31 if i >= 32 else None,
    "row_newbcast:3": lambda i: _row(i, 3),
    "wave_shl:1": lambda i: i + 1 if i < 63 else None,
    "wave_shr:1": lambda i: i - 1 if i > 0 else None,
    "wave_rol:1": lambda i: (i + 1) % 64,
    "wave_ror:1": lambda i: (i - 1) % 64,
}
RDNA = {
    "row_share:5": lambda i: _row(i, 5),
    "row_xmask:0x9": lambda i: _row(i, i % 16 ^ 9),
    "row_xmask:1": lambda i: _row(i, i % 16 ^ 1),
}
MASKS = (
    " row_mask:0xf bank_mask:0xf",
    " row_mask:0xa bank_mask:0xf",
    " row_mask:0xf bank_mask:0x5",
    " row_mask:0xc bank_mask:0x3",
)
CASES = [(name, p) for name, more in (("gfx942", CDNA), ("gfx1100", RDNA)) for p in {**PATTERNS, **more}]


def _some(name: str, text: str, seed: int) -> tuple[One, Any, list[bool]]:
    one, draw = One(name), np.random.default_rng([seed, zlib.crc32(text.encode())])
    return one, draw, some_lanes(one, draw)


def _on(lane: int, masks: str) -> bool:
    rows, banks = (int(part.split(":")[1], 16) for part in masks.split())
    return bool(rows >> (lane // 16) & 1 and banks >> (lane % 16 // 4) & 1)


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_dpp(name: str, pattern: str) -> None:
    reads = {**PATTERNS, **CDNA, **RDNA}[pattern]
    add = "v_add_u32" if name == "gfx942" else "v_add_nc_u32"
    for seed, masks in enumerate((*MASKS, *MASKS)):
        for bound in ("", " bound_ctrl:1", " bound_ctrl:0"):
            one, _, mask = _some(name, pattern, seed)
            a, b, old = (words(seed * 3 + i, one.lanes) for i in range(3))
            one.set(1, a).set(2, b).set(0, old).set(3, old)
            one.run(f"{add}_dpp v0, v1, v2 {pattern}{masks}{bound}")
            one.run(f"v_mov_b32_dpp v3, v1 {pattern}{masks}{bound}")
            for lane in range(one.lanes):
                other = reads(lane)
                there = other is not None and mask[other]
                value = int(a[other]) if there else 0
                writes = mask[lane] and _on(lane, masks) and (there or bool(bound))
                before = int(old[lane])
                assert int(one.u(0)[lane]) == ((value + int(b[lane])) & 0xFFFFFFFF if writes else before), lane
                assert int(one.u(3)[lane]) == (value if writes else before), lane


def test_dpp_on_itself() -> None:
    """The destination is the source too, as in a scan: all lanes read before any writes."""
    one = One("gfx942").set(0, np.arange(64, dtype=np.uint32))
    one.run("v_add_u32_dpp v0, v0, v0 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:1")
    assert one.u(0).tolist() == [i + (i - 1 if i % 16 else 0) for i in range(64)]
    one.set(0, np.arange(64, dtype=np.uint32)).run(
        "v_mov_b32_dpp v0, v0 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf"
    )
    assert one.u(0).tolist() == [i ^ 1 for i in range(64)]


@pytest.mark.parametrize("seed", range(3))
def test_dpp_of_floats_with_signs(seed: int) -> None:
    one, _, mask = _some("gfx942", "signs", seed)
    a, b = words(seed, 64) & np.uint32(0x8FFFFFFF), words(seed + 5, 64) & np.uint32(0x8FFFFFFF)
    one.set(1, a).set(2, b).set(0, np.uint32(9))
    one.run("v_max_f32_dpp v0, -v1, |v2| row_shr:4 row_mask:0xf bank_mask:0xf")
    for lane in range(64):
        if mask[lane] and lane % 16 >= 4 and mask[lane - 4]:
            left, right = -a.view(np.float32)[lane - 4], abs(b.view(np.float32)[lane])
            assert one.f(0)[lane] == max(left, right)
        else:
            assert int(one.u(0)[lane]) == 9


@pytest.mark.parametrize("seed", range(3))
def test_dpp_of_a_selection(seed: int) -> None:
    """The lane's own bit chooses; the first value alone comes from another lane."""
    one, draw, mask = _some("gfx1100", "select", seed)
    chosen = (draw.random(32) < 0.5).tolist()
    a, b = words(seed, 32), words(seed + 5, 32)
    set_mask(one, VCC, chosen)
    one.set(1, a).set(2, b).set(0, np.uint32(9))
    one.run("v_cndmask_b32_dpp v0, v1, v2, vcc_lo row_ror:3 row_mask:0xf bank_mask:0xf bound_ctrl:1")
    for lane in range(32):
        other = lane - lane % 16 + (lane - 3) % 16
        wanted = int(b[lane]) if chosen[lane] else int(a[other]) if mask[other] else 0
        assert int(one.u(0)[lane]) == (wanted if mask[lane] else 9)


@pytest.mark.parametrize("order", [(7, 6, 5, 4, 3, 2, 1, 0), (0, 0, 1, 1, 7, 7, 2, 3)])
def test_dpp8(order: tuple[int, ...]) -> None:
    one = One("gfx1201").set(1, np.arange(32, dtype=np.uint32))
    one.run(f"v_mov_b32_dpp v0, v1 dpp8:[{','.join(map(str, order))}]")
    assert one.u(0).tolist() == [i - i % 8 + order[i % 8] for i in range(32)]


@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("seed", range(5))
def test_permutes(name: str, seed: int) -> None:
    one, draw, mask = _some(name, "permute", seed)
    lanes = one.lanes
    data = words(seed, lanes)
    address = (
        draw.integers(0, 1 << 32, lanes, dtype=np.uint32) if seed % 2 else draw.permutation(lanes).astype(np.uint32) * 4
    )
    offset = 4 * int(draw.integers(0, 70)) if seed > 2 else 0
    text = f" offset:{offset}" if offset else ""
    one.set(1, address).set(2, data).set(0, np.uint32(9)).set(3, np.uint32(9))
    one.run(f"ds_bpermute_b32 v0, v1, v2{text}").run(f"ds_permute_b32 v3, v1, v2{text}")
    targets = [(int(a) + offset) // 4 % lanes for a in address]
    pushed = [0] * lanes
    for lane in range(lanes):
        if mask[lane]:
            pushed[targets[lane]] = int(data[lane])  # the highest lane wins where two send to one
    for lane in range(lanes):
        other = targets[lane]
        pulled = int(data[other]) if mask[other] else 0
        assert int(one.u(0)[lane]) == (pulled if mask[lane] else 9)
        assert int(one.u(3)[lane]) == (pushed[lane] if mask[lane] else 9)


SWIZZLES = {
    "swizzle(SWAP,16)": lambda i: i ^ 16,
    "swizzle(SWAP,1)": lambda i: i ^ 1,
    "swizzle(REVERSE,8)": lambda i: i - i % 8 + 7 - i % 8,
    "swizzle(BROADCAST,4,2)": lambda i: i - i % 4 + 2,
    "swizzle(QUAD_PERM,3,1,0,2)": lambda i: i - i % 4 + (3, 1, 0, 2)[i % 4],
    'swizzle(BITMASK_PERM,"01pip")': lambda i: i - i % 32 + 8 + (i & 4) + (2 - (i & 2)) + (i & 1),
    "0x8000|0b00011011": None,
}
SWIZZLES.pop("0x8000|0b00011011")
SWIZZLES["0x801b"] = lambda i: i - i % 4 + 3 - i % 4
SWIZZLES[str(31 | 2 << 5 | 5 << 10)] = lambda i: i - i % 32 + ((i % 32 | 2) ^ 5)


@pytest.mark.parametrize("pattern", SWIZZLES)
@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
def test_swizzles(name: str, pattern: str) -> None:
    for seed in range(3):
        one, _, mask = _some(name, pattern, seed)
        data = words(seed, one.lanes)
        one.set(1, data).set(0, np.uint32(9)).run(f"ds_swizzle_b32 v0, v1 offset:{pattern}")
        for lane, found in enumerate(one.u(0).tolist()):
            other = SWIZZLES[pattern](lane)
            assert found == ((int(data[other]) if mask[other] else 0) if mask[lane] else 9)


@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("seed", range(6))
def test_single_lanes(name: str, seed: int) -> None:
    one, draw, mask = _some(name, "single", seed)
    data = words(seed, one.lanes)
    one.set(1, data)
    lane = int(draw.integers(0, one.lanes))
    # Reading and writing a lane asks nobody whether the lane is on.
    one.run(f"v_readlane_b32 s4, v1, {lane}")
    assert int(one.machine.number(4)[0, 0]) == int(data[lane])
    one.scalar(5, lane + 64).run("v_readlane_b32 s4, v1, s5")
    assert int(one.machine.number(4)[0, 0]) == int(data[lane])
    one.run("v_readfirstlane_b32 s4, v1")
    first = mask.index(True) if any(mask) else 0
    assert int(one.machine.number(4)[0, 0]) == int(data[first])
    one.scalar(6, 4321).set(0, np.uint32(7)).run(f"v_writelane_b32 v0, s6, {lane}")
    assert one.u(0).tolist() == [4321 if i == lane else 7 for i in range(one.lanes)]
    one.set(0, np.uint32(7)).run("v_writelane_b32 v0, -3, s5")
    assert one.u(0).tolist() == [0xFFFFFFFD if i == lane else 7 for i in range(one.lanes)]


@pytest.mark.parametrize("name", ["gfx942", "gfx1100"])
@pytest.mark.parametrize("seed", range(4))
def test_counting_lower_lanes(name: str, seed: int) -> None:
    one, draw, mask = _some(name, "count", seed)
    low, high = (int(x) for x in draw.integers(0, 1 << 32, 2, dtype=np.uint64))
    more = words(seed, one.lanes)
    one.scalar(4, low).scalar(5, high).set(1, more).set(0, np.uint32(9)).set(2, np.uint32(9))
    one.run("v_mbcnt_lo_u32_b32 v0, s4, v1")
    for lane, found in enumerate(one.u(0).tolist()):
        count = (low & ((1 << min(lane, 32)) - 1)).bit_count()
        assert found == ((count + int(more[lane])) & 0xFFFFFFFF if mask[lane] else 9)
    if one.lanes == 64:
        one.run("v_mbcnt_lo_u32_b32 v2, s4, 0").run("v_mbcnt_hi_u32_b32 v2, s5, v2")
        for lane, found in enumerate(one.u(2).tolist()):
            assert found == (((low | high << 32) & ((1 << lane) - 1)).bit_count() if mask[lane] else 9)


def test_reading_a_lane_of_a_mask() -> None:
    """A scalar written by a lane read is a number again, also where it held a mask."""
    one = One("gfx942").set(1, np.arange(64, dtype=np.uint32))
    set_mask(one, 4, [True] * 64)
    one.machine.get_mask(4)
    one.run("v_readlane_b32 s4, v1, 5").run("v_cndmask_b32_e64 v0, 0, 1, s[4:5]")
    assert one.u(0).tolist() == [1, 0, 1] + [0] * 29 + [1] * 32


def _nibbles(word: int) -> list[int]:
    return [(word >> (4 * i)) & 15 for i in range(8)]


@pytest.mark.parametrize("mnemonic", ["v_permlane16_b32", "v_permlanex16_b32"])
@pytest.mark.parametrize("options", ["", " op_sel:[1,0]", " op_sel:[0,1]", " op_sel:[1,1]"])
def test_rows_of_rdna(mnemonic: str, options: str) -> None:
    for seed in range(4):
        one, draw, mask = _some("gfx1100", mnemonic, seed)
        low, high = (int(x) for x in draw.integers(0, 1 << 32, 2, dtype=np.uint64))
        selector = _nibbles(low) + _nibbles(high)
        data = words(seed, 32)
        one.set(1, data).set(0, np.uint32(9)).scalar(4, low).run(f"{mnemonic} v0, v1, s4, {high:#x}{options}")
        fetch, zero = "[1" in options, "1]" in options
        for lane, found in enumerate(one.u(0).tolist()):
            row = lane // 16 if mnemonic == "v_permlane16_b32" else 1 - lane // 16
            other = row * 16 + selector[lane % 16]
            there = mask[other] or fetch
            wanted = int(data[other]) if there else 0 if zero else 9
            assert found == (wanted if mask[lane] else 9), (lane, other)
    one = One("gfx1201").set(1, np.arange(32, dtype=np.uint32))
    assert one.run("v_permlanex16_b32 v0, v1, -1, -1 op_sel:[1,0]").u(0).tolist() == [31] * 16 + [15] * 16


@pytest.mark.parametrize(("mnemonic", "size"), [("v_permlane32_swap_b32", 32), ("v_permlane16_swap_b32", 16)])
def test_registers_exchange_halves(mnemonic: str, size: int) -> None:
    one = One("gfx950")
    a, b = list(range(100, 164)), list(range(200, 264))
    one.set(1, np.array(a, dtype=np.uint32)).set(2, np.array(b, dtype=np.uint32)).run(f"{mnemonic}_e32 v1, v2")
    for start in range(0, 64, 2 * size):
        # The upper part of the first and the lower part of the second change places.
        upper, lower = slice(start + size, start + 2 * size), slice(start, start + size)
        a[upper], b[lower] = b[lower], a[upper]
    assert (one.u(1).tolist(), one.u(2).tolist()) == (a, b)


@pytest.mark.parametrize(
    "text",
    [
        "v_mov_b32_dpp v0, v1 row_mask:0xf bank_mask:0xf",
        "v_mov_b32_dpp v0, v1 row_shr:1 row_mask:0xf bank_mask:0xf fi:1",
        "ds_swizzle_b32 v0, v1 offset:swizzle(FFT,3)",
        "v_permlane16_b32 v0, v1, s4, s5",
    ],
)
def test_what_is_not_modelled_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedInstruction):
        One("gfx942").run(text)
