"""RDNA's dual instructions: two operations in one, `v_dual_x … :: v_dual_y …`, both of which read before either writes.

Each half is built as the plain instruction that it stands for. They then run one after the other, in the order in which
neither reads what the other has written; where each reads the other's destination, the first half's result is put aside
while the second reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..assembly import Instruction
from ..target import Target
from .table import Step, add, build_anew

if TYPE_CHECKING:
    from ..executor import Run

# The operations that either half can be, and those that the second alone can.
EITHER = (
    "fmac_f32",
    "fmaak_f32",
    "fmamk_f32",
    "mul_f32",
    "add_f32",
    "sub_f32",
    "subrev_f32",
    "mul_dx9_zero_f32",
    "mov_b32",
    "cndmask_b32",
    "max_f32",
    "min_f32",
    "max_num_f32",
    "min_num_f32",
    "dot2acc_f32_f16",
    "dot2acc_f32_bf16",
)
SECOND = ("add_nc_u32", "lshlrev_b32", "and_b32")
# Those that read their destination.
_ACCUMULATE = ("fmac_f32", "dot2acc_f32_f16", "dot2acc_f32_bf16")
_PREFIX = "v_dual_"


def _plain(insn: Instruction, whole: Instruction, names: tuple[str, ...]) -> Instruction:
    name = insn.mnemonic.removeprefix(_PREFIX)
    if not insn.mnemonic.startswith(_PREFIX) or name not in names:
        raise whole.unsupported(f"{insn.mnemonic} in this half")
    if insn.operands[0].kind != "v":
        raise whole.unsupported("a dual destination that is no vector register")
    return Instruction(f"v_{name}", (), insn.operands, dict(insn.modifiers), whole.text, whole.line, whole.source)


def _reads(insn: Instruction) -> set[int]:
    """The vector registers that a half reads."""
    accumulates = insn.mnemonic.removeprefix("v_") in _ACCUMULATE
    return {o.index for o in insn.operands[0 if accumulates else 1 :] if o.kind == "v"}


def _dual(insn: Instruction, target: Target) -> Step:
    if insn.second is None:
        raise insn.unsupported("half a dual instruction")
    left, right = _plain(insn, insn, EITHER), _plain(insn.second, insn, EITHER + SECOND)
    first, second = build_anew(left, target), build_anew(right, target)
    # Building a half has looked at its modifiers.
    insn.unread.clear()
    written, also = left.operands[0].index, right.operands[0].index
    if written == also:
        raise insn.unsupported("two halves with one destination")
    if written not in _reads(right):
        return _in_order(first, second)
    if also not in _reads(left):
        return _in_order(second, first)

    def crossed(run: Run) -> None:
        register = run.machine.u[written]
        before = register.copy()
        first(run)
        result = register.copy()
        register[...] = before
        second(run)
        register[...] = result

    return crossed


def _in_order(first: Step, second: Step) -> Step:
    def step(run: Run) -> None:
        first(run)
        second(run)

    return step


for _name in EITHER + SECOND:
    add(_PREFIX + _name, _dual, "rdna")
