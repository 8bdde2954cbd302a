"""A kernel translated for execution: straight blocks of steps, and what ends each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from .assembly import Instruction, Kernel, parse
from .faults import AssemblyError, UnsupportedInstruction
from .semantics.table import Step, build, nothing
from .target import Target, target

# Instructions after which another one than the next may run, for some waves or all.
_ENDS = ("s_branch", "s_cbranch_", "s_endpgm", "s_barrier", "s_setpc", "s_swappc", "s_call", "s_trap")


@dataclass(frozen=True)
class Block:
    """Instructions `first` to `last` as steps, without those that do nothing: `places` has the index of each step's
    instruction. The last instruction may set the waves' program counters."""

    first: int
    last: int
    steps: tuple[Step, ...]
    places: tuple[int, ...]


@dataclass
class Program:
    """kernel: as parsed. blocks: by index of their first instruction. cell: bytes of the narrowest LDS access."""

    kernel: Kernel
    target: Target
    blocks: dict[int, Block]
    registers: int
    accumulators: int
    cell: int


def ends_block(insn: Instruction) -> bool:
    return insn.mnemonic.startswith(_ENDS) and insn.mnemonic != "s_barrier_signal"


def translate(kernel: Kernel) -> Program:
    """Raises UnsupportedInstruction with the text of the first instruction that is not modelled, and AssemblyError."""
    chosen = target(kernel.target)
    _check_modes(kernel)
    for insn in kernel.instructions:
        for each in (insn, insn.second):
            for operand in each.operands if each else ():
                if operand.kind == "label" and operand.text not in kernel.labels:
                    raise AssemblyError(f"there is no label {operand.text}: `{insn.text}`")
    steps = [build(insn, chosen) for insn in kernel.instructions]
    starts = {0, *kernel.labels.values()}
    starts |= {i + 1 for i, insn in enumerate(kernel.instructions) if ends_block(insn)}
    ordered = [*sorted(s for s in starts if s < len(steps)), len(steps)]
    blocks = {}
    for first, end in pairwise(ordered):
        kept = [i for i in range(first, end) if steps[i] is not nothing]
        blocks[first] = Block(first, end - 1, tuple(steps[i] for i in kept), tuple(kept))
    vectors, accumulators = _register_counts(kernel)
    return Program(kernel, chosen, blocks, vectors, accumulators, _cell(kernel))


@lru_cache(maxsize=512)
def translated(text: str) -> Program:
    """parse and translate, remembered by the text."""
    return translate(parse(text))


# The floating-point modes that the semantics assume: round to nearest even, subnormals kept, and NaN handling as is.
_MODES = {
    "float_round_mode_32": 0,
    "float_round_mode_16_64": 0,
    "float_denorm_mode_32": 3,
    "float_denorm_mode_16_64": 3,
    "fp16_overflow": 0,
    "tg_split": 0,
}


def _check_modes(kernel: Kernel) -> None:
    for name, wanted in _MODES.items():
        if kernel.descriptor.get(name, wanted) != wanted:
            raise UnsupportedInstruction(
                f"{kernel.name} asks for .amdhsa_{name} {kernel.descriptor[name]}; only {wanted} is modelled"
            )


def _register_counts(kernel: Kernel) -> tuple[int, int]:
    """Vector registers and accumulators that the text names. (The descriptor's counts are symbols in some texts.)"""
    highest = {"v": 0, "a": -1}
    for insn in kernel.instructions:
        for each in (insn, insn.second):
            for operand in each.operands if each else ():
                if operand.kind in highest:
                    highest[operand.kind] = max(highest[operand.kind], operand.index + operand.count - 1)
    return highest["v"] + 1, highest["a"] + 1


_WIDTHS = (("b128", 16), ("b64", 8), ("b16", 2), ("u16", 2), ("i16", 2), ("b8", 1), ("u8", 1), ("i8", 1))


def _cell(kernel: Kernel) -> int:
    """The narrowest of the kernel's LDS accesses. Lane permutes go through no memory."""
    found = 16
    for insn in kernel.instructions:
        if "lds" in insn.modifiers or insn.mnemonic.startswith("global_load_lds"):
            found = min(found, 4)
        if insn.mnemonic.startswith("ds_") and not insn.mnemonic.startswith(("ds_bperm", "ds_perm", "ds_swizzle")):
            found = min(found, next((size for ending, size in _WIDTHS if ending in insn.mnemonic), 4))
    return found
