"""Between tensors and kernels: device checks, the launch itself, strides in the form the kernels take."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from threading import local
from typing import Any

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

VECTOR_BYTES = 16  # the widest load of one lane on every supported device
_MOST_ROWS = 2**31 - 2**16  # farther from 2**31 than any tile is high
_INTERPRETED_PROCESSORS = 2  # programs run one after another there; two show that they share the work


def is_interpreted(kernel: object) -> bool:
    """Whether a kernel was decorated under TRITON_INTERPRET=1, and so runs on the host."""
    return not isinstance(kernel, triton.JITFunction)


def _driver_serves_cpu() -> bool:
    # A simulator may install a Triton driver whose device is the CPU; without any driver Triton raises RuntimeError.
    try:
        return bool(triton.runtime.driver.active.get_active_torch_device().type == "cpu")
    except (RuntimeError, AttributeError):
        return False


def require_runnable(kernel: object, tensor: torch.Tensor) -> None:
    """Raises RuntimeError when kernels cannot run on tensors of this one's device."""
    if tensor.is_cpu and not is_interpreted(kernel) and not _driver_serves_cpu():
        raise RuntimeError(
            "tensors on the CPU need Triton's interpreter: set the environment variable TRITON_INTERPRET=1 before "
            "triton is imported, or move the tensors to a device that Triton compiles for"
        )


def _property(name: str, index: int | None) -> int:
    # A driver whose device is the CPU (a simulator) is asked anew: it may become another device's.
    if index is None:
        return int(triton.runtime.driver.active.utils.get_device_properties(0)[name])
    return _remembered_property(name, index)


@lru_cache(maxsize=64)
def _remembered_property(name: str, index: int) -> int:
    return int(triton.runtime.driver.active.utils.get_device_properties(index)[name])


def processors(kernel: object, device: torch.device) -> int:
    """Processors of the device (streaming multiprocessors, compute units), over which persistent programs spread."""
    if is_interpreted(kernel):
        return _INTERPRETED_PROCESSORS
    return _property("multiprocessor_count", device.index)


def shared_memory_limit(kernel: object, device: torch.device) -> int | None:
    """Bytes of shared memory one program may use; None where Triton interprets kernels on the host."""
    if is_interpreted(kernel):
        return None
    return _property("max_shared_mem", device.index)


_AS_IT_IS = nullcontext()


@lru_cache
def _module(kind: str) -> Any:
    """torch's module of a kind of device: for every launch, so that finding it should cost nothing."""
    return torch.get_device_module(kind)


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device and its current stream, which need not be the tensors' device."""
    if device.type == "cpu":
        return _AS_IT_IS
    module = _module(device.type)
    if module.current_device() == device.index:  # to ask costs less than to change
        return _AS_IT_IS
    guard: AbstractContextManager[Any] = module.device(device)
    return guard


@dataclass(frozen=True)
class Launch:
    """A kernel on a flat grid, with its arguments and options."""

    kernel: Any
    programs: int
    device: torch.device
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def run(self) -> object:
        with on_device(self.device):
            return self.kernel[(self.programs,)](*self.arguments, **self.options)


@dataclass(frozen=True)
class Collected:
    """What a call has asked for so far: launches that wait, in their order, and the tensors that it has made."""

    launches: list[Launch] = field(default_factory=list)
    made: list[torch.Tensor] = field(default_factory=list)


class _Waiting(local):
    """Where the launches of this thread's call wait (tritonmoe.first_call). None: they are made at once."""

    collected: Collected | None = None


waiting = _Waiting()


def launch(kernel: Any, programs: int, device: torch.device, *arguments: object, **options: object) -> None:
    """Runs a kernel on a flat grid, on the tensors' device; an empty grid is not launched at all.

    arguments: first those without a default, in the kernel's order. Tensors among them, and under descriptors, are the
    caller's, views that begin where the caller's do, or come from `empty`: else the call is not replayed.
    """
    if programs == 0:
        return
    made = Launch(kernel, programs, device, arguments, options)
    if waiting.collected is None:
        made.run()
    else:
        waiting.collected.launches.append(made)


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A contiguous tensor that the launches of this call fill: a result, or what one kernel leaves to another."""
    made = torch.empty(shape, dtype=dtype, device=device)
    if waiting.collected is not None:
        waiting.collected.made.append(made)
    return made


def cdiv(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def next_power_of_two(value: int) -> int:
    return 1 << max(value - 1, 0).bit_length()


def strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """Strides in elements; 0 for a dimension of one element, which is never stepped along and may claim any stride."""
    return tuple(0 if size == 1 else step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def is_unit(tensor: torch.Tensor, dimension: int) -> bool:
    """Whether neighbours along a dimension are neighbours in memory (or there is only one element)."""
    return tensor.shape[dimension] == 1 or tensor.stride(dimension) == 1


def unit_dimension(weight: torch.Tensor) -> str:
    """Which of the last two dimensions (N, K) of a weight is contiguous: "k", "n" or "none"."""
    if is_unit(weight, -1):
        return "k"
    return "n" if is_unit(weight, -2) else "none"


def vector_width(sizes: tuple[int, ...], rows: tuple[torch.Tensor, ...], weights: tuple[torch.Tensor, ...] = ()) -> int:
    """VEC: the number of elements in which a kernel counts sizes and strides.

    16 bytes' worth when every size, every base address and every stride but the unit ones is a multiple of it, else 1.
    rows: matrices read row by row, whose inner stride must be one; weights (..., N, K), one of whose last two strides
    must be. Kernels compiled for VEC > 1 load 16 bytes at a time; all odd cases share the one compiled for VEC = 1.
    A dimension of one element counts with the stride it would have in a contiguous tensor: a single token then shares
    the compiled kernel of many.
    """
    tensors = (*rows, *weights)
    vec = VECTOR_BYTES // min(tensor.element_size() for tensor in tensors)
    units = [1 if is_unit(t, 1) else None for t in rows]
    units += [{"k": t.ndim - 1, "n": t.ndim - 2, "none": None}[unit_dimension(t)] for t in weights]
    if any(size % vec for size in sizes):
        return 1
    for tensor, unit in zip(tensors, units, strict=True):
        if unit is None or tensor.data_ptr() % VECTOR_BYTES:
            return 1
        for dimension, size in enumerate(tensor.shape):
            step = prod(tensor.shape[dimension + 1 :]) if size == 1 else tensor.stride(dimension)
            if dimension != unit and step % vec:
                return 1
    return vec


def unit_flag(weight: torch.Tensor, vec: int) -> str:
    """The compile-time form of unit_dimension: told apart only where loads are vectors."""
    return unit_dimension(weight) if vec > 1 else "none"


def counted(steps: tuple[int, ...], vec: int) -> tuple[int, ...]:
    """Strides or sizes in units of VEC, as kernels take them; a unit stride becomes 0 and is not looked at."""
    return tuple(step // vec for step in steps)


def describable(vec: int, rows: int, *weights: torch.Tensor) -> bool:
    """Whether tensor descriptors can load blocks of these weights (E, N, K): K contiguous, all else in 16-byte steps.

    vec: vector_width of all operands of the product, which has looked at sizes, strides and addresses. rows: routed
    rows, which a tile may reach beyond: their numbers are 32 bits wide, as the coordinates of a descriptor are.
    """
    return vec > 1 and rows < _MOST_ROWS and all(unit_dimension(weight) == "k" for weight in weights)


def block_descriptor(tensor: torch.Tensor, block: tuple[int, ...]) -> Any:
    """A tensor descriptor for loads of blocks; what lies outside the tensor reads as zero.

    A dimension of one element gets the stride of a contiguous tensor: it may claim any, which no hardware would take.
    """
    shape = list(tensor.shape)
    steps = [
        prod(shape[dimension + 1 :]) if size == 1 else tensor.stride(dimension) for dimension, size in enumerate(shape)
    ]
    return TensorDescriptor(tensor, shape, steps, list(block))
