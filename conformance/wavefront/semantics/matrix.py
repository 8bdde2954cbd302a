"""Matrix instructions: MFMA of CDNA and WMMA of RDNA, from their register layouts.

Products and sums are formed in float64 and rounded once to float32 an instruction. What hardware does inside (order,
kept bits, treatment of subnormals) is not known here; docs/wavefront.md says what follows from that. The layouts are
those of the vendor's matrix instruction calculator, and are checked by results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..target import Target
from .operands import literal
from .table import Step, add

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]


def _halves(words: Array) -> Array:
    """uint32 (registers, waves, lanes) to uint16 (waves, lanes, 2·registers), low half first."""
    moved = np.ascontiguousarray(np.moveaxis(words, 0, -1))
    return moved.view(np.uint16)


def _from_f16(words: Array) -> Array:
    return _halves(words).view(np.float16).astype(np.float64)


def _from_bf16(words: Array) -> Array:
    return (_halves(words).astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def _from_f32(words: Array) -> Array:
    return np.moveaxis(words, 0, -1).view(np.float32).astype(np.float64)


def _from_i8(words: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(words, 0, -1)).view(np.int8).astype(np.float64)


def _from_xf32(words: Array) -> Array:
    """float32 whose lower 13 bits of mantissa are rounded away (to nearest even): TF32's grid."""
    bits = np.moveaxis(words, 0, -1).astype(np.uint32)
    bits = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return bits.view(np.float32).astype(np.float64)


_UNPACK: dict[str, Callable[[Array], Array]] = {
    "f16": _from_f16,
    "bf16": _from_bf16,
    "f32": _from_f32,
    "xf32": _from_xf32,
    "i8": _from_i8,
}
_PER_REGISTER = {"f16": 2, "bf16": 2, "f32": 1, "xf32": 1, "i8": 4}


def _registers(insn: Instruction, operand: Operand, count: int) -> Callable[[Run], Array]:
    if operand.kind not in ("v", "a") or operand.count != count:
        raise insn.unsupported(f"{operand.text!r} as a matrix of {count} registers")
    index, accumulator = operand.index, operand.kind == "a"

    def rows(run: Run) -> Array:
        first = index + (run.machine.first_accumulator if accumulator else 0)
        return run.machine.vector[first : first + count]

    return rows


def _addend(insn: Instruction, operand: Operand, count: int, kind: str) -> Callable[[Run], Array]:
    """The third operand: float64 (waves, lanes, count), or a constant for all."""
    if operand.kind == "literal":
        constant = literal(operand, kind).astype(np.float64)
        return lambda run: np.full((run.machine.waves, run.machine.lanes, count), constant)
    read = _registers(insn, operand, count)
    dtype = np.float32 if kind == "f32" else np.int32
    return lambda run: np.moveaxis(read(run), 0, -1).view(dtype).astype(np.float64)


@dataclass(frozen=True)
class Shape:
    """M x N x K of one block; `blocks` independent products."""

    m: int
    n: int
    k: int
    blocks: int = 1


def _write(run: Run, into: Array, value: Array) -> None:
    """value float32 or int32 (waves, lanes, registers) into registers, whatever exec says: matrix units ignore it."""
    live = run.machine.live
    words = np.moveaxis(value.view(np.uint32), -1, 0)
    if live is True:
        into[...] = words
    else:
        np.copyto(into, words, where=live)


def _round(total: Array, kind: str) -> Array:
    return total.astype(np.float32) if kind == "f32" else total.astype(np.int64).astype(np.int32)


def _mfma(shape: Shape, kind: str, result: str = "f32") -> Callable[[Instruction, Target], Step]:
    """Lane l holds row (of A; column of B) l % M and, of K, the elements from (l // M) · K / groups on; of the result
    it holds column l % N, with rows in groups of four: 4 · (l // N) + 8 · (64 / N) ... one group every 64 / N rows."""
    groups = 64 // shape.m
    per_lane = shape.k // groups
    count_in = per_lane // _PER_REGISTER[kind] or 1
    count_out = shape.m * shape.n // 64

    def builder(insn: Instruction, target: Target) -> Step:
        into, left, right, more = insn.operands
        for name in ("cbsz", "abid", "blgp"):
            if insn.number(name):
                raise insn.unsupported(f"{name} of a matrix instruction")
        if (
            per_lane * groups != shape.k
            or per_lane % _PER_REGISTER[kind]
            or insn.numbers("neg", (0, 0, 0)) != (0, 0, 0)
        ):
            raise insn.unsupported("this matrix shape")
        unpack = _UNPACK[kind]
        a, b = _registers(insn, left, count_in), _registers(insn, right, count_in)
        c, out = _addend(insn, more, count_out, result), _registers(insn, into, count_out)

        def step(run: Run) -> None:
            waves = run.machine.waves
            # (waves, group, row, element of the group) to (waves, row, K)
            x = unpack(a(run)).reshape(waves, groups, shape.m, per_lane).swapaxes(1, 2).reshape(waves, shape.m, shape.k)
            y = unpack(b(run)).reshape(waves, groups, shape.n, per_lane).swapaxes(1, 2).reshape(waves, shape.n, shape.k)
            product = x @ y.swapaxes(1, 2)
            _write(run, out(run), _round(_to_lanes(product, shape) + c(run), result))

        return step

    return builder


def _to_lanes(product: Array, shape: Shape) -> Array:
    """(waves, M, N) to (waves, 64, registers): register r of lane l is row 4·(l // N) + r % 4 + (r // 4)·(256 / N)."""
    waves = product.shape[0]
    groups = 64 // shape.n
    # Rows as (block of 4·groups, group, 4).
    rows = product.reshape(waves, shape.m // (4 * groups), groups, 4, shape.n)
    return rows.transpose(0, 2, 4, 1, 3).reshape(waves, 64, shape.m // groups)


for _m, _k16, _k32 in ((16, 16, 32), (32, 8, 16)):
    for _kind in ("f16", "bf16"):
        _single = _mfma(Shape(_m, _m, _k16), _kind)
        _double = _mfma(Shape(_m, _m, _k32), _kind)
        add(f"v_mfma_f32_{_m}x{_m}x{_k16}_{_kind}", _single)
        add(f"v_mfma_f32_{_m}x{_m}x{_k32}_{_kind}", _double)
        add(f"v_mfma_f32_{_m}x{_m}x{_k16}{_kind}{'_1k' if _kind == 'bf16' else ''}", _single)
    _single = _mfma(Shape(_m, _m, _k16 // 4), "f32")
    add(f"v_mfma_f32_{_m}x{_m}x{_k16 // 4}_f32", _single)
    add(f"v_mfma_f32_{_m}x{_m}x{_k16 // 4}f32", _single)  # CDNA2's name
    add(f"v_mfma_f32_{_m}x{_m}x{_k16 // 2}_xf32", _mfma(Shape(_m, _m, _k16 // 2), "xf32"))
    add(f"v_mfma_i32_{_m}x{_m}x{_k16}i8", _mfma(Shape(_m, _m, _k16), "i8", "i32"))  # CDNA2
    add(f"v_mfma_i32_{_m}x{_m}x{_k32}_i8", _mfma(Shape(_m, _m, _k32), "i8", "i32"))
    add(f"v_mfma_i32_{_m}x{_m}x{2 * _k32}_i8", _mfma(Shape(_m, _m, 2 * _k32), "i8", "i32"))


def _wmma(kind: str, result: str = "f32") -> Callable[[Instruction, Target], Step]:
    """16 x 16 x 16 of wave 32.

    RDNA3: every lane holds a whole row of A (column of B), the two halves of the wave the same; register r of lane l is
    row 2·r + l // 16 of column l % 16. RDNA4: a lane holds half of K, elements 8·(l // 16) on, and register r of lane l
    is row r + 8·(l // 16).
    """

    def builder(insn: Instruction, target: Target) -> Step:
        into, left, right, more = insn.operands
        for name in ("neg_lo", "neg_hi"):
            if any(insn.numbers(name, (0, 0, 0))):
                raise insn.unsupported(f"{name} of a matrix instruction")
        if insn.flag("clamp") or target.wave != 32:
            raise insn.unsupported("this matrix instruction")
        halved = target.name.startswith("gfx12")
        count_in = (8 if halved else 16) // _PER_REGISTER[kind]
        unpack = _UNPACK[kind]
        a, b = _registers(insn, left, count_in), _registers(insn, right, count_in)
        c, out = _addend(insn, more, 8, result), _registers(insn, into, 8)

        def whole(words: Array) -> Array:
            found = unpack(words)
            waves = found.shape[0]
            if halved:
                return found.reshape(waves, 2, 16, 8).swapaxes(1, 2).reshape(waves, 16, 16)
            return found[:, :16]

        def step(run: Run) -> None:
            product = whole(a(run)) @ whole(b(run)).swapaxes(1, 2)
            waves = product.shape[0]
            if halved:
                lanes = product.reshape(waves, 2, 8, 16).transpose(0, 1, 3, 2).reshape(waves, 32, 8)
            else:
                lanes = product.reshape(waves, 8, 2, 16).transpose(0, 2, 3, 1).reshape(waves, 32, 8)
            _write(run, out(run), _round(lanes + c(run), result))

        return step

    return builder


for _kind in ("f16", "bf16"):
    add(f"v_wmma_f32_16x16x16_{_kind}", _wmma(_kind), family="rdna")
