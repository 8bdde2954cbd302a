"""What pyproject.toml and tox.ini must go on saying, whoever edits them."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTERPRETED = {"cpu": "1", "selftest": "1", "cuda": "0", "rocm": "0", "lint": "0", "types": "0", "aot": "0"}
INTERPRETED |= {"golden": "1", "compare": "0", "workflows": "0", "dist": "0"}
# Triton releases that the executor is tried with beside the one of `cpu`, and the torch that belongs to each.
TRITONS = {"36": ("2.11.0", "3.6.0"), "38": ("2.14.1", "3.8.0"), "39": ("2.15.0", "3.9.0")}
EXECUTED = {f"rocm-exec-triton{short}": "0" for short in TRITONS} | {"rocm-exec": "0", "wavefront": "1"}
INTERPRETED |= EXECUTED


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def environments():
    """Every tox environment as tox itself reads it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TOX_")}
    command = [sys.executable, "-m", "tox", "config", "-e", ",".join(INTERPRETED), "-k", "set_env", "pass_env", "deps"]
    command += ["dependency_groups", "env_dir"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=True)
    parser = configparser.RawConfigParser(allow_no_value=True, comment_prefixes=(";",))
    parser.read_string(run.stdout)
    return {name: parser[f"testenv:{name}"] for name in INTERPRETED}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def test_triton_is_never_a_dependency(project):
    declared = names(project["project"]["dependencies"])
    assert "torch" in declared
    assert not {name for name in declared if "triton" in name}


@pytest.mark.parametrize("group", ["conformance", "wavefront", "lint", "types", "release"])
def test_groups_that_decide_a_result_are_exact(project, group):
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", requirement) for requirement in project["dependency-groups"][group])


def test_what_judges_the_workflows_is_exact(project):
    exact = {each.partition("==")[0] for each in project["dependency-groups"]["workflows"] if "==" in each}
    assert {"zizmor", "check-jsonschema"} <= exact


@pytest.mark.parametrize(("name", "interpreted"), INTERPRETED.items())
def test_triton_interpret_is_set_and_never_inherited(environments, name, interpreted):
    assert f"TRITON_INTERPRET={interpreted}" in environments[name]["set_env"].split()
    assert not [passed for passed in environments[name]["pass_env"].split() if passed.startswith(("TRITON", "*"))]


@pytest.mark.parametrize("name", ["cpu", "golden", "cuda", "rocm", "selftest", *EXECUTED])
def test_environments_that_draw_problems_pin_hypothesis(environments, name):
    assert "conformance" in environments[name]["dependency_groups"].split()


@pytest.mark.parametrize("name", ["cpu", "golden", "cuda", "rocm", "compare", "selftest", "types"])
def test_torch_is_pinned(environments, name):
    """Unpinned, pip would fetch the newest build, and with it another Triton."""
    assert [line for line in environments[name]["deps"].split() if line.startswith("torch==2.13.0")]


def test_the_compile_matrix_has_no_torch(environments, project):
    """A torch would bring its own Triton, and the matrix is compiled by several."""
    asked = names(environments["aot"]["deps"].split()) | names(project["dependency-groups"]["aot"])
    assert "triton" in asked
    assert "torch" not in asked


@pytest.mark.parametrize(("short", "versions"), TRITONS.items())
def test_each_triton_stands_beside_the_torch_that_belongs_to_it(environments, short, versions):
    wanted = [f"torch=={versions[0]}", f"triton=={versions[1]}"]
    assert environments[f"rocm-exec-triton{short}"]["deps"].split() == wanted


@pytest.mark.parametrize("name", ["cuda", "rocm"])
def test_triton_comes_with_the_gpu_builds_of_torch(environments, name):
    assert "triton" not in names(environments[name]["deps"].split())


@pytest.mark.parametrize("name", ["cpu", "cuda", "rocm", "selftest"])
@pytest.mark.parametrize("mask", ["CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "HSA_*"])
def test_device_masks_pass(environments, name, mask):
    assert mask in environments[name]["pass_env"].split()


def test_plain_triton_cannot_be_installed_for_rocm(environments):
    assert re.search(r"PIP_CONSTRAINT=.*rocm-constraints\.txt", environments["rocm"]["set_env"])
    assert "triton<0" in (ROOT / ".ci" / "rocm-constraints.txt").read_text().splitlines()


def test_no_environment_shares_a_virtualenv(environments):
    folders = [environment["env_dir"] for environment in environments.values()]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("file", ["pyproject.toml", "tox.ini", "toxfile.py", ".ci/run", ".ci/rocm-constraints.txt"])
def test_no_package_index_is_named(file):
    assert "://" not in (ROOT / file).read_text()


def test_ci_runs_the_commands_that_tox_runs_by_default():
    listed = re.search(r"^environments=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)[1].split()
    parser = configparser.RawConfigParser(comment_prefixes=("#",))
    parser.read(ROOT / "tox.ini")
    assert listed == [name.strip() for name in parser["tox"]["env_list"].split(",")]
