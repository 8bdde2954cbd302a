"""VOP3P: two results at once, and products of mixed formats.

Which half (or register of a pair) of each source goes into the low result says op_sel (the low one if it is silent),
into the high result op_sel_hi (the high one); neg_lo and neg_hi change signs likewise. What constants hold is LLVM's
account of the hardware (getInlineEncodingV216), which contradicts the vendor's text: an integer is 32 bits wide and
sign-extended; a float has the operation's format in the low half and zero above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..target import Target
from . import floats
from .conversion import pack
from .halves import ieee_maximum, ieee_minimum, three
from .operands import DTYPES, Reader, Writer, destination, literal, raw, signed
from .table import Step, add, alias, instruction

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32 = np.uint32


def choices(insn: Instruction, sources: int, *, high: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """op_sel, op_sel_hi, neg_lo and neg_hi, each with one number a source."""
    found = []
    for name, default in (("op_sel", 0), ("op_sel_hi", 1), ("neg_lo", 0), ("neg_hi", 0)):
        numbers = insn.numbers(name, high if high and name == "op_sel_hi" else (default,) * sources)
        if len(numbers) < sources or any(numbers[sources:]):
            raise insn.unsupported(f"this {name}")
        found.append(numbers[:sources])
    return found


def _plain_operand(insn: Instruction, operand: Operand) -> None:
    if operand.negative or operand.absolute or operand.half:
        raise insn.unsupported(f"operand {operand.text!r} of a packed instruction")


def packed_word(insn: Instruction, operand: Operand, kind: str) -> Reader:
    """The 32 bits that a packed operation on 16-bit `kind` sees."""
    _plain_operand(insn, operand)
    if operand.kind == "literal" and operand.inline is not None:
        if kind == "bf16":
            raise insn.unsupported("an inline float as a pair of bf16")
        constant = literal(operand, "f16" if kind == "f16" else "f32")
        bits = np.array(int(constant.view(np.uint16 if kind == "f16" else U32)), dtype=U32)
        return lambda run: bits
    return raw(insn, operand, "u32")


def half_of(word: Reader, high: int, kind: str) -> Reader:
    """16 bits of a word as `kind`."""
    dtype, shift = DTYPES[kind], U32(16 if high else 0)
    return lambda run: (word(run) >> shift).astype(np.uint16).view(dtype)


def clamped(value: Array) -> Array:
    """Floats between 0 and 1; −0 and NaN become +0 (NaN by dx10_clamp, which Triton's kernels set)."""
    kind = value.dtype.type
    found: Array = np.where(value > 0, np.minimum(value, kind(1)), kind(0))
    return found


# -- two 16-bit results ----------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """A function of 16-bit arrays of one kind. saturates: clamp has a meaning for these integers."""

    function: Callable[..., Array]
    kind: str
    sources: int
    saturates: bool = False


def _clamp_function(insn: Instruction, op: Packed) -> Callable[..., Array]:
    if not insn.flag("clamp"):
        return op.function
    if op.kind == "f16":
        return lambda *values: clamped(op.function(*values))
    if not op.saturates:
        raise insn.unsupported("clamp of this integer operation")
    limits = np.iinfo(DTYPES[op.kind])

    def saturated(*values: Array) -> Array:
        exact = op.function(*(value.astype(np.int32) for value in values))
        return np.clip(exact, limits.min, limits.max).astype(DTYPES[op.kind])

    return saturated


def _packed(insn: Instruction, op: Packed, operands: tuple[Operand, ...]) -> Step:
    into, given = operands[0], operands[1:]
    if len(given) != op.sources:
        raise insn.unsupported(f"{op.sources} sources are modelled")
    select, select_high, negate, negate_high = choices(insn, op.sources)
    if op.kind != "f16" and any((*negate, *negate_high)):
        raise insn.unsupported("a sign modifier of integers")
    function, write = _clamp_function(insn, op), destination(insn, into, "u32")
    _plain_operand(insn, into)

    def readers(chosen: tuple[int, ...], signs: tuple[int, ...]) -> list[Reader]:
        words = [packed_word(insn, operand, op.kind) for operand in given]
        halves = [half_of(word, high, op.kind) for word, high in zip(words, chosen, strict=True)]
        return [signed(r, op.kind, negative=bool(n), absolute=False) for r, n in zip(halves, signs, strict=True)]

    low, high = readers(select, negate), readers(select_high, negate_high)

    def step(run: Run) -> None:
        write(run, pack(function(*(r(run) for r in low)), function(*(r(run) for r in high))))

    return step


_PACKED: dict[str, Packed] = {
    "v_pk_add_f16": Packed(np.add, "f16", 2),
    "v_pk_mul_f16": Packed(np.multiply, "f16", 2),
    "v_pk_fma_f16": Packed(floats.fma16, "f16", 3),
    "v_pk_min_f16": Packed(floats.minimum, "f16", 2),
    "v_pk_max_f16": Packed(floats.maximum, "f16", 2),
    "v_pk_minimum_f16": Packed(ieee_minimum, "f16", 2),
    "v_pk_maximum_f16": Packed(ieee_maximum, "f16", 2),
    "v_pk_minimum3_f16": Packed(three(ieee_minimum), "f16", 3),
    "v_pk_maximum3_f16": Packed(three(ieee_maximum), "f16", 3),
    "v_pk_add_u16": Packed(np.add, "u16", 2, saturates=True),
    "v_pk_add_i16": Packed(np.add, "i16", 2, saturates=True),
    "v_pk_sub_u16": Packed(np.subtract, "u16", 2, saturates=True),
    "v_pk_sub_i16": Packed(np.subtract, "i16", 2, saturates=True),
    "v_pk_mul_lo_u16": Packed(np.multiply, "u16", 2),
    "v_pk_mad_u16": Packed(lambda a, b, c: a * b + c, "u16", 3),
    "v_pk_mad_i16": Packed(lambda a, b, c: a * b + c, "i16", 3),
    "v_pk_lshlrev_b16": Packed(lambda s, x: x << (s & np.uint16(15)), "u16", 2),
    "v_pk_lshrrev_b16": Packed(lambda s, x: x >> (s & np.uint16(15)), "u16", 2),
    "v_pk_ashrrev_i16": Packed(lambda s, x: x >> (s & np.int16(15)), "i16", 2),
    "v_pk_max_u16": Packed(np.maximum, "u16", 2),
    "v_pk_min_u16": Packed(np.minimum, "u16", 2),
    "v_pk_max_i16": Packed(np.maximum, "i16", 2),
    "v_pk_min_i16": Packed(np.minimum, "i16", 2),
}


def _register_packed(name: str, op: Packed) -> None:
    add(name, lambda insn, target: _packed(insn, op, insn.operands))


for _name, _op in _PACKED.items():
    _register_packed(_name, _op)
alias("v_pk_max_num_f16", "v_pk_max_f16")
alias("v_pk_min_num_f16", "v_pk_min_f16")


@instruction("v_pk_fmac_f16")
def _packed_fmac(insn: Instruction, target: Target) -> Step:
    into, a, b = insn.operands
    return _packed(insn, Packed(floats.fma16, "f16", 3), (into, a, b, into))


# -- two float32 results ----------------------------------------------------------


def _one_of_pair(insn: Instruction, operand: Operand, second: int, kind: str) -> Reader:
    """One register of a pair. A constant has one known register, the first; zero is zero in both."""
    _plain_operand(insn, operand)
    if operand.kind == "literal":
        if second and (operand.inline is not None or operand.value != 0):
            raise insn.unsupported("the upper half of a 64-bit constant")
        return raw(insn, operand, kind)
    if operand.count != 2:
        raise insn.unsupported(f"operand {operand.text!r} is not a pair")
    return raw(insn, Operand(operand.kind, operand.index + second, text=operand.text), kind)


def _pair_writers(insn: Instruction, operand: Operand, kind: str) -> tuple[Writer, Writer]:
    if operand.count != 2:
        raise insn.unsupported(f"destination {operand.text!r} is not a pair")
    first, second = (Operand(operand.kind, operand.index + i, text=operand.text) for i in (0, 1))
    return destination(insn, first, kind), destination(insn, second, kind)


def _register_pair(name: str, function: Callable[..., Array], sources: int) -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        into, *given = insn.operands
        if len(given) != sources:
            raise insn.unsupported(f"{sources} sources are modelled")
        select, select_high, negate, negate_high = choices(insn, sources)
        clamp = insn.flag("clamp")
        write, write_high = _pair_writers(insn, into, "f32")

        def readers(chosen: tuple[int, ...], signs: tuple[int, ...]) -> list[Reader]:
            found = [_one_of_pair(insn, operand, c, "f32") for operand, c in zip(given, chosen, strict=True)]
            return [signed(r, "f32", negative=bool(n), absolute=False) for r, n in zip(found, signs, strict=True)]

        low, high = readers(select, negate), readers(select_high, negate_high)

        def step(run: Run) -> None:
            first, second = function(*(r(run) for r in low)), function(*(r(run) for r in high))
            write(run, clamped(first) if clamp else first)
            write_high(run, clamped(second) if clamp else second)

        return step

    add(name, builder, "cdna")


_register_pair("v_pk_add_f32", np.add, 2)
_register_pair("v_pk_mul_f32", np.multiply, 2)
_register_pair("v_pk_fma_f32", floats.fma32, 3)


@instruction("v_pk_mov_b32", family="cdna")
def _packed_move(insn: Instruction, target: Target) -> Step:
    """One register of each source pair: op_sel has a number for each; op_sel_hi is not looked at."""
    into, left, right = insn.operands
    select, select_high, negate, negate_high = choices(insn, 2)
    if any((*negate, *negate_high)) or select_high != (1, 1):
        raise insn.unsupported("these modifiers of a move")
    a, b = _one_of_pair(insn, left, select[0], "u32"), _one_of_pair(insn, right, select[1], "u32")
    write, write_high = _pair_writers(insn, into, "u32")

    def step(run: Run) -> None:
        # The registers may be the destination's own: read both before either is written.
        first, second = np.array(a(run)), np.array(b(run))
        write(run, first)
        write_high(run, second)

    return step


# -- fused multiply-add of mixed formats ----------------------------------------------------------


def _mixed_source(insn: Instruction, operand: Operand, half: int, high: int, negative: bool, absolute: bool) -> Reader:
    """A float32, or half a register as float16 where op_sel_hi says so, widened; sign modifiers come before."""
    if operand.half:
        raise insn.unsupported("a 16-bit register")
    bare = Operand(operand.kind, operand.index, operand.count, operand.value, operand.inline, text=operand.text)
    if not half:
        if high:
            raise insn.unsupported("op_sel of a 32-bit source")
        return signed(raw(insn, bare, "f32"), "f32", negative=negative, absolute=absolute)
    if operand.inline is not None and not high:
        # The lower half of an inline float constant is the float16 of that value (LLVM #183487, on f16 sources).
        return signed(_widened(raw(insn, bare, "f16")), "f32", negative=negative, absolute=absolute)
    if operand.kind == "literal" and (operand.inline is not None or operand.value != 0):
        raise insn.unsupported("a constant as float16")
    return _widened(signed(half_of(raw(insn, bare, "u32"), high, "f16"), "f16", negative=negative, absolute=absolute))


def _widened(reader: Reader) -> Reader:
    return lambda run: reader(run).astype(np.float32)


@instruction("v_fma_mix_f32", "v_fma_mixlo_f16", "v_fma_mixhi_f16")
def _mixed(insn: Instruction, target: Target) -> Step:
    """a·b + c of float32 and float16, rounded once to the result's format.

    The vendor's pseudo code rounds to float32 before float16; measurements on RDNA (every float16 times 1.1: 2912 of
    63488 results differ) and gfx906 say that there is one rounding. neg_hi means the absolute value here.
    """
    into, *given = insn.operands
    select, halves, negate, absolute = choices(insn, 3, high=(0, 0, 0))
    a, b, c = (
        _mixed_source(insn, operand, half, high, operand.negative != bool(n), operand.absolute or bool(m))
        for operand, half, high, n, m in zip(given, halves, select, negate, absolute, strict=True)
    )
    clamp = insn.flag("clamp")
    if into.half:
        raise insn.unsupported("a 16-bit register")
    if insn.mnemonic == "v_fma_mix_f32":
        write, function = destination(insn, into, "f32"), floats.fma32
    else:
        half = "h" if insn.mnemonic == "v_fma_mixhi_f16" else ""
        write = destination(insn, Operand(into.kind, into.index, half=half, text=into.text), "f16", keep_high=True)
        function = _fma_to_half

    def step(run: Run) -> None:
        found = function(a(run), b(run), c(run))
        write(run, clamped(found) if clamp else found)

    return step


def _fma_to_half(a: Array, b: Array, c: Array) -> Array:
    return floats.to_float16(a.astype(np.float64) * b, c.astype(np.float64))
