"""Triton's CPU interpreter, repaired where it computes bfloat16 wrongly, and made the same on every processor.

The interpreter keeps bfloat16 as uint16. In every release up to 3.9.0 `tl.dot` multiplies those integers, arithmetic
on bfloat16 adds and multiplies them, and a cast from fp32 truncates instead of rounding to nearest even. All three are
replaced here, in one place, by the same operation carried out in fp32 and rounded once.

Its products go through BLAS, whose kernel for the processor at hand may add up the last rows of a tile otherwise than
the first ones: the bits of a token then depend on where it stands, and no GPU's do. Here products are summed in fp64,
row by row in one order, and rounded once: the same bits wherever a row stands.

It is also made quicker where that changes nothing (`_remember`).

Kernels are never changed for the interpreter's sake. `self_check` shows that the repair holds.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

_MOST_BLOCKS = 2**14  # types of blocks remembered at a time; then all are forgotten
REPAIR = "bfloat16 dot, arithmetic and fp32 casts of the Triton interpreter; dots summed in fp64, not by BLAS"


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


def product(a: np.ndarray, b: np.ndarray, start: np.ndarray) -> np.ndarray:
    """start + a b for fp32 or fp16 factors (..., M, K) and (..., K, N), in the dtype of `start`.

    Products are exact in fp64, so each addition is the only rounding there, and a row's sums do not depend on its
    place: einsum, unlike BLAS, has one loop for all of them.
    """
    with np.errstate(all="ignore"):  # infinities and NaN are answers here
        summed = np.einsum("...mk,...kn->...mn", a.astype(np.float64), b.astype(np.float64))
        return np.asarray((summed + start).astype(start.dtype))


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
        floats = all(v.dtype.scalar in (tl.bfloat16, tl.float16, tl.float32) for v in (a, b, d))
        if not floats or d.dtype.scalar == tl.bfloat16:
            return original_dot(self, as_fp32(a), as_fp32(b), d, *rest)
        return handle(product(as_fp32(a).data, as_fp32(b).data, d.data), d.dtype.scalar)

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
    _remember(interpreter, tl)


def _remember(interpreter: Any, tl: Any) -> None:
    """What the interpreter finds out again and again is found out once. 40 % of a run's time was the search for the
    builtins of triton.language, repeated in every call of a device function although the launch around it has replaced
    them all, and a dictionary of types that is built anew for each constant. Of what was
    left, a profile gave 12 % to block types that are checked and named for each value, and 7 % to the replacing."""
    places = (tl, tl.tensor, tl.math, tl.core, tl.core.tensor_descriptor_base)
    found = {
        place: [(name, member) for name, member in inspect.getmembers(place) if tl.core.is_builtin(member)]
        for place in places
    }
    original = interpreter._patch_builtin

    def patch_builtin(place: Any, *rest: Any) -> None:
        if place not in found:
            original(place, *rest)
            return
        first, member = found[place][0]
        if getattr(place, first) is not member:
            return  # replaced already: this call is inside of a launch
        for name, member in found[place]:
            interpreter._patch_attr(place, name, member, *rest)

    interpreter._patch_builtin = patch_builtin

    original_lang, places_of = interpreter._patch_lang, dict[Any, list[Any]]()

    def patch_lang(function: Any) -> Any:
        if function not in places_of:
            languages = [place for place in (tl, tl.core) if any(v is place for v in function.__globals__.values())]
            places_of[function] = [
                *languages,
                *(language.tensor for language in languages),
                tl.core.tensor_descriptor_base,
            ]
        if all(getattr(place, found[place][0][0]) is not found[place][0][1] for place in places_of[function]):
            return interpreter._LangPatchScope()  # inside of a launch, which puts everything back
        return original_lang(function)

    interpreter._patch_lang = patch_lang

    original_block, blocks = tl.block_type.__init__, dict[Any, tuple[Any, dict[str, Any]]]()

    def block_type(self: Any, element_ty: Any, shape: Any) -> None:
        sizes = shape.values if isinstance(shape, tl.tuple) else shape
        if not all(type(size) is int for size in sizes):
            original_block(self, element_ty, shape)
            return
        key = (id(element_ty), *sizes)
        if key not in blocks:
            original_block(self, element_ty, shape)
            if len(blocks) >= _MOST_BLOCKS:
                blocks.clear()
            blocks[key] = (element_ty, dict(vars(self)))  # with the type, whose id is then no other's
        vars(self).update(blocks[key][1])

    tl.block_type.__init__ = block_type

    original_dtype, dtypes = interpreter._get_np_dtype, dict[str, np.dtype]()

    def np_dtype(dtype: Any) -> Any:
        if type(dtype) is not tl.dtype:  # pointers and blocks
            return original_dtype(dtype)
        if dtype.name not in dtypes:
            dtypes[dtype.name] = original_dtype(dtype)
        return dtypes[dtype.name]

    interpreter._get_np_dtype = np_dtype


def self_check() -> list[str]:
    """Run small kernels in the repaired interpreter against NumPy; the list of what is wrong, empty when all is right.

    It lives in its own module because a kernel must be defined where Triton is importable.
    """
    repair()
    from .interpreter_check import failures

    return failures()
