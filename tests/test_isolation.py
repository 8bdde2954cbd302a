"""What kills or hangs a problem costs that problem: judged one by one, and in whole runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moe_conformance.backends import Backend
from moe_conformance.drill import harmful
from moe_conformance.findings import Findings
from moe_conformance.implementation import ImplementationError, load
from moe_conformance.isolation import ends, judge
from moe_conformance.isolation.child import Work, answered
from moe_conformance.isolation.judge import MOST_HUNG, CannotStart, InProcess, Isolated
from moe_conformance.problem import Problem
from moe_conformance.record import Record
from moe_conformance.registry import all_properties
from moe_conformance.runlog import Earlier, LogLost, RunLog

HERE = str(Path(__file__).parent)
CPU = Backend("cpu", "cpu")
DRILL = harmful.__name__
PERMUTE = all_properties()["permute"]
GOOD = Problem(tokens=6, hidden=4, ffn=4, experts=4, top_k=2)
HARMED = GOOD.model_copy(update={"experts": 5})


@pytest.fixture
def isolated(tmp_path, monkeypatch):
    """A judge of a class of harmful.py, in a process beside this one."""
    monkeypatch.syspath_prepend(HERE)
    made: list[Isolated] = []

    def start(name: str, limit: float = 60.0) -> Isolated:
        made.append(
            Isolated(
                Work(f"{DRILL if hasattr(harmful, name) else 'harmful'}:{name}", CPU, log=tmp_path / "judge.log"), limit
            )
        )
        return made[-1]

    yield start
    for each in made:
        each.close()


def the_only_failure(findings: Findings) -> str:
    (verdict,) = [v for v in findings.verdicts if v.failed]
    assert verdict.requirement == "PERM-1"
    return verdict.message


@pytest.mark.parametrize(
    ("name", "limit", "ended", "message"),
    [
        ("Segfaults", 60.0, "crashed", "crashed: SIGSEGV; __init__.py:"),
        ("Exits", 60.0, "crashed", "crashed: exit code 0"),
        ("Killed", 60.0, "crashed", "crashed: SIGKILL, as the system sends where memory runs out"),
        ("SpinsWithTheLock", 4.0, "hung", "hung: no answer within 4 s; __init__.py:"),
        ("Sleeps", 4.0, "hung", "hung: no answer within 4 s; harmful.py:"),
        ("IgnoresSignals", 4.0, "hung", "hung: no answer within 4 s"),
        ("Hoards", 60.0, "out of memory", "can't allocate memory"),
    ],
)
def test_harm_costs_one_problem(isolated, name, limit, ended, message):
    """Before it, after it, and again: the process is replaced, and its end is told with the place in the code."""
    one = isolated(name, limit)
    assert not one.run(PERMUTE, GOOD).findings.failed
    for _ in range(2):
        answer = one.run(PERMUTE, HARMED)
        assert (answer.findings.ended, answer.error) == (ended, "")
        assert message in the_only_failure(answer.findings)
        after = one.run(PERMUTE, GOOD)
        assert not after.findings.failed
        assert {v.outcome for v in after.findings.verdicts} == {"passed"}
    if "harmful.py" in message or "__init__" in message:
        assert "harmful.py" in the_only_failure(answer.findings)


def test_a_process_that_hangs_too_often_gives_up(isolated):
    one = isolated("Sleeps", 0.2)
    for count in range(MOST_HUNG):
        assert not one.gave_up, count
        one.run(PERMUTE, HARMED)
    assert one.gave_up


def test_one_process_judges_many_problems(isolated):
    one = isolated("Harmless")
    one.run(PERMUTE, GOOD)
    first = one._running
    assert all(not one.run(PERMUTE, GOOD.model_copy(update={"seed": n})).findings.failed for n in range(20))
    assert one._running is first


@pytest.mark.parametrize(
    ("kept", "kind", "last"), [(2**34, "many_rows", True), (2**20, "many_rows", False), (2**34, "permute", False)]
)
def test_a_process_that_keeps_a_heavy_problems_memory_judges_no_other(monkeypatch, kept, kind, last):
    monkeypatch.setattr(Backend, "kept_memory", property(lambda self: kept))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    answer = answered(Work("eager", CPU), load("eager"), replace(PERMUTE, problems=kind), GOOD)
    assert not answer.findings.failed
    assert answer.last is last


def test_isolated_and_in_process_say_the_same(isolated):
    inside = InProcess(Work("wrong", CPU))
    beside = Isolated(Work("wrong", CPU, log=isolated("Harmless")._log), 60.0)
    problem = Problem(tokens=5, hidden=20, ffn=12, experts=3, top_k=2)
    found = [each.run(all_properties()["down"], problem).findings for each in (inside, beside)]
    beside.close()
    assert found[0] == found[1]
    assert found[0].failed
    assert found[0].report() == found[1].report()


def test_an_implementation_that_dies_while_it_is_loaded(isolated, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    with pytest.raises(CannotStart, match=r"no process could load harmful:CannotBeLoaded: exit code 7"):
        isolated("CannotBeLoaded").run(PERMUTE, GOOD)


def test_the_process_ends_with_the_one_that_started_it(tmp_path):
    """Killed in the middle of a problem that never ends, a worker leaves nobody behind."""
    script = f"""
import os, sys
sys.path.insert(0, {HERE!r})
from pathlib import Path
from moe_conformance.backends import Backend
from moe_conformance.isolation.child import Work, answered
from moe_conformance.isolation.judge import Isolated
from moe_conformance.problem import Problem
from moe_conformance.registry import all_properties
if __name__ == "__main__":
    work = Work("{DRILL}:SpinsWithTheLock", Backend("cpu", "cpu"), log=Path({str(tmp_path / "log")!r}))
    one = Isolated(work, 600.0)
    process, connection = one._start()
    print(process.pid, flush=True)
    one.run(all_properties()["permute"], Problem(tokens=6, hidden=4, ffn=4, experts=5, top_k=2))
"""
    (tmp_path / "worker.py").write_text(script)
    worker = subprocess.Popen([sys.executable, str(tmp_path / "worker.py")], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    _wait_until(lambda: _seconds_used(child) > 0.5)  # in the middle of it: nothing else there takes so long
    worker.kill()
    worker.wait()
    worker.stdout.close()
    _wait_until(lambda: not _alive(child))


def _wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def _seconds_used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# -- words -----------------------------------------------------------------------------------------------------------


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as found:
        return found


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (None, ""),
        (ValueError("no"), ""),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "crashed"),
        (RuntimeError("HIP error: invalid device function"), "crashed"),
        (raised(ImplementationError("raised OutOfMemoryError"), torch.OutOfMemoryError("x")), "out of memory"),
        (raised(ImplementationError("raised"), RuntimeError("CUDA error: device-side assert triggered")), "crashed"),
    ],
)
def test_what_an_error_says(error, ended):
    assert ends.end_of(error) == ended


def test_exit_codes_in_words():
    assert ends.exit_in_words(3) == "exit code 3"
    assert ends.exit_in_words(-6) == "SIGABRT"
    assert ends.exit_in_words(-77) == "signal 77"
    assert "does not end" in ends.exit_in_words(None)


def test_the_place_is_that_of_the_last_stack():
    stack = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
    frames = "".join(f'  File "/a/b{n}.py", line {n} in f{n}\n' for n in range(5))
    assert ends.place("noise\n" + stack + '  File "/old.py", line 9 in old\n' + stack + frames) == (
        "b0.py:0 f0 < b1.py:1 f1 < b2.py:2 f2"
    )
    assert ends.place("one\ntwo\n") == "two"
    assert ends.place("") == ""


# -- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(cli_here, tmp_path):
    """A run over a class of harmful.py: the finished command and its Record."""

    def run(name: str, *more: str, module: str = DRILL):
        arguments = ("--stage", "permute", "--problems", "1500", "--workers", "1", "--record", "r.json")
        named = ("--implementation", f"{module}:{name}")
        done = cli_here("run", "--backend", "cpu", *named, *arguments, *more, PYTHONPATH=HERE)
        assert "Traceback" not in done.stderr, done.stderr
        return done, Record.read(tmp_path / "r.json")

    return run


def outcomes(record: Record) -> Counter[str]:
    return Counter(case.outcome for case in record.cases)


def test_a_run_goes_on_after_every_crash(judged):
    """The same cases as without harm; those that were harmed are told apart, every one with a replay command."""
    _, healthy = judged("Harmless")
    done, record = judged("Segfaults")
    assert done.returncode == 1
    assert record.verdict == "failed"
    found = outcomes(record)
    assert set(found) == {"passed", "crashed"}
    assert found["crashed"] > 1
    assert record.problem_set == healthy.problem_set
    assert sorted(record.parts) == record.expected.parts == healthy.expected.parts
    assert len(record.failures) == found["crashed"]
    assert all(failure.problem["experts"] in (3, 5) for failure in record.failures)
    assert f"of the problems {found['crashed']} crashed" in " ".join(record.reasons)
    assert "harmful.py" in done.stdout


def test_problems_behind_too_many_hangs_are_reported_as_not_run(judged):
    done, record = judged("Sleeps", "--limit", "0.3")
    found = outcomes(record)
    assert done.returncode == 1
    assert found["hung"] == MOST_HUNG
    assert found["not run"] > 0
    assert found["passed"] > 0
    assert f"{MOST_HUNG} hung, {found['not run']} not run" in " ".join(record.reasons)
    assert sorted(record.parts) == record.expected.parts, "no part is dropped"


def test_a_worker_that_dies_itself_is_replaced_and_its_part_taken_up(judged):
    """Without isolation a crash ends the worker. Each problem that does so twice is one that crashed."""
    done, record = judged("LeavesForThree", "--in-process", "--problems", "40", "--workers", "2", module="harmful")
    assert done.returncode == 1
    assert record.rounds == 3, "once, once more, and then without it"
    assert outcomes(record)["crashed"] == 1
    assert outcomes(record)["passed"] > 0
    assert "its worker died with it, twice" in done.stdout


def test_a_lost_problem_is_tried_twice(tmp_path):
    log = RunLog(tmp_path, "gw0")
    log.started("permute", GOOD)
    assert not Earlier(tmp_path).lost("permute", GOOD)
    log.started("permute", GOOD)
    log.close()
    again = Earlier(tmp_path)
    assert again.lost("permute", GOOD)
    assert not again.done("permute", GOOD)
    assert not again.lost("permute", HARMED)


def test_a_log_without_room_says_so(tmp_path):
    """/dev/full takes nothing: what cannot be written down did not happen."""
    log = RunLog(tmp_path, "gw0")
    log.close()
    with open("/dev/full", "w", encoding="utf-8") as full:
        log._file = full
        with pytest.raises(LogLost, match=r"cannot be written: .*No space left"):
            log.started("permute", GOOD)
        full_file, log._file = log._file, None
        with pytest.raises(OSError, match="No space left"):
            full_file.close()


def test_the_judge_of_a_worker_is_as_it_was_asked_for(tmp_path):
    work = Work("eager", CPU)
    assert isinstance(judge.judge(work, 1.0, isolated=True, log=tmp_path / "log"), Isolated)
    inside = judge.judge(work, 1.0, isolated=False, log=tmp_path / "log")
    answer = inside.run(PERMUTE, GOOD)
    assert {v.outcome for v in answer.findings.verdicts} == {"passed"}
    assert json.loads(answer.findings.replay())["property"] == "permute"
