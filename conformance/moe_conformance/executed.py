"""The backends `exec:gfx942` and so on: Triton kernels compiled for an AMD target, executed on the CPU by `wavefront`.

The faults that only an executor sees become verdicts of requirements of their own (SPEC.md, section "memory").
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import cache
from typing import Any

import wavefront
from wavefront import faults

PREFIX = "exec:"
TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")
NAMES = tuple(PREFIX + target for target in TARGETS)
PLATFORM = "exec"

GLOBAL, SHARED = "MEM-5", "MEM-6"
_REQUIREMENTS = {
    faults.OUT_OF_BOUNDS: GLOBAL,
    faults.LDS_OUT_OF_BOUNDS: SHARED,
    faults.LDS_RACE: SHARED,
    faults.LDS_UNWRITTEN: SHARED,
}
# Enough for every problem of the gate many times over; a kernel that never ends is stopped after a minute or so.
INSTRUCTIONS = 2_000_000

_open = ExitStack()


@cache
def install(target: str) -> wavefront.Session:
    """Make the executor this process's Triton device, once and for good. Raises RuntimeError under TRITON_INTERPRET=1,
    or where another target was installed: compiled kernels belong to one."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise RuntimeError("TRITON_INTERPRET=1 is set: kernels would be interpreted and not compiled")
    if install.cache_info().currsize:
        raise RuntimeError("this process executes another target already")
    return _open.enter_context(wavefront.device(target, limit=INSTRUCTIONS))


def judged(error: BaseException) -> tuple[str, str] | None:
    """The requirement that a fault breaks, and its message; None for any other exception."""
    if isinstance(error, wavefront.Fault) and error.kind in _REQUIREMENTS:
        return _REQUIREMENTS[error.kind], str(error)
    return None


def not_modelled(error: BaseException) -> bool:
    """Whether the executor itself is at its end: no verdict on the implementation."""
    return isinstance(error, wavefront.UnsupportedInstruction | wavefront.AssemblyError | wavefront.LaunchError)


def facts(target: str) -> dict[str, Any]:
    """What a Record says about the device."""
    chosen = wavefront.target(target)
    return {
        "device": f"{target} code executed on a CPU by wavefront (a model of the instruction set, not hardware)",
        "architecture": target,
        "wave": chosen.wave,
        "lds_bytes": chosen.lds,
    }
