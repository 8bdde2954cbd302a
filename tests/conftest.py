"""What all tests of the suite share: one thread a worker, and the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import moe_conformance
import tritonmoe
from moe_conformance.backends import Backend
from moe_conformance.findings import NonConformance
from moe_conformance.problem import Problem
from moe_conformance.registry import all_properties, make_trial, run_trial
from moe_conformance.trial import Trial

torch.set_num_threads(1)

# The benchmarks are not part of the distribution. Appended: an installed package stays the one that is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def _import_path() -> str:
    """Where this process finds the two packages, for a subprocess that stands in another folder."""
    folders = {str(Path(module.__file__).resolve().parents[1]) for module in (moe_conformance, tritonmoe)}
    return os.pathsep.join(sorted(folders))


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with arguments in an empty folder. Keywords are environment variables; PYTHONPATH is extended."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        folders = [environment.pop("PYTHONPATH", ""), _import_path()]
        settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_", "COVERAGE"))}
        settings |= {"PYTHONPATH": os.pathsep.join(filter(None, folders)), **environment}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=240)

    return call


@pytest.fixture
def cli(python: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`moe-conformance` with arguments, in an empty folder."""
    return lambda *arguments, **environment: python("-m", "moe_conformance.cli", *arguments, **environment)


@pytest.fixture
def cli_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `cli`, but in this process, which has torch already; what the command starts are processes all the same."""
    from click.testing import CliRunner

    from moe_conformance.cli import main

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        folders = [str(tmp_path), *filter(None, environment.pop("PYTHONPATH", "").split(os.pathsep))]
        before = set(sys.modules)
        with monkeypatch.context() as patch:
            for name in os.environ:
                if name.startswith(("PYTEST_", "TRITON_", "COVERAGE")):
                    patch.delenv(name)
            for name, value in {**environment, "PYTHONPATH": os.pathsep.join([*folders, _import_path()])}.items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            patch.setattr(sys, "path", [*folders, *sys.path])
            done = CliRunner().invoke(main, arguments)
        for name in set(sys.modules) - before:  # another test may have other modules of these names
            if str(getattr(sys.modules[name], "__file__", None)).startswith(tuple(folders)):
                del sys.modules[name]
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return call


def _judge_with(implementation, prop: str, problem: Problem) -> Trial:
    name = type(implementation).__name__
    trial = make_trial(all_properties()[prop], problem, implementation, name, Backend("cpu", "cpu"))
    run_trial(trial, all_properties()[prop].check)
    return trial


@pytest.fixture
def judge_with() -> Callable[..., Trial]:
    """Judge an implementation by one property on one problem: (implementation, property, problem)."""
    return _judge_with


@pytest.fixture
def assert_fails() -> Callable[..., None]:
    """The defect fails the property, and its class's `right` passes on the same problem: the defect alone is to blame.

    (implementation, property, problem, requirement, pattern of the report)
    """

    def check(implementation, prop: str, problem: Problem, requirement: str, message: str | None = None) -> None:
        right = _judge_with(type(implementation).right(), prop, problem)
        assert {v.outcome for v in right.verdicts} == {"passed"}
        with pytest.raises(NonConformance, match=message) as caught:
            _judge_with(implementation, prop, problem)
        assert [v.requirement for v in caught.value.findings.verdicts if v.failed] == [requirement]

    return check


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """`moe-conformance golden` with arguments, in this process: (exit code, output)."""
    from click.testing import CliRunner

    from moe_conformance.cli import main

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["golden", *map(str, arguments)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output

    return call
