"""The fault drill: kernels and edited kernels that misbehave must be reported with their place (drill.py runs them)."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from .apart import results

Results = dict[str, dict[str, Any]]
TARGETS = ("gfx942", "gfx1201")
WAVES = {"gfx942": 64, "gfx1201": 32}
OUT_OF_BOUNDS, LDS_OUT_OF_BOUNDS = "global access out of bounds", "LDS access out of bounds"
LDS_RACE, LDS_UNWRITTEN, RUNAWAY = "LDS race", "LDS read before any write", "instruction limit reached"


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results("drill.py", tmp_path_factory.mktemp("drill"))


def _line(marker: str) -> str:
    """The source line that carries a comment, as faults name it."""
    lines = (Path(__file__).parent / "drill.py").read_text(encoding="utf-8").splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# here: {marker}")]
    return f"drill.py:{number}"


# Case, where it is, what is said of the address, and workgroup, wave and lane: 1024 elements, 256 a program, 4 waves.
GLOBAL = [
    ("load before", "load", "4 bytes before source (4096 bytes)", ([0, 0, 0], 0, "first")),
    ("load behind", "load", "source (4096 bytes)", ([3, 0, 0], 3, "last")),
    ("store before", "store", "4 bytes before target (4096 bytes)", ([0, 0, 0], 0, "first")),
    ("store behind", "store", "4 bytes 0 bytes past the end of target (4096 bytes)", ([3, 0, 0], 3, "last")),
    ("half behind", "load", "2 bytes 0 bytes past the end of source (2048 bytes)", ([3, 0, 0], 3, "last")),
    ("atomic behind", "atomic", "4 bytes 0 bytes past the end of target (4096 bytes)", ([3, 0, 0], 3, "last")),
    ("one program too many", "load", "0 bytes past the end of source (4096 bytes)", ([4, 0, 0], 0, "first")),
]


@pytest.mark.parametrize(("case", "marker", "address", "who"), GLOBAL, ids=[row[0] for row in GLOBAL])
@pytest.mark.parametrize("target", TARGETS)
def test_global_memory(drill: Results, target: str, case: str, marker: str, address: str, who: Any) -> None:
    found = drill[f"{target} {case}"]
    assert (found["outcome"], found.get("kind")) == ("fault", OUT_OF_BOUNDS)
    message = found["message"]
    assert found["source"] == _line(marker)
    assert (found["workgroup"], found["wave"]) == (who[0], who[1])
    assert found["lane"] == (0 if who[2] == "first" else WAVES[target] - 1)
    if not (case == "load behind" and target == "gfx1201"):  # there a lane loads two elements at once
        assert address in message
    else:
        assert "8 bytes over the end of, 4 bytes inside, source (4096 bytes)" in message
    kernel = "bump" if marker == "atomic" else "copy"
    who_and_where = r"\(assembly line \d+\), workgroup \d,0,0, wave \d, lane \d+$"
    place = rf"{kernel} at {found['source']}, `(buffer|global)_\w+ .*` {who_and_where}"
    assert re.search(place, message)
    assert f"`{found['instruction']}`" in message


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_right_is_right(drill: Results, target: str) -> None:
    for case in ("inside", "rows as it is", "dot as it is"):
        assert drill[f"{target} {case}"]["outcome"] == "right", case


# Barriers and LDS writes of each kernel at the least: Triton 3.9 needs fewer of both for the two reductions than 3.7.
BARRIERS = {"rows": 3, "dot": 5}
WRITES = {"rows": 2, "dot": 4}


@pytest.mark.parametrize("kernel", ["rows", "dot"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_barrier_is_missed(drill: Results, target: str, kernel: str) -> None:
    found = {n: r for n, r in drill.items() if n.startswith(f"{target} {kernel} barrier")}
    assert len(found) >= BARRIERS[kernel]
    assert {n: r.get("kind", r["outcome"]) for n, r in found.items()} == dict.fromkeys(found, LDS_RACE)
    for result in found.values():
        assert re.search(r"(read|write) after another wave's (write|read) with no barrier between", result["message"])
        assert result["instruction"].startswith("ds_")
        assert None not in (result["workgroup"], result["wave"], result["lane"])


@pytest.mark.parametrize("kernel", ["rows", "dot"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_write_is_missed(drill: Results, target: str, kernel: str) -> None:
    """The first one by what was never written; a later one, over old values, by the result."""
    found = {n: r for n, r in drill.items() if n.startswith(f"{target} {kernel} write")}
    assert len(found) >= WRITES[kernel]
    assert found[f"{target} {kernel} write 0"]["kind"] == LDS_UNWRITTEN
    assert {r["outcome"] for r in found.values()} <= {"fault", "wrong"}


@pytest.mark.parametrize("kernel", ["rows", "dot"])
@pytest.mark.parametrize("target", TARGETS)
def test_shared_memory_out_of_bounds(drill: Results, target: str, kernel: str) -> None:
    for case in ("too small", "before the start"):
        found = drill[f"{target} {kernel} {case}"]
        assert (found["outcome"], found.get("kind")) == ("fault", LDS_OUT_OF_BOUNDS)
        assert re.search(r"\d+ bytes at offset \d+ of \d+ bytes", found["message"])
    assert drill[f"{target} {kernel} too small"]["wave"] == 3
    assert drill[f"{target} {kernel} before the start"]["lane"] == 0


@pytest.mark.parametrize("kernel", ["rows", "dot"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_wave_that_goes_around_a_barrier(drill: Results, target: str, kernel: str) -> None:
    assert drill[f"{target} {kernel} one wave around the barrier"].get("kind") == LDS_RACE


def test_the_tail_that_one_wave_width_shows(drill: Results) -> None:
    assert drill["gfx1201 tail"]["outcome"] == "right"
    found = drill["gfx942 tail"]
    assert (found["outcome"], found["kind"], found["source"]) == ("fault", OUT_OF_BOUNDS, _line("tail"))
    assert "past the end of a (3072 bytes)" in found["message"]


def test_lanes_of_32_where_waves_have_64(drill: Results) -> None:
    found = [r["outcome"] for n, r in drill.items() if n.startswith("gfx942 lanes of 32")]
    assert found
    if version("triton").startswith("3.6"):
        pytest.skip("there the lane only chooses who stores a value that all lanes hold")
    assert set(found) <= {"fault", "wrong"}


@pytest.mark.parametrize("target", TARGETS)
def test_endless_loops_end(drill: Results, target: str) -> None:
    found = drill[f"{target} endless"]
    assert (found["outcome"], found["kind"], found["kernel"]) == ("fault", RUNAWAY, "spin")
    assert "3000 instructions a wave" in found["message"]
    assert "drill.py:" in found["source"]


def test_assertions_on_the_device_are_refused(drill: Results) -> None:
    """Printing from the device calls a function of the runtime's, which is not modelled: refused and never skipped."""
    for case in ("holds", "fails"):
        assert drill[f"gfx942 assertion {case}"]["outcome"] in ("AssemblyError", "UnsupportedInstruction")
