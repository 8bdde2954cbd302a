"""Logic on scalar registers of the width of a lane mask: on masks where they are at hand, on numbers elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import EXEC, Instruction, Operand
from ..target import Target
from .operands import Reader, mask_source
from .scalar import Scalar, build, set_scc
from .table import Step, add

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]
U32, U64 = np.uint32, np.uint64
FIVE = U32(31)


_LOGIC: dict[str, Callable[[Array, Array], Array]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "andn2": lambda a, b: a & ~b,
    "orn2": lambda a, b: a | ~b,
    "nand": lambda a, b: ~(a & b),
    "nor": lambda a, b: ~(a | b),
    "xnor": lambda a, b: ~(a ^ b),
}


def _mask_like(operand: Operand) -> bool:
    return operand.kind == "s" or (operand.kind == "literal" and operand.value in (0, -1) and operand.inline is None)


def _at_hand(run: Run, operand: Operand) -> bool:
    return operand.kind == "literal" or run.machine.has_mask(operand.index)


def _mask_write(run: Run, index: int, mask: Array) -> None:
    run.machine.set_mask(index, mask)


def any_lane(mask: Array) -> Array:
    """bool (waves, 1)"""
    return np.asarray(mask.any(axis=1, keepdims=True))


def _mask_logic(name: str, bits: int) -> None:
    """A logical operation of the width of a lane mask: on masks where they are at hand, else on numbers."""
    logic = _LOGIC[name]

    def builder(insn: Instruction, target: Target) -> Step:
        into, left, right = insn.operands
        numbers = build(insn, Scalar(logic, f"u{bits}", (f"u{bits}",) * 2, "nonzero"))
        if bits != target.wave or not (_mask_like(left) and _mask_like(right)) or into.kind != "s":
            return numbers
        a, b = mask_source(insn, left, target.mask_registers), mask_source(insn, right, target.mask_registers)
        literals = left.kind == "literal" and right.kind == "literal"

        def step(run: Run) -> None:
            wanted = into.index == EXEC or (_at_hand(run, left) and _at_hand(run, right))
            if literals or not wanted:
                numbers(run)
                return
            mask = logic(a(run), b(run))
            set_scc(run, any_lane(mask))
            _mask_write(run, into.index, mask)

        return step

    add(f"s_{name}_b{bits}", builder)


def _move(bits: int) -> Callable[[Instruction, Target], Step]:
    def builder(insn: Instruction, target: Target) -> Step:
        into, value = insn.operands
        numbers = build(insn, Scalar(lambda x: x, f"u{bits}", (f"u{bits}",)))
        if bits != target.wave or not _mask_like(value) or into.kind != "s":
            return numbers
        read: Reader = mask_source(insn, value, target.mask_registers)

        def step(run: Run) -> None:
            if into.index == EXEC or (value.kind == "s" and run.machine.has_mask(value.index)):
                _mask_write(run, into.index, read(run))
            else:
                numbers(run)

        return step

    return builder


def _not(bits: int) -> Callable[[Instruction, Target], Step]:
    def builder(insn: Instruction, target: Target) -> Step:
        into, value = insn.operands
        numbers = build(insn, Scalar(np.bitwise_not, f"u{bits}", (f"u{bits}",), "nonzero"))
        if bits != target.wave or value.kind != "s" or into.kind != "s":
            return numbers
        read = mask_source(insn, value, target.mask_registers)

        def step(run: Run) -> None:
            if not run.machine.has_mask(value.index):
                numbers(run)
                return
            mask = ~read(run)
            set_scc(run, any_lane(mask))
            _mask_write(run, into.index, mask)

        return step

    return builder


for _bits in (32, 64):
    for _name in _LOGIC:
        _mask_logic(_name, _bits)
    add(f"s_mov_b{_bits}", _move(_bits))
    add(f"s_not_b{_bits}", _not(_bits))


def _saveexec(name: str, logic: Callable[[Array, Array], Array]) -> None:
    """Keep exec in scalar registers and combine it: exec = logic(source, old exec)."""

    def builder(insn: Instruction, target: Target) -> Step:
        into, operand = insn.operands
        if into.kind != "s" or into.count * 32 != target.wave:
            raise insn.unsupported("this destination")
        read = mask_source(insn, operand, target.mask_registers)

        def step(run: Run) -> None:
            machine = run.machine
            before, given = machine.exec, read(run)
            machine.set_mask(into.index, before)
            mask = logic(given, before)
            set_scc(run, any_lane(mask))
            machine.set_exec(mask)

        return step

    for bits in (32, 64):
        add(name.format(bits=bits), builder)


_saveexec("s_and_saveexec_b{bits}", lambda given, before: given & before)
_saveexec("s_or_saveexec_b{bits}", lambda given, before: given | before)
_saveexec("s_xor_saveexec_b{bits}", lambda given, before: given ^ before)
# CDNA's andn2 and RDNA's and_not1 take the source and the complement of exec.
_saveexec("s_andn2_saveexec_b{bits}", lambda given, before: given & ~before)
_saveexec("s_andn1_saveexec_b{bits}", lambda given, before: ~given & before)
_saveexec("s_and_not0_saveexec_b{bits}", lambda given, before: ~given & before)
