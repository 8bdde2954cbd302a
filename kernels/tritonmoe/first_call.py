"""The first call of its kind: its kernels are compiled side by side, not one after the other as each is reached.

Launches wait until the call has come to its last one; what Triton has not compiled yet is compiled by several threads,
which Triton allows, and most of a compilation leaves Python to others; then the launches are made in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from .launch import VECTOR_BYTES, Launch, is_interpreted, on_device, waiting

MOST_KNOWN = 4096  # kinds of launches remembered at a time; then all are forgotten
_known: set[object] = set()
# Held while a kernel is loaded. Triton 3.6 loads a launcher for each as a module, all of one name; where another thread
# loads one anew that was loaded before, CPython fills the module that has the name with it, and a thread that has
# just made that module takes the other kernel's launcher from it.
_loading = Lock()


@contextmanager
def compiled_together(device: torch.device) -> Iterator[None]:
    """Holds back the launches of the block. What the block raises is raised, and nothing of it is launched.

    Not on a CPU (Triton's interpreter, a simulator), nor while a graph is captured: there they are made at once.
    """
    if waiting.launches is not None or not _has_compiler(device):
        yield
        return
    launches: list[Launch] = []
    waiting.launches = launches
    try:
        yield
    finally:
        waiting.launches = None
    _compile([each for each in launches if not is_interpreted(each.kernel)])
    for each in launches:
        each.run()


def _has_compiler(device: torch.device) -> bool:
    return device.type != "cpu" and not torch.get_device_module(device).is_current_stream_capturing()


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
