"""Scalar arithmetic: one value a wave. Lane masks that pass through scalar registers stay masks (see machine.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction, Operand
from ..target import Target
from . import floats
from .bits import leading_zeros, reverse_bits, sign_leading, trailing_zeros
from .operands import Reader, scalar_destination, source, width
from .table import Step, add, alias, instruction

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64, I64 = np.uint32, np.uint64, np.int64
ALL = U64(0xFFFFFFFF)


@dataclass(frozen=True)
class Scalar:
    """A function of arrays (waves, 1); result and sources by kind. It returns the result, or with `scc` also the flag:
    "own" (a second value of the function) or "nonzero" (whether the result is not 0)."""

    function: Callable[..., Any]
    result: str
    sources: tuple[str, ...]
    scc: str = ""


def set_scc(run: Run, flag: Array) -> None:
    machine = run.machine
    if machine.live is True:
        machine.scc[...] = flag
    else:
        np.copyto(machine.scc, flag, where=machine.live)


def build(insn: Instruction, op: Scalar) -> Step:
    into, *operands = insn.operands
    if len(operands) != len(op.sources):
        raise insn.unsupported(f"{len(op.sources)} sources are modelled")
    readers = [source(insn, o, kind) for o, kind in zip(operands, op.sources, strict=True)]
    write, function = scalar_destination(insn, into, width(op.result)), op.function
    unsigned = np.uint32 if width(op.result) == 32 else np.uint64

    values = _applied(function, readers)
    if op.result[0] != "u":
        bare = values
        values = _unsigned_pair(bare, unsigned) if op.scc == "own" else lambda run: bare(run).view(unsigned)

    def plain(run: Run) -> None:
        write(run, values(run))

    def flagged(run: Run) -> None:
        value, flag = values(run)
        write(run, value)
        set_scc(run, flag)

    def nonzero(run: Run) -> None:
        value = values(run)
        write(run, value)
        set_scc(run, value != 0)

    return {"": plain, "own": flagged, "nonzero": nonzero}[op.scc]


def _applied(function: Callable[..., Any], readers: list[Reader]) -> Callable[[Run], Any]:
    if len(readers) == 2:
        a, b = readers
        return lambda run: function(a(run), b(run))
    (only,) = readers
    return lambda run: function(only(run))


def _unsigned_pair(values: Callable[[Run], Any], unsigned: Any) -> Callable[[Run], Any]:
    def pair(run: Run) -> Any:
        value, flag = values(run)
        return value.view(unsigned), flag

    return pair


def _add_u32(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    return total, total < a


def _addc(run: Run, a: Array, b: Array) -> tuple[Array, Array]:
    total = a.astype(U64) + b + run.machine.scc
    return total.astype(U32), total > ALL


def _sub_u32(a: Array, b: Array) -> tuple[Array, Array]:
    return a - b, b > a


def _subb(run: Run, a: Array, b: Array) -> tuple[Array, Array]:
    subtrahend = b.astype(U64) + run.machine.scc
    return (a.astype(U64) - subtrahend).astype(U32), subtrahend > a


def _add_i32(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    return total, ((a ^ total) & (b ^ total)) < 0


def _sub_i32(a: Array, b: Array) -> tuple[Array, Array]:
    total = a - b
    return total, ((a ^ b) & (a ^ total)) < 0


def _choice(function: Any, strictly: Any) -> Callable[[Array, Array], tuple[Array, Array]]:
    """min or max; the flag says that the first operand was taken."""
    return lambda a, b: (function(a, b), strictly(a, b))


def _abs(x: Array) -> tuple[Array, Array]:
    found = np.abs(x)
    return found, found != 0


def _shift_add(by: int) -> Callable[[Array, Array], tuple[Array, Array]]:
    def function(a: Array, b: Array) -> tuple[Array, Array]:
        total = (a.astype(U64) << U64(by)) + b
        return total.astype(U32), total > ALL

    return function


def _field(x: Array, spec: Array, bits: int) -> tuple[Array, Array]:
    """Offset and width of a bit field as shift counts."""
    offset = spec & U32(bits - 1)
    size = np.minimum((spec >> U32(16)) & U32(0x7F), U32(bits))
    return offset, size


def _bfe_u32(x: Array, spec: Array) -> Array:
    offset, size = _field(x, spec, 32)
    return ((x.astype(U64) >> offset.astype(U64)) & ((U64(1) << size.astype(U64)) - U64(1))).astype(U32)


def _bfe_i32(x: Array, spec: Array) -> Array:
    offset, size = _field(x, spec, 32)
    value = (x.view(np.int32).astype(I64) >> offset.astype(I64)) & ((I64(1) << size.astype(I64)) - I64(1))
    sign = np.where(size > 0, I64(1) << np.maximum(size.astype(I64) - 1, 0), I64(0))
    return ((value ^ sign) - sign).astype(np.int32)


def _bfe_u64(x: Array, spec: Array) -> Array:
    offset, size = _field(x, spec, 64)
    size = size.astype(U64)
    field = np.where(size >= 64, ~U64(0), (U64(1) << (size & U64(63))) - U64(1))
    return (x >> offset.astype(U64)) & field


def _bfm_b32(size: Array, offset: Array) -> Array:
    return ((U32(1) << (size & U32(31))) - U32(1)) << (offset & U32(31))


def _bfm_b64(size: Array, offset: Array) -> Array:
    return ((U64(1) << (size & U32(63)).astype(U64)) - U64(1)) << (offset & U32(63)).astype(U64)


def _pack(left: int, right: int) -> Callable[[Array, Array], Array]:
    """Halves of two registers side by side; left, right: which half of each."""
    return lambda a, b: ((a >> U32(16 * left)) & U32(0xFFFF)) | (((b >> U32(16 * right)) & U32(0xFFFF)) << U32(16))


def _ctz64(x: Array) -> Array:
    low, high = x.astype(U32), (x >> U64(32)).astype(U32)
    return np.where(low != 0, trailing_zeros(low), np.where(high != 0, trailing_zeros(high) + U32(32), U32(0xFFFFFFFF)))


def _clz64(x: Array) -> Array:
    low, high = x.astype(U32), (x >> U64(32)).astype(U32)
    return np.where(high != 0, leading_zeros(high), np.where(low != 0, leading_zeros(low) + U32(32), U32(0xFFFFFFFF)))


def _high(a: Array, b: Array) -> Array:
    return ((a.astype(U64) * b) >> U64(32)).astype(U32)


def _high_signed(a: Array, b: Array) -> Array:
    return ((a.astype(I64) * b) >> I64(32)).astype(np.int32)


U, S, L = ("u32", "u32"), ("i32", "i32"), ("u64", "u64")


def _half(x: Array) -> Array:
    return x.astype(np.uint16).view(np.float16)


def _bits_of(x: Array) -> Array:
    return x.view(np.uint16).astype(np.uint32)


F = ("f32", "f32")
_FIVE, _SIX = U32(31), U32(63)

_TABLE: dict[str, Scalar] = {
    "s_brev_b32": Scalar(reverse_bits, "u32", ("u32",)),
    "s_abs_i32": Scalar(_abs, "i32", ("i32",), "own"),
    "s_sext_i32_i16": Scalar(lambda x: x.astype(np.int16).astype(np.int32), "i32", ("u32",)),
    "s_sext_i32_i8": Scalar(lambda x: x.astype(np.int8).astype(np.int32), "i32", ("u32",)),
    "s_bcnt1_i32_b32": Scalar(lambda x: np.bitwise_count(x).astype(U32), "u32", ("u32",), "nonzero"),
    "s_bcnt1_i32_b64": Scalar(lambda x: np.bitwise_count(x).astype(U32), "u32", ("u64",), "nonzero"),
    "s_ff1_i32_b32": Scalar(trailing_zeros, "u32", ("u32",)),
    "s_ff1_i32_b64": Scalar(_ctz64, "u32", ("u64",)),
    "s_flbit_i32_b32": Scalar(leading_zeros, "u32", ("u32",)),
    "s_flbit_i32_b64": Scalar(_clz64, "u32", ("u64",)),
    "s_flbit_i32": Scalar(sign_leading, "u32", ("i32",)),
    "s_add_u32": Scalar(_add_u32, "u32", U, "own"),
    "s_sub_u32": Scalar(_sub_u32, "u32", U, "own"),
    "s_add_i32": Scalar(_add_i32, "i32", S, "own"),
    "s_sub_i32": Scalar(_sub_i32, "i32", S, "own"),
    "s_mul_i32": Scalar(np.multiply, "u32", U),
    "s_mul_hi_u32": Scalar(_high, "u32", U),
    "s_mul_hi_i32": Scalar(_high_signed, "i32", S),
    "s_mul_u64": Scalar(np.multiply, "u64", L),
    "s_add_u64": Scalar(np.add, "u64", L),
    "s_sub_u64": Scalar(np.subtract, "u64", L),
    "s_lshl_b32": Scalar(lambda x, s: x << (s & _FIVE), "u32", U, "nonzero"),
    "s_lshr_b32": Scalar(lambda x, s: x >> (s & _FIVE), "u32", U, "nonzero"),
    "s_ashr_i32": Scalar(lambda x, s: x >> (s & np.int32(31)), "i32", S, "nonzero"),
    "s_lshl_b64": Scalar(lambda x, s: x << (s & _SIX).astype(U64), "u64", ("u64", "u32"), "nonzero"),
    "s_lshr_b64": Scalar(lambda x, s: x >> (s & _SIX).astype(U64), "u64", ("u64", "u32"), "nonzero"),
    "s_ashr_i64": Scalar(lambda x, s: x >> (s & _SIX).astype(I64), "i64", ("i64", "u32"), "nonzero"),
    "s_min_u32": Scalar(_choice(np.minimum, np.less), "u32", U, "own"),
    "s_max_u32": Scalar(_choice(np.maximum, np.greater_equal), "u32", U, "own"),
    "s_min_i32": Scalar(_choice(np.minimum, np.less), "i32", S, "own"),
    "s_max_i32": Scalar(_choice(np.maximum, np.greater_equal), "i32", S, "own"),
    "s_bfe_u32": Scalar(_bfe_u32, "u32", U, "nonzero"),
    "s_bfe_i32": Scalar(_bfe_i32, "i32", U, "nonzero"),
    "s_bfe_u64": Scalar(_bfe_u64, "u64", ("u64", "u32"), "nonzero"),
    "s_bfm_b32": Scalar(_bfm_b32, "u32", U),
    "s_bfm_b64": Scalar(_bfm_b64, "u64", U),
    "s_pack_ll_b32_b16": Scalar(_pack(0, 0), "u32", U),
    "s_pack_lh_b32_b16": Scalar(_pack(0, 1), "u32", U),
    "s_pack_hl_b32_b16": Scalar(_pack(1, 0), "u32", U),
    "s_pack_hh_b32_b16": Scalar(_pack(1, 1), "u32", U),
    "s_bitreplicate_b64_b32": Scalar(lambda x: _doubled_bits(x), "u64", ("u32",)),
    # float32 on the scalar unit: gfx12, and gfx11.5
    "s_add_f32": Scalar(np.add, "f32", F),
    "s_sub_f32": Scalar(np.subtract, "f32", F),
    "s_mul_f32": Scalar(np.multiply, "f32", F),
    "s_max_num_f32": Scalar(floats.maximum, "f32", F),
    "s_min_num_f32": Scalar(floats.minimum, "f32", F),
    "s_trunc_f32": Scalar(np.trunc, "f32", ("f32",)),
    "s_floor_f32": Scalar(np.floor, "f32", ("f32",)),
    "s_ceil_f32": Scalar(np.ceil, "f32", ("f32",)),
    "s_rndne_f32": Scalar(np.rint, "f32", ("f32",)),
    "s_cvt_f32_u32": Scalar(lambda x: x.astype(np.float32), "f32", ("u32",)),
    "s_cvt_f32_i32": Scalar(lambda x: x.astype(np.float32), "f32", ("i32",)),
    "s_cvt_f32_f16": Scalar(lambda x: x.astype(np.float32), "f32", ("f16",)),
    "s_cvt_hi_f32_f16": Scalar(lambda x: _half(x >> U32(16)).astype(np.float32), "f32", ("u32",)),
    # What becomes of the upper half is not documented: all ones, so that code which takes it for zero is seen.
    "s_cvt_f16_f32": Scalar(lambda x: _bits_of(x.astype(np.float16)) | U32(0xFFFF0000), "u32", ("f32",)),
    "s_cvt_u32_f32": Scalar(lambda x: floats.to_integer(x, np.uint32), "u32", ("f32",)),
    "s_cvt_i32_f32": Scalar(lambda x: floats.to_integer(x, np.int32), "i32", ("f32",)),
    "v_s_rcp_f32": Scalar(lambda x: (1.0 / x.astype(np.float64)).astype(np.float32), "f32", ("f32",)),
    "v_s_exp_f32": Scalar(lambda x: np.exp2(x.astype(np.float64)).astype(np.float32), "f32", ("f32",)),
    "v_s_log_f32": Scalar(lambda x: np.log2(x.astype(np.float64)).astype(np.float32), "f32", ("f32",)),
    "v_s_sqrt_f32": Scalar(np.sqrt, "f32", ("f32",)),
    "v_s_rsq_f32": Scalar(lambda x: (1.0 / np.sqrt(x.astype(np.float64))).astype(np.float32), "f32", ("f32",)),
}
for _by in (1, 2, 3, 4):
    _TABLE[f"s_lshl{_by}_add_u32"] = Scalar(_shift_add(_by), "u32", U, "own")


def _doubled_bits(x: Array) -> Array:
    found = np.zeros(np.shape(x), dtype=U64)
    for bit in range(32):
        found |= ((x.astype(U64) >> U64(bit)) & U64(1)) * U64(3 << (2 * bit))
    return found


def _register(name: str, op: Scalar) -> None:
    add(name, lambda insn, target: build(insn, op))


for _name, _op in _TABLE.items():
    _register(_name, _op)

for _new, _old in {
    "s_add_co_u32": "s_add_u32",
    "s_add_co_i32": "s_add_i32",
    "s_sub_co_u32": "s_sub_u32",
    "s_sub_co_i32": "s_sub_i32",
    "s_add_co_ci_u32": "s_addc_u32",
    "s_sub_co_ci_u32": "s_subb_u32",
    "s_add_nc_u64": "s_add_u64",
    "s_sub_nc_u64": "s_sub_u64",
    "s_and_not1_b32": "s_andn2_b32",
    "s_or_not1_b32": "s_orn2_b32",
    "s_and_not1_b64": "s_andn2_b64",
    "s_or_not1_b64": "s_orn2_b64",
    "s_and_not1_saveexec_b32": "s_andn2_saveexec_b32",
    "s_ctz_i32_b32": "s_ff1_i32_b32",
    "s_ctz_i32_b64": "s_ff1_i32_b64",
    "s_clz_i32_u32": "s_flbit_i32_b32",
    "s_clz_i32_u64": "s_flbit_i32_b64",
    "s_cls_i32": "s_flbit_i32",
}.items():
    alias(_new, _old)


# -- carries, selection, constants in the instruction ----------------------------------------------------------


def _with_carry(name: str, function: Callable[[Run, Array, Array], tuple[Array, Array]]) -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        into, left, right = insn.operands
        a, b, write = source(insn, left, "u32"), source(insn, right, "u32"), scalar_destination(insn, into, 32)

        def step(run: Run) -> None:
            value, flag = function(run, a(run), b(run))
            write(run, value)
            set_scc(run, flag)

        return step

    add(name, builder)


_with_carry("s_addc_u32", _addc)
_with_carry("s_subb_u32", _subb)


@instruction("s_cselect_b32", "s_cselect_b64", "s_cmov_b32", "s_cmov_b64")
def _cselect(insn: Instruction, target: Target) -> Step:
    operands = insn.operands
    if insn.mnemonic.startswith("s_cmov"):
        operands = (operands[0], operands[1], operands[0])
    into, if_set, if_clear = operands
    bits = 32 if insn.mnemonic.endswith("32") else 64
    kind = f"u{bits}"
    a, b, write = source(insn, if_set, kind), source(insn, if_clear, kind), scalar_destination(insn, into, bits)
    return lambda run: write(run, np.where(run.machine.scc, a(run), b(run)))


def short(operand: Operand) -> int:
    """The 16-bit constant of a K instruction, sign-extended, from a literal that may be written either way."""
    return (operand.value & 0xFFFF ^ 0x8000) - 0x8000


@instruction("s_movk_i32")
def _movk(insn: Instruction, target: Target) -> Step:
    into, constant = insn.operands
    value = np.array(short(constant), dtype=np.int32).view(U32)
    write = scalar_destination(insn, into, 32)
    return lambda run: write(run, value)


@instruction("s_addk_i32", "s_addk_co_i32", "s_mulk_i32")
def _addk(insn: Instruction, target: Target) -> Step:
    into, constant = insn.operands
    value = np.array(short(constant), dtype=np.int32)
    read, write = source(insn, into, "i32"), scalar_destination(insn, into, 32)
    if insn.mnemonic == "s_mulk_i32":
        return lambda run: write(run, (read(run) * value).view(U32))

    def step(run: Run) -> None:
        total, flag = _add_i32(read(run), value)
        write(run, total.view(U32))
        set_scc(run, flag)

    return step


@instruction("s_fmac_f32", "s_fmamk_f32", "s_fmaak_f32")
def _fmac(insn: Instruction, target: Target) -> Step:
    into, *operands = insn.operands
    if insn.mnemonic == "s_fmac_f32":
        operands = [*operands, into]
    a, b, c = (source(insn, o, "f32") for o in operands)
    write = scalar_destination(insn, into, 32)
    return lambda run: write(run, floats.fma32(a(run), b(run), c(run)).view(U32))
