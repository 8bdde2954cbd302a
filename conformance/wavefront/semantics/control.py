"""Branches, barriers, ends, and what does nothing here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..assembly import VCC, Instruction
from ..faults import TRAP
from ..target import Target
from .masks import any_lane
from .operands import scalar_destination
from .table import Step, add, instruction, nothing

if TYPE_CHECKING:
    from ..executor import Run

Array = NDArray[Any]

# Hints, waits for memory that is never late here (waits.py checks them on the text), and messages to the host.
_NOTHING = (
    "s_nop s_sleep s_setprio s_clause s_delay_alu s_waitcnt s_waitcnt_vscnt s_waitcnt_depctr s_wait_alu "
    "s_wait_loadcnt s_wait_storecnt s_wait_dscnt s_wait_kmcnt s_wait_loadcnt_dscnt s_wait_storecnt_dscnt "
    "s_wait_samplecnt s_wait_bvhcnt s_wait_idle s_wait_expcnt s_set_inst_prefetch_distance s_inst_prefetch "
    "s_icache_inv s_code_end s_sethalt s_sched_barrier buffer_gl0_inv buffer_gl1_inv buffer_inv buffer_wbl2 "
    "buffer_wbinvl1 buffer_wbinvl1_vol global_inv global_wb global_wbinv s_dcache_wb s_dcache_inv s_prefetch_inst "
    "s_prefetch_inst_pc_rel s_ttracedata s_ttracedata_imm "
)


def _nothing(insn: Instruction, target: Target) -> Step:
    insn.unread.clear()
    return nothing


for _name in _NOTHING.split():
    add(_name, _nothing)


@instruction("s_sendmsg")
def _sendmsg(insn: Instruction, target: Target) -> Step:
    if "MSG_DEALLOC_VGPRS" not in insn.take("operands"):
        raise insn.unsupported("this message")
    return nothing


@instruction("s_endpgm")
def _endpgm(insn: Instruction, target: Target) -> Step:
    insn.take("operands")
    return lambda run: run.end()


@instruction("s_barrier", "s_barrier_wait")
def _barrier(insn: Instruction, target: Target) -> Step:
    if insn.take("operands") not in ("", "-1", "0xffff"):
        raise insn.unsupported("a named barrier")
    return lambda run: run.wait_at_barrier()


@instruction("s_barrier_signal", family="rdna")
def _barrier_signal(insn: Instruction, target: Target) -> Step:
    # The signal and the wait of gfx12 follow one another in Triton's code; arrival is counted at the wait. What a wave
    # does between the two would be seen as done before the barrier, which is the stricter reading for races.
    if insn.take("operands") not in ("-1", "0xffff"):
        raise insn.unsupported("a named barrier")
    return nothing


@instruction("s_trap")
def _trap(insn: Instruction, target: Target) -> Step:
    number = insn.take("operands")

    def step(run: Run) -> None:
        lane = 0 if run.active is None else int(np.flatnonzero(run.active)[0]) * run.machine.lanes
        raise run.fault(TRAP, f"trap {number}: a device assertion, or code that must not be reached", insn, lane)

    return step


def _label(insn: Instruction) -> str:
    if len(insn.operands) != 1 or insn.operands[0].kind != "label":
        raise insn.unsupported("a branch to something else than a label")
    return insn.operands[0].text


@instruction("s_branch")
def _branch(insn: Instruction, target: Target) -> Step:
    label = _label(insn)

    def step(run: Run) -> None:
        run.next = run.program.kernel.labels[label]

    return step


def _condition(name: str, wanted: bool, test: Any) -> None:
    def builder(insn: Instruction, target: Target) -> Step:
        label = _label(insn)

        def step(run: Run) -> None:
            run.jump(test(run) == wanted, run.program.kernel.labels[label])

        return step

    add(name, builder)


_condition("s_cbranch_scc0", False, lambda run: run.machine.scc)
_condition("s_cbranch_scc1", True, lambda run: run.machine.scc)
_condition("s_cbranch_execz", False, lambda run: any_lane(run.machine.exec))
_condition("s_cbranch_execnz", True, lambda run: any_lane(run.machine.exec))
_condition("s_cbranch_vccz", False, lambda run: any_lane(run.machine.get_mask(VCC)))
_condition("s_cbranch_vccnz", True, lambda run: any_lane(run.machine.get_mask(VCC)))


@instruction("s_getreg_b32")
def _getreg(insn: Instruction, target: Target) -> Step:
    raise insn.unsupported(f"hardware register {insn.take('hwreg')}")


# Bit 23 of the mode register: what overflows an fp8 format saturates.
_FP16_OVERFLOW = "hwreg(HW_REG_MODE, 23, 1)"


@instruction("s_setreg_imm32_b32", "s_setreg_b32")
def _setreg(insn: Instruction, target: Target) -> Step:
    register = insn.take("hwreg")
    # On RDNA4 the bit changes float16 arithmetic too, which is not modelled.
    if register != _FP16_OVERFLOW or target.family != "cdna" or [o.kind for o in insn.operands] != ["literal"]:
        raise insn.unsupported(f"hardware register {register}")
    value = bool(insn.operands[0].value)

    def step(run: Run) -> None:
        run.machine.fp16_overflow = value

    return step


@instruction("s_memtime", "s_memrealtime", "s_getpc_b64_clock")
def _time(insn: Instruction, target: Target) -> Step:
    """A clock that counts executed instructions."""
    write = scalar_destination(insn, insn.operands[0], 64)
    return lambda run: write(run, np.array(run.executed, dtype=np.uint64))
