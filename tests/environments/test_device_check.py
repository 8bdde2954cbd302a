"""`tox -e cuda` and `tox -e rocm` stop before the first download where their device is missing (toxfile.py)."""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def toxfile():
    spec = importlib.util.spec_from_file_location("toxfile_under_test", ROOT / "toxfile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeDriver:
    """libcuda.so.1 with a given answer to each of the two calls."""

    def __init__(self, devices: int, init: int = 0, count: int = 0):
        self.devices, self.init, self.count = devices, init, count

    def __call__(self, name: str) -> "FakeDriver":
        assert name == "libcuda.so.1"
        return self

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, pointer):
        pointer._obj.value = self.devices
        return self.count

    def cuGetErrorName(self, status, pointer):
        pointer._obj.value = b"CUDA_ERROR_NO_DEVICE" if status == 100 else None
        return 0


def missing_library(name: str) -> ctypes.CDLL:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        (FakeDriver(devices=1), None),
        (FakeDriver(devices=8), None),
        (missing_library, "cannot be loaded"),
        (FakeDriver(devices=0), "shows no device"),
        (FakeDriver(devices=0, init=100), "100 (CUDA_ERROR_NO_DEVICE)"),
        (FakeDriver(devices=0, init=803), "cuInit returned 803"),
        (FakeDriver(devices=1, count=3), "cuDeviceGetCount returned 3"),
    ],
    ids=["one", "eight", "no-library", "no-device", "no-device-at-init", "unnamed-error", "count-fails"],
)
def test_cuda_devices(toxfile, driver, message):
    problem = toxfile.cuda_problem(load=driver)
    assert (problem is None) if message is None else (message in problem)


def test_cuda_message_names_the_mask_that_hides_the_device(toxfile, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES=''" in toxfile.cuda_problem(load=FakeDriver(devices=0, init=100))


CPU_NODE = "cpu_cores_count 64\nsimd_count 0\n"
GPU_NODE = "cpu_cores_count 0\nsimd_count 416\ngfx_target_version 90402\n"


@pytest.mark.parametrize(
    ("nodes", "found"),
    [([CPU_NODE, GPU_NODE], True), ([CPU_NODE], False), ([], False), (["", GPU_NODE], True), (["name\n"], False)],
    ids=["gpu", "cpu-only", "no-node", "hidden-node", "no-field"],
)
def test_rocm_devices(toxfile, tmp_path, nodes, found):
    kfd = tmp_path / "kfd"
    kfd.touch()
    for index, properties in enumerate(nodes):
        node = tmp_path / "nodes" / str(index)
        node.mkdir(parents=True)
        (node / "properties").write_text(properties)
    problem = toxfile.rocm_problem(kfd, tmp_path / "nodes")
    assert (problem is None) if found else ("no GPU among the nodes" in problem)


def test_rocm_without_driver(toxfile, tmp_path):
    assert "does not exist" in toxfile.rocm_problem(tmp_path / "kfd", tmp_path)


@pytest.mark.parametrize("value", [None, "", " "])
def test_rocm_wheel_index_is_asked_for(toxfile, monkeypatch, value):
    monkeypatch.delenv("ROCM_WHEEL_INDEX", raising=False)
    if value is not None:
        monkeypatch.setenv("ROCM_WHEEL_INDEX", value)
    assert "ROCM_WHEEL_INDEX" in toxfile.wheel_index_problem()


def test_rocm_wheel_index_is_accepted(toxfile, monkeypatch):
    monkeypatch.setenv("ROCM_WHEEL_INDEX", "file:///wheels")
    assert toxfile.wheel_index_problem() is None


@pytest.mark.parametrize(("name", "device"), [("cuda", "an NVIDIA GPU"), ("rocm", "an AMD GPU")])
def test_tox_stops_before_any_installation(tmp_path, name, device):
    """The whole command, on any machine: an empty mask hides NVIDIA's devices; ROCm's wheel index is not set."""
    for file in ("tox.ini", "toxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    # tox reads its options from TOX_* as well, and this test may itself run under tox. No index: a check that does not
    # stop must not download either.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TOX_")}
    environment.pop("ROCM_WHEEL_INDEX", None)
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PIP_NO_INDEX": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "tox", "run", "-e", name]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    output = run.stdout + run.stderr
    assert run.returncode == 1, output
    assert f"{name}: failed with a missing requirement" in output
    assert f"needs {device}" in output
    assert "pip install" not in output
    assert "SKIP" not in output
