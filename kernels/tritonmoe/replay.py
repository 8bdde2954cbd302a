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
from functools import lru_cache
from math import prod
from operator import itemgetter
from typing import Any, TypeVar

import torch
import triton
from triton.compiler import CompiledKernel
from triton.tools.tensor_descriptor import TensorDescriptor

from .arguments import Call, Given
from .first_call import is_capturing, launched_together
from .launch import VECTOR_BYTES, Collected, Launch, on_device, waiting

_ALIGNMENT = 256  # of what lies in the workspace: a multiple of what any load or descriptor asks for

Result = TypeVar("Result", bound=torch.Tensor | tuple[torch.Tensor, ...])


def perform(call: Call, given: Given, run: Callable[[], Result]) -> Result:
    """run(), or a replay of what it launched when this call was first made on this device.

    given: with the call's description from call_of. A call in which run does more than to launch (tritonmoe.launch) is
    never replayed.
    """
    if waiting.collected is not None or not _is_plain():
        return run()
    device = given[0][0].device
    if call.replays:
        index = device.index if device.type != "cpu" else _index(device)
        replay = call.replays.get(index)
        if replay is not None:
            found = replay.again(given, index)
            if found is not None:
                return found  # type: ignore[return-value]
    if is_capturing(device):
        return run()
    result, collected, compiled = launched_together(device, run)
    if collected is not None and compiled and all(type(each) is CompiledKernel for each in compiled):
        index = _index(device)
        made = _recorded(given[0], result, collected, compiled, index)
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
    """A compiled kernel on its grid. table: the JIT's, that had it. arguments: all of the kernel's, constants included,
    in their order, out of what a replay has at hand (Replay.again)."""

    kernel: Any
    table: object
    compiled: CompiledKernel
    programs: int
    arguments: Callable[[Sequence[Any]], tuple[Any, ...]]


class _Address:
    """What a launcher looks at of a descriptor's tensor."""

    def __init__(self, address: int) -> None:
        self._address = address

    def data_ptr(self) -> int:
        return self._address


@dataclass(frozen=True)
class Replay:
    """The launches of a call. Slots: the caller's tensors, then the results, then what lies in the workspace.

    descriptors: each with the slot that it is moved to. constants: all arguments that are neither.
    """

    device: torch.device
    single: bool  # the result is one tensor and no tuple
    results: tuple[_Place, ...]
    between: tuple[_Place, ...]
    workspace: int  # bytes
    descriptors: tuple[tuple[Any, int], ...]
    constants: list[Any]
    starts: tuple[_Start, ...]

    def again(self, given: Given, index: int) -> torch.Tensor | tuple[torch.Tensor, ...] | None:
        """The results; None, and nothing is launched, where the launchers must be asked."""
        for start in self.starts:
            if start.kernel.pre_run_hooks or start.table is not start.kernel.device_caches.get(index):
                return None
        tensors, addresses = given
        with on_device(self.device):
            make = _maker(self.device)
            results = [make(each.shape, each.steps, each.dtype) for each in self.results]
            made = [tensor.data_ptr() for tensor in results]
            slots: list[Any] = addresses + made
            workspace = None
            if self.workspace:
                workspace = make((self.workspace,), (1,), torch.uint8)
                base = workspace.data_ptr()
                made.append(base)
                slots += [base + each.offset for each in self.between]
            for address in made:
                if address % VECTOR_BYTES:  # as compiled kernels expect, and all allocators of devices give
                    return None
            if self.device.type == "cpu":  # a simulator, which knows memory by its tensors
                slots = [*tensors, *results, *[_view(workspace, each) for each in self.between]]
            at_hand = slots + [_moved(descriptor, slots[slot]) for descriptor, slot in self.descriptors]
            at_hand += self.constants
            stream = triton.runtime.driver.active.get_current_stream(index)
            for start in self.starts:
                compiled = start.compiled
                compiled.run(
                    start.programs, 1, 1, stream, compiled.function, compiled.packed_metadata, None, None, None,
                    *start.arguments(at_hand),
                )  # fmt: skip
        return results[0] if self.single else tuple(results)


Maker = Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], torch.Tensor]


def _maker(device: torch.device) -> Maker:
    """torch.empty_strided(shape, strides, dtype) on a device that is current.

    Half its time goes into what torch spares the code that it generates itself, by an entry that no mode of torch sees.
    A mode may want to know what is allocated, as the suite's guard bands do; while there is one, it is told.
    """
    quick, plain = _makers(device)
    return plain if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack() else quick


@lru_cache
def _makers(device: torch.device) -> tuple[Maker, Maker]:
    """The quick one, which is not torch's public interface: the plain one, where this torch has none."""

    def plain(shape: tuple[int, ...], steps: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(shape, steps, dtype=dtype, device=device)

    return getattr(torch._C._dynamo.guards, f"_empty_strided_{device.type}", plain), plain


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
    tensors: Sequence[torch.Tensor],
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
    slots = {tensor.data_ptr(): slot for slot, tensor in enumerate(known)}
    if len(slots) != len(known):
        return None
    given = [_arguments(launch) for launch in collected.launches]
    first_constant = len(known) + sum(isinstance(each, TensorDescriptor) for arguments in given for each in arguments)
    descriptors, constants = list[tuple[Any, int]](), list[Any]()
    starts, used_slots = list[_Start](), list[set[int]]()
    for launch, kernel, arguments in zip(collected.launches, compiled, given, strict=True):
        if launch.kernel.pre_run_hooks or len(arguments) != len(launch.kernel.arg_names):
            return None
        places, worked_on = list[int](), set[int]()
        for argument in arguments:
            if not isinstance(argument, torch.Tensor | TensorDescriptor):
                places.append(first_constant + len(constants))
                constants.append(argument)
                continue
            tensor = argument if isinstance(argument, torch.Tensor) else argument.base
            slot = slots.get(tensor.data_ptr())
            if slot is None:
                return None
            worked_on.add(slot)
            places.append(slot if tensor is argument else len(known) + len(descriptors))
            if tensor is not argument:
                descriptors.append((_moved(argument, 0), slot))
        table = launch.kernel.device_caches.get(index)
        starts.append(_Start(launch.kernel, table, kernel, launch.programs, itemgetter(*places)))
        used_slots.append(worked_on)
    first = len(tensors) + len(results)
    placed, size = _packed(between, [{slot - first for slot in slots if slot >= first} for slots in used_slots])
    return Replay(
        tensors[0].device,
        isinstance(result, torch.Tensor),
        tuple(map(_Place.of, results)),
        tuple(placed),
        size,
        tuple(descriptors),
        constants,
        tuple(starts),
    )


def _arguments(launch: Launch) -> list[Any]:
    """All of the kernel's in its order; fewer where some are left to their defaults."""
    names = launch.kernel.arg_names[len(launch.arguments) :]
    return [*launch.arguments, *[launch.options[name] for name in names if name in launch.options]]


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
