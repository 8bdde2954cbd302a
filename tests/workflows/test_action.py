"""The action for other repositories: what it installs, what it runs, what it says."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import judge
import pytest

from .files import ROOT, Files

ACTION = ".github/actions/conformance/action.yml"

# Stands for moe_conformance.cli: says how it was called, writes the Record that it was told to write, and ends as told.
CLI = """
import json, os, sys
from pathlib import Path
print(json.dumps(sys.argv[1:]))
record = next(a for a in sys.argv if a.startswith("--record=")).partition("=")[2]
if "RECORD" in os.environ:
    Path(record).write_text(os.environ["RECORD"])
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with a moe_conformance that is played."""
    package = tmp_path / "site" / "moe_conformance"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(CLI)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path / "work")
    for name in ("RECORD", "CODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "work"


def outputs(output: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.read_text().splitlines())


@pytest.mark.parametrize(
    ("record", "code", "verdict", "ends"),
    [
        ('{"verdict": "passed"}', 0, "passed", 0),
        ('{"verdict": "failed"}', 1, "failed", 1),
        ('{"verdict": "incomplete"}', 1, "incomplete", 1),
        (None, 2, "not-run", 2),
        (None, 0, "not-run", 1),
        ('{"verdict": "failed"}', 0, "failed", 1),
        ("{}", 0, "not-run", 1),
        ("[]", 1, "not-run", 1),
        ('{"verdict": "passed\\nrecord=/x"}', 0, "not-run", 1),
        ('{"verdict": ["passed"]}', 0, "not-run", 1),
    ],
)
def test_the_verdict_is_the_record_s(
    suite: Path, output: Path, monkeypatch, record, code: int, verdict: str, ends: int
):
    if record is not None:
        monkeypatch.setenv("RECORD", record)
    monkeypatch.setenv("CODE", str(code))
    monkeypatch.setenv("MOE_IMPLEMENTATION", "a:B")
    monkeypatch.setenv("MOE_RECORD", "r.json")
    assert judge.main(["run"]) == ends
    found = outputs(output)
    assert found["verdict"] == verdict
    assert found["record"] == (str(suite / "r.json") if record is not None else "")


def test_an_older_run_s_record_does_not_count(suite: Path, output: Path, monkeypatch):
    (suite / "r.json").write_text('{"verdict": "passed"}')
    for name, value in {"MOE_IMPLEMENTATION": "a:B", "MOE_RECORD": "r.json", "CODE": "0"}.items():
        monkeypatch.setenv(name, value)
    assert judge.main(["run"]) == 1
    assert outputs(output) == {"verdict": "not-run", "record": ""}


def test_an_empty_implementation_is_not_replaced_by_ours(suite: Path, output: Path, monkeypatch):
    monkeypatch.setenv("MOE_IMPLEMENTATION", " ")
    assert judge.main(["run"]) == 2
    assert outputs(output)["verdict"] == "not-run"


def test_inputs_become_arguments_and_stay_whole():
    text = "$(touch x); `y` 'z' --backend cuda"
    given = {f"MOE_{name.upper()}": f"{name} {text}" for name in judge.OPTIONS}
    command = judge.run_command({**given, "MOE_STAGES": "route down"})
    assert command[:4] == [sys.executable, "-m", "moe_conformance.cli", "run"]
    assert command[4:] == [*(f"--{name}={name} {text}" for name in judge.OPTIONS), "--stage=route", "--stage=down"]


def test_empty_inputs_are_left_to_the_suite():
    assert judge.run_command({"MOE_IMPLEMENTATION": "a:B", "MOE_SEED": "", "MOE_STAGES": " "})[4:] == [
        "--implementation=a:B"
    ]


def test_the_suite_is_installed_with_its_hypothesis():
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["conformance"]
    assert judge.install_command()[1:] == ["-m", "pip", "install", str(ROOT), *pinned]
    assert (ROOT / "pyproject.toml").samefile(judge.ROOT / "pyproject.toml")


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "x"]])
def test_other_calls_are_refused(arguments: list[str]):
    assert judge.main(arguments) == 2


def test_every_input_reaches_the_script(files: Files):
    action = files.data[ACTION]
    step = action["runs"]["steps"][1]
    passed = {name.removeprefix("MOE_").lower() for name in step["env"] if name.startswith("MOE_")}
    assert passed == {*judge.OPTIONS, "stages"}
    assert set(action["inputs"]) == passed | {"working-directory", "python"}
    used = re.findall(r"inputs\.([\w-]+)", json.dumps(action["runs"]))
    assert set(used) == set(action["inputs"])


def test_the_options_are_the_suite_s():
    """Read, not imported: this test needs no torch."""
    suite = ROOT / "conformance" / "moe_conformance"
    source = "".join((suite / name).read_text() for name in ("run_command.py", "command_line.py"))
    for name in (*judge.OPTIONS, "stage"):
        assert f'"--{name}"' in source


def test_the_workflow_passes_what_it_takes(files: Files):
    workflow = files.workflows["conformance.yml"]
    taken = workflow["on"]["workflow_call"]["inputs"]
    (step,) = [step for step in workflow["jobs"]["judge"]["steps"] if step.get("id") == "judge"]
    assert set(step["with"]) <= set(files.data[ACTION]["inputs"])
    used = re.findall(r"inputs\.([\w-]+)", json.dumps(workflow["jobs"]))
    assert set(used) == set(taken)
    for name, value in step["with"].items():
        assert value == f"${{{{ inputs.{name} }}}}"
        assert taken[name].get("default", "") == files.data[ACTION]["inputs"][name].get("default", "")
