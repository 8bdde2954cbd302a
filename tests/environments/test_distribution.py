"""What a user gets: the wheel in tox's selftest environment, or the editable install of a developer."""

import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "tritonmoe-conformance"


def is_editable() -> bool:
    direct_url = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    return bool(direct_url) and json.loads(direct_url).get("dir_info", {}).get("editable", False)


@pytest.mark.parametrize("package", ["tritonmoe", "moe_conformance"])
def test_both_packages_are_installed_and_typed(package):
    folder = Path(importlib.util.find_spec(package).origin).parent
    assert (folder / "py.typed").is_file()


def test_an_installed_suite_is_the_one_tested():
    folder = Path(importlib.util.find_spec("moe_conformance").origin).parent
    assert folder.is_relative_to(ROOT / "conformance") == is_editable()


def test_the_contract_travels_with_the_suite():
    folder = Path(importlib.util.find_spec("moe_conformance").origin).parent
    contract = folder.parent / "SPEC.md" if is_editable() else folder / "SPEC.md"
    assert contract.read_bytes() == (ROOT / "conformance" / "SPEC.md").read_bytes()


@pytest.mark.parametrize("package", ["kernels/tritonmoe", "conformance/moe_conformance"])
def test_no_file_is_left_behind(package):
    folder = Path(importlib.util.find_spec(package.rpartition("/")[2]).origin).parent
    source = ROOT / package
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    expected = {path for path in files if not any(part.startswith(".") for part in path.parts)}
    assert not {path for path in expected if not (folder / path).is_file()}


@pytest.mark.parametrize(
    ("group", "name", "target"),
    [
        ("console_scripts", "moe-conformance", "moe_conformance.cli:main"),
        ("pytest11", "moe_conformance.plugin", "moe_conformance.plugin"),
    ],
)
def test_entry_points(group, name, target):
    (entry,) = metadata.entry_points(group=group, name=name)
    assert entry.value == target
    assert callable(entry.load()) or group == "pytest11"
