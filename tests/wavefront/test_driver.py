"""Kernels of many kinds through the driver on all five targets, against PyTorch in float64 (programs.py runs them)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wavefront.driver import LaunchError, _refuse_scratch

from .apart import results

Results = dict[str, dict[str, Any]]
TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")
CASES = (
    "programs",
    "function",
    "atomics",
    "float atomics",
    "autotuning",
    "descriptors",
    "descriptors from outside",
    "tuple",
    "order fp32",
    "order i32",
    "dot fp32",
    "dot fp16",
    "dot bf16",
    "dot fp16 one wave",
    "scalars",
    "nothing",
)
# What differs by no more than the family runs on one target of each.
ONCE = ("descriptors from outside", "tuple", "order i32", "scalars", "autotuning")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results("programs.py", tmp_path_factory.mktemp("programs"))


EACH = [(t, c) for t in TARGETS for c in CASES if c not in ONCE or t in ("gfx942", "gfx1201")]


@pytest.mark.parametrize(("target", "case"), EACH)
def test_case(programs: Results, target: str, case: str) -> None:
    found = programs[f"{target} {case}"]
    assert found["outcome"] is True
    assert (found["launches"] > 0) == (found["executed"] > 0) == (case != "nothing")


def test_spilled_registers(programs: Results) -> None:
    """RDNA has 256 vector registers; a kernel that needs more keeps them in scratch memory."""
    assert programs["gfx1100 spill"]["outcome"] is True


def test_the_autotuner_tries_every_configuration(programs: Results) -> None:
    """Twice, then the winner, on the first target that tunes; Triton keeps its choice for the others of the process."""
    assert programs["gfx942 autotuning"]["launches"] == 3


def test_no_case_is_forgotten(programs: Results) -> None:
    assert set(programs) == {f"{t} {c}" for t, c in EACH} | {"gfx1100 spill"}


@pytest.mark.parametrize("name", ["global_scratch_size", "profile_scratch_size"])
def test_memory_that_the_launcher_would_allocate_is_refused(name: str) -> None:
    """A kernel would find a null pointer, and the fault would be called the kernel's."""
    _refuse_scratch(SimpleNamespace())
    _refuse_scratch(SimpleNamespace(**{name: 0}))
    with pytest.raises(LaunchError, match=f"{name} 64"):
        _refuse_scratch(SimpleNamespace(**{name: 64}))
