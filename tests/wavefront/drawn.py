"""Random operands for one instruction: registers, scalars, constants, with sign modifiers, and what each lane reads."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .one import _WORDS, One

MASK = {16: 0xFFFF, 32: 0xFFFFFFFF, 64: 0xFFFFFFFFFFFFFFFF}
SIGN = {16: 0x8000, 32: 0x80000000, 64: 1 << 63}
_FLOATS = {16: ("<H", "<e"), 32: ("<I", "<f"), 64: ("<Q", "<d")}
INLINE = ("0.5", "-0.5", "1.0", "-1.0", "2.0", "-2.0", "4.0", "-4.0", "0.15915494")
INTEGERS = ("0", "1", "2", "7", "31", "32", "33", "63", "64", "-1", "-5", "-16")


def bits_of(kind: str) -> int:
    return int(kind[1:])


def value(kind: str, bits: int) -> Any:
    """A bit pattern as a Python number."""
    size = bits_of(kind)
    bits &= MASK[size]
    if kind[0] == "f":
        unsigned, letter = _FLOATS[size]
        return struct.unpack(letter, struct.pack(unsigned, bits))[0]
    return bits - (1 << size) if kind[0] == "i" and bits & SIGN[size] else bits


def pattern(kind: str, number: Any) -> int:
    """The bits of a Python number; float results must be representable."""
    size = bits_of(kind)
    if kind[0] != "f":
        return int(number) & MASK[size]
    unsigned, letter = _FLOATS[size]
    found: int = struct.unpack(unsigned, struct.pack(letter, number))[0]
    return found


def same(kind: str, found: int, wanted: int) -> bool:
    """Equal bits, or two NaNs."""
    if found == wanted:
        return True
    return kind[0] == "f" and math.isnan(value(kind, found)) and math.isnan(value(kind, wanted))


def words64(draw: Any, lanes: int) -> Any:
    """uint64 (lanes,): random bits, and floats of all sizes, specials among them."""
    special = np.array(
        [
            *(0, 1 << 63, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 1, (1 << 52) - 1, 1 << 52, 0x3FF << 52),
            *((1 << 64) - 1, 0x7FEFFFFFFFFFFFFF, 0xFFFFFFFF, 1 << 32, 0x80000000, 0xFFFFFFFF00000000),
        ],
        dtype=np.uint64,
    )
    random = draw.integers(0, 1 << 64, lanes, dtype=np.uint64)
    near = (random & np.uint64((1 << 52) - 1)) | (draw.integers(1000, 1050, lanes, dtype=np.uint64) << np.uint64(52))
    choice = draw.random(lanes)
    return np.where(choice < 0.3, draw.choice(special, lanes), np.where(choice < 0.6, near, random))


def words32(draw: Any, lanes: int) -> Any:
    """uint32 (lanes,): special float32 patterns, random bits, small integers and floats of moderate size."""
    random = draw.integers(0, 1 << 32, lanes, dtype=np.uint32)
    moderate = (random & np.uint32(0x807FFFFF)) | (draw.integers(118, 136, lanes, dtype=np.uint32) << np.uint32(23))
    choice = draw.random(lanes)
    found = np.where(choice < 0.35, draw.choice(np.array(_WORDS, dtype=np.uint32), lanes), random)
    found = np.where((choice > 0.6) & (choice < 0.8), moderate, found)
    return np.where(choice > 0.9, draw.integers(0, 70, lanes, dtype=np.uint32), found)


@dataclass
class Drawn:
    """Operands as text, and the bits that each lane reads, modifiers applied."""

    texts: list[str] = field(default_factory=list)
    bits: list[list[int]] = field(default_factory=list)


def operands(one: One, draw: Any, kinds: tuple[str, ...], *, modifiers: bool, vectors: bool = False) -> Drawn:
    """Draw one operand for each kind. modifiers: neg and abs of floats; vectors: registers alone."""
    made = Drawn()
    for number, kind in enumerate(kinds):
        size = bits_of(kind)
        how = "v" if vectors else draw.choice(["v", "v", "v", "s", "inline", "literal"])
        if how == "literal" and (size == 64 or any("0x" in t for t in made.texts)):
            how = "v"
        if how == "inline" and kind[0] != "f" and draw.random() < 0.8:
            text = str(draw.choice(INTEGERS))
            lanes = [int(text) & MASK[size]] * one.lanes
        elif how == "inline":
            text = str(draw.choice(INLINE))
            if text == "0.15915494" and size == 64:
                text = "0.15915494309189532"  # as LLVM prints 1/(2π) there
            known = {16: 0x3118, 32: 0x3E22F983, 64: 0x3FC45F306DC9C882}[size]
            lanes = [known if text.startswith("0.159") else pattern(f"f{size}", float(text))] * one.lanes
        elif how == "literal":
            number32 = int(words32(draw, 1)[0])
            text, lanes = hex(number32), [number32 & MASK[size]] * one.lanes
        elif how == "s":
            first = 10 + 2 * number
            given = int((words64 if size == 64 else words32)(draw, 1)[0])
            one.scalar(first, given & MASK[32])
            if size == 64:
                one.scalar(first + 1, given >> 32)
            text = f"s[{first}:{first + 1}]" if size == 64 else f"s{first}"
            lanes = [given & MASK[size]] * one.lanes
        else:
            first = 4 + 2 * number
            given = (words64 if size == 64 else words32)(draw, one.lanes)
            one.set(first, (given & np.uint64(MASK[32]) if size == 64 else given).astype(np.uint32))
            if size == 64:
                one.set(first + 1, (given >> np.uint64(32)).astype(np.uint32))
            text = f"v[{first}:{first + 1}]" if size == 64 else f"v{first}"
            lanes = [int(x) & MASK[size] for x in given]
        if modifiers and kind[0] == "f" and how in ("v", "s"):
            if draw.random() < 0.25:
                text, lanes = f"|{text}|", [x & ~SIGN[size] for x in lanes]
            if draw.random() < 0.25:
                text, lanes = f"-{text}", [x ^ SIGN[size] for x in lanes]
        made.texts.append(text)
        made.bits.append(lanes)
    return made


def scalar_operand(one: One, draw: Any, kind: str, number: int) -> tuple[str, int]:
    """A scalar register or a constant, as text and bits."""
    wide = kind.endswith("64")
    first = 10 + 2 * number
    if draw.random() < 0.2 and kind[0] != "f":
        constant = int(draw.choice([0, 1, 5, 31, 32, 64, -1, -16]))
        return str(constant), constant & MASK[64 if wide else 32]
    if draw.random() < 0.2 and not wide and number == 0:
        constant = int(words32(draw, 1)[0])
        return hex(constant), constant
    given = int((words64 if wide else words32)(draw, 1)[0])
    if draw.random() < 0.15:
        given = int(draw.choice([0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0, 1]))
    one.scalar(first, given & MASK[32])
    if wide:
        one.scalar(first + 1, given >> 32)
    return (f"s[{first}:{first + 1}]" if wide else f"s{first}"), given


def number_in(one: One, register: int, bits: int) -> int:
    """32 or 64 bits of the first wave's scalar registers."""
    low = int(one.machine.number(register)[0, 0])
    return low | int(one.machine.number(register + 1)[0, 0]) << 32 if bits == 64 else low


def some_lanes(one: One, draw: Any) -> list[bool]:
    """Switch off some lanes, all but one, or none; the mask."""
    how = draw.choice(["all", "some", "one", "none"], p=[0.4, 0.45, 0.1, 0.05])
    if how == "all":
        mask = [True] * one.lanes
    elif how == "some":
        mask = (draw.random(one.lanes) < 0.5).tolist()
    else:
        mask = [how == "one" and lane == one.lanes // 3 for lane in range(one.lanes)]
    one.lanes_on(mask)
    return mask


def result_bits(one: One, register: int, size: int) -> list[int]:
    low = [int(x) for x in one.u(register)]
    if size == 16:
        return [x & 0xFFFF for x in low]
    return low if size == 32 else [a | int(b) << 32 for a, b in zip(low, one.u(register + 1), strict=True)]


def mask_of(one: One, register: int) -> list[bool]:
    """A lane mask as the bits of scalar registers, not as the machine's booleans."""
    words = [int(one.machine.number(register + i)[0, 0]) for i in range(one.target.mask_registers)]
    whole = words[0] | (words[1] << 32 if len(words) > 1 else 0)
    return [bool(whole >> lane & 1) for lane in range(one.lanes)]


def set_mask(one: One, register: int, mask: list[bool]) -> None:
    """The same the other way round."""
    whole = sum(1 << lane for lane, on in enumerate(mask) if on)
    for i in range(one.target.mask_registers):
        one.scalar(register + i, (whole >> (32 * i)) & MASK[32])
