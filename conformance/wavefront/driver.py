"""A driver for Triton whose device is this package: kernels on CPU tensors compile for an AMD target and run here.

    with wavefront.device("gfx942"):
        kernel[grid](tensor, ...)

Nothing of the kernels changes: the same source, Triton's own AMD backend, its cache, its autotuner. From 3.6 to 3.9
Triton asks the same of a driver, but for descriptors (`_flat`) and memory for the kernel's own use (`_refuse_scratch`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .assembly import Argument
from .executor import LIMIT, Launch, execute
from .faults import WavefrontError
from .memory import Buffer
from .program import Program, translated
from .target import Target, target, targets


class LaunchError(WavefrontError):
    """A kernel cannot be started: its text is missing, or an argument is of a kind that is not modelled."""


@dataclass
class Session:
    """What happened inside a `device` block. executed: wave-instructions; launches: kernels started.

    buffers: further memory that kernels may touch, for pointers that lie in tensors. limit: instructions a wave.
    """

    target: Target
    limit: int = LIMIT
    buffers: list[Buffer] = field(default_factory=list)
    executed: int = 0
    launches: int = 0

    def allow(self, tensor: Tensor, name: str = "an allowed tensor") -> None:
        """Let kernels reach the whole storage of a tensor through addresses that they find in memory."""
        storage = tensor.untyped_storage()
        self.buffers.append(Buffer(name, storage.data_ptr(), storage.nbytes(), tensor))


def extent(name: str, tensor: Tensor) -> Buffer:
    """The bytes from a tensor's first element to its last one, whatever lies between them."""
    if tensor.numel() == 0:
        return Buffer(name, tensor.data_ptr(), 0, tensor)
    steps = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    low, high = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
    size = tensor.element_size()
    return Buffer(name, tensor.data_ptr() + low * size, (high - low + 1) * size, tensor)


class Utils:
    """What Triton asks a driver about its device, and how it loads a kernel."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_device_properties(self, device: int) -> dict[str, Any]:
        chosen = self._session.target
        return {
            "max_shared_mem": chosen.lds,
            "multiprocessor_count": chosen.processors,
            "warpSize": chosen.wave,
            "arch": chosen.name,
            "max_num_regs": 512,
            "sm_clock_rate": 0,
            "mem_clock_rate": 0,
            "mem_bus_width": 0,
            "cooperativeLaunch": False,
        }

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, ...]:
        """module, function, registers, spills, most threads: the text is found by the launcher, not here."""
        return None, name, 0, 0, 1024


_FORMATS = {
    "i1": "<b",
    "i8": "<b",
    "i16": "<h",
    "i32": "<i",
    "i64": "<q",
    "u1": "<B",
    "u8": "<B",
    "u16": "<H",
    "u32": "<I",
    "u64": "<Q",
    "fp16": "<e",
    "fp32": "<f",
    "f32": "<f",
    "fp64": "<d",
}


def _packed(kind: str, value: Any) -> bytes:
    """One scalar argument as the bytes of the argument segment. Raises LaunchError."""
    if kind == "bf16":
        return struct.pack("<f", value)[2:]
    try:
        code = _FORMATS[kind]
    except KeyError:
        raise LaunchError(f"an argument of type {kind} is not modelled") from None
    bits = 8 * struct.calcsize(code)
    if code[1] in "bhiq" and isinstance(value, int):
        value = (int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    elif code[1] in "BHIQ":
        value = int(value) % (1 << bits)
    return struct.pack(code, value)


def _flat(kind: Any, value: Any, name: str) -> Iterator[tuple[str, Any, str]]:
    """Arguments one by one: tuples opened, constants left out, tensor descriptors as what the kernel gets of them."""
    if isinstance(kind, tuple):
        for index, (inner, part) in enumerate(zip(kind, value, strict=True)):
            yield from _flat(inner, part, f"{name}[{index}]")
    elif isinstance(kind, str) and kind.startswith("tensordesc"):
        # Triton hands a descriptor to AMD kernels as base, shape, strides, padding, then shape and strides anew.
        yield "*desc", value.base, name
        for part in (*value.shape, *value.strides):
            yield "i64", part, name
        yield "i1", getattr(value, "padding", "zero") == "nan", name
        if hasattr(value, "round_f32_to_tf32"):
            yield "i1", value.round_f32_to_tf32, name
        for part in value.shape:
            yield "i32", part, name
        for part in value.strides:
            yield "i64", part, name
    elif kind != "constexpr":
        yield kind, value, name


class Launcher:
    """Starts one compiled kernel."""

    def __init__(self, src: Any, metadata: Any) -> None:
        self._session = _active()
        self._signature: dict[Any, Any] = dict(src.signature)
        self._names = list(self._signature)
        self._metadata = metadata
        _refuse_scratch(metadata)
        self._program: Program = translated(_text(metadata))
        wanted = self._session.target.name
        if self._program.kernel.target != wanted:
            raise LaunchError(f"the kernel was compiled for {self._program.kernel.target}, the device is {wanted}")

    def __call__(
        self,
        x: int,
        y: int,
        z: int,
        stream: Any,
        function: Any,
        packed: Any,
        launch_metadata: Any,
        enter_hook: Callable[[Any], None] | None,
        exit_hook: Callable[[Any], None] | None,
        *values: Any,
    ) -> None:
        session = _active()
        if x * y * z == 0:
            return
        flat = [
            part
            for (name, kind), value in zip(self._signature.items(), values, strict=True)
            for part in _flat(kind, value, str(name))
        ]
        grid = (x, y, z)
        segment, buffers = _segment(self._program, flat, grid, self._metadata.num_warps)
        for name, value in zip(self._names, values, strict=True):
            if hasattr(value, "base") and isinstance(value.base, Tensor):
                buffers.append(extent(str(name), value.base))
        launch = Launch(
            self._program,
            grid,
            self._metadata.num_warps,
            segment,
            [*buffers, *session.buffers],
            self._metadata.shared,
            session.limit,
        )
        if enter_hook is not None:
            enter_hook(launch_metadata)
        session.executed += execute(launch)
        session.launches += 1
        if exit_hook is not None:
            exit_hook(launch_metadata)


def _refuse_scratch(metadata: Any) -> None:
    """Memory that Triton's own launcher allocates for a kernel, since 3.8 on AMD too. Raises LaunchError."""
    for name in ("global_scratch_size", "profile_scratch_size"):
        if size := getattr(metadata, name, None) or 0:
            raise LaunchError(f"the kernel asks its launcher for memory ({name} {size}), which is not modelled")


def _text(metadata: Any) -> str:
    """The assembly of a compiled kernel, from Triton's cache. Raises LaunchError."""
    from triton.runtime.cache import get_cache_manager

    path = get_cache_manager(metadata.hash).get_file(f"{metadata.name[:150]}.amdgcn")
    if path is None:
        raise LaunchError(f"Triton's cache holds no assembly text of {metadata.name}: is TRITON_STORE_BINARY_ONLY set?")
    with open(path, encoding="utf-8") as file:
        return file.read()


_HIDDEN_SIZES = ("hidden_block_count_x", "hidden_block_count_y", "hidden_block_count_z")
_HIDDEN_GROUPS = ("hidden_group_size_x", "hidden_group_size_y", "hidden_group_size_z")
_HIDDEN_ZERO = [
    "hidden_global_offset_x",
    "hidden_global_offset_y",
    "hidden_global_offset_z",
    "hidden_remainder_x",
    "hidden_remainder_y",
    "hidden_remainder_z",
    "hidden_none",
    "hidden_printf_buffer",
    "hidden_hostcall_buffer",
    "hidden_default_queue",
    "hidden_completion_action",
    "hidden_multigrid_sync_arg",
    "hidden_heap_v1",
    "hidden_dynamic_lds_size",
    "hidden_queue_ptr",
    "hidden_private_base",
    "hidden_shared_base",
]


def _segment(
    program: Program, flat: Sequence[tuple[str, Any, str]], grid: tuple[int, int, int], num_warps: int
) -> tuple[bytearray, list[Buffer]]:
    """The kernel argument segment, and the buffers that its pointers name. Raises LaunchError."""
    segment, buffers = bytearray(max(program.kernel.argument_bytes, 8)), list[Buffer]()
    waiting = list(flat)
    threads = num_warps * program.target.wave
    for argument in program.kernel.arguments:
        if argument.kind.startswith("hidden_"):
            data = _hidden(argument, grid, threads)
        elif waiting:
            kind, value, name = waiting.pop(0)
            data = _explicit(kind, value, name, buffers)
        else:
            data = bytes(argument.size)  # pointers to Triton's own scratch, which these kernels do not use
        if len(data) > argument.size:
            raise LaunchError(f"argument {argument} is given {len(data)} bytes")
        segment[argument.offset : argument.offset + len(data)] = data
    if waiting:
        raise LaunchError(f"arguments without a place in the kernel: {[name for _, _, name in waiting]}")
    return segment, buffers


def _explicit(kind: str, value: Any, name: str, buffers: list[Buffer]) -> bytes:
    if not kind.startswith("*"):
        return _packed(kind, value)
    if value is None:
        return bytes(8)
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            raise LaunchError(f"{name} is on {value.device}; this device's tensors are on the CPU")
        buffers.append(extent(name, value))
    elif isinstance(getattr(value, "base", None), Tensor):  # a reinterpreted tensor
        buffers.append(extent(name, value.base))
    pointer = value if isinstance(value, int) else value.data_ptr()
    return struct.pack("<Q", pointer)


def _hidden(argument: Argument, grid: tuple[int, int, int], threads: int) -> bytes:
    kind, size = argument.kind, argument.size
    if kind in _HIDDEN_SIZES:
        number = grid[_HIDDEN_SIZES.index(kind)]
    elif kind in _HIDDEN_GROUPS:
        number = threads if kind.endswith("x") else 1
    elif kind == "hidden_grid_dims":
        number = 3
    elif kind in _HIDDEN_ZERO:
        number = 0
    else:
        raise LaunchError(f"the hidden argument {kind} is not modelled")
    return number.to_bytes(size, "little")


# -- the driver ----------------------------------------------------------

_sessions: list[Session] = []


def _active() -> Session:
    if not _sessions:
        raise LaunchError("no device is active: use `with wavefront.device(...)`")
    return _sessions[-1]


@cache
def _driver_class() -> type:
    # Imported late: Triton decides at its import, by TRITON_INTERPRET, whether kernels are compiled at all.
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase

    class Driver(DriverBase):
        """One for each target, so that Triton's cache of compiled kernels, keyed by device, is one a target too."""

        def __init__(self, session: Session) -> None:
            self._session = session
            self.utils = Utils(session)
            self.launcher_cls = Launcher

        @classmethod
        def is_active(cls) -> bool:
            return False

        def map_python_to_cpp_type(self, ty: str) -> str:
            return ty

        def get_current_target(self) -> Any:
            return GPUTarget("hip", self._session.target.name, self._session.target.wave)

        def get_current_device(self) -> int:
            return list(targets()).index(self._session.target.name)

        def set_current_device(self, device: int) -> None:
            pass

        def get_current_stream(self, device: int | None = None) -> int:
            return 0

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

        def get_device_interface(self) -> Any:
            return torch.cpu

        def get_benchmarker(self) -> Any:
            return _instructions

        def get_empty_cache_for_benchmark(self) -> Tensor:
            return torch.empty(0)

        def clear_cache(self, cache: Tensor) -> None:
            pass

    return Driver


def _instructions(kernel_call: Callable[[], Any], *, quantiles: Sequence[float] | None = None, **_: Any) -> Any:
    """For the autotuner: "time" is the number of wave-instructions, which is the same on every machine."""
    session = _active()
    before = session.executed
    kernel_call()
    count = float(session.executed - before)
    return [count] * len(quantiles) if quantiles is not None else count


@contextmanager
def device(name: str, *, limit: int = LIMIT) -> Iterator[Session]:
    """Inside the block, Triton kernels on CPU tensors compile for target `name` and are executed here.

    limit: instructions that one wave may execute. Raises UnknownTarget; RuntimeError under TRITON_INTERPRET=1, which
    replaces compilation.
    """
    from triton import knobs
    from triton.runtime import driver

    chosen = target(name)
    if knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET=1 is set: kernels would be interpreted, and nothing of a target executed")
    session = Session(chosen, limit)
    before = driver._active
    _sessions.append(session)
    driver.set_active(_driver_class()(session))
    try:
        yield session
    finally:
        _sessions.pop()
        driver._active = before
