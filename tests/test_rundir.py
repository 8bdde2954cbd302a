"""Bad days: a run that is killed and taken up again, folders that cannot be written, a disk that is full, a clock that
jumps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from moe_conformance import run as module
from moe_conformance import rundir, whole_file
from moe_conformance.backends import Backend
from moe_conformance.implementation import load
from moe_conformance.plan import RunOptions
from moe_conformance.problem import Problem
from moe_conformance.record import Record
from moe_conformance.rundir import RunDirectory, cache_of_host, objection, read, unfinished
from moe_conformance.runlog import RunLog

CPU = Backend("cpu", "cpu")
HERE = str(Path(__file__).parent)
ONE = Problem(tokens=3, hidden=4, ffn=4, experts=4, top_k=2)


def planned(folder: Path) -> module.Plan:
    return module.make_plan(RunOptions("eager", "cpu", "dev", ("permute",), 0, 40), CPU, load("eager"), 1, folder)


@pytest.fixture
def begun(tmp_path) -> RunDirectory:
    """A run that has started, and has judged one problem of two."""
    made = RunDirectory(tmp_path / "run-1")
    made.begin(planned(made.path).asked())
    log = RunLog(made.path, "gw0")
    log.started("permute", ONE)
    log._write({"event": "end", "property": "permute", "id": ONE.id, "counts": True, "verdicts": []})
    log.started("permute", ONE.model_copy(update={"seed": 5}))
    log.close()
    return made


def test_a_run_that_goes_on_is_not_unfinished(begun, tmp_path):
    assert unfinished(tmp_path) == []
    with pytest.raises(ValueError, match="still goes on"):
        RunDirectory(begun.path).again()


def test_a_run_whose_process_is_gone_says_what_it_lacks(begun, tmp_path):
    begun._lock.release()  # as the system does with the lock of a dead process
    (left,) = unfinished(tmp_path)
    assert (left.directory, left.executed) == (begun.path, 1)
    assert f"1 of about {planned(begun.path).problems} problems done; last tried: permute" in str(left)
    assert RunDirectory(begun.path).again() == read(begun.path)


def test_a_run_that_ended_is_not_taken_up(begun, tmp_path):
    begun.done("{}")
    assert unfinished(tmp_path) == []
    with pytest.raises(ValueError, match="came to its end"):
        RunDirectory(begun.path).again()


def test_a_folder_is_begun_once(begun):
    with pytest.raises(FileExistsError):
        RunDirectory(begun.path).begin(read(begun.path))


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1}', '{"schema_version": 9}', "[]"])
def test_a_folder_with_something_else_is_no_run(tmp_path, text):
    path = tmp_path / "run-2"
    path.mkdir()
    (path / "asked.json").write_text(text)
    assert unfinished(tmp_path) == []
    with pytest.raises(ValueError, match="is not what a run writes"):
        read(path)


def test_nothing_stays_behind_where_something_can_be_written(tmp_path):
    assert objection(tmp_path / "new" / "folder") is None
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize("place", ["a file/below", "/proc/nowhere"])
def test_where_nothing_can_be_written(tmp_path, place):
    (tmp_path / "a file").write_text("")
    assert "cannot be written: " in str(objection(tmp_path / place))


def test_the_cache_is_one_of_the_host(monkeypatch):
    monkeypatch.setattr(rundir.platform, "node", lambda: "one")
    assert cache_of_host("/shared/cache") == Path("/shared/cache/one")
    assert cache_of_host(None) == Path.home() / ".triton" / "cache" / "one"
    monkeypatch.setattr(rundir.platform, "node", lambda: "other")
    assert cache_of_host("/shared/cache") == Path("/shared/cache/other")


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file"))
    plan = planned(tmp_path / "run")
    assert module.environment_of(plan)["TRITON_CACHE_DIR"] == str(tmp_path / "run" / "triton-cache")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    assert module.environment_of(plan)["TRITON_CACHE_DIR"] == str(cache_of_host(str(tmp_path / "cache")))


def test_a_clock_that_jumps_back_changes_no_duration(tmp_path, monkeypatch):
    """Times of day are told and never subtracted."""
    plan = planned(tmp_path / "run")

    class Jumping(datetime):
        days = 0

        @classmethod
        def now(cls, tz=None):
            cls.days -= 1000
            return datetime.now(UTC) + timedelta(days=cls.days)

    monkeypatch.setattr(module, "datetime", Jumping)
    monkeypatch.setattr(module, "_pytest", lambda *_, **__: 0)
    record = module.execute(plan, lambda event: None)
    assert 0 <= record.seconds < 60


# -- whole runs ------------------------------------------------------------------------------------------------------

RUN = ("run", "--backend", "cpu", "--implementation", "harmful:Slow", "--stage", "permute", "--problems", "400")


@pytest.fixture
def start(tmp_path) -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in the background."""
    folders = {str(Path(m.__file__).resolve().parents[1]) for m in (module, __import__("tritonmoe"))}
    path = os.pathsep.join([HERE, *folders])
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))} | {"PYTHONPATH": path}
    made: list[subprocess.Popen[str]] = []

    def call(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "moe_conformance.cli", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        made.append(subprocess.Popen(command, cwd=tmp_path, env=settings, **pipes))
        return made[-1]

    yield call
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


def _events(folder: Path) -> list[str]:
    return [line for path in folder.glob("run-*/events-*.jsonl") for line in path.read_text().splitlines()]


def test_a_killed_run_is_told_of_and_taken_up(start, cli_here, tmp_path):
    """SIGKILL in the middle: no Record, no process left, and the rest is done later, once."""
    root = tmp_path / ".moe-conformance"
    process = start(*RUN, "--workers", "1", "--record", "killed.json")
    until = time.monotonic() + 120
    while sum('"event":"end"' in line for line in _events(root)) < 12:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed.json").exists()
    (folder,) = root.glob("run-*")
    _wait_for_silence(folder)

    told = cli_here("resume", PYTHONPATH=HERE)
    assert told.returncode == 0
    assert f"{folder.relative_to(tmp_path)}: harmful:Slow on cpu, profile gate, seed 0" in told.stdout
    before = {json.loads(line)["id"] for line in _events(root) if '"event":"end"' in line}
    note = cli_here("run", "--backend", "cpu", "--implementation", "eager", "--stage", "permute", "--problems", "0")
    assert note.returncode == 2

    done = cli_here("resume", str(folder), "--record", "resumed.json", "--workers", "1", PYTHONPATH=HERE)
    assert done.returncode == 0, done.stdout
    assert "resumed" in done.stdout
    resumed = Record.read(tmp_path / "resumed.json")
    assert not folder.exists(), "a run that passed leaves nothing behind"
    whole = cli_here(*RUN, "--workers", "1", "--in-process", "--record", "whole.json", PYTHONPATH=HERE)
    assert whole.returncode == 0
    alone = Record.read(tmp_path / "whole.json")
    assert (resumed.problem_set, resumed.verdict) == (alone.problem_set, "passed")
    assert [c.outcome for c in resumed.cases] == [c.outcome for c in alone.cases]
    assert resumed.rounds == 2
    assert len(before) >= 10


def _wait_for_silence(folder: Path) -> None:
    """Until nobody writes events any more: a killed run takes its workers along."""
    size, until = -1, time.monotonic() + 30
    while (now := sum(path.stat().st_size for path in folder.glob("events-*"))) != size:
        assert time.monotonic() < until, "workers go on"
        size = now
        time.sleep(0.5)


def test_a_run_of_other_kernels_is_not_taken_up(begun, cli_here):
    begun._lock.release()
    path = begun.path / "asked.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source_digest": "0" * 64}))
    done = cli_here("resume", str(begun.path))
    assert done.returncode == 2
    assert "its source_digest is not that of today" in " ".join(done.stderr.split())


def test_a_run_where_nothing_can_be_written(cli_here, tmp_path):
    (tmp_path / ".moe-conformance").write_text("in the way")
    done = cli_here("run", "--backend", "cpu", "--implementation", "eager", "--stage", "permute", "--problems", "10")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_ends_a_run_with_its_reason(start, tmp_path):
    """A file may not grow beyond 40,000 bytes: as on a full disk, an event cannot be written."""
    limited = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
sys.path.insert(0, {HERE!r})
sys.argv = ["moe-conformance", *{[*RUN, "--workers", "1", "--record", "r.json"]!r}]
sys.argv[sys.argv.index("harmful:Slow")] = "moe_conformance.drill.harmful:Harmless"
sys.argv[sys.argv.index("400")] = "4000"
from moe_conformance.cli import main
main()
"""
    folders = os.pathsep.join([HERE, *{str(Path(m.__file__).resolve().parents[1]) for m in (module, whole_file)}])
    environment = {**os.environ, "PYTHONPATH": folders}
    done = subprocess.run(
        [sys.executable, "-c", limited], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "incomplete" in done.stdout
    assert "cannot be written" in done.stdout
    assert not (tmp_path / "r.json").exists() or Record.read(tmp_path / "r.json").verdict == "incomplete"
