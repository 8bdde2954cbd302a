"""Which of a machine's devices a process sees, and who has them.

A process is given one device by masking the others before its runtime starts. The mask is chosen inside of the one that
the caller set: a scheduler's allocation is never left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .backends import Backend

# The lowest mask that each runtime reads itself. ROCm's also honours CUDA's name where its own is not set. Below both,
# ROCR_VISIBLE_DEVICES renumbers what they count, and is left as it is.
_MASKS = {"cuda": ("CUDA_VISIBLE_DEVICES",), "rocm": ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")}
PATIENCE_SECONDS = 120.0  # for the lock of a worker that died to be let go by the system


def mask_of(backend: Backend, index: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The one variable that leaves the device `index`, counted inside of the caller's mask. {} off GPUs.

    Raises IndexError where the mask lists fewer devices.
    """
    if not backend.is_gpu:
        return {}
    names = _MASKS[backend.platform]
    listed = next((environment[name] for name in names if environment.get(name)), "")
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    return {names[0]: entries[index] if entries else str(index)}


@dataclass(frozen=True)
class Lease:
    """A place on a device, until `release` or the end of the process: the system lets go of a dead holder's lock.

    share: of the device's memory, one place's part.
    """

    device: int
    share: float
    lock: FileLock

    def release(self) -> None:
        self.lock.release()


class NoDeviceFree(RuntimeError):
    """More workers than places."""


def lease(folder: Path, devices: int, workers: int, patience: float = PATIENCE_SECONDS) -> Lease:
    """A free place among `devices`, each of which has as many as `workers` need: first one on each, then a second one.

    Workers count as they come, not by their number: one that is replaced finds the place that its predecessor left.
    Raises NoDeviceFree after `patience` seconds.
    """
    places = -(-workers // devices)
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    while True:
        for place in range(places):
            for device in range(devices):
                lock = FileLock(folder / f"device-{device}-{place}.lock")
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                return Lease(device, 1 / places, lock)
        if time.monotonic() > until:
            raise NoDeviceFree(f"all {places} places on each of {devices} devices were taken for {patience:g} s")
        time.sleep(0.05)


def take(backend: Backend, folder: Path, devices: int, workers: int) -> Lease | None:
    """Lease a place and mask the others for this process and its children; None off GPUs.

    Must come before anything asks the runtime for a device.
    """
    if not backend.is_gpu:
        return None
    found = lease(folder, devices, workers)
    os.environ.update(mask_of(backend, found.device, os.environ))
    return found
