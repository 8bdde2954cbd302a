"""Conversions between formats: v_cvt_*.

Left out, because published sources disagree on rounding or on NaN: v_cvt_pk_u8_f32, v_cvt_flr_i32_f32 and
v_cvt_rpi_i32_f32 (floor and nearest on RDNA; a NaN was measured not to give 0 there), normalised integers, stochastic
rounding, and v_cvt_scalef32_* with a scale other than 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..target import Target
from . import floats
from .operands import Reader, destination, source
from .sdwa import sdwa_source
from .table import Step, add, alias, instruction
from .vector import Operation, operation, upper_half

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32 = np.uint32


def pack(low: Array, high: Array) -> Array:
    """uint32 of two 16-bit arrays, as bits."""
    return low.view(np.uint16).astype(U32) | (high.view(np.uint16).astype(U32) << U32(16))


def _to(kind: Any) -> Callable[[Array], Array]:
    return lambda x: x.astype(kind)


def _integer(kind: Any) -> Callable[[Array], Array]:
    return lambda x: floats.to_integer(x, kind)


def _byte(number: int) -> Callable[[Array], Array]:
    return lambda x: ((x >> U32(8 * number)) & U32(0xFF)).astype(np.float32)


def _pack_towards_zero(a: Array, b: Array) -> Array:
    return pack(floats.half_towards_zero(a), floats.half_towards_zero(b))


def _pack_f16(a: Array, b: Array) -> Array:
    return pack(a.astype(np.float16), b.astype(np.float16))


def _pack_bf16(a: Array, b: Array) -> Array:
    return pack(floats.bf16_from_f32(a), floats.bf16_from_f32(b))


_TABLE: dict[str, Operation] = {
    "v_cvt_f32_f16": Operation(_to(np.float32), "f32", ("f16",)),
    "v_cvt_f16_f32": Operation(_to(np.float16), "f16", ("f32",)),
    "v_cvt_f32_u32": Operation(_to(np.float32), "f32", ("u32",)),
    "v_cvt_f32_i32": Operation(_to(np.float32), "f32", ("i32",)),
    "v_cvt_u32_f32": Operation(_integer(np.uint32), "u32", ("f32",)),
    "v_cvt_i32_f32": Operation(_integer(np.int32), "i32", ("f32",)),
    "v_cvt_f64_f32": Operation(_to(np.float64), "f64", ("f32",)),
    "v_cvt_f32_f64": Operation(_to(np.float32), "f32", ("f64",)),
    "v_cvt_f64_i32": Operation(_to(np.float64), "f64", ("i32",)),
    "v_cvt_f64_u32": Operation(_to(np.float64), "f64", ("u32",)),
    "v_cvt_i32_f64": Operation(_integer(np.int32), "i32", ("f64",)),
    "v_cvt_u32_f64": Operation(_integer(np.uint32), "u32", ("f64",)),
    "v_cvt_f16_u16": Operation(_to(np.float16), "f16", ("u16",)),
    "v_cvt_f16_i16": Operation(_to(np.float16), "f16", ("i16",)),
    "v_cvt_u16_f16": Operation(_integer(np.uint16), "u16", ("f16",)),
    "v_cvt_i16_f16": Operation(_integer(np.int16), "i16", ("f16",)),
    "v_cvt_f32_ubyte0": Operation(_byte(0), "f32", ("u32",)),
    "v_cvt_f32_ubyte1": Operation(_byte(1), "f32", ("u32",)),
    "v_cvt_f32_ubyte2": Operation(_byte(2), "f32", ("u32",)),
    "v_cvt_f32_ubyte3": Operation(_byte(3), "f32", ("u32",)),
    "v_cvt_pkrtz_f16_f32": Operation(_pack_towards_zero, "u32", ("f32", "f32")),
}
_RDNA: dict[str, Operation] = {
    "v_cvt_i32_i16": Operation(_to(np.int32), "i32", ("i16",)),
    "v_cvt_u32_u16": Operation(_to(np.uint32), "u32", ("u16",)),
}
_GFX950: dict[str, Operation] = {
    "v_cvt_pk_f16_f32": Operation(_pack_f16, "u32", ("f32", "f32")),
    "v_cvt_pk_bf16_f32": Operation(_pack_bf16, "u32", ("f32", "f32")),
    "v_cvt_f32_bf16": Operation(floats.f32_from_bf16, "f32", ("bf16",)),
}


def _check_half_selection(insn: Instruction, op: Operation) -> None:
    """op_sel of 32-bit sources means nothing; `operation` would not look at it."""
    if "op_sel" in insn.modifiers and not any(kind.endswith("16") for kind in op.sources):
        chosen = insn.numbers("op_sel", ())
        if any(chosen[: len(op.sources)]) or (any(chosen) and not op.result.endswith("16")):
            raise insn.unsupported("op_sel of a 32-bit operand")


def _register(name: str, op: Operation, family: str = "", only: str = "") -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        if only and target.name != only:
            raise insn.unsupported(f"{name} is not modelled for {target.name}")
        _check_half_selection(insn, op)
        return operation(insn, target, op)

    add(name, builder, family)


for _name, _op in _TABLE.items():
    _register(_name, _op)
for _name, _op in _RDNA.items():
    _register(_name, _op, "rdna")
for _name, _op in _GFX950.items():
    _register(_name, _op, "cdna", "gfx950")
alias("v_cvt_pk_rtz_f16_f32", "v_cvt_pkrtz_f16_f32")


# -- 8-bit floats ----------------------------------------------------------

_STANDARDS = {"gfx942": "fnuz", "gfx950": "ocp", "gfx1201": "ocp"}


def _format(insn: Instruction, target: Target) -> floats.Fp8:
    """The format that the mnemonic names, in the target's standard."""
    standard = _STANDARDS.get(target.name)
    if standard is None:
        raise insn.unsupported(f"{target.name} has no 8-bit floats")
    return floats.FP8["bf8" if "bf8" in insn.mnemonic else "fp8", standard]


def _one(insn: Instruction, target: Target, scale: Operand) -> None:
    if target.name != "gfx950":
        raise insn.unsupported(f"{insn.mnemonic} is not modelled for {target.name}")
    if scale.inline != 1.0 or scale.negative:
        raise insn.unsupported("a scale other than 1.0")


def _half_reader(insn: Instruction, operand: Operand) -> Reader:
    """The 16 bits that op_sel, SDWA or a half register names."""
    if "sdwa" in insn.encoding:
        if insn.take("dst_sel", "DWORD") != "DWORD":
            raise insn.unsupported("a part of a pair of registers")
        insn.take("dst_unused")
        return sdwa_source(insn, operand, "u16", 0)
    chosen = insn.numbers("op_sel", (0,))
    if any(chosen[1:]):
        raise insn.unsupported("this op_sel")
    return upper_half(insn, operand, "u16") if chosen[0] else source(insn, operand, "u16")


@instruction("v_cvt_f32_fp8", "v_cvt_f32_bf8")
def _decode_one(insn: Instruction, target: Target) -> Step:
    """One byte to float32: SDWA's src0_sel names it on CDNA, byte_sel on RDNA."""
    values = _format(insn, target).values
    shift = U32(8 * insn.number("byte_sel"))
    return operation(insn, target, Operation(lambda x: values[(x >> shift) & U32(0xFF)], "f32", ("u32",)))


@instruction("v_cvt_pk_f32_fp8", "v_cvt_pk_f32_bf8")
def _decode_two(insn: Instruction, target: Target) -> Step:
    """Two bytes to two registers of float32."""
    into, pair = insn.operands
    return _decoded(insn, target, into, pair)


@instruction("v_cvt_scalef32_pk_f32_fp8", "v_cvt_scalef32_pk_f32_bf8", family="cdna")
def _decode_scaled(insn: Instruction, target: Target) -> Step:
    into, pair, scale = insn.operands
    _one(insn, target, scale)
    return _decoded(insn, target, into, pair)


def _decoded(insn: Instruction, target: Target, into: Operand, pair: Operand) -> Step:
    values, read = _format(insn, target).values.view(U32).astype(np.uint64), _half_reader(insn, pair)
    write = destination(insn, into, "u64")

    def step(run: Run) -> None:
        two = read(run)
        write(run, values[two & np.uint16(0xFF)] | (values[two >> np.uint16(8)] << np.uint64(32)))

    return step


def _half_of(insn: Instruction, operand: Operand, sources: int) -> Operand:
    """The half of the destination that op_sel's last number names."""
    chosen = insn.numbers("op_sel", (0,) * (sources + 1))
    if any(chosen[:sources]) or len(chosen) > sources + 1:
        raise insn.unsupported("this op_sel")
    return Operand(operand.kind, operand.index, half="h", text=operand.text) if any(chosen) else operand


def _encoded(insn: Instruction, target: Target, into: Operand, readers: tuple[Reader, Reader]) -> Step:
    """Two float32 to two bytes in one half of a register; the other half stays.

    What becomes of values beyond the range is up to bit 23 of the mode register (`fp16_overflow` of the machine, where
    it has one): off, as it is at the start, nothing saturates; on, finite values do.
    """
    form, write = _format(insn, target), destination(insn, into, "u16", keep_high=True)
    first, second = readers

    def step(run: Run) -> None:
        saturate = bool(getattr(run.machine, "fp16_overflow", False))
        low, high = form.encode(first(run), saturate=saturate), form.encode(second(run), saturate=saturate)
        write(run, low.astype(np.uint16) | (high.astype(np.uint16) << np.uint16(8)))

    return step


@instruction("v_cvt_pk_fp8_f32", "v_cvt_pk_bf8_f32")
def _encode_two(insn: Instruction, target: Target) -> Step:
    into, a, b = insn.operands
    return _encoded(insn, target, _half_of(insn, into, 2), (source(insn, a, "f32"), source(insn, b, "f32")))


@instruction("v_cvt_scalef32_pk_fp8_f32", "v_cvt_scalef32_pk_bf8_f32", family="cdna")
def _encode_scaled(insn: Instruction, target: Target) -> Step:
    into, a, b, scale = insn.operands
    _one(insn, target, scale)
    return _encoded(insn, target, _half_of(insn, into, 3), (source(insn, a, "f32"), source(insn, b, "f32")))


@instruction(
    "v_cvt_scalef32_pk_fp8_bf16",
    "v_cvt_scalef32_pk_bf8_bf16",
    "v_cvt_scalef32_pk_fp8_f16",
    "v_cvt_scalef32_pk_bf8_f16",
    family="cdna",
)
def _encode_halves(insn: Instruction, target: Target) -> Step:
    """The same from two bf16 or f16 of one register."""
    into, pair, scale = insn.operands
    _one(insn, target, scale)
    if pair.negative or pair.absolute or pair.kind == "literal":
        raise insn.unsupported("this pair of 16-bit values")
    whole, wide = source(insn, pair, "u32"), insn.mnemonic.endswith("_bf16")

    def half(shift: int) -> Reader:
        def read(run: Run) -> Array:
            bits = (whole(run) >> U32(shift)).astype(np.uint16)
            return floats.f32_from_bf16(bits) if wide else bits.view(np.float16).astype(np.float32)

        return read

    return _encoded(insn, target, _half_of(insn, into, 2), (half(0), half(16)))
