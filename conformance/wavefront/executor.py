"""Execution of a translated kernel over a grid, many waves at once."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .assembly import TTMP, Instruction
from .faults import OUT_OF_BOUNDS, RUNAWAY, Fault, Place
from .lds import Lds, Misuse
from .machine import Bools, Machine
from .memory import Buffer, Memory, Missed
from .program import Program

# Waves that run together: more do not fit the caches, fewer do not outweigh what each NumPy call costs.
CHUNK = 256
# Instructions that a wave may execute before the run is given up: waiting for another workgroup may never end.
LIMIT = 50_000_000
KERNARGS = "kernel arguments"


@dataclass
class Launch:
    """What a kernel is started with. arguments: the bytes of the kernel argument segment; lds: bytes a workgroup."""

    program: Program
    grid: tuple[int, int, int]
    waves_per_group: int
    arguments: bytearray
    buffers: Sequence[Buffer]
    lds: int
    limit: int = LIMIT


class Run:
    """The state of one chunk: machine, memory, LDS, and where each wave is.

    Steps of the semantics read and write `machine`, `memory` and `lds`, and `pc` through `jump` and `end`.
    """

    def __init__(self, launch: Launch, memory: Memory, groups: Sequence[tuple[int, int, int]]) -> None:
        program = launch.program
        waves = len(groups) * launch.waves_per_group
        self.launch, self.program, self.memory, self.groups = launch, program, memory, groups
        self.machine = Machine(program.target, waves, program.registers, program.accumulators)
        self.lds = Lds(len(groups), launch.waves_per_group, program.target.wave, launch.lds, program.cell)
        self._private: Any = None
        self.pc = np.zeros(waves, dtype=np.int64)
        self.ended = np.zeros(waves, dtype=np.bool_)
        self.waiting = np.zeros(waves, dtype=np.bool_)
        self.active: Bools | None = None  # None: all waves are in step
        self.at = 0  # index of the instruction that is being executed
        self.next = 0  # where all active waves go on, unless a step split them
        self.split = False
        self.executed = 0  # wave-instructions

    def private(self) -> Any:
        """uint8 (waves, lanes, bytes): scratch, the memory of a single lane, poisoned."""
        if self._private is None:
            size = self.program.kernel.descriptor.get("private_segment_fixed_size", 0)
            self._private = np.full((self.machine.waves, self.machine.lanes, size), 0xFF, dtype=np.uint8)
        return self._private

    # -- what steps call --------------------------------------------------

    def jump(self, taken: Bools, to: int) -> None:
        """The waves of `taken`, bool (waves, 1), go on at `to`, the other active ones behind this instruction."""
        chosen = taken[:, 0] if self.active is None else taken[:, 0] & self.active
        count = int(np.count_nonzero(chosen))
        if count == 0:
            self.next = self.at + 1
        elif count == (len(chosen) if self.active is None else int(np.count_nonzero(self.active))):
            self.next = to
        else:
            active = np.ones_like(chosen) if self.active is None else self.active
            self.pc[active] = self.at + 1
            self.pc[chosen] = to
            self.split = True

    def end(self) -> None:
        """The active waves are done."""
        active = np.ones(len(self.pc), dtype=np.bool_) if self.active is None else self.active
        self.ended |= active
        self.split = True

    def wait_at_barrier(self) -> None:
        """The active waves wait until every wave of their workgroup that has not ended does."""
        active = np.ones(len(self.pc), dtype=np.bool_) if self.active is None else self.active
        self.waiting |= active
        self.pc[active] = self.at + 1
        self.split = True
        self.release()

    def release(self) -> None:
        """Let workgroups go on whose waves have all arrived."""
        size = self.launch.waves_per_group
        arrived = (self.waiting | self.ended).reshape(-1, size).all(axis=1)
        waits = self.waiting.reshape(-1, size).any(axis=1)
        for group in np.flatnonzero(arrived & waits):
            self.lds.passed_barrier(int(group))
            self.waiting[group * size : (group + 1) * size] = False

    def fault(self, kind: str, message: str, insn: Instruction, lane: int | None) -> Fault:
        """A fault of flat lane index `lane` at an instruction."""
        group = wave = within = None
        if lane is not None:
            wave_index, within = divmod(lane, self.machine.lanes)
            at, wave = divmod(wave_index, self.launch.waves_per_group)
            group = self.groups[at]
        kernel = self.program.kernel.name
        return Fault(kind, message, Place(kernel, insn.text, insn.source, insn.line, group, wave, within))

    # -- the loop --------------------------------------------------

    def run(self) -> None:
        """Execute until every wave has ended. Raises Fault."""
        blocks, machine = self.program.blocks, self.machine
        block = blocks[0]
        present = machine.waves
        while True:
            # Only a block's last instruction reads `at` and `next`.
            self.at, self.next = block.last, block.last + 1
            steps = iter(block.steps)
            try:
                for step in steps:
                    step(self)
            except (Missed, Misuse) as error:
                left = operator.length_hint(steps)
                self.at = block.places[len(block.places) - left - 1]
                raise self._explained(error) from None
            self.executed += present * (block.last - block.first + 1)
            if self.executed > self.launch.limit * machine.waves:
                insn = self.program.kernel.instructions[self.at]
                raise self.fault(RUNAWAY, f"{self.launch.limit} instructions a wave", insn, None)
            if not self.split and self.active is None:
                block = blocks[self.next]
                continue
            if not self.split:
                assert self.active is not None
                self.pc[self.active] = self.next
            self.split = False
            if not self._choose():
                return
            present = machine.waves if self.active is None else int(np.count_nonzero(self.active))
            block = blocks[self.next]

    def _choose(self) -> bool:
        """The waves furthest behind run next; False when all have ended."""
        # Waves wait for those of their workgroup that have neither arrived nor ended, so somebody can always go on.
        ready = ~(self.ended | self.waiting)
        if not ready.any():
            self.release()
            ready = ~(self.ended | self.waiting)
            if not ready.any():
                return False
        self.next = int(self.pc[ready].min())
        active = ready & (self.pc == self.next)
        self.active = None if active.all() else active
        self.machine.take_part(self.active)
        return True

    def _explained(self, error: Missed | Misuse) -> Fault:
        insn = self.program.kernel.instructions[self.at]
        if isinstance(error, Misuse):
            return self.fault(error.kind, error.message, insn, error.lane)
        lane = int(error.lanes[0])
        if error.lanes_are_waves:
            lane *= self.machine.lanes
        return self.fault(OUT_OF_BOUNDS, self.memory.describe(error.address, error.size), insn, lane)


def execute(launch: Launch) -> int:
    """Run a kernel over its grid; the number of wave-instructions executed. Raises Fault."""
    kernargs = np.frombuffer(launch.arguments, dtype=np.uint8) if launch.arguments else np.zeros(8, np.uint8)
    segment = Buffer(KERNARGS, kernargs.ctypes.data, len(kernargs), kernargs)
    memory = Memory([*launch.buffers, segment])
    x, y, z = launch.grid
    groups = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
    size = max(CHUNK // launch.waves_per_group, 1)
    executed = 0
    with np.errstate(all="ignore"):
        for start in range(0, len(groups), size):
            run = Run(launch, memory, groups[start : start + size])
            prepare(run, segment.start)
            run.run()
            executed += run.executed
    return executed


def prepare(run: Run, kernargs: int) -> None:
    """Registers as the hardware hands them over: the argument segment, workgroup and work-item ids.

    Source: LLVM's AMDGPU usage guide, initial kernel execution state. Kernel argument preloads need nothing: the entry
    at the function's label loads all arguments itself.
    """
    machine, described = run.machine, run.program.kernel.descriptor
    at = 0

    def scalar(register: int, values: Any) -> None:
        machine.su[register][:, 0] = values

    if described.get("user_sgpr_private_segment_buffer"):
        at += 4
    for name in ("dispatch_ptr", "queue_ptr"):
        if described.get(f"user_sgpr_{name}"):
            at += 2
    if described.get("user_sgpr_kernarg_segment_ptr"):
        scalar(at, kernargs & 0xFFFFFFFF)
        scalar(at + 1, kernargs >> 32)
        at += 2
    at = described.get("user_sgpr_count", at)
    per_group = run.launch.waves_per_group
    ids = np.repeat(np.array(run.groups, dtype=np.uint32), per_group, axis=0)
    wave = np.tile(np.arange(per_group, dtype=np.uint32), len(run.groups))
    if run.program.target.name.startswith("gfx12"):
        # RDNA4 keeps workgroup ids in trap temporaries: x in ttmp9, y and z in the halves of ttmp7; the wave in ttmp8.
        scalar(TTMP + 9, ids[:, 0])
        scalar(TTMP + 7, ids[:, 1] | (ids[:, 2] << np.uint32(16)))
        scalar(TTMP + 8, wave << np.uint32(25))
    else:
        for axis, name in enumerate("xyz"):
            if described.get(f"system_sgpr_workgroup_id_{name}", int(axis == 0)):
                scalar(at, ids[:, axis])
                at += 1
    lane = np.arange(machine.lanes, dtype=np.uint32)
    # Packed work-item ids: x in bits 0 to 9, y and z above them; Triton's workgroups are one-dimensional.
    machine.u[0][...] = wave[:, None] * np.uint32(machine.lanes) + lane[None, :]
