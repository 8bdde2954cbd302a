"""How a process or a trial came to its end, in words, and what its last lines say about where."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import torch

from ..findings import Ended

_DEVICE_GAVE_UP = ("CUDA error", "HIP error", "illegal memory access", "device-side assert")
# Where torch's CPU allocator and Triton have no exception type of their own for it.
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "HIP out of memory", "cudaErrorMemoryAllocation")
_FRAME = re.compile(r'^ +File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)', re.MULTILINE)
FRAMES = 3  # of a stack that a message shows


def is_device_failure(text: str) -> bool:
    """Whether an error's text says that the device gave up: nothing more runs on it in that process."""
    return any(word in text for word in _DEVICE_GAVE_UP)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def end_of(error: BaseException | None) -> Ended:
    """Whether an exception, or what it came from, is a want of memory or the end of the device; "" for any other."""
    for each in _chain(error):
        if isinstance(each, torch.OutOfMemoryError | MemoryError) or any(word in str(each) for word in _NO_MEMORY):
            return "out of memory"
        if is_device_failure(str(each)):
            return "crashed"
    return ""


def exit_in_words(code: int | None) -> str:
    """What a process's exit code says: a signal's name, or the code."""
    if code is None:
        return "it does not end, even when killed"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as the system sends where memory runs out" if -code == signal.SIGKILL else name


def place(text: str) -> str:
    """The innermost frames of the last stack that faulthandler wrote, as "file:line name < ...", or the last line."""
    stack = text.rpartition("most recent call first")[2]
    frames = [f"{m['file'].rpartition('/')[2]}:{m['line']} {m['name']}" for m in _FRAME.finditer(stack)]
    if frames:
        return " < ".join(frames[:FRAMES])
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""
