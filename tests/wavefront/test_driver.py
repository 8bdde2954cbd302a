"""Kernels of many kinds through the driver on all four targets, against PyTorch in float64 (programs.py runs them)."""

from __future__ import annotations

from typing import Any

import pytest

from .apart import results

Results = dict[str, dict[str, Any]]
TARGETS = ("gfx942", "gfx950", "gfx1100", "gfx1201")
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
    """Twice on the first target, then the winner; Triton keeps its choice for the other targets of the process."""
    assert programs["gfx942 autotuning"]["launches"] == 3


def test_no_case_is_forgotten(programs: Results) -> None:
    assert set(programs) == {f"{t} {c}" for t, c in EACH} | {"gfx1100 spill"}
