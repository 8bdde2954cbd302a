"""The first call of its kind: its kernels are compiled side by side, not one after the other as each is reached.

Launches wait until the call has come to its last one; what Triton has not compiled yet is compiled by several threads,
which Triton allows, and most of a compilation leaves Python to others; then the launches are made in their order. An
operator of torch on the way, which may read what they write, or write what they read, is preceded by all that wait.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.tools.tensor_descriptor import TensorDescriptor

from .launch import VECTOR_BYTES, Collected, Launch, is_interpreted, on_device, waiting

Result = TypeVar("Result")

MOST_KNOWN = 4096  # kinds of launches remembered at a time; then all are forgotten
_known: set[object] = set()
# Held while a kernel is loaded. Triton 3.6 loads a launcher for each as a module, all of one name; where another thread
# loads one anew that was loaded before, CPython fills the module that has the name with it, and a thread that has
# just made that module takes the other kernel's launcher from it.
_loading = Lock()


def is_capturing(device: torch.device) -> bool:
    """Whether launches are being recorded in a graph, where nothing may be loaded that was not asked for."""
    return device.type != "cpu" and bool(torch.get_device_module(device).is_current_stream_capturing())


def launched_together(device: torch.device, run: Callable[[], Result]) -> tuple[Result, Collected | None, list[object]]:
    """What run() returns, its launches, which were made when it was done, and what Triton returned for each.

    None for the launches where an operator of torch came between them. What run raises is raised, and nothing of it is
    launched, but for what came before such an operator.
    """
    collected = Collected()
    waiting.collected = collected
    try:
        with _InOrder(device) as order:
            result = run()
    finally:
        waiting.collected = None
    if order.was_needed:
        return result, None, []
    return result, collected, _made(device, collected)


def _made(device: torch.device, collected: Collected) -> list[object]:
    if _has_compiler(device):
        _compile([each for each in collected.launches if not is_interpreted(each.kernel)])
    return [each.run() for each in collected.launches]


# Operators that touch no element of a tensor.
_EMPTY_OR_VIEW = {
    getattr(torch.ops.aten, name)
    for name in ("empty", "empty_strided", "view", "as_strided", "unsqueeze", "slice", "select", "detach", "alias")
}


class _InOrder(TorchDispatchMode):
    """Before the first operator of torch that is no launch, what waits is launched, and nothing waits any more."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self.was_needed = False

    def before(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if waiting.collected is not None and function.overloadpacket not in _EMPTY_OR_VIEW:
            collected, waiting.collected = waiting.collected, None
            self.was_needed = True
            _made(self._device, collected)
        return function(*arguments, **(named or {}))


# Not in the body of the class: what torch finds there, it wraps to keep torch.compile out, and the first use of the
# wrapper imports all that torch.compile needs, 1 to 3 s of a first call.
_InOrder.__torch_dispatch__ = _InOrder.before  # type: ignore[method-assign, assignment]


def _has_compiler(device: torch.device) -> bool:
    """Whether it is worth while: not for Triton's interpreter, nor for a simulator."""
    return device.type != "cpu"


def _compile(launches: list[Launch]) -> None:
    new = {kind: each for each in launches if (kind := _kind(each)) not in _known}
    if len(_known) + len(new) > MOST_KNOWN:
        _known.clear()
    _known.update(new)
    if new:
        with ThreadPoolExecutor(len(new), "tritonmoe-compile") as threads:
            for done in [threads.submit(_compile_one, each) for each in new.values()]:
                done.result()


def _compile_one(each: Launch) -> None:
    """What the launch would do first: find or compile the kernel, and load it. A failure is for the launch to raise."""
    try:
        with on_device(each.device):
            compiled = each.kernel.warmup(*each.arguments, grid=(each.programs,), **each.options)
            with _loading:
                compiled[(each.programs, 1, 1)]
    except Exception:
        return


def _kind(each: Launch) -> object:
    """What Triton compiles anew for, nearly: a launch that is wrongly taken as known compiles when it is made."""
    return (each.kernel, each.device, *each.options.items(), *map(_look, each.arguments))


def _look(argument: Any) -> object:
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.data_ptr() % VECTOR_BYTES == 0
    if isinstance(argument, TensorDescriptor):
        return argument.base.dtype, tuple(argument.block_shape)
    return type(argument)
