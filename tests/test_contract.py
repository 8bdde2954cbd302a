"""SPEC.md and the properties name each other, completely and both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from moe_conformance import contract, registry
from moe_conformance.backends import Backend
from moe_conformance.implementation import STAGES
from moe_conformance.profiles import fixed_problems


def disagreements(requirements: Iterable, properties: Iterable) -> list[str]:
    """Everything in which a contract and a set of properties do not fit."""
    known, checked_on = {r.id: r for r in requirements}, {}
    found = []
    for prop in properties:
        for name in prop.requirements:
            if name not in known:
                found.append(f"{prop.name} names {name}, which SPEC.md does not have")
                continue
            # A property runs where both it and the requirement can be; a backend it may not be on adds nothing.
            checked_on.setdefault(name, set()).update(prop.backends)
    for requirement in known.values():
        reached = checked_on.get(requirement.id, set())
        for backend in requirement.backends:
            if backend not in reached:
                found.append(f"{requirement.id} has no property on {backend}")
        for backend in reached - set(requirement.backends):
            found.append(f"{requirement.id} is checked on {backend}, where SPEC.md says it cannot be")
    return found


@pytest.fixture
def other_spec(tmp_path, monkeypatch):
    """Read the contract from a changed copy of SPEC.md."""

    def read(change) -> dict[str, contract.Requirement]:
        path = tmp_path / "SPEC.md"
        path.write_text(change(contract_text), encoding="utf-8")
        monkeypatch.setattr(contract, "spec_path", lambda: path)
        return contract.requirements.__wrapped__()

    contract_text = contract.spec_path().read_text(encoding="utf-8")
    return read


def test_contract_and_properties_agree():
    """Every requirement has a property on each of its backends, and every named requirement exists."""
    assert disagreements(contract.requirements().values(), registry.all_properties().values()) == []


def test_every_heading_that_looks_like_a_requirement_is_read():
    """The count comes from a search of its own: a heading that the parser misses would be a silent hole."""
    text = contract.spec_path().read_text(encoding="utf-8")
    headings = re.findall(r"^#+\s*([A-Za-z]+-\d+)", text, re.MULTILINE)
    assert headings == list(contract.requirements())
    assert len(headings) == len(set(headings)) >= 32


def test_every_line_about_backends_is_understood():
    text = contract.spec_path().read_text(encoding="utf-8")
    lines = re.findall(r"^\s*backends?\b.*$", text, re.MULTILINE | re.IGNORECASE)
    restricted = [r for r in contract.requirements().values() if r.backends != contract.ALL_BACKENDS]
    assert len(lines) == len(restricted) > 0
    for requirement in restricted:
        assert set(requirement.backends) < set(contract.ALL_BACKENDS)


def test_an_extra_requirement_is_detected(other_spec):
    """The check can fail: a requirement that nobody checks is reported, on every backend."""
    changed = other_spec(lambda text: text + "\n### ROUTE-99 nobody has thought of this\nText.\n")
    found = disagreements(changed.values(), registry.all_properties().values())
    assert found == [f"ROUTE-99 has no property on {backend}" for backend in contract.ALL_BACKENDS]


def test_a_missing_requirement_is_detected(other_spec):
    changed = other_spec(lambda text: text.replace("### PERM-3 inverse undoes order", "### Inverse undoes order"))
    found = disagreements(changed.values(), registry.all_properties().values())
    assert found == ["permute names PERM-3, which SPEC.md does not have"]


def test_a_widened_or_narrowed_list_of_backends_is_detected(other_spec):
    wide = other_spec(lambda text: text.replace("Backends: cuda, rocm.\n", ""))
    found = disagreements(wide.values(), registry.all_properties().values())
    assert "SYS-1 has no property on cpu" in found
    assert "MEM-3 has no property on cpu" in found
    heading = "### PERM-1 offsets are the prefix sums of the expert histogram\n"
    narrow = other_spec(lambda text: text.replace(heading, heading + "\nBackends: cuda.\n"))
    found = disagreements(narrow.values(), registry.all_properties().values())
    assert sorted(found) == [
        f"PERM-1 is checked on {b}, where SPEC.md says it cannot be" for b in ("cpu", "exec", "rocm")
    ]


def test_a_repeated_id_is_refused(other_spec):
    with pytest.raises(ValueError, match="PERM-1 is written twice"):
        other_spec(lambda text: text + "\n### PERM-1 once more\n")


@pytest.mark.parametrize("prop", registry.all_properties().values(), ids=lambda p: p.name)
def test_property_is_well_formed(prop):
    """Names are unique, lists hold no repeats, and a property without draws has fixed problems in some dtype."""
    assert prop.requirements
    assert len(set(prop.requirements)) == len(prop.requirements)
    assert prop.backends
    assert set(prop.backends) <= set(contract.ALL_BACKENDS)
    assert set(prop.stages) <= set(STAGES)
    assert prop.check.__doc__, "a property says in words what it claims"
    if not prop.kind.drawn:
        assert any(fixed_problems(prop.problems, dtype) for dtype in ("fp32", "fp16", "bf16"))
    else:
        assert prop.share > 0, "drawn problems need a share of the run"


def test_two_properties_of_one_name_are_refused(monkeypatch):
    def check(trial):
        """Nothing."""

    made = registry.conforms("PERM-1", stages=("permute",), problems="permute")(check).conformance_property
    twice = SimpleNamespace(a=SimpleNamespace(conformance_property=made), b=SimpleNamespace(conformance_property=made))
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: twice)
    with pytest.raises(ValueError, match="two properties are called check"):
        registry.all_properties.__wrapped__()


def test_unknown_kind_of_problem_is_refused():
    with pytest.raises(ValueError, match="problems must be one of"):
        registry.conforms("PERM-1", stages=("permute",), problems="sorting")


def test_a_verdict_on_a_requirement_that_was_not_named_is_an_error():
    """A property cannot quietly judge something else than it lists."""
    from moe_conformance.implementation import load
    from moe_conformance.problem import Problem
    from moe_conformance.registry import make_trial

    prop = registry.all_properties()["permute"]
    problem = Problem(tokens=1, hidden=1, ffn=1, experts=1, top_k=1)
    trial = make_trial(prop, problem, load("eager"), "eager", Backend("cpu", "cpu"))
    with pytest.raises(RuntimeError, match="does not name DOWN-1"):
        trial.expect("DOWN-1", True, "")


def test_spec_is_found_beside_or_inside_the_package(monkeypatch, tmp_path):
    package = tmp_path / "moe_conformance"
    package.mkdir()
    monkeypatch.setattr(contract, "__file__", str(package / "contract.py"))
    with pytest.raises(FileNotFoundError, match=r"SPEC\.md"):
        contract.spec_path()
    (tmp_path / "SPEC.md").write_text("beside")
    assert contract.spec_path() == Path(tmp_path / "SPEC.md")
    (package / "SPEC.md").write_text("inside")
    assert contract.spec_path() == package / "SPEC.md"
