"""Division of float32, the way the compiler spells it: scale, estimate, refine, scale back, mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from . import floats
from .operands import destination, implicit_vcc, mask_destination, mask_source, source
from .table import Step, instruction
from .vector import Operation, register

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE = U32(31)


def _div_fixup(quotient: Array, denominator: Array, numerator: Array) -> Array:
    """The last step of a division: what x/y is where the refined quotient does not tell."""
    sign = np.signbit(numerator) ^ np.signbit(denominator)
    one = np.where(sign, np.float32(-1), np.float32(1))
    n, d = numerator, denominator
    result = np.copysign(np.abs(quotient), one)
    result = np.where(np.isnan(quotient), np.copysign(np.float32(np.inf), one), result)
    result = np.where((d == 0) | np.isinf(n), np.copysign(np.float32(np.inf), one), result)
    result = np.where(np.isinf(d) | (n == 0), np.copysign(np.float32(0), one), result)
    invalid = ((d == 0) & (n == 0)) | (np.isinf(d) & np.isinf(n))
    result = np.where(invalid, np.float32(np.nan), result)
    result = np.where(np.isnan(n), n, result)
    return np.where(np.isnan(d) & ~np.isnan(n), d, result)


register({"v_div_fixup_f32": Operation(_div_fixup, "f32", ("f32",) * 3)})


# -- division ----------------------------------------------------------


def _exponent(x: Array) -> Array:
    return ((x.view(U32) >> U32(23)) & U32(0xFF)).astype(np.int32)


def div_scale(value: Array, denominator: Array, numerator: Array) -> tuple[Array, Array]:
    """v_div_scale_f32: `value` (equal to one of the others) scaled where the division would leave the normal range, and
    whether v_div_fmas has to scale the quotient back.

    The vendor's pseudo code is wrong in this instruction (it swaps the roles when both are equal); the rule here is its
    text's, and tests require the whole sequence to divide correctly on random bit patterns.
    """
    value, denominator, numerator = np.broadcast_arrays(value, denominator, numerator)
    n, d = _exponent(numerator), _exponent(denominator)
    up, down = np.float32(2.0**64), np.float32(2.0**-64)
    is_denominator = value.view(U32) == denominator.view(U32)
    is_numerator = value.view(U32) == numerator.view(U32)
    result, flag = np.array(value), np.zeros(value.shape, dtype=np.bool_)
    left = np.ones(value.shape, dtype=np.bool_)

    def when(condition: Array, scaled: Array | None, flagged: Array | bool) -> None:
        nonlocal left
        here = left & condition
        if scaled is not None:
            np.copyto(result, scaled, where=here)
        np.copyto(flag, flagged, where=here)
        left &= ~condition

    bigger, smaller = value * up, value * down
    quotient = numerator.astype(np.float64) / denominator.astype(np.float64)
    subnormal_reciprocal = np.abs(1.0 / denominator.astype(np.float64)) < 2.0**-126
    subnormal_quotient = np.abs(quotient) < 2.0**-126
    when((numerator == 0) | (denominator == 0), np.full_like(result, np.nan), False)
    when(n - d >= 96, np.where(is_denominator, bigger, value), True)
    when(d == 0, bigger, False)
    when(subnormal_reciprocal & subnormal_quotient, np.where(is_denominator, smaller, value), True)
    when(subnormal_reciprocal, smaller, False)
    when(subnormal_quotient, np.where(is_numerator, bigger, value), True)
    when(n <= 23, bigger, False)
    return result, flag


@instruction("v_div_scale_f32")
def _div_scale(insn: Instruction, target: Target) -> Step:
    into, out, first, second, third = insn.operands
    a, b, c = (source(insn, operand, "f32") for operand in (first, second, third))
    write, write_flag = destination(insn, into, "f32"), mask_destination(insn, out)

    def step(run: Run) -> None:
        value, flag = div_scale(a(run), b(run), c(run))
        write(run, value)
        write_flag(run, flag)

    return step


@instruction("v_div_fmas_f32")
def _div_fmas(insn: Instruction, target: Target) -> Step:
    into, first, second, third = insn.operands
    a, b, c = (source(insn, operand, "f32") for operand in (first, second, third))
    flag = mask_source(insn, implicit_vcc(insn, target.mask_registers), target.mask_registers)
    write = destination(insn, into, "f32")

    def step(run: Run) -> None:
        p, q, r = a(run), b(run), c(run)
        found, flagged = floats.fma32(p, q, r), flag(run)
        if flagged.any():
            # The quotient is scaled back by as much as the larger operand was scaled: the addend tells which way.
            factor = np.where(_exponent(r) > 127, np.float32(2.0**64), np.float32(2.0**-64))
            found = np.where(flagged, floats.scaled_fma32(p, q, r, factor), found)
        write(run, found)

    return step
