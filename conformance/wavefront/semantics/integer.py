"""Integers, bits, moves and selections of the vector unit, 32 and 64 bits wide."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from .bits import byte_permute, count_bits, leading_zeros, reverse_bits, sign_leading, trailing_zeros
from .crosslane import dpp_source, under_dpp
from .operands import DTYPES, destination, implicit_vcc, mask_destination, mask_source, source
from .sdwa import sdwa_destination, sdwa_source
from .table import Step, add, alias, instruction
from .vector import Operation, operation, register

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE = U32(31)

U3, I3, U2, I2 = ("u32",) * 3, ("i32",) * 3, ("u32",) * 2, ("i32",) * 2


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


def _bfe_u(x: Array, offset: Array, size: Array) -> Array:
    offset, size = offset & FIVE, size & FIVE
    return (x >> offset) & ((U32(1) << size) - U32(1))


def _bfe_i(x: Array, offset: Array, size: Array) -> Array:
    offset, size = (offset & FIVE), (size & FIVE)
    # The shift is arithmetic: a field that reaches beyond bit 31 is filled with the sign.
    field = (x >> offset.astype(np.int32)).view(U32) & ((U32(1) << size) - U32(1))
    sign = np.where(size > 0, U32(1) << ((size - U32(1)) & FIVE), U32(0))
    return ((field ^ sign) - sign).view(np.int32)


def _bfi(mask: Array, a: Array, b: Array) -> Array:
    return (mask & a) | (~mask & b)


def _align_bit(a: Array, b: Array, shift: Array) -> Array:
    return ((((a.astype(U64) << U64(32)) | b) >> (shift & FIVE).astype(U64)) & U64(0xFFFFFFFF)).astype(U32)


def _align_byte(a: Array, b: Array, shift: Array) -> Array:
    return _align_bit(a, b, (shift & U32(3)) * U32(8))


def _median(a: Array, b: Array, c: Array) -> Array:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


register(
    {
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
    }
)
for _new, _old in {
    "v_add_nc_u32": "v_add_u32",
    "v_sub_nc_u32": "v_sub_u32",
    "v_subrev_nc_u32": "v_subrev_u32",
    "v_clz_i32_u32": "v_ffbh_u32",
    "v_ctz_i32_b32": "v_ffbl_b32",
    "v_cls_i32": "v_ffbh_i32",
    "v_accvgpr_read_b32": "v_mov_b32",
    "v_accvgpr_write_b32": "v_mov_b32",
    "v_accvgpr_mov_b32": "v_mov_b32",
}.items():
    alias(_new, _old)


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
    wide, kind = ("i64", "i32") if insn.mnemonic.endswith("i64_i32") else ("u64", "u32")
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


# -- two results ----------------------------------------------------------


@instruction("v_swap_b32")
def _swap(insn: Instruction, target: Target) -> Step:
    """Two registers exchange what they hold, in the lanes that take part."""
    left, right = insn.operands
    if insn.encoding not in ((), ("e32",)) or left.kind != "v" or right.kind != "v":
        raise insn.unsupported("this exchange")
    a, b = source(insn, left, "u32"), source(insn, right, "u32")
    to_left, to_right = destination(insn, left, "u32"), destination(insn, right, "u32")

    def step(run: Run) -> None:
        kept = np.array(a(run))
        to_left(run, b(run))
        to_right(run, kept)

    return step
