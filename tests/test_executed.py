"""The backends exec:TARGET of the suite, as a user calls them. Each run is a process of its own that compiles kernels;
the other tests interpret them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import wavefront
from moe_conformance.tiles import Count

HERE = Path(__file__).parent
PROBLEM = {"tokens": 6, "hidden": 24, "ffn": 16, "experts": 3, "top_k": 2, "seed": 3}


def replay(implementation, prop, backend="exec:gfx942", **fields):
    case = json.dumps({"property": prop, "problem": {**PROBLEM, **fields}})
    command = [sys.executable, "-m", "moe_conformance.cli", "replay", "--backend", backend]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    return subprocess.run(
        [*command, "--implementation", implementation, case],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201"])
def test_the_kernels_conform(target):
    done = replay("tritonmoe", "forward", f"exec:{target}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MEM-5: passed" in done.stdout
    assert "MEM-6: passed" in done.stdout


@pytest.mark.parametrize("name", ["Faulty", "Reads"])
def test_one_element_behind_a_buffer_is_a_verdict_of_its_own(name):
    done = replay(f"executed_faulty:{name}", "down")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MEM-5 is not met" in done.stdout
    assert "0 bytes past the end of pointer" in done.stdout
    assert "executed_faulty.py:" in done.stdout


def test_the_interpreter_does_not_see_a_read_behind_a_buffer():
    """What the executed backend adds: the value that is read too much reaches no result."""
    done = replay("executed_faulty:Reads", "down", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_implementation_without_triton_is_refused():
    done = replay("eager", "forward")
    assert done.returncode == 2
    assert "eager does not run on exec:gfx942" in done.stderr


def test_nothing_is_called_executed_under_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="interpreted"), wavefront.device("gfx942"):
        pass


def test_a_tile_about_which_no_problem_said_anything_is_a_complaint():
    assert Count(passed=5).complaint() == ""
    assert Count(refused=5).complaint() == "no problem passed"
    assert Count(passed=4, failed=1, message="DOWN-1 is not met").complaint() == "DOWN-1 is not met"
