"""Triton's CPU interpreter, repaired where it computes bfloat16 wrongly.

The interpreter keeps bfloat16 as uint16. In every release up to 3.9.0 `tl.dot` multiplies those integers, arithmetic
on bfloat16 adds and multiplies them, and a cast from fp32 truncates instead of rounding to nearest even. All three are
replaced here, in one place, by the same operation carried out in fp32 and rounded once. Kernels are never changed for
the interpreter's sake. `self_check` shows that the repair holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

REPAIR = "bfloat16 dot, arithmetic and fp32 casts of the Triton interpreter"


def enabled() -> bool:
    """Whether Triton will interpret kernels in this process."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def widen(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bits (uint16) -> float32, exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """float32 -> bfloat16 bits (uint16), to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits.astype(np.uint64) + np.uint64(0x7FFF) + odd) >> np.uint64(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).reshape(np.shape(values))


@cache
def repair() -> None:
    """Patch the interpreter's builder once. Does nothing where Triton is not installed or does not interpret."""
    if not enabled():
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    handle = interpreter.TensorHandle
    original_cast, original_dot = builder.cast_impl, builder.create_dot
    original_fp_to_fp, original_binary = builder.create_fp_to_fp, builder.binary_op
    original_unary = builder.unary_op

    def cast(self: Any, src: Any, dst_type: Any) -> Any:
        source, target = src.dtype.scalar, dst_type.scalar
        if source == target or tl.bfloat16 not in (source, target):
            return original_cast(self, src, dst_type)
        if source == tl.bfloat16:
            wide = handle(widen(src.data), tl.float32)
            return wide if target == tl.float32 else original_cast(self, wide, dst_type)
        wide = src if source == tl.float32 else original_cast(self, src, tl.float32)
        return handle(narrow(wide.data), tl.bfloat16)

    def fp_to_fp(self: Any, src: Any, dst_type: Any, rounding_mode: Any) -> Any:
        if {src.dtype.scalar, dst_type.scalar} == {tl.bfloat16, tl.float32}:
            return cast(self, src, dst_type)
        return original_fp_to_fp(self, src, dst_type, rounding_mode)

    def as_fp32(value: Any) -> Any:
        return handle(widen(value.data), tl.float32) if value.dtype.scalar == tl.bfloat16 else value

    def dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return original_dot(self, as_fp32(a), as_fp32(b), d, *rest)

    def binary(self: Any, lhs: Any, rhs: Any, op: Callable[..., Any]) -> Any:
        if lhs.dtype.scalar != tl.bfloat16:
            return original_binary(self, lhs, rhs, op)
        with np.errstate(all="ignore"):  # overflow to infinity is an answer here, not an accident
            result = op(widen(lhs.data), widen(rhs.data))
        return handle(result, tl.int1) if result.dtype == bool else handle(narrow(result), tl.bfloat16)

    def unary(self: Any, arg: Any, op: Callable[..., Any]) -> Any:
        if arg.dtype.scalar != tl.bfloat16:
            return original_unary(self, arg, op)
        with np.errstate(all="ignore"):
            return handle(narrow(op(widen(arg.data))), tl.bfloat16)

    builder.cast_impl, builder.create_dot = cast, dot
    builder.create_fp_to_fp, builder.binary_op, builder.unary_op = fp_to_fp, binary, unary


def self_check() -> list[str]:
    """Run small kernels in the repaired interpreter against NumPy; the list of what is wrong, empty when all is right.

    It lives in its own module because a kernel must be defined where Triton is importable.
    """
    repair()
    from .interpreter_check import failures

    return failures()
