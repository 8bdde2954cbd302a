"""Calls that are made again: what the first one launched is started once more, without the launchers.

What a call launches follows from its description (tritonmoe.arguments.call_of) and the device, but for addresses. So
the first call leaves its compiled kernels with their arguments, and for each tensor among these whose it was: one of
the caller's, a result, or one that lives between two kernels. A replay makes the results and one workspace for all that
lives between kernels, and starts the kernels with the new addresses. No tensor is kept.

What Triton's JIT finds for a launch depends on the index of the current device, the types of the tensors, the alignment
of their addresses, the reach of their memory, the values of integers and constants, and a few switches. A description
has all of that but the index, under which a call keeps its replays, and the switches: with any of them set, the
launchers are asked. So they are when the JIT's table for the device is not the one that had the kernel: tools that want
kernels compiled anew clear it, and a simulator that becomes another device has another; and where launches have hooks,
which are told the arguments. What is started is what the JIT would start, on the same device and stream; but tensors
are given by their addresses, which spares the launcher from asking Python and the driver for each. That they lie on
this device was checked with the call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar, cast

import torch
import triton
from triton.compiler import CompiledKernel
from triton.tools.tensor_descriptor import TensorDescriptor

from .arguments import Call
from .first_call import is_capturing, launched_together
from .launch import VECTOR_BYTES, Collected, Launch, on_device, waiting

_ALIGNMENT = 256  # of what lies in the workspace: a multiple of what any load or descriptor asks for

Tensors = tuple[torch.Tensor | None, ...]
Result = TypeVar("Result", bound=torch.Tensor | tuple[torch.Tensor, ...])


def perform(call: Call, tensors: Tensors, run: Callable[[], Result]) -> Result:
    """run(), or a replay of what it launched when this call was first made on this device.

    tensors: all of the caller's, in the order in which the call describes them; None for one that was left out. The
    first is never left out. A call in which run does more than to launch (tritonmoe.launch) is never replayed.
    """
    if waiting.collected is not None or not _is_plain():
        return run()
    device = cast(torch.Tensor, tensors[0]).device
    if call.replays:
        index = _index(device)
        replay = call.replays.get(index)
        if replay is not None:
            with on_device(device):
                stream = triton.runtime.driver.active.get_current_stream(index)
                found = replay.again(tensors, index, stream)
            if found is not None:
                return cast(Result, found)
    if is_capturing(device):
        return run()
    result, collected, compiled = launched_together(device, run)
    if collected is not None and compiled and all(type(each) is CompiledKernel for each in compiled):
        index = _index(device)
        made = _recorded(tensors, result, collected, compiled, index)
        if made is not None:
            call.replays[index] = made
    return result


def _index(device: torch.device) -> int:
    """Triton's number of a device that kernels are compiled for. On a CPU, that is in a simulator, there is only one at
    a time."""
    return int(triton.runtime.driver.active.get_current_device() if device.type == "cpu" else device.index)


def _is_plain() -> bool:
    """Whether nothing stands between a launch and its kernel but the JIT's look-up, as far as Triton's switches say."""
    return not (
        triton.knobs.runtime.debug
        or triton.knobs.runtime.add_stages_inspection_hook is not None
        or triton.knobs.compilation.instrumentation_mode
        or _has_calls(triton.knobs.runtime.launch_enter_hook)
        or _has_calls(triton.knobs.runtime.launch_exit_hook)
    )


def _has_calls(hook: Any) -> bool:
    """Whether a hook of Triton does anything: by default it is a chain without members."""
    return hook is not None and bool(getattr(hook, "calls", True))


# -- replaying ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A tensor that a replay makes. offset: in the workspace, in bytes; of a result 0."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]
    dtype: torch.dtype
    offset: int = 0

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @staticmethod
    def of(tensor: torch.Tensor, offset: int = 0) -> _Place:
        return _Place(tuple(tensor.shape), tensor.stride(), tensor.dtype, offset)


@dataclass(frozen=True)
class _Start:
    """A compiled kernel on its grid. table: the JIT's, that had it.

    arguments: those of the kernel in their order, constants included. tensors, descriptors: which of them get a
    tensor's address, or a descriptor one, and of which slot (Replay).
    """

    kernel: Any
    table: object
    compiled: CompiledKernel
    programs: int
    arguments: list[Any]
    tensors: tuple[tuple[int, int], ...]
    descriptors: tuple[tuple[int, int], ...]


class _Address:
    """What a launcher looks at of a descriptor's tensor."""

    def __init__(self, address: int) -> None:
        self._address = address

    def data_ptr(self) -> int:
        return self._address


@dataclass(frozen=True)
class Replay:
    """The launches of a call. Slots: the caller's tensors, then the results, then what lies in the workspace."""

    device: torch.device
    single: bool  # the result is one tensor and no tuple
    results: tuple[_Place, ...]
    between: tuple[_Place, ...]
    workspace: int  # bytes
    starts: tuple[_Start, ...]

    def again(self, tensors: Tensors, index: int, stream: int) -> torch.Tensor | tuple[torch.Tensor, ...] | None:
        """The results; None, and nothing is launched, where the launchers must be asked."""
        for start in self.starts:
            if start.kernel.pre_run_hooks or start.table is not start.kernel.device_caches.get(index):
                return None
        device = self.device
        results = [
            torch.empty_strided(each.shape, each.steps, dtype=each.dtype, device=device) for each in self.results
        ]
        workspace = None
        if self.workspace:
            workspace = torch.empty_strided((self.workspace,), (1,), dtype=torch.uint8, device=device)
        slots: list[Any] = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        slots += [tensor.data_ptr() for tensor in results]
        if workspace is not None:
            base = workspace.data_ptr()
            slots += [base + each.offset for each in self.between]
        for address in slots[len(tensors) :]:
            if address % VECTOR_BYTES:  # as compiled kernels expect, and all allocators of devices give
                return None
        if device.type == "cpu":  # a simulator, which knows memory by its tensors
            slots = [*tensors, *results, *[_view(workspace, each) for each in self.between]]
        for start in self.starts:
            arguments = start.arguments.copy()
            for position, slot in start.tensors:
                arguments[position] = slots[slot]
            for position, slot in start.descriptors:
                arguments[position] = _moved(arguments[position], slots[slot])
            compiled = start.compiled
            compiled.run(
                start.programs, 1, 1, stream, compiled.function, compiled.packed_metadata, None, None, None, *arguments
            )
        return results[0] if self.single else tuple(results)


def _view(workspace: torch.Tensor | None, place: _Place) -> torch.Tensor:
    assert workspace is not None
    return workspace[place.offset : place.offset + place.nbytes].view(place.dtype).view(place.shape)


def _moved(descriptor: Any, base: Any) -> Any:
    """The descriptor over other memory. Its checks are spared: they look at what stays as it was, and at alignment."""
    moved = copy(descriptor)
    moved.base = _Address(base) if isinstance(base, int) else base
    return moved


# -- recording ---------------------------------------------------------------------------------------------------------


def _recorded(
    tensors: Tensors,
    result: torch.Tensor | tuple[torch.Tensor, ...],
    collected: Collected,
    compiled: Sequence[Any],
    index: int,
) -> Replay | None:
    """None where a tensor cannot be told by its address, as when the caller gave one memory twice, or comes from
    nowhere that a replay could take it from."""
    results = (result,) if isinstance(result, torch.Tensor) else result
    used = [*collected.made]
    between = [each for each in used if all(each is not other for other in results)]
    if len(between) + len(results) != len(used):
        return None
    known = [*tensors, *results, *between]
    slots = {tensor.data_ptr(): slot for slot, tensor in enumerate(known) if tensor is not None}
    if len(slots) != sum(tensor is not None for tensor in known):
        return None
    starts: list[_Start] = []
    for launch, kernel in zip(collected.launches, compiled, strict=True):
        start = _start(launch, kernel, slots, index)
        if start is None:
            return None
        starts.append(start)
    first = len(tensors) + len(results)
    placed, size = _packed(between, [_slots_of(start, first) for start in starts])
    device = cast(torch.Tensor, tensors[0]).device
    places = tuple(map(_Place.of, results))
    return Replay(device, isinstance(result, torch.Tensor), places, tuple(placed), size, tuple(starts))


def _start(launch: Launch, compiled: CompiledKernel, slots: dict[int, int], index: int) -> _Start | None:
    names = launch.kernel.arg_names[len(launch.arguments) :]
    if launch.kernel.pre_run_hooks or not all(name in launch.options for name in names):
        return None
    arguments = [*launch.arguments, *[launch.options[name] for name in names]]
    tensors, descriptors = list[tuple[int, int]](), list[tuple[int, int]]()
    for position, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor):
            slot, where = slots.get(argument.data_ptr()), tensors
            arguments[position] = None
        elif isinstance(argument, TensorDescriptor):
            slot, where = slots.get(argument.base.data_ptr()), descriptors
            arguments[position] = _moved(argument, 0)
        else:
            continue
        if slot is None:
            return None
        where.append((position, slot))
    table = launch.kernel.device_caches.get(index)
    return _Start(launch.kernel, table, compiled, launch.programs, arguments, tuple(tensors), tuple(descriptors))


def _slots_of(start: _Start, first: int) -> set[int]:
    """Which of the tensors between kernels a launch works on, counted from 0."""
    return {slot - first for _, slot in (*start.tensors, *start.descriptors) if slot >= first}


def _packed(between: Sequence[torch.Tensor], used: Sequence[set[int]]) -> tuple[list[_Place], int]:
    """A place for each tensor and the bytes of all. Those whose lives do not overlap may share memory.

    used: the tensors of each launch. One lives from the first launch that works on it to the last. Largest first, each
    at the lowest offset where no other that lives at the same time is in its way.
    """
    lives = {}
    for number in range(len(between)):
        at = [launch for launch, numbers in enumerate(used) if number in numbers]
        lives[number] = (min(at, default=0), max(at, default=0))
    ends: dict[int, tuple[int, int]] = {}  # number: offset, end
    for number in sorted(lives, key=lambda number: -between[number].nbytes):
        first, last = lives[number]
        size = -(-between[number].nbytes // _ALIGNMENT) * _ALIGNMENT
        offset = 0
        for start, end in sorted(ends[other] for other in ends if lives[other][0] <= last and first <= lives[other][1]):
            if offset + size <= start:
                break
            offset = max(offset, end)
        ends[number] = (offset, offset + size)
    places = [_Place.of(each, ends[number][0]) for number, each in enumerate(between)]
    return places, max((end for _, end in ends.values()), default=0)
