"""Instructions against the vendor's pseudo code as the package tinygrad carries it, where it is simple (pcode.py).

Skipped where tinygrad is not installed: it is needed by nothing else (`tox -e wavefront` installs it).
"""

from __future__ import annotations

import importlib
import re
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest

from wavefront.faults import UnsupportedInstruction
from wavefront.semantics import table

from .drawn import mask_of, number_in, operands, result_bits, same, scalar_operand, value
from .one import One
from .pcode import Code, Unreadable, Value, integer, read

pytest.importorskip("tinygrad")

# The manual, the target, and at least how many mnemonics must be compared.
MANUALS = {"cdna": ("gfx942", 240), "rdna3": ("gfx1100", 260), "rdna4": ("gfx1201", 250)}

# Where the pseudo code is known to be wrong, or says less than the hardware does.
WRONG = {
    "v_fract_f32": "the result is clamped below 1: LLVM turns fmin(x - floor(x), 0x1.fffffep-1) into it",
}


@cache
def _readable(manual: str) -> dict[str, Code]:
    """Mnemonics that this reader understands and the package models."""
    module = importlib.import_module(f"tinygrad.runtime.autogen.amd.{manual}.str_pcode")
    family = "cdna" if manual == "cdna" else "rdna"
    found = {}
    for op, text in module.PCODE.items():
        if not type(op).__name__.startswith(("VOP1", "VOP2", "VOP3Op", "VOPC", "SOP1", "SOP2", "SOPC")):
            continue
        mnemonic = re.sub(r"_E(32|64)$", "", op.name).lower()
        if not table.supported(mnemonic, family) or mnemonic.startswith(("v_cmpx", "v_s_")):
            continue
        try:
            found[mnemonic] = read(text)
        except Unreadable:
            continue
        _SOURCES[manual, mnemonic] = text
    return found


_SOURCES: dict[tuple[str, str], str] = {}


def _kinds(text: str) -> tuple[str, ...]:
    """The kind of each source, by its first mention; slices and 24-bit integers are of 32 bits."""
    found = []
    for number in range(3):
        match = re.search(rf"S{number}(?:\[[^\]]*\])?(?:\.([uifb])(\d+))?", text)
        if match is None:
            break
        letter, size = (match[1] or "b").replace("b", "u"), int(match[2] or 32)
        sliced = match[0].startswith(f"S{number}[")
        found.append(f"u{32}" if sliced or size not in (16, 32, 64) else f"{letter}{size}")
    return tuple(found)


def _state(kinds: tuple[str, ...], bits: list[int]) -> dict[str, Value]:
    return {f"S{i}": Value("u", 64, b) for i, b in enumerate(bits)}


def _compare(name: str, mnemonic: str, text: str, code: Code, seed: int) -> int:
    one, draw = One(name), np.random.default_rng([seed, zlib.crc32(mnemonic.encode())])
    kinds = _kinds(text)
    if re.match(r"v_cmp_(f|t|tru)_", mnemonic):  # always or never: the code names no source
        kinds = (mnemonic[-3:],) * 2
    result = re.search(r"^D0(?:\.([uifb])(\d+))?", text, re.M)
    if mnemonic.startswith("s_"):
        return _compare_scalar(one, draw, mnemonic, kinds, result, code)
    old = draw.integers(0, 1 << 32, one.lanes, dtype=np.uint32)
    one.set(0, old).set(1, old)
    drawn = operands(one, draw, kinds, modifiers=False)
    compared = 0
    if mnemonic.startswith("v_cmp"):
        into = "s[30:31]" if one.lanes == 64 else "s30"
        one.run(f"{mnemonic}_e64 {into}, " + ", ".join(drawn.texts))
        flags = mask_of(one, 30)
        for lane in range(one.lanes):
            state = code.run(_state(kinds, [b[lane] for b in drawn.bits]))
            assert flags[lane] == bool(state["D0"].number), (mnemonic, drawn.texts, lane)
            compared += 1
        return compared
    assert result is not None
    size = int(result[2] or 32)
    kind = f"{(result[1] or 'b').replace('b', 'u')}{size}"
    one.run(f"{mnemonic}_e64 {'v[0:1]' if size == 64 else 'v0'}, " + ", ".join(drawn.texts))
    for lane, found in enumerate(result_bits(one, 0, size)):
        before = {"D0": Value("u", 64, int(old[lane]) | int(old[lane]) << 32)}
        given = [b[lane] for b in drawn.bits]
        try:
            state = code.run(before | _state(kinds, given))
        except Unreadable:
            continue
        wanted = state["D0"].bits() & ((1 << size) - 1)
        text_of = [value(k, b) for k, b in zip(kinds, given, strict=True)]
        assert same(kind, found, wanted), f"{mnemonic}: {text_of} gave {found:#x}, the pseudo code {wanted:#x}"
        compared += 1
    return compared


def _compare_scalar(one: One, draw: Any, mnemonic: str, kinds: tuple[str, ...], result: Any, code: Code) -> int:
    for _ in range(8):
        before = int(draw.integers(0, 2))
        one.machine.scc[:] = bool(before)
        chosen = [scalar_operand(one, draw, kind, i) for i, kind in enumerate(kinds)]
        size = int(result[2] or 32) if result else 0
        into = {0: "", 32: "s4, ", 64: "s[4:5], "}.get(size)
        if into is None:
            return 0
        one.scalar(4, 0x12345678).scalar(5, 0x9ABCDEF0)
        old = {"D0": Value("u", 64, 0x9ABCDEF012345678), "SCC": integer("u", 1, before)}
        text = f"{mnemonic} {into}" + ", ".join(t for t, _ in chosen)
        one.run(text)
        state = code.run(old | _state(kinds, [b for _, b in chosen]))
        if size:
            found, wanted = number_in(one, 4, size), state["D0"].bits() & ((1 << size) - 1)
            kind = f"{(result[1] or 'b').replace('b', 'u')}{size}"
            assert same(kind, found, wanted), f"{text}: {chosen} gave {found:#x}, the pseudo code {wanted:#x}"
        assert bool(one.machine.scc[0, 0]) == bool(state["SCC"].number), f"{text}: {chosen}, the condition code"
    return 8


def _cases() -> list[tuple[str, str]]:
    return [(manual, mnemonic) for manual in MANUALS for mnemonic in sorted(_readable(manual))]


@pytest.mark.parametrize(("manual", "mnemonic"), _cases())
def test_instruction(manual: str, mnemonic: str) -> None:
    name, text = MANUALS[manual][0], _SOURCES[manual, mnemonic]
    if mnemonic in WRONG:
        pytest.skip(WRONG[mnemonic])
    try:
        compared = sum(_compare(name, mnemonic, text, _readable(manual)[mnemonic], seed) for seed in range(4))
    except (Unreadable, UnsupportedInstruction) as error:
        pytest.skip(str(error))
    assert compared


@pytest.mark.parametrize("manual", MANUALS)
def test_enough_is_compared(manual: str) -> None:
    assert len(_readable(manual)) >= MANUALS[manual][1]
