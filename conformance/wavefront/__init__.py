"""wavefront: AMD GPU code, as Triton's compiler emits it, executed on a CPU, with faults reported by source line.

It is a model of the instruction set and not hardware: docs/wavefront.md says what a result proves and what not.
"""

from . import semantics as semantics
from .assembly import parse
from .driver import LaunchError, Session, device
from .executor import Launch, execute
from .faults import AssemblyError, Fault, Place, UnknownTarget, UnsupportedInstruction, WavefrontError
from .program import Program, translate, translated
from .target import Target, target, targets

__all__ = [
    "AssemblyError",
    "Fault",
    "Launch",
    "LaunchError",
    "Place",
    "Program",
    "Session",
    "Target",
    "UnknownTarget",
    "UnsupportedInstruction",
    "WavefrontError",
    "device",
    "execute",
    "parse",
    "target",
    "targets",
    "translate",
    "translated",
]
