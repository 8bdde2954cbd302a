"""tox plugin of this checkout: `cuda` and `rocm` fail at once where their device is missing.

tox loads this file by its name and place. The check runs before pip fetches gigabytes of torch for a device that is not
there, so it knows only the standard library; the first command of both environments, `moe-conformance doctor`, looks
closer, through torch. It fails and never skips: a run that did not happen must not be counted as one that passed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tox.plugin import impl
from tox.tox_env.api import ToxEnv
from tox.tox_env.errors import Fail

PROBE_TIMEOUT_S = 60  # a driver of an idle machine answers in a few seconds; a wedged one never does
KFD = Path("/dev/kfd")
KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")


def cuda_problem(load: Callable[[str], Any] = ctypes.CDLL) -> str | None:
    """Ask the NVIDIA driver for its devices; return what is wrong, or None.

    The driver applies CUDA_VISIBLE_DEVICES itself: a mask that hides every device is a missing device.
    """
    try:
        driver = load("libcuda.so.1")
    except OSError as error:
        return f"the NVIDIA driver's library cannot be loaded ({error})"
    if status := driver.cuInit(0):
        return f"the NVIDIA driver does not start: cuInit returned {_cuda_error(driver, status)}{_mask_hint()}"
    count = ctypes.c_int(0)
    if status := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver does not count its devices: cuDeviceGetCount returned {_cuda_error(driver, status)}"
    if count.value < 1:
        return f"the NVIDIA driver shows no device{_mask_hint()}"
    return None


def _cuda_error(driver: Any, status: int) -> str:
    name = ctypes.c_char_p()
    driver.cuGetErrorName(status, ctypes.byref(name))
    return f"{status} ({name.value.decode()})" if name.value else str(status)


def _mask_hint() -> str:
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if mask is None else f" (CUDA_VISIBLE_DEVICES={mask!r})"


def rocm_problem(kfd: Path = KFD, nodes: Path = KFD_NODES) -> str | None:
    """Look for a GPU of the amdgpu driver; return what is wrong, or None."""
    if not kfd.exists():
        return f"{kfd} does not exist: no amdgpu driver, or a container started without --device={kfd}"
    if not os.access(kfd, os.R_OK | os.W_OK):
        return f"{kfd} cannot be opened by this user: join the group that owns it (often render or video)"
    if not any(_has_simds(node) for node in nodes.glob("*/properties")):
        return f"no GPU among the nodes in {nodes}"
    return None


def _has_simds(properties: Path) -> bool:
    """Whether a node of the driver's topology is a GPU: a CPU's node has no SIMD units."""
    try:
        lines = properties.read_text().splitlines()
    except OSError:  # a container's device filter hides the nodes that are not its own
        return False
    fields = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(fields.get("simd_count", "0")) > 0


def wheel_index_problem() -> str | None:
    """The ROCm builds of torch are not on the default package index; where they are is the caller's to say."""
    if os.environ.get("ROCM_WHEEL_INDEX", "").strip():
        return None
    return "ROCM_WHEEL_INDEX is not set: set this environment variable to the URL of PyTorch's wheel index for ROCm 7.2"


def _cuda_problem_in_child(environment: dict[str, str]) -> str | None:
    """Run `cuda_problem` in a process of its own: a driver may hang or crash, and tox must hold no GPU meanwhile."""
    command = [sys.executable, __file__, "cuda"]
    try:
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"the NVIDIA driver did not answer within {PROBE_TIMEOUT_S} s"
    if child.returncode == 0:
        return None
    return child.stdout.strip() or f"the check itself ended with {child.returncode}: {child.stderr.strip()[-500:]}"


@impl
def tox_on_install(tox_env: ToxEnv, arguments: Any, section: str, of_type: str) -> None:
    """Stop `cuda` and `rocm` ahead of their first installation, in fresh and in existing virtualenvs alike."""
    if of_type != "deps":
        return
    if tox_env.conf.name == "cuda":
        problem = _cuda_problem_in_child(tox_env.environment_variables)
        needs = "an NVIDIA GPU"
    elif tox_env.conf.name == "rocm":
        problem = rocm_problem() or wheel_index_problem()
        needs = "an AMD GPU and an index of ROCm wheels"
    else:
        return
    if problem:
        raise Fail(f"a missing requirement: {problem}. This environment needs {needs}; nothing was installed or run.")


if __name__ == "__main__":
    problem = {"cuda": cuda_problem, "rocm": rocm_problem}[sys.argv[1]]()
    if problem:
        print(problem)
        raise SystemExit(1)
