"""16-bit vector arithmetic.

The upper half of the destination: on CDNA the operations that its predecessors had zero it and those that GFX9 added
keep it (LLVM's list of instructions that clear the upper bits); on RDNA all keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from . import floats
from .conversion import pack
from .operands import DTYPES, destination, implicit_vcc, mask_source, source
from .table import Step, add, alias, instruction
from .vector import Operation, operation

Array = NDArray[Any]
U16, F16 = np.uint16, np.float16
FIFTEEN = U16(15)


def _wide(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A float16 function computed in float64 and rounded once."""
    return lambda x: function(x.astype(np.float64)).astype(F16)


def _ldexp(x: Array, power: Array) -> Array:
    return np.ldexp(x.astype(np.float64), power.astype(np.int32)).astype(F16)


def _div_fixup(quotient: Array, denominator: Array, numerator: Array) -> Array:
    """The last step of a division: what x/y is for zeros, infinities and NaN; elsewhere the quotient with its sign."""
    n, d = numerator.astype(np.float32), denominator.astype(np.float32)
    exact = n / d
    special = (d == 0) | (n == 0) | np.isinf(n) | np.isinf(d) | np.isnan(n) | np.isnan(d)
    sign = np.signbit(n) ^ np.signbit(d)
    usual = np.copysign(quotient.astype(np.float32), np.where(sign, np.float32(-1), np.float32(1)))
    return np.where(special, exact, usual).astype(F16)


def ieee_minimum(a: Array, b: Array) -> Array:
    """IEEE minimum: NaN wins; −0 is below +0."""
    return np.where(np.isnan(a) | np.isnan(b), a + b, floats.minimum(a, b))


def ieee_maximum(a: Array, b: Array) -> Array:
    """IEEE maximum: NaN wins; +0 is above −0."""
    return np.where(np.isnan(a) | np.isnan(b), a + b, floats.maximum(a, b))


def three(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array, Array], Array]:
    return lambda a, b, c: function(function(a, b), c)


def median(a: Array, b: Array, c: Array) -> Array:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


F1, F2, F3 = ("f16",), ("f16",) * 2, ("f16",) * 3
W2, W3 = ("u16",) * 2, ("u16",) * 3
I2, I3 = ("i16",) * 2, ("i16",) * 3

# On both families.
_TABLE: dict[str, Operation] = {
    "v_add_f16": Operation(np.add, "f16", F2),
    "v_sub_f16": Operation(np.subtract, "f16", F2),
    "v_subrev_f16": Operation(lambda a, b: b - a, "f16", F2),
    "v_mul_f16": Operation(np.multiply, "f16", F2),
    "v_max_f16": Operation(floats.maximum, "f16", F2),
    "v_min_f16": Operation(floats.minimum, "f16", F2),
    "v_rcp_f16": Operation(_wide(lambda x: 1.0 / x), "f16", F1),
    "v_rsq_f16": Operation(_wide(lambda x: 1.0 / np.sqrt(x)), "f16", F1),
    "v_sqrt_f16": Operation(_wide(np.sqrt), "f16", F1),
    "v_exp_f16": Operation(_wide(np.exp2), "f16", F1),
    "v_log_f16": Operation(_wide(np.log2), "f16", F1),
    "v_trunc_f16": Operation(np.trunc, "f16", F1),
    "v_floor_f16": Operation(np.floor, "f16", F1),
    "v_ceil_f16": Operation(np.ceil, "f16", F1),
    "v_rndne_f16": Operation(np.rint, "f16", F1),
    "v_ldexp_f16": Operation(_ldexp, "f16", ("f16", "i16")),
    "v_fma_f16": Operation(floats.fma16, "f16", F3, keep_high=True),
    "v_div_fixup_f16": Operation(_div_fixup, "f16", F3, keep_high=True),
    "v_max3_f16": Operation(three(floats.maximum), "f16", F3, keep_high=True),
    "v_min3_f16": Operation(three(floats.minimum), "f16", F3, keep_high=True),
    "v_add_u16": Operation(np.add, "u16", W2),
    "v_sub_u16": Operation(np.subtract, "u16", W2),
    "v_subrev_u16": Operation(lambda a, b: b - a, "u16", W2),
    "v_mul_lo_u16": Operation(np.multiply, "u16", W2),
    "v_lshlrev_b16": Operation(lambda s, x: x << (s & FIFTEEN), "u16", W2),
    "v_lshrrev_b16": Operation(lambda s, x: x >> (s & FIFTEEN), "u16", W2),
    "v_ashrrev_i16": Operation(lambda s, x: x >> (s & np.int16(15)), "i16", I2),
    "v_max_u16": Operation(np.maximum, "u16", W2),
    "v_min_u16": Operation(np.minimum, "u16", W2),
    "v_max_i16": Operation(np.maximum, "i16", I2),
    "v_min_i16": Operation(np.minimum, "i16", I2),
    "v_mad_u16": Operation(lambda a, b, c: a * b + c, "u16", W3, keep_high=True),
    "v_mad_i16": Operation(lambda a, b, c: a * b + c, "i16", I3, keep_high=True),
    "v_max3_u16": Operation(three(np.maximum), "u16", W3, keep_high=True),
    "v_min3_u16": Operation(three(np.minimum), "u16", W3, keep_high=True),
    "v_med3_u16": Operation(median, "u16", W3, keep_high=True),
    "v_max3_i16": Operation(three(np.maximum), "i16", I3, keep_high=True),
    "v_min3_i16": Operation(three(np.minimum), "i16", I3, keep_high=True),
    "v_med3_i16": Operation(median, "i16", I3, keep_high=True),
}
_RDNA: dict[str, Operation] = {
    "v_and_b16": Operation(np.bitwise_and, "u16", W2),
    "v_or_b16": Operation(np.bitwise_or, "u16", W2),
    "v_xor_b16": Operation(np.bitwise_xor, "u16", W2),
    "v_not_b16": Operation(np.bitwise_not, "u16", ("u16",)),
    "v_mov_b16": Operation(lambda x: x, "u16", ("u16",)),
    "v_add_nc_i16": Operation(np.add, "i16", I2),
    "v_sub_nc_i16": Operation(np.subtract, "i16", I2),
    "v_minimum_f16": Operation(ieee_minimum, "f16", F2),
    "v_maximum_f16": Operation(ieee_maximum, "f16", F2),
    "v_fmamk_f16": Operation(floats.fma16, "f16", F3),
    "v_fmaak_f16": Operation(floats.fma16, "f16", F3),
}


# Sums that clamp keeps within the range of their kind.
_SATURATING = ("v_add_u16", "v_sub_u16", "v_subrev_u16", "v_add_nc_i16", "v_sub_nc_i16")


def _saturated(op: Operation) -> Operation:
    kind = DTYPES[op.result]
    limits = np.iinfo(kind)

    def function(a: Array, b: Array) -> Array:
        return np.clip(op.function(a.astype(np.int32), b.astype(np.int32)), limits.min, limits.max).astype(kind)

    return Operation(function, op.result, op.sources, op.keep_high)


def _register(name: str, op: Operation, family: str = "") -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        if name not in _SATURATING or not insn.flag("clamp"):
            return operation(insn, target, op)
        without = {key: text for key, text in insn.modifiers.items() if key != "clamp"}
        plain = replace(insn, modifiers=without)
        step = operation(plain, target, _saturated(op))
        insn.unread = plain.unread
        return step

    add(name, builder, family)


for _name, _op in _TABLE.items():
    _register(_name, _op)
for _name, _op in _RDNA.items():
    _register(_name, _op, "rdna")

for _new, _old in {
    "v_max_num_f16": "v_max_f16",
    "v_min_num_f16": "v_min_f16",
    "v_max3_num_f16": "v_max3_f16",
    "v_min3_num_f16": "v_min3_f16",
    "v_add_nc_u16": "v_add_u16",
    "v_sub_nc_u16": "v_sub_u16",
}.items():
    alias(_new, _old)


@instruction("v_fmac_f16", family="rdna")
def _fmac(insn: Instruction, target: Target) -> Step:
    into, a, b = insn.operands
    if "op_sel" in insn.modifiers:
        # The addend is the half that the result goes to, which this table's op_sel has no number for.
        raise insn.unsupported("op_sel of v_fmac_f16")
    return operation(insn, target, Operation(floats.fma16, "f16", F3), (into, a, b, into))


@instruction("v_pack_b32_f16")
def _pack(insn: Instruction, target: Target) -> Step:
    """Two halves side by side; float modifiers apply to each."""
    if any(insn.numbers("op_sel", ())[2:]):
        raise insn.unsupported("op_sel of a 32-bit result")
    return operation(insn, target, Operation(pack, "u32", F2))


@instruction("v_cndmask_b16", family="rdna")
def _cndmask(insn: Instruction, target: Target) -> Step:
    operands = insn.operands
    if len(operands) == 3:
        operands = (*operands, implicit_vcc(insn, target.mask_registers))
    into, if_false, if_true, which = operands
    kind = "f16" if any(o.negative or o.absolute for o in (if_false, if_true)) else "u16"
    chosen = mask_source(insn, which, target.mask_registers)
    a, b, write = source(insn, if_false, kind), source(insn, if_true, kind), destination(insn, into, kind)
    return lambda run: write(run, np.where(chosen(run), b(run), a(run)))
