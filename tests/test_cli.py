"""The command line, run as users run it: exit codes, messages, replay."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from moe_conformance.cli import main
from moe_conformance.contract import requirements
from moe_conformance.record import Record, problem_set_digest, spec_digest
from moe_conformance.registry import all_properties

RUN = ("run", "--backend", "cpu")
REPLAY = ("replay", "--backend", "cpu", "--implementation")
SMALL = {"experts": 1, "ffn": 1, "hidden": 1, "tokens": 1, "top_k": 1}


def case(prop: str = "down", **fields) -> str:
    return json.dumps({"property": prop, "problem": SMALL | fields})


@pytest.fixture
def call(monkeypatch, tmp_path):
    """The command line in this process, in an empty folder: quick, for calls that start no workers."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def assert_refused(done: Result, message: str) -> None:
    """Exit code 2 with a message, and no exception that escaped."""
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 2
    assert message in re.sub(r"\s+", " ", done.output)


def test_list_names_every_requirement_and_property(cli):
    done = cli("list")
    assert done.returncode == 0
    for name in (*requirements(), *all_properties(), "tritonmoe", "eager", "wrong"):
        assert name in done.stdout


def test_doctor(call):
    done = call("doctor", "--backend", "cpu", "--implementation", "eager")
    assert done.exit_code == 0
    assert "backend cpu" in done.output
    assert f"missing: backend {MISSING} was asked for" in done.output


# A device that this machine has not: ROCm where there is a CUDA device, else CUDA.
MISSING = "rocm" if torch.cuda.is_available() and not torch.version.hip else "cuda"


@pytest.mark.parametrize("command", ["doctor", "run", "replay"])
def test_a_missing_backend_is_no_success(call, command):
    """Exit 2 with what was found instead; nothing is skipped."""
    done = call(command, "--backend", MISSING, *([case()] if command == "replay" else []))
    assert_refused(done, f"backend {MISSING} was asked for, but torch {torch.__version__} sees")


def test_the_exit_code_reaches_the_shell(cli):
    done = cli("doctor", "--backend", MISSING)
    assert done.returncode == 2
    assert "was asked for" in done.stderr
    assert "Traceback" not in done.stderr


BAD_CALLS = {
    "unknown implementation": ((*RUN, "--implementation", "nobody"), "implementation must be one of"),
    "missing module": ((*RUN, "--implementation", "no_such_module:make"), "no_such_module"),
    "missing factory": ((*RUN, "--implementation", "json:nothing"), "has no 'nothing'"),
    "no declaration": ((*RUN, "--implementation", "collections:OrderedDict"), "without a Declaration"),
    "unknown stage": ((*RUN, "--stage", "sort"), "sort"),
    "no problems": ((*RUN, "--problems", "0"), "problems"),
    "a shard of nothing": ((*RUN, "--shard", "0/3"), "a shard is written I/N"),
    "no time": ((*RUN, "--limit", "0"), "limit"),
    "a record where none can be": (
        (*RUN, "--implementation", "eager", "--record", "/proc/no/r.json"),
        "/proc/no",
    ),
    "a folder without a run": (("resume", "nowhere"), "holds no run"),
    "shards that are no records": (("merge", "a.json", "b.json", "--record", "c.json"), "cannot be read"),
    "broken JSON": ((*REPLAY, "eager", '{"property":"down",'), "CASE is not a problem"),
    "JSON of the wrong kind": ((*REPLAY, "eager", '{"property":["down"],"problem":{}}'), "CASE"),
    "a file that is not there": ((*REPLAY, "eager", "nothing.json"), "neither JSON nor a readable file"),
    "unknown property": ((*REPLAY, "eager", case("sorting")), "sorting"),
    "no problem": ((*REPLAY, "eager", '{"property":"down"}'), "problem"),
    "a contradiction": ((*REPLAY, "eager", case(top_k=2)), "CASE is not a problem"),
    "a property of another backend": ((*REPLAY, "eager", case("graph_replay")), "cpu"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_exit_2_with_a_message(call, name):
    arguments, message = BAD_CALLS[name]
    assert_refused(call(*arguments), message)


def test_a_file_that_is_no_text_exits_2(call, tmp_path):
    (tmp_path / "case.bin").write_bytes(b"\xff\xfe\x00")
    assert_refused(call(*REPLAY, "eager", "case.bin"), "CASE")


def test_replay_of_a_passing_case_from_a_file(call, tmp_path):
    (tmp_path / "case.json").write_text(case(tokens=3, hidden=20))
    done = call(*REPLAY, "eager", "case.json")
    assert done.exit_code == 0, done.output
    assert re.search(r"DOWN-1: passed, worst error/bound 0\.\d+", done.output)


def test_replay_of_a_failing_case_says_everything(cli_here):
    failing = {"property": "down", "problem": SMALL | {"dtype": "bf16", "seed": 3}}
    done = cli_here(*REPLAY, "wrong", json.dumps(failing))
    assert done.returncode == 1
    assert "DOWN-1 is not met by wrong" in done.stdout
    assert re.search(r"worst at \(0, 0\): value \S+, reference \S+, error \S+, bound \S+, error/bound \S+", done.stdout)
    found = json.loads(re.search(r"problem: +(\{.*\})", done.stdout)[1])
    assert found == failing["problem"]
    command = shlex.split(re.search(r"replay: +(moe-conformance .*)", done.stdout)[1])
    assert command[:6] == ["moe-conformance", "replay", "--implementation", "wrong", "--backend", "cpu"]
    assert json.loads(command[6]) == failing


def test_a_wrong_implementation_fails_and_its_replay_fails_too(cli_here):
    done = cli_here(*RUN, "--implementation", "wrong", "--problems", "30", "--stage", "down", "--workers", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed:" in done.stdout
    commands = [shlex.split(line) for line in re.findall(r"replay: +(moe-conformance .*)", done.stdout)]
    assert commands
    again = cli_here(*commands[0][1:])
    assert again.returncode == 1
    assert "is not met by wrong" in again.stdout


def test_a_right_implementation_passes_and_leaves_a_record(cli, tmp_path):
    arguments = ("--stage", "permute", "--problems", "40", "--workers", "1", "--record", "out/record.json")
    done = cli(*RUN, "--implementation", "eager", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    record = Record.read(tmp_path / "out" / "record.json")
    assert (record.verdict, record.stages, record.implementation) == ("passed", ["permute"], "eager")
    assert record.spec_digest == spec_digest()
    assert record.problem_set == problem_set_digest(record.cases)
    assert {case.property for case in record.cases} == {"permute"}
    assert all(re.fullmatch("[0-9a-f]{12}", case.problem) for case in record.cases)
    assert {case.outcome for case in record.cases} == {"passed"}
    assert {t.requirement: t.problems for t in record.requirements} == dict.fromkeys(
        ("PERM-1", "PERM-2", "PERM-3", "MEM-1", "MEM-4"), len(record.cases)
    )


def installed(folder: Path, name: str) -> str:
    """A folder for PYTHONPATH in which the suite is installed, with an entry point called `name`."""
    info = folder / "tritonmoe_conformance-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tritonmoe-conformance\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = moe_conformance.plugin\n")
    return str(folder)


def test_the_installed_plugin_and_the_run_do_not_collide(cli_here, python, tmp_path):
    """An installed suite is also found by pytest through its entry point; the run must work all the same."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, module),) = project["entry-points"]["pytest11"].items()
    assert module == "moe_conformance.plugin"
    arguments = ("--stage", "permute", "--problems", "40", "--workers", "1", "--in-process")
    path = installed(tmp_path / "site", name)
    done = cli_here(*RUN, "--implementation", "eager", *arguments, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout[-3000:]
    # Under any other name pytest sees the module twice: this environment is one in which a collision shows.
    other = installed(tmp_path / "other", "moe_conformance")
    collided = python("-m", "pytest", "-p", module, "--collect-only", PYTHONPATH=other)
    assert collided.returncode not in (0, 5)
    assert "Plugin already registered under a different name" in collided.stdout + collided.stderr


# -- implementations of others ---------------------------------------------------------------------------------------

FOREIGN = """
from dataclasses import replace
from moe_conformance.implementation import Declaration
from moe_conformance.implementations.eager import Eager

small = replace(Eager.declaration, name="mine", dtypes=("fp32",), activations=("silu",), scorings=("softmax",),
                groups=False, selection_bias=False, logit_bias=False, expert_scale=False)

class ForwardOnly:
    declaration = replace(small, stages=frozenset({"forward"}))
    def forward(self, inputs):
        return Eager().forward(inputs)

class Raises(Eager):
    declaration = replace(small, stages=frozenset({"permute"}))
    def permute(self, ids, num_experts):
        if num_experts > 2:
            raise LookupError("no room for so many experts")
        return super().permute(ids, num_experts)

class Malformed(Raises):
    def permute(self, ids, num_experts):
        return None if num_experts == 5 else Eager.permute(self, ids, num_experts)

class Unsteady(Raises):
    calls = 0
    def permute(self, ids, num_experts):
        self.calls += 1
        found = super(Raises, self).permute(ids, num_experts)
        return found._replace(inverse=found.inverse + 1) if self.calls == 9 else found
"""


@pytest.fixture
def judged(cli_here, tmp_path):
    """Judge a class of FOREIGN, which harms nobody; the finished command and the Record."""

    def run(name: str, stage: str, problems: int = 60, workers: int = 1):
        (tmp_path / "foreign.py").write_text(FOREIGN)
        arguments = ("--stage", stage, "--problems", str(problems), "--workers", str(workers), "--record", "r.json")
        done = cli_here(*RUN, "--implementation", f"foreign:{name}", "--in-process", *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        return done, Record.read(tmp_path / "r.json")

    return run


def test_an_implementation_with_one_stage_is_judged_by_it(judged):
    done, record = judged("ForwardOnly", "forward", problems=200)
    assert done.returncode == 0, done.stdout
    assert record.verdict == "passed"
    assert {c.property for c in record.cases} >= {"forward", "inputs_are_not_modified", "repetition_is_bitwise_equal"}
    assert "permute" not in {c.property for c in record.cases}


def test_an_exception_is_a_failure_with_its_text(judged):
    done, record = judged("Raises", "permute")
    assert done.returncode == 1
    assert record.verdict == "failed"
    assert "PERM-1 is not met by foreign:Raises: raised LookupError: no room for so many experts" in done.stdout
    assert record.failures
    for failure in record.failures:
        assert failure.problem["experts"] in (3, 4), "shrunk, or the first fixed problem"


def test_a_result_of_the_wrong_kind_is_no_success(judged):
    """Now and then the stage returns None: no requirement is broken, but the run is not green."""
    done, record = judged("Malformed", "permute")
    assert done.returncode == 1
    assert record.verdict == "incomplete"
    assert not record.failures
    assert any("ended in an error without a verdict" in reason for reason in record.reasons)
    assert any(case.outcome == "unfinished" for case in record.cases)


def test_a_defect_that_comes_and_goes_is_reported_with_its_problem(judged):
    """One wrong answer, right when asked again: still a failure that says what it was and how to replay it."""
    done, record = judged("Unsteady", "permute", problems=200)
    assert done.returncode == 1
    assert record.verdict == "failed"
    assert len(record.failures) == 1, "the failure must be among the record's failures"
    assert "replay:" in done.stdout
