"""Float arithmetic of the vector unit, 32 and 64 bits wide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from . import floats
from .table import Step, alias, instruction
from .vector import Operation, operation, register

if TYPE_CHECKING:
    pass

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE = U32(31)

F3, F2 = ("f32",) * 3, ("f32",) * 2


def _med3_f32(a: Array, b: Array, c: Array) -> Array:
    ordered = floats.maximum(floats.minimum(a, b), floats.minimum(floats.maximum(a, b), c))
    nan = np.isnan(a) | np.isnan(b) | np.isnan(c)
    return np.where(nan, floats.minimum(floats.minimum(a, b), c), ordered)


def _min3(a: Array, b: Array, c: Array) -> Array:
    return floats.minimum(floats.minimum(a, b), c)


def _max3(a: Array, b: Array, c: Array) -> Array:
    return floats.maximum(floats.maximum(a, b), c)


def _ieee_minimum(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), a + b, floats.minimum(a, b))


def _ieee_maximum(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), a + b, floats.maximum(a, b))


def _ldexp(x: Array, power: Array) -> Array:
    # Through float64 the scaled value is exact, so subnormal results round once.
    return np.ldexp(x.astype(np.float64), np.clip(power, -400, 400)).astype(np.float32)


def _fract(x: Array) -> Array:
    found = x - np.floor(x)
    return np.minimum(found, np.float32(0.99999994), where=~np.isnan(found), out=np.array(found))


def _frexp_mantissa(x: Array) -> Array:
    return np.where(np.isfinite(x), np.frexp(x)[0], x)


def _frexp_exponent(x: Array) -> Array:
    return np.where(np.isfinite(x), np.frexp(x)[1], 0).astype(np.int32)


def _exp2(x: Array) -> Array:
    return np.exp2(x.astype(np.float64)).astype(np.float32)


def _log2(x: Array) -> Array:
    return np.log2(x.astype(np.float64)).astype(np.float32)


def _reciprocal(x: Array) -> Array:
    return (1.0 / x.astype(np.float64)).astype(np.float32)


def _reciprocal_root(x: Array) -> Array:
    return (1.0 / np.sqrt(x.astype(np.float64))).astype(np.float32)


def _sine(x: Array) -> Array:
    return np.sin(x.astype(np.float64) * (2.0 * np.pi)).astype(np.float32)


def _cosine(x: Array) -> Array:
    return np.cos(x.astype(np.float64) * (2.0 * np.pi)).astype(np.float32)


def _mul_legacy(a: Array, b: Array) -> Array:
    return np.where((a == 0) | (b == 0), np.float32(0), a * b)


register(
    {
        # float32
        "v_add_f32": Operation(np.add, "f32", F2),
        "v_sub_f32": Operation(np.subtract, "f32", F2),
        "v_subrev_f32": Operation(lambda a, b: b - a, "f32", F2),
        "v_mul_f32": Operation(np.multiply, "f32", F2),
        "v_mul_legacy_f32": Operation(_mul_legacy, "f32", F2),
        "v_fma_f32": Operation(floats.fma32, "f32", F3),
        "v_min_f32": Operation(floats.minimum, "f32", F2),
        "v_max_f32": Operation(floats.maximum, "f32", F2),
        "v_min3_f32": Operation(_min3, "f32", F3),
        "v_max3_f32": Operation(_max3, "f32", F3),
        "v_med3_f32": Operation(_med3_f32, "f32", F3),
        "v_minimum_f32": Operation(_ieee_minimum, "f32", F2),
        "v_maximum_f32": Operation(_ieee_maximum, "f32", F2),
        "v_rcp_f32": Operation(_reciprocal, "f32", ("f32",)),
        "v_rcp_iflag_f32": Operation(_reciprocal, "f32", ("f32",)),
        "v_rsq_f32": Operation(_reciprocal_root, "f32", ("f32",)),
        "v_sqrt_f32": Operation(lambda x: np.sqrt(x), "f32", ("f32",)),
        "v_exp_f32": Operation(_exp2, "f32", ("f32",)),
        "v_log_f32": Operation(_log2, "f32", ("f32",)),
        "v_sin_f32": Operation(_sine, "f32", ("f32",)),
        "v_cos_f32": Operation(_cosine, "f32", ("f32",)),
        "v_trunc_f32": Operation(np.trunc, "f32", ("f32",)),
        "v_floor_f32": Operation(np.floor, "f32", ("f32",)),
        "v_ceil_f32": Operation(np.ceil, "f32", ("f32",)),
        "v_rndne_f32": Operation(np.rint, "f32", ("f32",)),
        "v_fract_f32": Operation(_fract, "f32", ("f32",)),
        "v_ldexp_f32": Operation(_ldexp, "f32", ("f32", "i32")),
        "v_frexp_mant_f32": Operation(_frexp_mantissa, "f32", ("f32",)),
        "v_frexp_exp_i32_f32": Operation(_frexp_exponent, "i32", ("f32",)),
        # float64
        "v_add_f64": Operation(np.add, "f64", ("f64", "f64")),
        "v_mul_f64": Operation(np.multiply, "f64", ("f64", "f64")),
        "v_min_f64": Operation(floats.minimum, "f64", ("f64", "f64")),
        "v_max_f64": Operation(floats.maximum, "f64", ("f64", "f64")),
        "v_fma_f64": Operation(floats.fma64, "f64", ("f64", "f64", "f64")),
        "v_trunc_f64": Operation(np.trunc, "f64", ("f64",)),
        "v_floor_f64": Operation(np.floor, "f64", ("f64",)),
        "v_ceil_f64": Operation(np.ceil, "f64", ("f64",)),
        "v_rndne_f64": Operation(np.rint, "f64", ("f64",)),
        "v_ldexp_f64": Operation(lambda x, p: np.ldexp(x, p), "f64", ("f64", "i32")),
        "v_rcp_f64": Operation(lambda x: 1.0 / x, "f64", ("f64",)),
    }
)
for _new, _old in {
    "v_max_num_f32": "v_max_f32",
    "v_min_num_f32": "v_min_f32",
    "v_max3_num_f32": "v_max3_f32",
    "v_min3_num_f32": "v_min3_f32",
    "v_med3_num_f32": "v_med3_f32",
    "v_mul_dx9_zero_f32": "v_mul_legacy_f32",
}.items():
    alias(_new, _old)


# -- instructions that read their own destination, or carry a constant -------------------------------------------------


@instruction("v_fmac_f32")
def _fmac(insn: Instruction, target: Target) -> Step:
    into, a, b = insn.operands
    return operation(insn, target, Operation(floats.fma32, "f32", F3), (into, a, b, into))


@instruction("v_fmac_f64")
def _fmac64(insn: Instruction, target: Target) -> Step:
    into, a, b = insn.operands
    return operation(insn, target, Operation(floats.fma64, "f64", ("f64",) * 3), (into, a, b, into))


@instruction("v_fmamk_f32", "v_fmaak_f32")
def _fma_with_constant(insn: Instruction, target: Target) -> Step:
    # v_fmamk: a·K + b; v_fmaak: a·b + K: the operands are in the order of the sum in both.
    return operation(insn, target, Operation(floats.fma32, "f32", F3))


def _flushed(x: Array) -> Array:
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def _mad(a: Array, b: Array, c: Array) -> Array:
    # Not fused: the product is rounded, too; and subnormal numbers count as zeros throughout, whatever the mode.
    product = _flushed(_flushed(a) * _flushed(b))
    return _flushed(product + _flushed(c))


@instruction("v_madmk_f32", "v_madak_f32")
def _mad_with_constant(insn: Instruction, target: Target) -> Step:
    # The operands are in the order of the sum, as in v_fmamk and v_fmaak.
    return operation(insn, target, Operation(_mad, "f32", F3))
