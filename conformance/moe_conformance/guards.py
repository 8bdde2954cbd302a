"""Guard bands: every tensor between two stretches of bytes that nobody may write, and that read as NaN or -1.

A store beside a buffer changes a band, which is checked after every call of the implementation. A load beside it, or of
memory that was never written, brings 0xFF bytes: NaN in every float format, -1 in every signed integer. What this sees
and what it does not is in SPEC.md, section "memory".
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

UNCHANGED, INSIDE = "MEM-1", "MEM-4"

# Bytes on either side. A multiple of 512, what torch's device allocators align to, so that a tensor keeps the alignment
# it would have without bands. A tile or vector of contiguous elements that runs over an edge starts at it, so it
# touches the band however long it is; 16 KiB is for strided stores, whose first stray element lies up to a row (8192
# elements of 16 bits) away.
BAND = 16 * 1024
POISON = 0xFF
# A buffer above LARGEST bytes is left as it is: copying weights spread over gigabytes would take longer than the call.
LARGEST = 256 * 2**20
# Buffers of earlier calls are still checked while all of them together hold at most this many bytes, bands included.
HELD = 64 * 2**20

# Operators that allocate, and whether the new memory has a defined content.
_NEW = {
    False: "empty empty_like empty_permuted empty_strided new_empty new_empty_strided",
    True: "zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full",
}
_ALLOCATIONS = {getattr(torch.ops.aten, name): written for written, names in _NEW.items() for name in names.split()}


@dataclass(frozen=True)
class _Buffer:
    """`memory`: uint8, band + `size` bytes + band, for a tensor of `dtype` and `shape`. before: an input's content."""

    name: str
    memory: Tensor
    size: int
    dtype: torch.dtype
    shape: torch.Size
    before: Tensor | None = None

    def bands(self) -> tuple[Tensor, Tensor]:
        return self.memory[:BAND], self.memory[BAND + self.size :]

    def content(self) -> Tensor:
        return self.memory[BAND : BAND + self.size]

    def changed(self) -> Tensor:
        """Whether an input's content is another than before: a bool on its device."""
        assert self.before is not None
        return torch.ne(self.content(), self.before).any()

    def stray(self) -> str | None:
        """What was written outside of the buffer, nearest to it, byte 0 being its first. Mends the bands."""
        before, after = (torch.nonzero(band != POISON).flatten() for band in self.bands())
        written = len(before) + len(after)
        if not written:
            return None
        at = int(before[-1]) - BAND if len(before) else self.size + int(after[0])
        for band in self.bands():
            band.fill_(POISON)
        kind = f"{str(self.dtype).removeprefix('torch.')} {tuple(self.shape)}, {self.size} bytes"
        side = "before its first byte" if at < 0 else "behind its last byte"
        return f"byte {at} of {self.name} ({kind}), {side}, was written; {written} bytes in all"


class Guards:
    """The buffers of one trial: inputs that were placed between bands, and what the implementation allocated."""

    def __init__(self) -> None:
        self._inputs: dict[int, _Buffer] = {}
        self._allocated: dict[int, _Buffer] = {}
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is allocated meanwhile is the suite's own business."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor's storage has bands that are being watched."""
        if tensor.layout != torch.strided:
            return False
        pointer = tensor.untyped_storage().data_ptr()
        return pointer in self._inputs or pointer in self._allocated

    def placed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by name, copied between bands: same strides, same place in a storage of the same bytes, and two
        views of one storage share the new one too. Left as they are: those that have bands, and those without plain
        memory of at most LARGEST bytes."""
        moved: dict[int, _Buffer] = {}
        made = dict(tensors)
        with self.paused():
            for name, tensor in tensors.items():
                if not _has_memory(tensor) or self.holds(tensor):
                    continue
                pointer = tensor.untyped_storage().data_ptr()
                if pointer not in moved:
                    moved[pointer] = self._keep(self._inputs, name, tensor)
                    moved[pointer].content().copy_(_bytes(tensor))
                    self._remember(moved[pointer])
                made[name] = _view(moved[pointer], tensor)
        return made

    def placed_parts(self, name: str, value: Any) -> Any:
        """A tensor, a named tuple of tensors, or a dataclass of tensors and Nones, with every tensor between bands."""
        if isinstance(value, Tensor):
            return self.placed({name: value})[name]
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return type(value)(**self.placed(value._asdict()))
        if value is None:
            return None
        parts = {f"{name}.{part}": tensor for part, tensor in vars(value).items() if tensor is not None}
        return replace(value, **{part.rpartition(".")[2]: tensor for part, tensor in self.placed(parts).items()})

    def allocated(self, tensor: Tensor, *, written: bool) -> Tensor:
        """A tensor like the one that torch just allocated, between bands. Not `written`: poisoned as well."""
        if self._paused or tensor.shape == (0,) or not _has_memory(tensor):
            return tensor  # torch makes tensors of shape (0,) by the dozen, to hang views on: nothing can be stored
        buffer = self._keep(self._allocated, "a buffer that it allocated", tensor)
        if written:
            buffer.content().copy_(_bytes(tensor))
        elif tensor.dtype == torch.bool:
            # A bool of any byte but 0 and 1 means different things to different operators.
            buffer.content().fill_(1)
        return _view(buffer, tensor)

    def _remember(self, buffer: _Buffer) -> None:
        held = sum(b.size for b in self._inputs.values() if b.before is not None)
        if held + buffer.size <= HELD:
            kept = replace(buffer, before=buffer.content().clone())
            self._inputs[kept.memory.untyped_storage().data_ptr()] = kept

    def renew(self) -> None:
        """The inputs hold what they should hold from now on: a property has written to them."""
        forgotten = {pointer: replace(buffer, before=None) for pointer, buffer in self._inputs.items()}
        self._inputs.update(forgotten)  # all of them first: what is remembered counts against HELD
        for buffer in forgotten.values():
            self._remember(buffer)

    def changed_inputs(self) -> list[str]:
        """The inputs that were written to, by name. One host read for each device."""
        by_device: dict[torch.device, list[_Buffer]] = defaultdict(list)
        for buffer in self._inputs.values():
            if buffer.before is not None and buffer.size:
                by_device[buffer.memory.device].append(buffer)
        found = []
        for buffers in by_device.values():
            changed = torch.stack([b.changed() for b in buffers]).tolist()
            found += [buffer.name for buffer, wrong in zip(buffers, changed, strict=True) if wrong]
        return found

    def faults(self) -> list[tuple[str, str]]:
        """What the last call did to memory that was not its own: requirement and message."""
        inside = [(INSIDE, message) for message in self.stray_writes()]
        return inside + [(UNCHANGED, f"{name} was written to") for name in self.changed_inputs()]

    def stray_writes(self) -> list[str]:
        """What was written outside of any buffer, one message each. One reduction and one host read for each device;
        then buffers of the oldest calls are let go."""
        by_device: dict[torch.device, list[_Buffer]] = defaultdict(list)
        for buffer in (*self._inputs.values(), *self._allocated.values()):
            by_device[buffer.memory.device].append(buffer)
        found = []
        for buffers in by_device.values():
            bands = torch.cat([band for buffer in buffers for band in buffer.bands()])
            if bool((bands.view(torch.int64) != -1).any()):
                found += [message for buffer in buffers if (message := buffer.stray())]
        self._let_go()
        return found

    def banded(self, content: Tensor) -> Tensor:
        """What a whole storage reads while nothing was written outside: the bytes `content` between two bands."""
        band = content.new_full((BAND,), POISON)
        return torch.cat((band, content, band))

    def _keep(self, where: dict[int, _Buffer], name: str, like: Tensor) -> _Buffer:
        size = like.untyped_storage().nbytes()
        memory = torch.full((size + 2 * BAND,), POISON, dtype=torch.uint8, device=like.device)
        buffer = where[memory.untyped_storage().data_ptr()] = _Buffer(name, memory, size, like.dtype, like.shape)
        return buffer

    def _let_go(self) -> None:
        held = sum(buffer.memory.numel() for buffer in self._allocated.values())
        while held > HELD:
            oldest = next(iter(self._allocated))
            held -= self._allocated.pop(oldest).memory.numel()


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, what is allocated through torch in this thread lies between bands of `guards`."""

    def __init__(self, guards: Guards) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._guards = guards

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """torch.compile would otherwise run an implementation eagerly under this mode, and judge another program."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise torch imports its compiler, in 1.6 s a process, and passes every operator through it."""
        return "torch._dynamo" in sys.modules

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        written = _ALLOCATIONS.get(func.overloadpacket)
        return made if written is None or kwargs.get("pin_memory") else self._guards.allocated(made, written=written)


def _has_memory(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        return False
    lazy = tensor.is_neg() or tensor.is_conj()
    return not lazy and tensor.untyped_storage().nbytes() <= LARGEST


def _bytes(tensor: Tensor) -> Tensor:
    """The storage behind a tensor, as uint8: no copy."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _view(buffer: _Buffer, like: Tensor) -> Tensor:
    offset = BAND // like.element_size() + like.storage_offset()
    made = torch.empty(0, dtype=like.dtype, device=like.device)
    return made.set_(buffer.memory.untyped_storage(), offset, like.shape, like.stride())
