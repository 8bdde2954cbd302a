"""Backends: where an implementation runs. cpu (Triton's interpreter), cuda, rocm, and exec:TARGET (AMD code executed on
the CPU). A missing one is never skipped."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from . import executed

NAMES = ("cpu", "cuda", "rocm", *executed.NAMES)
# What requirements, properties and declarations tell apart: all executed targets are one platform.
PLATFORMS = ("cpu", "exec", "cuda", "rocm")


class BackendMissing(RuntimeError):
    """The asked backend is not on this machine; the message says what was found."""


@dataclass(frozen=True)
class Backend:
    """A backend that is present. `device` is a torch device string."""

    name: str
    device: str

    @property
    def is_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def target(self) -> str | None:
        """The AMD target whose code is executed here, None elsewhere."""
        return self.name.removeprefix(executed.PREFIX) if self.name in executed.NAMES else None

    @property
    def platform(self) -> str:
        """One of PLATFORMS."""
        return executed.PLATFORM if self.target else self.name

    @property
    def interprets(self) -> bool:
        """Whether Triton's kernels run in its interpreter."""
        return self.name == "cpu"

    def start(self) -> None:
        """Make this process run kernels here: an executed target becomes Triton's device. Once, before any kernel."""
        if self.target:
            executed.install(self.target)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def release_memory(self, beyond: int = 0) -> None:
        """Give cached device memory back, for the other workers of the device, if this process has more bytes than
        `beyond`."""
        if self.kept_memory > beyond:
            torch.cuda.empty_cache()

    @property
    def kept_memory(self) -> int:
        """Bytes of device memory that this process has, in use or not."""
        return torch.cuda.memory_reserved() if self.is_gpu else 0

    def take_workspaces(self) -> None:
        """Let the library of matrix products take its workspace, which it keeps: taken later, it may come to lie in
        what is left of gigabytes, and all of them stay."""
        if self.is_gpu:
            some = torch.ones((16, 16), dtype=torch.float64, device=self.device)
            torch.mm(some, some)


def resolve(name: str) -> Backend:
    """The backend called `name`, or with "auto" the accelerator that is there, else the CPU.

    Raises BackendMissing when the asked device is absent, and ValueError for an unknown name.
    """
    if name not in (*NAMES, "auto"):
        raise ValueError(f"backend must be one of {(*NAMES, 'auto')}, got {name!r}")
    present = _accelerator()
    if name == "auto":
        name = present or "cpu"
    if name == "cpu" or name in executed.NAMES:
        return Backend(name, "cpu")
    if present != name:
        build = f"torch {torch.__version__}"
        found = f"a {present} device" if present else "no accelerator"
        raise BackendMissing(f"backend {name} was asked for, but {build} sees {found} on this machine")
    return Backend(name, "cuda")  # ROCm's torch names its devices "cuda" too


def _accelerator() -> str | None:
    if not torch.cuda.is_available():
        return None
    return "rocm" if torch.version.hip else "cuda"


def triton_environment(backend: str) -> dict[str, str]:
    """TRITON_INTERPRET for a backend's processes, set explicitly so that a shell's own value never leaks in."""
    return {"TRITON_INTERPRET": "1" if backend == "cpu" else "0"}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def architecture(backend: Backend) -> str:
    """The device's architecture, such as "sm_90", "gfx942:sramecc+:xnack-" or "x86_64"."""
    if backend.target:
        return backend.target
    if not backend.is_gpu:
        return platform.machine()
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    # CUDA builds of torch have a gcnArchName too: the device's name.
    return str(properties.gcnArchName) if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def shared_memory(backend: Backend) -> int | None:
    """Bytes of shared memory (LDS) that a program may have; None in the interpreter, which knows no limit."""
    if backend.interprets:
        return None
    import triton

    return int(triton.runtime.driver.active.utils.get_device_properties(0)["max_shared_mem"])


def _driver_version() -> str | None:
    """The version of the kernel module that drives the accelerator; None where the system does not tell."""
    for module in ("nvidia", "amdgpu"):
        file = Path("/sys/module") / module / "version"
        if file.exists():
            return f"{module} {file.read_text(encoding='utf-8').strip()}"
    return None


def describe(backend: Backend) -> dict[str, object]:
    """Device and versions, as plain data for a Record."""
    packages = ("torch", "triton", "triton-rocm", "pytorch-triton-rocm", "numpy", "hypothesis", "pytest")
    facts: dict[str, object] = {
        "backend": backend.name,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: found for name in packages if (found := _installed(name))},
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
    }
    if backend.is_gpu:
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts["device"] = properties.name
        facts["architecture"] = architecture(backend)
        facts["memory_bytes"] = properties.total_memory
        facts["devices"] = torch.cuda.device_count()
        facts["driver"] = _driver_version()
    elif backend.target:
        facts |= executed.facts(backend.target)
        facts["cores"] = os.cpu_count()
    else:
        facts["device"] = f"{platform.processor() or platform.machine()}, Triton interpreter"
        facts["architecture"] = architecture(backend)
        facts["cores"] = os.cpu_count()
    return facts
