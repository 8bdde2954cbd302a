"""What can go wrong: text that is not understood, and programs that do what no device promises to survive."""

from __future__ import annotations

from dataclasses import dataclass


class WavefrontError(Exception):
    """The root of everything this package raises on purpose."""


class AssemblyError(WavefrontError):
    """The assembly text is not of the form that Triton emits."""


class UnsupportedInstruction(WavefrontError):
    """An instruction, an operand or a modifier that is not modelled. It is never guessed at."""


class UnknownTarget(WavefrontError, ValueError):
    """No such target."""


@dataclass(frozen=True)
class Place:
    """Where a fault happened. lane, wave: within the workgroup; None where the whole workgroup is meant."""

    kernel: str
    instruction: str
    source: str
    assembly_line: int
    workgroup: tuple[int, int, int] | None = None
    wave: int | None = None
    lane: int | None = None

    def __str__(self) -> str:
        who = []
        if self.workgroup is not None:
            who.append("workgroup {},{},{}".format(*self.workgroup))
        if self.wave is not None:
            who.append(f"wave {self.wave}")
        if self.lane is not None:
            who.append(f"lane {self.lane}")
        at = f" at {self.source}" if self.source else ""
        where = f"{self.kernel}{at}, `{self.instruction}` (assembly line {self.assembly_line})"
        return ", ".join([where, *who])


class Fault(WavefrontError):
    """A program did something undefined. kind: one of KINDS. `place` says where, the message what."""

    def __init__(self, kind: str, message: str, place: Place | None = None) -> None:
        super().__init__(f"{kind}: {message}" + (f"; {place}" if place else ""))
        self.kind, self.detail, self.place = kind, message, place


OUT_OF_BOUNDS = "global access out of bounds"
LDS_OUT_OF_BOUNDS = "LDS access out of bounds"
LDS_RACE = "LDS race"
LDS_UNWRITTEN = "LDS read before any write"
RUNAWAY = "instruction limit reached"
TRAP = "trap"
KINDS = (OUT_OF_BOUNDS, LDS_OUT_OF_BOUNDS, LDS_RACE, LDS_UNWRITTEN, RUNAWAY, TRAP)
