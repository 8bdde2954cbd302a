"""Launches that are worked out once.

What a launch needs beside its tensors (grid, sizes, strides, compile-time constants, the compiled kernel) follows from
how the tensors lie in memory. It is worked out at the first launch and found again by the tensors' layouts: no tensor
is kept, and none is told by its identity or address.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from triton.compiler import CompiledKernel

from .launch import VECTOR_BYTES, is_interpreted, launch, waiting

MOST_PLANS = 4096  # remembered at a time; then all are forgotten
REACH = 2**31 - 1  # bytes that a signed offset of 32 bits can reach

Tensors = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Shortcut:
    """A compiled kernel on its grid, and the table of the JIT that had it."""

    compiled: CompiledKernel
    arguments: tuple[Any, ...]  # those behind the tensors, constants included, in the order of the kernel
    table: object


@dataclass(frozen=True)
class Plan:
    """A launch without its tensors: they come first, then values, then the compile-time constants by their names.

    constants holds the options of the launch too. shortcuts: by device index, what later launches start directly.
    """

    kernel: Any
    programs: int
    values: tuple[int | float, ...]
    constants: dict[str, Any]
    shortcuts: dict[int, Shortcut] = field(default_factory=dict)


_plans: dict[object, Plan] = {}


def plan(kernel: Any, programs: int, *values: int | float, **constants: Any) -> Plan:
    return Plan(kernel, programs, values, constants)


def layout(tensor: torch.Tensor | None) -> tuple[object, ...]:
    """All of a tensor that a plan and a compiled kernel may depend on; empty for one that was left out.

    Triton compiles one kernel for addresses that are multiples of 16 and another for the rest; for devices that have
    instructions for it, also one for memory that offsets of 32 bits reach.
    """
    if tensor is None:
        return ()
    return (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.data_ptr() % VECTOR_BYTES == 0,
        tensor.untyped_storage().nbytes() > REACH,
    )


def launch_planned(
    make_plan: Callable[..., Plan],
    settings: tuple[Any, ...],
    *tensors: torch.Tensor | None,
    call: object = None,
    made: tuple[torch.Tensor, ...] = (),
) -> None:
    """Runs a kernel as make_plan(*tensors, *settings) says, on the device of the first tensor.

    settings: hashable. make_plan must depend on nothing but these and the layouts of the tensors.
    call, made: where tensors are arguments of an accepted call (tritonmoe.arguments.Call) as the caller gave them, or
    were made since, by that call alone: their layouts follow from the call then, but for the addresses of those made.
    """
    device = tensors[0].device  # type: ignore[union-attr]  # the first is never left out
    key: tuple[object, ...]
    if call is None:
        key = (make_plan, settings, device, *[layout(tensor) for tensor in tensors])
    else:
        key = (make_plan, settings, call, *[tensor.data_ptr() % VECTOR_BYTES == 0 for tensor in made])
    found = _plans.get(key)
    if found is None:
        found = make_plan(*tensors, *settings)
        if len(_plans) >= MOST_PLANS:
            _plans.clear()
        _plans[key] = found
    if found.programs and (waiting.launches is not None or not _start(found, device, tensors)):
        compiled = launch(found.kernel, found.programs, device, *tensors, *found.values, **found.constants)
        _remember(found, device, len(tensors), compiled)


# The shortcut. Triton's JIT binds, specializes and looks up anew at every launch, which takes longer than to start the
# kernel. What it finds depends on the index of the current device, the types of the tensors, the alignment of their
# addresses, the reach of their memory, the values of integers and constants, and a few switches of Triton. A plan was
# found by all of that but the index, which is the key of its shortcuts, and the switches: with any of them set, the JIT
# is asked. So is it when its table for the device is not the one that had the kernel: tools that want kernels compiled
# anew clear it, and a simulator that becomes another device has another; and where launches have hooks, which are told
# the arguments. What is then called is what the JIT calls, on the same current device and stream, with the same
# arguments; but tensors are given by their addresses, which spares the launcher from asking Python and the driver for
# each. That they lie on this device was checked with the call.


def _is_plain(kernel: Any) -> bool:
    """Whether nothing stands between a call and its kernel but the JIT's look-up."""
    return not (
        kernel.pre_run_hooks
        or triton.knobs.runtime.debug
        or triton.knobs.runtime.add_stages_inspection_hook is not None
        or triton.knobs.compilation.instrumentation_mode
        or _has_calls(triton.knobs.runtime.launch_enter_hook)
        or _has_calls(triton.knobs.runtime.launch_exit_hook)
    )


def _has_calls(hook: Any) -> bool:
    """Whether a hook of Triton does anything: by default it is a chain without members."""
    return hook is not None and bool(getattr(hook, "calls", True))


def _start(found: Plan, device: torch.device, tensors: Tensors) -> bool:
    """Whether a shortcut was there, and has been taken."""
    if not found.shortcuts:
        return False
    driver = triton.runtime.driver.active
    index = driver.get_current_device()
    if device.index != index and device.type != "cpu":
        return False
    shortcut = found.shortcuts.get(index)
    kernel = found.kernel
    if shortcut is None or shortcut.table is not kernel.device_caches.get(index) or not _is_plain(kernel):
        return False
    # A simulator on the CPU knows memory by its tensors.
    given: Any = tensors
    if device.type != "cpu":
        given = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    compiled = shortcut.compiled
    compiled.run(
        found.programs, 1, 1, driver.get_current_stream(index), compiled.function, compiled.packed_metadata,
        None, None, None, *given, *shortcut.arguments,
    )  # fmt: skip
    return True


def _remember(found: Plan, device: torch.device, tensors: int, compiled: Any) -> None:
    """Makes a shortcut of what the JIT has launched; not for the interpreter, nor for a driver that only records."""
    kernel = found.kernel
    if is_interpreted(kernel) or type(compiled) is not CompiledKernel or not _is_plain(kernel):
        return
    # On a CPU, that is in a simulator, Triton's device is current all the time.
    index = triton.runtime.driver.active.get_current_device() if device.type == "cpu" else device.index
    names = kernel.arg_names[tensors + len(found.values) :]
    if all(name in found.constants for name in names):
        arguments = (*found.values, *[found.constants[name] for name in names])
        found.shortcuts[index] = Shortcut(compiled, arguments, kernel.device_caches.get(index))
