"""Comparisons and single bits of the scalar unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import Instruction
from ..target import Target
from .operands import DTYPES, scalar_destination, source
from .scalar import set_scc, short
from .table import Step, add, instruction

if TYPE_CHECKING:
    pass

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE = U32(31)


_COMPARISONS = {
    "eq": np.equal,
    "lg": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
}


def _comparison(name: str, function: Any, kind: str, *, constant: bool) -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        left, right = insn.operands
        a = source(insn, left, kind)
        if constant:
            number = short(right) if kind == "i32" else right.value & 0xFFFF
            value = np.array(number, dtype=DTYPES[kind])
            return lambda run: set_scc(run, function(a(run), value))
        b = source(insn, right, kind)
        return lambda run: set_scc(run, function(a(run), b(run)))

    add(name, builder)


for _relation, _compare in _COMPARISONS.items():
    for _kind in ("u32", "i32"):
        _comparison(f"s_cmp_{_relation}_{_kind}", _compare, _kind, constant=False)
        _comparison(f"s_cmpk_{_relation}_{_kind}", _compare, _kind, constant=True)
    if _relation in ("eq", "lg"):
        _comparison(f"s_cmp_{_relation}_u64", _compare, "u64", constant=False)
    if _relation != "lg":
        _comparison(f"s_cmp_{_relation}_f32", _compare, "f32", constant=False)
_comparison("s_cmp_lg_f32", lambda a, b: (a < b) | (a > b), "f32", constant=False)  # false where one is NaN
for _negated, _compare in (("nlt", np.less), ("nle", np.less_equal), ("ngt", np.greater), ("nge", np.greater_equal)):
    _comparison(f"s_cmp_{_negated}_f32", lambda a, b, f=_compare: ~f(a, b), "f32", constant=False)
_comparison("s_cmp_neq_f32", np.not_equal, "f32", constant=False)
_comparison("s_cmp_o_f32", lambda a, b: ~(np.isnan(a) | np.isnan(b)), "f32", constant=False)
_comparison("s_cmp_u_f32", lambda a, b: np.isnan(a) | np.isnan(b), "f32", constant=False)


def _bit_comparison(name: str, *, wanted: int, bits: int) -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        left, right = insn.operands
        a, b = source(insn, left, f"u{bits}"), source(insn, right, "u32")
        dtype, limit = DTYPES[f"u{bits}"], U32(bits - 1)
        return lambda run: set_scc(run, ((a(run) >> (b(run) & limit).astype(dtype)) & dtype(1)) == wanted)

    add(name, builder)


for _wanted in (0, 1):
    for _bits in (32, 64):
        _bit_comparison(f"s_bitcmp{_wanted}_b{_bits}", wanted=_wanted, bits=_bits)


@instruction("s_bitset0_b32", "s_bitset1_b32")
def _bitset(insn: Instruction, target: Target) -> Step:
    into, place = insn.operands
    read, at, write = source(insn, into, "u32"), source(insn, place, "u32"), scalar_destination(insn, into, 32)
    if insn.mnemonic == "s_bitset1_b32":
        return lambda run: write(run, read(run) | (U32(1) << (at(run) & FIVE)))
    return lambda run: write(run, read(run) & ~(U32(1) << (at(run) & FIVE)))


@instruction("s_getpc_b64", "s_sext_i64_i32")
def _not_modelled(insn: Instruction, target: Target) -> Step:
    raise insn.unsupported(f"{insn.mnemonic} is not modelled")
