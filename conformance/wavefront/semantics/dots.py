"""Short dot products: v_dot2_* of 16-bit floats, v_dot4_* of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from . import floats
from .conversion import pack
from .operands import destination, signed, source
from .packed import choices, clamped, half_of, packed_word
from .table import Step, add
from .vector import Operation, operation

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32 = np.uint32


def _halves_as_floats(word: Array, kind: str) -> tuple[Array, Array]:
    low, high = word.astype(np.uint16), (word >> U32(16)).astype(np.uint16)
    if kind == "bf16":
        return floats.f32_from_bf16(low), floats.f32_from_bf16(high)
    return low.view(np.float16).astype(np.float32), high.view(np.float16).astype(np.float32)


def _dot2(kind: str, *, sum_first: bool = False) -> Callable[[Array, Array, Array], Array]:
    """c + a₀b₀ + a₁b₁ in float32. The order and the roundings between are the documents'; what the hardware keeps
    inside is not published. sum_first: the products are added before c is."""

    def function(a: Array, b: Array, c: Array) -> Array:
        (low_a, high_a), (low_b, high_b) = _halves_as_floats(a, kind), _halves_as_floats(b, kind)
        low, high = low_a * low_b, high_a * high_b
        total: Array = low + high + c if sum_first else c + low + high
        return total

    return function


def _dot2_three(name: str, kind: str) -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        into, left, right, addend = insn.operands
        select, select_high, negate, negate_high = choices(insn, 3)
        if select[2] or not select_high[2] or negate_high[2]:
            raise insn.unsupported("half selection of a 32-bit addend")
        words = [packed_word(insn, operand, kind) for operand in (left, right)]
        c = signed(source(insn, addend, "f32"), "f32", negative=bool(negate[2]), absolute=False)
        function = _dot2(kind, sum_first=kind == "bf16" and target.family == "cdna")
        clamp, write = insn.flag("clamp"), destination(insn, into, "f32")
        pairs = [
            [
                signed(half_of(word, chosen[i], kind), kind, negative=bool(signs[i]), absolute=False)
                for chosen, signs in ((select, negate), (select_high, negate_high))
            ]
            for i, word in enumerate(words)
        ]

        def step(run: Run) -> None:
            a, b = (pack(low(run), high(run)) for low, high in pairs)
            found = function(a, b, c(run))
            write(run, clamped(found) if clamp else found)

        return step

    add(name, builder)


_dot2_three("v_dot2_f32_f16", "f16")
_dot2_three("v_dot2_f32_bf16", "bf16")


def _accumulating(name: str, function: Callable[..., Array], kind: str, family: str) -> None:
    """A dot product that adds to its destination."""

    def builder(insn: Instruction, target: Target) -> Step:
        into, a, b = insn.operands
        if any(o.inline is not None or o.negative or o.absolute for o in (a, b)):
            raise insn.unsupported("an operand of a dot product")
        return operation(insn, target, Operation(function, kind, ("u32", "u32", kind)), (into, a, b, into))

    add(name, builder, family)


for _kind in ("f16", "bf16"):
    _accumulating(f"v_dot2c_f32_{_kind}", _dot2(_kind), "f32", "cdna")
    _accumulating(f"v_dot2acc_f32_{_kind}", _dot2(_kind), "f32", "rdna")


def dot4(kind_a: Any, kind_b: Any) -> Callable[[Array, Array, Array], Array]:
    """c + Σ aᵢbᵢ over four bytes, modulo 2³²."""

    def function(a: Array, b: Array, c: Array) -> Array:
        total = c.astype(np.int64)
        for byte in range(4):
            shift = U32(8 * byte)
            left, right = (a >> shift).astype(np.uint8).view(kind_a), (b >> shift).astype(np.uint8).view(kind_b)
            total = total + left.astype(np.int64) * right.astype(np.int64)
        return (total & 0xFFFFFFFF).astype(U32)

    return function


_accumulating("v_dot4c_i32_i8", dot4(np.int8, np.int8), "u32", "cdna")


def _dot4_three(name: str, family: str, kind: Any) -> None:
    """kind: of both factors' bytes; None where neg_lo says which are signed."""

    def builder(insn: Instruction, target: Target) -> Step:
        if any(operand.inline is not None for operand in insn.operands):
            raise insn.unsupported("an inline float as four bytes")
        signs = insn.numbers("neg_lo", (0, 0, 0)) if kind is None else ()
        if any(signs[2:]):
            raise insn.unsupported("a sign modifier of the addend")
        kinds = [np.int8 if sign else np.uint8 for sign in signs[:2]] if kind is None else [kind, kind]
        return operation(insn, target, Operation(dot4(kinds[0], kinds[1]), "u32", ("u32",) * 3))

    add(name, builder, family)


_dot4_three("v_dot4_i32_i8", "cdna", np.int8)
_dot4_three("v_dot4_u32_u8", "", np.uint8)
_dot4_three("v_dot4_i32_iu8", "rdna", None)
