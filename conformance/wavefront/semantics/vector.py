"""Vector arithmetic and logic, 32 and 64 bits wide: one table of functions, and the few that need more than values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..target import Target
from . import floats
from .crosslane import dpp_source, under_dpp
from .operands import (
    DTYPES,
    Reader,
    destination,
    implicit_vcc,
    literal,
    mask_destination,
    mask_source,
    out_array,
    source,
    width,
)
from .sdwa import sdwa_destination, sdwa_source
from .table import Step, add, alias, instruction

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE, SIX = U32(31), U64(63)


@dataclass(frozen=True)
class Operation:
    """A function of arrays; result and sources by kind. keep_high: for 16-bit results on either family."""

    function: Callable[..., Array]
    result: str
    sources: tuple[str, ...]
    keep_high: bool | None = None


def operation(insn: Instruction, target: Target, op: Operation, operands: tuple[Operand, ...] | None = None) -> Step:
    """An instruction whose result is a function of its sources, in any of the encodings e32, e64, dpp and sdwa."""
    found = insn.operands if operands is None else operands
    if len(found) != len(op.sources) + 1:
        raise insn.unsupported(f"{len(op.sources)} sources are modelled")
    if "sdwa" in insn.encoding:
        readers = [sdwa_source(insn, o, kind, i) for i, (o, kind) in enumerate(zip(found[1:], op.sources, strict=True))]
        return _plain(op.function, sdwa_destination(insn, found[0], op.result), readers)
    readers = [source(insn, o, kind) for o, kind in zip(found[1:], op.sources, strict=True)]
    readers = _halves(insn, readers, found[1:], op.sources)
    if "dpp" in insn.encoding or "dpp8" in insn.encoding:
        readers[0] = dpp_source(insn, readers[0], target.wave)
        return under_dpp(insn, target, _finished(insn, target, op, found[0], readers))
    return _finished(insn, target, op, found[0], readers)


def _halves(
    insn: Instruction, readers: list[Reader], operands: tuple[Operand, ...], kinds: tuple[str, ...]
) -> list[Reader]:
    """op_sel of 16-bit sources: which half of a register is read. (The result's own bit is read by `_finished`.)"""
    if "op_sel" not in insn.modifiers:
        return readers
    chosen = insn.numbers("op_sel", ())
    made = []
    for reader, operand, kind, high in zip_longest(readers, operands, kinds, chosen[: len(readers)], fillvalue=0):
        if high and width(kind) == 16:
            reader = upper_half(insn, operand, kind)
        elif high:
            raise insn.unsupported("op_sel of a 32-bit source")
        made.append(reader)
    return made


def upper_half(insn: Instruction, operand: Operand, kind: str) -> Reader:
    """A reader of the upper 16 bits of a 32-bit operand, sign modifiers included."""
    from .operands import raw, signed

    if operand.kind == "literal" and operand.inline is not None:
        raise insn.unsupported("the upper half of an inline float")
    whole = raw(insn, operand, "u32")
    dtype = DTYPES[kind]
    half: Reader = lambda run: (whole(run) >> U32(16)).astype(np.uint16).view(dtype)  # noqa: E731
    if operand.negative or operand.absolute:
        return signed(half, kind, negative=operand.negative, absolute=operand.absolute)
    return half


def _finished(insn: Instruction, target: Target, op: Operation, into: Operand, readers: list[Reader]) -> Step:
    function = _clamped(insn, op)
    if width(op.result) == 16:
        keep = op.keep_high if op.keep_high is not None else target.family == "rdna"
        chosen = insn.numbers("op_sel", ())
        if len(chosen) > len(op.sources) and chosen[len(op.sources)]:
            into, keep = Operand(into.kind, into.index, half="h", text=into.text), True
        return _plain(function, destination(insn, into, op.result, keep_high=keep), readers)
    out = out_array(into, op.result)
    if isinstance(function, np.ufunc) and out is not None:
        return _in_place(function, out, readers)
    return _plain(function, destination(insn, into, op.result), readers)


def _clamped(insn: Instruction, op: Operation) -> Callable[..., Array]:
    scale = {"mul": 2.0, "div": 0.5}
    factor = 1.0
    for name, base in scale.items():
        if text := insn.take(name):
            factor = base if int(text) == 2 else base * base if int(text) == 4 else 0.0
    if not (insn.flag("clamp") or factor != 1.0):
        return op.function
    if op.function in _SATURATING and op.result == "u32" and factor == 1.0:
        return _SATURATING[op.function]
    if not op.result.startswith("f") or factor == 0.0:
        raise insn.unsupported("clamp or output scale of this result")
    clamp, dtype = "clamp" in insn.modifiers, DTYPES[op.result]

    def function(*values: Array) -> Array:
        found = op.function(*values) * dtype(factor)
        # NaN and −0 clamp to +0 (dx10_clamp, which Triton's kernels set).
        return np.where(found > 0, np.minimum(found, dtype(1)), dtype(0)) if clamp else found

    return function


# What clamp makes of unsigned sums and differences: they stop at the ends.
_SATURATING: dict[Any, Callable[..., Array]] = {
    np.add: lambda a, b: np.where(a + b < a, U32(0xFFFFFFFF), a + b),
    np.subtract: lambda a, b: np.where(a > b, a - b, U32(0)),
}


def _in_place(function: Any, out: Reader, readers: list[Reader]) -> Step:
    if len(readers) == 2:
        a, b = readers

        def two(run: Run) -> None:
            mask = run.machine.mask
            if mask is True:
                function(a(run), b(run), out(run))
            else:
                function(a(run), b(run), out(run), where=mask)

        return two
    (only,) = readers

    def one(run: Run) -> None:
        function(only(run), out(run), where=run.machine.mask)

    return one


def _plain(function: Callable[..., Array], write: Callable[[Run, Array], None], readers: list[Reader]) -> Step:
    if len(readers) == 1:
        (x,) = readers
        return lambda run: write(run, function(x(run)))
    if len(readers) == 2:
        a, b = readers
        return lambda run: write(run, function(a(run), b(run)))
    if len(readers) == 3:
        p, q, r = readers
        return lambda run: write(run, function(p(run), q(run), r(run)))
    return lambda run: write(run, function(*(reader(run) for reader in readers)))


# -- functions ----------------------------------------------------------


def _identity(x: Array) -> Array:
    return x


def _high32(a: Array, b: Array) -> Array:
    return ((a.astype(U64) * b) >> U64(32)).astype(U32)


def _high32_signed(a: Array, b: Array) -> Array:
    return ((a.astype(np.int64) * b) >> np.int64(32)).astype(np.int32)


def _low24(x: Array) -> Array:
    return x & U32(0xFFFFFF)


def _signed24(x: Array) -> Array:
    return (x << np.int32(8)) >> np.int32(8)


def _mul_u24(a: Array, b: Array) -> Array:
    return _low24(a) * _low24(b)


def _mul_i24(a: Array, b: Array) -> Array:
    return _signed24(a) * _signed24(b)


def reverse_bits(x: Array) -> Array:
    """uint32 with its bits in the opposite order."""
    x = ((x >> U32(1)) & U32(0x55555555)) | ((x & U32(0x55555555)) << U32(1))
    x = ((x >> U32(2)) & U32(0x33333333)) | ((x & U32(0x33333333)) << U32(2))
    x = ((x >> U32(4)) & U32(0x0F0F0F0F)) | ((x & U32(0x0F0F0F0F)) << U32(4))
    return x.byteswap()


def leading_zeros(x: Array) -> Array:
    """uint32: zeros above the highest one; 0xFFFFFFFF where there is none."""
    _, exponent = np.frexp(x.astype(np.float64))
    return np.where(x == 0, U32(0xFFFFFFFF), (32 - exponent).astype(U32))


def trailing_zeros(x: Array) -> Array:
    """uint32: zeros below the lowest one; 0xFFFFFFFF where there is none."""
    lowest = x & (~x + U32(1))
    _, exponent = np.frexp(lowest.astype(np.float64))
    return np.where(x == 0, U32(0xFFFFFFFF), (exponent - 1).astype(U32))


def sign_leading(x: Array) -> Array:
    """int32: equal bits at the top, the sign included (v_ffbh_i32); −1 where all are equal."""
    magnitude = (x ^ (x >> np.int32(31))).view(U32)
    return np.where(magnitude == 0, U32(0xFFFFFFFF), leading_zeros(magnitude))


def count_bits(x: Array, more: Array) -> Array:
    return np.bitwise_count(x).astype(U32) + more


def _bfe_u(x: Array, offset: Array, size: Array) -> Array:
    offset, size = offset & FIVE, size & FIVE
    return (x >> offset) & ((U32(1) << size) - U32(1))


def _bfe_i(x: Array, offset: Array, size: Array) -> Array:
    offset, size = (offset & FIVE), (size & FIVE)
    field = _bfe_u(x.view(U32), offset, size)
    sign = np.where(size > 0, U32(1) << ((size - U32(1)) & FIVE), U32(0))
    return ((field ^ sign) - sign).view(np.int32)


def _bfi(mask: Array, a: Array, b: Array) -> Array:
    return (mask & a) | (~mask & b)


def byte_permute(a: Array, b: Array, selector: Array) -> Array:
    """v_perm_b32: each byte of the selector picks a byte of b (0 to 3) or a (4 to 7), a sign (8 to 11), 0 or 0xFF."""
    shape = np.broadcast_shapes(a.shape, b.shape, selector.shape)
    pool = (np.broadcast_to(a, shape).astype(U64) << U64(32)) | np.broadcast_to(b, shape)
    result = np.zeros(shape, dtype=U32)
    for byte in range(4):
        chosen = (selector >> U32(8 * byte)) & U32(0xFF)
        value = ((pool >> (np.minimum(chosen, U32(7)).astype(U64) * U64(8))) & U64(0xFF)).astype(U32)
        if np.any(chosen > 7):
            signs = np.zeros(shape, dtype=U32)
            for index, bit in ((8, 15), (9, 31), (10, 47), (11, 63)):
                signs = np.where(chosen == index, ((pool >> U64(bit)) & U64(1)).astype(U32) * U32(0xFF), signs)
            value = np.where(
                chosen <= 7, value, np.where(chosen < 12, signs, np.where(chosen == 12, U32(0), U32(0xFF)))
            )
        result |= value << U32(8 * byte)
    return result


def _align_bit(a: Array, b: Array, shift: Array) -> Array:
    return ((((a.astype(U64) << U64(32)) | b) >> (shift & FIVE).astype(U64)) & U64(0xFFFFFFFF)).astype(U32)


def _align_byte(a: Array, b: Array, shift: Array) -> Array:
    return _align_bit(a, b, (shift & U32(3)) * U32(8))


def _median(a: Array, b: Array, c: Array) -> Array:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


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


F3, U3, I3 = ("f32",) * 3, ("u32",) * 3, ("i32",) * 3
F2, U2, I2 = ("f32",) * 2, ("u32",) * 2, ("i32",) * 2

_TABLE: dict[str, Operation] = {
    # moves and bits
    "v_mov_b32": Operation(_identity, "u32", ("u32",)),
    "v_mov_b64": Operation(_identity, "u64", ("u64",)),
    "v_not_b32": Operation(np.bitwise_not, "u32", ("u32",)),
    "v_bfrev_b32": Operation(reverse_bits, "u32", ("u32",)),
    "v_ffbh_u32": Operation(leading_zeros, "u32", ("u32",)),
    "v_ffbl_b32": Operation(trailing_zeros, "u32", ("u32",)),
    "v_ffbh_i32": Operation(sign_leading, "u32", ("i32",)),
    "v_bcnt_u32_b32": Operation(count_bits, "u32", U2),
    "v_and_b32": Operation(np.bitwise_and, "u32", U2),
    "v_or_b32": Operation(np.bitwise_or, "u32", U2),
    "v_xor_b32": Operation(np.bitwise_xor, "u32", U2),
    "v_xnor_b32": Operation(lambda a, b: ~(a ^ b), "u32", U2),
    "v_lshlrev_b32": Operation(lambda s, x: x << (s & FIVE), "u32", U2),
    "v_lshrrev_b32": Operation(lambda s, x: x >> (s & FIVE), "u32", U2),
    "v_ashrrev_i32": Operation(lambda s, x: x >> (s & np.int32(31)), "i32", I2),
    "v_lshlrev_b64": Operation(lambda s, x: x << (s & U32(63)).astype(U64), "u64", ("u32", "u64")),
    "v_lshrrev_b64": Operation(lambda s, x: x >> (s & U32(63)).astype(U64), "u64", ("u32", "u64")),
    "v_ashrrev_i64": Operation(lambda s, x: x >> (s & U32(63)).astype(np.int64), "i64", ("u32", "i64")),
    "v_and_or_b32": Operation(lambda a, b, c: (a & b) | c, "u32", U3),
    "v_or3_b32": Operation(lambda a, b, c: a | b | c, "u32", U3),
    "v_xor3_b32": Operation(lambda a, b, c: a ^ b ^ c, "u32", U3),
    "v_lshl_or_b32": Operation(lambda a, s, b: (a << (s & FIVE)) | b, "u32", U3),
    "v_bfe_u32": Operation(_bfe_u, "u32", U3),
    "v_bfe_i32": Operation(_bfe_i, "i32", ("i32", "u32", "u32")),
    "v_bfi_b32": Operation(_bfi, "u32", U3),
    "v_bfm_b32": Operation(lambda w, o: ((U32(1) << (w & FIVE)) - U32(1)) << (o & FIVE), "u32", U2),
    "v_perm_b32": Operation(byte_permute, "u32", U3),
    "v_alignbit_b32": Operation(_align_bit, "u32", U3),
    "v_alignbyte_b32": Operation(_align_byte, "u32", U3),
    # integers
    "v_add_u32": Operation(np.add, "u32", U2),
    "v_sub_u32": Operation(np.subtract, "u32", U2),
    "v_subrev_u32": Operation(lambda a, b: b - a, "u32", U2),
    "v_mul_lo_u32": Operation(np.multiply, "u32", U2),
    "v_mul_hi_u32": Operation(_high32, "u32", U2),
    "v_mul_hi_i32": Operation(_high32_signed, "i32", I2),
    "v_mul_u32_u24": Operation(_mul_u24, "u32", U2),
    "v_mul_i32_i24": Operation(_mul_i24, "i32", I2),
    "v_mad_u32_u24": Operation(lambda a, b, c: _mul_u24(a, b) + c, "u32", U3),
    "v_mad_i32_i24": Operation(lambda a, b, c: _mul_i24(a, b) + c, "i32", I3),
    "v_add3_u32": Operation(lambda a, b, c: a + b + c, "u32", U3),
    "v_add_lshl_u32": Operation(lambda a, b, s: (a + b) << (s & FIVE), "u32", U3),
    "v_lshl_add_u32": Operation(lambda a, s, b: (a << (s & FIVE)) + b, "u32", U3),
    "v_xad_u32": Operation(lambda a, b, c: (a ^ b) + c, "u32", U3),
    "v_lshl_add_u64": Operation(lambda a, s, b: (a << (s & U32(7)).astype(U64)) + b, "u64", ("u64", "u32", "u64")),
    "v_min_u32": Operation(np.minimum, "u32", U2),
    "v_max_u32": Operation(np.maximum, "u32", U2),
    "v_min_i32": Operation(np.minimum, "i32", I2),
    "v_max_i32": Operation(np.maximum, "i32", I2),
    "v_min3_u32": Operation(lambda a, b, c: np.minimum(np.minimum(a, b), c), "u32", U3),
    "v_max3_u32": Operation(lambda a, b, c: np.maximum(np.maximum(a, b), c), "u32", U3),
    "v_min3_i32": Operation(lambda a, b, c: np.minimum(np.minimum(a, b), c), "i32", I3),
    "v_max3_i32": Operation(lambda a, b, c: np.maximum(np.maximum(a, b), c), "i32", I3),
    "v_med3_u32": Operation(_median, "u32", U3),
    "v_med3_i32": Operation(_median, "i32", I3),
    "v_sad_u32": Operation(lambda a, b, c: np.maximum(a, b) - np.minimum(a, b) + c, "u32", U3),
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
    "v_div_fixup_f32": Operation(_div_fixup, "f32", F3),
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


def _register(name: str, op: Operation) -> None:
    add(name, lambda insn, target: operation(insn, target, op))


for _name, _op in _TABLE.items():
    _register(_name, _op)

for _new, _old in {
    "v_add_nc_u32": "v_add_u32",
    "v_sub_nc_u32": "v_sub_u32",
    "v_subrev_nc_u32": "v_subrev_u32",
    "v_clz_i32_u32": "v_ffbh_u32",
    "v_ctz_i32_b32": "v_ffbl_b32",
    "v_cls_i32": "v_ffbh_i32",
    "v_max_num_f32": "v_max_f32",
    "v_min_num_f32": "v_min_f32",
    "v_max3_num_f32": "v_max3_f32",
    "v_min3_num_f32": "v_min3_f32",
    "v_med3_num_f32": "v_med3_f32",
    "v_mul_dx9_zero_f32": "v_mul_legacy_f32",
    "v_accvgpr_read_b32": "v_mov_b32",
    "v_accvgpr_write_b32": "v_mov_b32",
    "v_accvgpr_mov_b32": "v_mov_b32",
}.items():
    alias(_new, _old)


# -- instructions that read their own destination, or carry a constant -------------------------------------------------


@instruction("v_fmac_f32", "v_mac_f32")
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


# -- selection and carries ----------------------------------------------------------


@instruction("v_cndmask_b32")
def _cndmask(insn: Instruction, target: Target) -> Step:
    operands = insn.operands
    if len(operands) == 3:
        operands = (*operands, implicit_vcc(insn, target.mask_registers))
    into, if_false, if_true, which = operands
    chosen = mask_source(insn, which, target.mask_registers)
    # Sign modifiers make it a selection of floats.
    kind = "f32" if any(o.negative or o.absolute for o in (if_false, if_true)) else "u32"
    if "sdwa" in insn.encoding:
        a, b = sdwa_source(insn, if_false, "u32", 0), sdwa_source(insn, if_true, "u32", 1)
        write = sdwa_destination(insn, into, "u32")
        return lambda run: write(run, np.where(chosen(run), b(run), a(run)))
    a, b = source(insn, if_false, kind), source(insn, if_true, kind)
    write = destination(insn, into, kind)
    step: Step = lambda run: write(run, np.where(chosen(run), b(run), a(run)))  # noqa: E731
    if "dpp" in insn.encoding or "dpp8" in insn.encoding:
        a = dpp_source(insn, a, target.wave)
        return under_dpp(insn, target, lambda run: write(run, np.where(chosen(run), b(run), a(run))))
    return step


def _carry(name: str, function: Callable[[Array, Array, Array], tuple[Array, Array]], *, takes: bool) -> None:
    """An addition or subtraction of uint32 with carry: into a mask, and out of one if it `takes` one."""

    def builder(insn: Instruction, target: Target) -> Step:
        operands = insn.operands
        vcc = implicit_vcc(insn, target.mask_registers)
        if len(operands) == 3:  # e32 of RDNA leaves vcc out
            operands = (operands[0], vcc, *operands[1:])
        into, out, left, right = operands[:4]
        carried = mask_source(insn, operands[4] if len(operands) > 4 else vcc, target.mask_registers) if takes else None
        a, b = source(insn, left, "u32"), source(insn, right, "u32")
        write, write_carry = destination(insn, into, "u32"), mask_destination(insn, out)
        nothing = np.zeros((), dtype=U32)

        def step(run: Run) -> None:
            carry = nothing if carried is None else carried(run)
            value, overflow = function(a(run), b(run), carry)
            write(run, value)
            write_carry(run, overflow)

        return step

    add(name, builder)


def _sum(a: Array, b: Array, carry: Array) -> tuple[Array, Array]:
    total = a + b
    if carry.ndim == 0:
        return total, total < a
    more = total + carry
    return more, (total < a) | (more < total)


def _difference(a: Array, b: Array, borrow: Array) -> tuple[Array, Array]:
    total = a - b
    if borrow.ndim == 0:
        return total, a < b
    less = total - borrow
    return less, (a < b) | (total < borrow)


def _reverse_difference(a: Array, b: Array, borrow: Array) -> tuple[Array, Array]:
    return _difference(b, a, borrow)


for _name, _function, _takes in (
    ("v_add_co_u32", _sum, False),
    ("v_addc_co_u32", _sum, True),
    ("v_sub_co_u32", _difference, False),
    ("v_subb_co_u32", _difference, True),
    ("v_subrev_co_u32", _reverse_difference, False),
    ("v_subbrev_co_u32", _reverse_difference, True),
):
    _carry(_name, _function, takes=_takes)
alias("v_add_co_ci_u32", "v_addc_co_u32")
alias("v_sub_co_ci_u32", "v_subb_co_u32")
alias("v_subrev_co_ci_u32", "v_subbrev_co_u32")


@instruction("v_mad_u64_u32", "v_mad_i64_i32")
def _mad64(insn: Instruction, target: Target) -> Step:
    """64-bit a·b + c with the carry out in a mask."""
    into, out, left, right, addend = insn.operands
    wide, kind = ("i64", "i32") if insn.mnemonic == "v_mad_i64_i32" else ("u64", "u32")
    a, b, c = source(insn, left, kind), source(insn, right, kind), source(insn, addend, wide)
    write, write_carry = destination(insn, into, wide), mask_destination(insn, out)
    dtype = DTYPES[wide]

    def step(run: Run) -> None:
        product, more = a(run).astype(dtype) * b(run), c(run)
        total = product + more
        write(run, total)
        if wide == "u64":
            write_carry(run, total < product)
        else:
            write_carry(run, ((product ^ total) & (more ^ total)) < 0)

    return step


alias("v_mad_co_u64_u32", "v_mad_u64_u32")
alias("v_mad_co_i64_i32", "v_mad_i64_i32")


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
        found, scale = floats.fma32(a(run), b(run), c(run)), c(run)
        # The quotient is scaled back by as much as the larger operand was scaled: the addend tells which way.
        factor = np.where(_exponent(scale) > 127, np.float32(2.0**64), np.float32(2.0**-64))
        write(run, np.where(flag(run), found * factor, found))

    return step


# -- one program for three bits: RDNA and gfx950 ----------------------------------------------------------


def _bitop3(table: int, dtype: Any) -> Callable[[Array, Array, Array], Array]:
    """Any function of three bits, by its truth table; bit 4·a + 2·b + c of the table is the value."""

    def function(a: Array, b: Array, c: Array) -> Array:
        total = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), dtype=dtype)
        for row in range(8):
            if table >> row & 1:
                total |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return total

    return function


@instruction("v_bitop3_b32", "v_bitop3_b16")
def _bitop(insn: Instruction, target: Target) -> Step:
    kind = "u32" if insn.mnemonic.endswith("32") else "u16"
    function = _bitop3(insn.number("bitop3"), DTYPES[kind])
    return operation(insn, target, Operation(function, kind, (kind,) * 3, keep_high=True))


__all__ = ["Operation", "literal", "operation"]
