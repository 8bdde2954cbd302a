"""The compile matrix as users run it, in processes without torch: real kernels, a planted spill, bad calls."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tritonmoe
from moe_conformance.portability import baseline as kept
from moe_conformance.portability import cases as cases_file
from moe_conformance.portability.cases import Case
from moe_conformance.portability.matrix import read_matrix

ROOTS = [str(Path(tritonmoe.__file__).parents[1]), str(Path(cases_file.__file__).parents[2])]
# A process whose first import of torch ends it.
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from moe_conformance.portability.command import main; main()"


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The commands in a process without torch."""
    kept_variables = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON_INTERPRET", "PYTHONPATH"))}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
        env={**kept_variables, "PYTHONPATH": os.pathsep.join(ROOTS), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def one(function: str, target: str, **levels: str) -> Case:
    """The first case of a kernel that the slice has for a target."""
    found = cases_file.read().cases.values()
    case = next(c for c in found if c.kernel.endswith(f":{function}") and c.levels.get(target) == "slice")
    return replace(case, levels=levels or {target: "slice"})


@pytest.fixture
def files(tmp_path: Path):
    """Write cases; the options that name them, a baseline and a cache in this folder."""

    def write(*cases: Case) -> list[object]:
        (tmp_path / "cases.jsonl").write_text(cases_file.written("3.7.1", cases), encoding="utf-8")
        names = [name for case in cases for name in case.levels]
        options: list[object] = ["--cases", tmp_path / "cases.jsonl", "--baseline", tmp_path / "baseline.txt"]
        options += ["--cache", tmp_path / "cells", "--record", tmp_path / "matrix.json", "--processes", "1"]
        return [*options, *(part for name in names for part in ("--target", name))]

    return write


def test_both_vendors_compile_and_a_planted_spill_is_caught(tmp_path: Path, files) -> None:
    """A tile that no lane's registers hold: numerically right, and useless. It would pass every other test."""
    right = one("down_kernel", "gfx1100", gfx1100="slice", sm_90="slice")
    options = files(right)
    baseline = tmp_path / "baseline.txt"
    empty = "triton 0\nlevels slice\nend\n"
    baseline.write_text(empty)
    done = call("compile", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = read_matrix(tmp_path / "matrix.json").cells
    assert {cell.target for cell in cells.values()} == {"gfx1100", "sm_90"}
    for cell in cells.values():
        assert not cell.error
        assert (cell.spills, cell.products) == (0, ("bf16",))
        assert min(cell.registers, cell.matrix, cell.code, cell.shared) > 0
    assert baseline.read_text() == empty
    # The same configuration in the baseline, and one warp instead of four: every lane gets four times the tile.
    kept.write(baseline, read_matrix(tmp_path / "matrix.json"), {right.id: right})
    assert call("compile", *options).returncode == 0
    names = list(right.signature)
    sizes = {str(names.index(name)): size for name, size in (("BLOCK_M", 128), ("BLOCK_N", 64))}
    alone = {"gfx1100": "slice"}
    wrong = replace(
        right, constants={**right.constants, **sizes}, options={**right.options, "num_warps": 1}, levels=alone
    )
    done = call("compile", *files(wrong))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "spills: gfx1100 (slice): down_kernel" in done.stdout
    assert "not in the baseline" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "--target", "gfx906"], "'gfx906' is not one of"),
        (["compile", "--write"], "--write keeps a whole matrix"),
        (["compile", "--write", "--full", "--target", "sm_90"], "--write keeps a whole matrix"),
        (["compile", "--cases", "none.jsonl"], "cannot be read"),
        (["compile", "--baseline", "none.txt"], "cannot be read"),
        (["compile", "--compare", "one.json"], "two recorded matrices"),
        (["compile", "--compare", "one.json", "--compare", "two.json"], "one.json cannot be read"),
        (["record-cases", "--target", "sm_90"], "--target goes with --check"),
    ],
)
def test_calls_that_make_no_sense(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_an_interpreter_is_no_compiler() -> None:
    done = call("compile", TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "TRITON_INTERPRET=1 is set" in done.stderr


def test_cases_of_kernels_that_are_gone(tmp_path: Path, files) -> None:
    (tmp_path / "baseline.txt").write_text("triton 0\nlevels slice\nend\n")
    gone = replace(one("down_kernel", "sm_90"), kernel="tritonmoe.stages.down_kernel:no_such_kernel")
    done = call("compile", *files(gone))
    assert done.returncode == 2
    assert "record the cases anew" in " ".join(done.stderr.split())
    assert not (tmp_path / "matrix.json").exists()


@pytest.mark.parametrize("target", ["gfx942", "sm_90"])
def test_the_kept_cases_are_those_of_the_launchers(target: str) -> None:
    """The launchers of today on a target of either vendor. The other targets differ by limits alone."""
    done = subprocess.run(
        [sys.executable, "-m", "moe_conformance.portability", "record-cases", "--check", "--target", target],
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(ROOTS)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
