"""Between tensors and kernels: device checks, the launch itself, strides in the form the kernels take."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from math import prod
from typing import Any

import torch
import triton

VECTOR_BYTES = 16  # the widest load of one lane on every supported device


def is_interpreted(kernel: object) -> bool:
    """Whether a kernel was decorated under TRITON_INTERPRET=1, and so runs on the host."""
    return not isinstance(kernel, triton.JITFunction)


def _driver_serves_cpu() -> bool:
    # A simulator may install a Triton driver whose device is the CPU; without any driver Triton raises RuntimeError.
    try:
        return bool(triton.runtime.driver.active.get_active_torch_device().type == "cpu")
    except (RuntimeError, AttributeError):
        return False


def require_runnable(kernel: object, device: torch.device) -> None:
    """Raises RuntimeError when kernels cannot run on tensors of this device."""
    if device.type == "cpu" and not is_interpreted(kernel) and not _driver_serves_cpu():
        raise RuntimeError(
            "tensors on the CPU need Triton's interpreter: set the environment variable TRITON_INTERPRET=1 before "
            "triton is imported, or move the tensors to a device that Triton compiles for"
        )


@lru_cache(maxsize=64)
def _device_shared_memory(index: int) -> int:
    return int(triton.runtime.driver.active.utils.get_device_properties(index)["max_shared_mem"])


def shared_memory_limit(kernel: object, device: torch.device) -> int | None:
    """Bytes of shared memory one program may use; None where kernels run on the host."""
    if device.type == "cpu" or is_interpreted(kernel):
        return None
    return _device_shared_memory(device.index)


def _guard(device: torch.device) -> AbstractContextManager[Any]:
    # Triton launches on the current device and its current stream, which need not be the tensors' device.
    if device.type == "cpu":
        return nullcontext()
    guard: AbstractContextManager[Any] = torch.get_device_module(device).device(device)
    return guard


def launch(kernel: Any, programs: int, device: torch.device, *arguments: object, **options: object) -> None:
    """Runs a kernel on a flat grid, on the tensors' device; an empty grid is not launched at all."""
    if programs == 0:
        return
    with _guard(device):
        kernel[(programs,)](*arguments, **options)


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


def vector_width(*operands: tuple[torch.Tensor, int | None]) -> int:
    """Elements that the kernel may count strides in, for tensors given with their contiguous dimension (or None).

    16 bytes' worth when every base address and every other stride is a multiple of 16 bytes, else 1. A dimension of one
    element counts with the stride it would have in a contiguous tensor: a single token then shares the compiled kernel
    of many.
    """
    for tensor, unit in operands:
        if unit is None or tensor.data_ptr() % VECTOR_BYTES:
            return 1
        for dimension, size in enumerate(tensor.shape):
            step = prod(tensor.shape[dimension + 1 :]) if size == 1 else tensor.stride(dimension)
            if dimension != (unit % tensor.ndim) and step * tensor.element_size() % VECTOR_BYTES:
                return 1
    return VECTOR_BYTES // operands[0][0].element_size()


def row_operand(tensor: torch.Tensor) -> tuple[bool, int, int, int]:
    """(inner unit?, VEC, row stride and inner stride in units of VEC) of a matrix read row by row."""
    unit = is_unit(tensor, 1)
    vec = vector_width((tensor, 1 if unit else None))
    row, inner = strides(tensor)
    return unit, vec, row // vec, inner // vec


def weight_unit_index(weight: torch.Tensor) -> int | None:
    """Index, from the end, of the contiguous dimension of a weight (..., N, K), or None."""
    return {"k": -1, "n": -2, "none": None}[unit_dimension(weight)]
