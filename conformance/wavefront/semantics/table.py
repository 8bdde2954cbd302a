"""The table of instructions: a mnemonic's builder turns one parsed instruction into a function of the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..assembly import Instruction
from ..target import Target

if TYPE_CHECKING:
    from ..executor import Run

Step = Callable[["Run"], None]
Builder = Callable[[Instruction, Target], Step]


def nothing(run: Run) -> None:
    """The step of an instruction that does nothing here; programs leave it out."""


_BUILDERS: dict[tuple[str, str], Builder] = {}
_ALIASES: dict[str, str] = {}
FAMILIES = ("cdna", "rdna")


def instruction(*mnemonics: str, family: str = "") -> Callable[[Builder], Builder]:
    """Register a builder for mnemonics without their encoding suffix; family: for one family alone."""

    def register(builder: Builder) -> Builder:
        for mnemonic in mnemonics:
            add(mnemonic, builder, family)
        return builder

    return register


def add(mnemonic: str, builder: Builder, family: str = "") -> None:
    for each in (family,) if family else FAMILIES:
        if (mnemonic, each) in _BUILDERS:
            raise ValueError(f"{mnemonic} is registered twice for {each}")
        _BUILDERS[mnemonic, each] = builder


def alias(mnemonic: str, means: str) -> None:
    """One name for another: the families renamed many instructions without changing them."""
    _ALIASES[mnemonic] = means


def supported(mnemonic: str, family: str) -> bool:
    return (_ALIASES.get(mnemonic, mnemonic), family) in _BUILDERS


def mnemonics(family: str) -> list[str]:
    """Every mnemonic that is modelled for a family, aliases included."""
    known = {name for name, each in _BUILDERS if each == family}
    return sorted(known | {name for name, means in _ALIASES.items() if means in known})


# Kernels repeat themselves and each other: of the instructions of a run a quarter have a text of their own.
MOST_KNOWN = 2**18  # steps remembered at a time; then all are forgotten
_known: dict[tuple[str, str], Step] = {}
# Steps that remember where their instruction stands, for what they report. (Elsewhere the executor knows.)
_PLACED = ("scratch_", "s_trap")


def build(insn: Instruction, target: Target) -> Step:
    """The function that executes `insn`, one for all instructions of a text. Raises UnsupportedInstruction for what is
    not modelled, and for any modifier that the builder did not look at."""
    if insn.mnemonic.startswith(_PLACED):
        return build_anew(insn, target)
    key = (insn.text, target.name)
    step = _known.get(key)
    if step is None:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        step = _known[key] = build_anew(insn, target)
    return step


def build_anew(insn: Instruction, target: Target) -> Step:
    """As build, for an instruction that its text does not tell: one half of a dual one."""
    name = _ALIASES.get(insn.mnemonic, insn.mnemonic)
    builder = _BUILDERS.get((name, target.family))
    if builder is None:
        raise insn.unsupported(f"{insn.mnemonic} is not modelled for {target.name}")
    step = builder(insn, target)
    if insn.unread:
        raise insn.unsupported(f"modifier {', '.join(sorted(insn.unread))} is not modelled for this instruction")
    return step
