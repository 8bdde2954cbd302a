"""Places on devices: masks inside of the caller's own, and leases that outlive nobody."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from moe_conformance.backends import Backend
from moe_conformance.devices import NoDeviceFree, lease, mask_of, take

CPU, CUDA, ROCM = Backend("cpu", "cpu"), Backend("cuda", "cuda"), Backend("rocm", "cuda")


@pytest.mark.parametrize(
    ("backend", "index", "environment", "mask"),
    [
        (CPU, 3, {"CUDA_VISIBLE_DEVICES": "0"}, {}),
        (Backend("exec:gfx942", "cpu"), 1, {}, {}),
        (CUDA, 2, {}, {"CUDA_VISIBLE_DEVICES": "2"}),
        (CUDA, 1, {"CUDA_VISIBLE_DEVICES": "4,7"}, {"CUDA_VISIBLE_DEVICES": "7"}),
        (CUDA, 0, {"CUDA_VISIBLE_DEVICES": "GPU-ab, GPU-cd"}, {"CUDA_VISIBLE_DEVICES": "GPU-ab"}),
        (CUDA, 1, {"HIP_VISIBLE_DEVICES": "5,6"}, {"CUDA_VISIBLE_DEVICES": "1"}),
        (ROCM, 1, {}, {"HIP_VISIBLE_DEVICES": "1"}),
        (ROCM, 1, {"HIP_VISIBLE_DEVICES": "5,6"}, {"HIP_VISIBLE_DEVICES": "6"}),
        (ROCM, 0, {"CUDA_VISIBLE_DEVICES": "3,1"}, {"HIP_VISIBLE_DEVICES": "3"}),
        (ROCM, 0, {"HIP_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "3"}, {"HIP_VISIBLE_DEVICES": "2"}),
        (ROCM, 1, {"ROCR_VISIBLE_DEVICES": "6,7"}, {"HIP_VISIBLE_DEVICES": "1"}),
    ],
)
def test_the_mask_stays_inside_the_callers(backend, index, environment, mask):
    assert mask_of(backend, index, environment) == mask


def test_a_device_outside_of_the_mask_is_an_error():
    with pytest.raises(IndexError):
        mask_of(CUDA, 2, {"CUDA_VISIBLE_DEVICES": "4,7"})


def test_every_device_gets_one_worker_before_any_gets_two(tmp_path):
    held = [lease(tmp_path, devices=3, workers=7, patience=0) for _ in range(9)]
    assert [one.device for one in held] == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert {one.share for one in held} == {1 / 3}
    with pytest.raises(NoDeviceFree, match="all 3 places on each of 3 devices"):
        lease(tmp_path, devices=3, workers=7, patience=0)
    held[4].release()
    assert lease(tmp_path, devices=3, workers=7, patience=0).device == 1
    for one in held:
        one.release()


def test_one_worker_has_all_of_its_device(tmp_path):
    assert lease(tmp_path, devices=2, workers=2).share == 1.0


HOLD = """
import sys
from pathlib import Path
from moe_conformance.devices import lease
held = lease(Path(sys.argv[1]), devices=2, workers=2)
print(held.device, flush=True)
sys.stdin.read()
"""


def test_a_dead_worker_leaves_its_place(tmp_path):
    """Killed, without a chance to clean up: whoever replaces it finds the place, on the same device."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    devices = [int(worker.stdout.readline()) for worker in workers]
    assert sorted(devices) == [0, 1]
    with pytest.raises(NoDeviceFree):
        lease(tmp_path, devices=2, workers=2, patience=0)
    workers[0].kill()
    workers[0].communicate()
    again = lease(tmp_path, devices=2, workers=2, patience=10)
    assert again.device == devices[0]
    again.release()
    workers[1].communicate("go")


def test_taking_a_place_masks_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    other = lease(tmp_path, devices=2, workers=2)
    found = take(CUDA, tmp_path, 2, 2)
    assert found is not None
    assert (found.device, os.environ["CUDA_VISIBLE_DEVICES"]) == (1, "7")
    for one in (found, other):
        one.release()
    assert take(CPU, tmp_path, 1, 4) is None
