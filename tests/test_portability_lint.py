"""The portability lint: sound by its planted violations, and clean on the shipped kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import tritonmoe
from moe_conformance.implementation import source_digest
from moe_conformance.implementations.triton_moe import TritonMoE
from moe_conformance.portability import lint
from moe_conformance.portability.command import lint_kernels

PACKAGE = Path(tritonmoe.__file__).parent
RULES = {"vendor", "assembly", "library", "warp", "environment", "primitive", "option"}


def test_there_is_a_planted_violation_of_every_rule_and_harmless_code_of_every_kind() -> None:
    assert {each.rule for each in lint.planted()} == RULES | {""}
    assert {each.kind for each in lint.planted() if not each.rule} == {"device", "host", "data"}


@pytest.mark.parametrize("each", lint.planted(), ids=lambda each: f"{each.rule or 'harmless'}-{each.kind}")
def test_planted(each: lint.Planted) -> None:
    rules = {finding.rule for finding in lint.findings(each.code, "planted", each.kind)}
    assert each.rule in rules if each.rule else not rules


def test_the_shipped_kernels_are_clean() -> None:
    assert lint.lint(PACKAGE) == []
    assert len([path for path in lint.sources(PACKAGE) if lint.kind_of(path) == "device"]) > 5


def test_a_vendor_branch_planted_in_a_launcher_is_seen(tmp_path: Path) -> None:
    copy = tmp_path / "tritonmoe"
    for path in lint.sources(PACKAGE):
        target = copy / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    launcher = copy / "launch.py"
    launcher.write_text(launcher.read_text() + "\n\ndef wide():\n    return torch.version.hip is None\n")
    found = lint.lint(copy)
    assert [finding.rule for finding in found] == ["vendor"]
    assert found[0].path == "tritonmoe/launch.py"
    done = CliRunner().invoke(lint_kernels, ["--package", str(copy)])
    assert done.exit_code == 1
    assert "hip" in done.output


def test_a_lint_that_lost_its_eyes_is_no_lint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "findings", lambda *_: [])
    assert lint.self_test()
    done = CliRunner().invoke(lint_kernels)
    assert done.exit_code == 2
    assert "not sound" in done.output


def test_nothing_to_judge_is_no_pass(tmp_path: Path) -> None:
    done = CliRunner().invoke(lint_kernels, ["--package", str(tmp_path)])
    assert done.exit_code == 2
    assert "nothing to judge" in done.output


def test_a_file_that_is_no_python_is_a_finding() -> None:
    assert [finding.rule for finding in lint.findings("def f(:", "x_kernel.py", "device")] == ["syntax"]


def test_the_digest_is_the_one_that_records_have() -> None:
    assert lint.source_digest(PACKAGE) == source_digest(TritonMoE())
