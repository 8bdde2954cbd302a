"""Clocks: CUDA-graph replay with a cold L2, eager latency, and host time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

Call = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Sample:
    """Seconds: the median, the least and the greatest of `repeats` timings."""

    median: float
    least: float
    greatest: float
    repeats: int

    @staticmethod
    def of(seconds: list[float]) -> Sample:
        return Sample(median(seconds), min(seconds), max(seconds), len(seconds))


@dataclass(frozen=True)
class Repeats:
    """As many timings as fit in `seconds`, but at least `least` and at most `most`."""

    least: int = 5
    most: int = 30
    seconds: float = 0.15

    def count(self, one: float) -> int:
        return max(self.least, min(self.most, int(self.seconds / max(one, 1e-9))))


class Deadline:
    """An overall time limit: asked between cases, so that a run stops cleanly with whole cases."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def passed(self) -> bool:
        return self._end is not None and time.monotonic() > self._end


class NotCapturable(RuntimeError):
    """A call cannot be recorded in a graph."""


class Clock:
    """Times calls on one device. On a CPU every timing is wall time, and there are no graphs."""

    flush_bytes: int = 0

    def __init__(self, device: torch.device, repeats: Repeats) -> None:
        self.device = device
        self.repeats = repeats
        self._flush: torch.Tensor | None = None
        if device.type != "cpu":
            l2 = int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or 64 << 20
            # Zeros, read by a sum: reading evicts and leaves clean lines. A buffer that is written leaves dirty lines,
            # whose write-back is then counted in the next timing.
            self.flush_bytes = 4 * l2
            self._flush = torch.zeros(self.flush_bytes // 4, dtype=torch.float32, device=device)

    def synchronize(self) -> None:
        if self.device.type != "cpu":
            torch.cuda.synchronize(self.device)

    def flush(self) -> None:
        """Empties the L2 by reading a buffer of four times its size."""
        if self._flush is not None:
            self._flush.sum()

    def replayed(self, call: Call) -> Sample:
        """Device time of a call recorded in a graph, replayed with a cold L2. Raises NotCapturable."""
        found = self.replayed_in_turns({"": call})[""]
        if isinstance(found, Exception):
            raise found
        return found

    def replayed_in_turns(self, calls: dict[Name, Call]) -> dict[Name, Sample | Exception]:
        """`replayed` of several calls in turns; in place of a time the exception, NotCapturable or any other.

        One after another, a call would meet the device as the one before it has left it: at its power limit a device
        runs slower for tens of milliseconds, and one that has rested runs faster. So the calls alternate from replay to
        replay, every second round in reverse.

        Each replay has its own pair of events; the flush lies between the pairs. All is queued at once: the flush is
        longer than a launch, so that no timing contains the host.
        """
        found: dict[Name, Sample | Exception] = {}
        graphs: dict[Name, torch.cuda.CUDAGraph] = {}
        counts: dict[Name, int] = {}
        try:
            for name, call in calls.items():
                try:
                    if self.device.type == "cpu":
                        raise NotCapturable("no graphs on a CPU")
                    graphs[name] = self._capture(call)
                    counts[name] = self.repeats.count(min(self._queued([graphs[name].replay] * 2)))
                except Exception as problem:  # a foreign kernel may fail in any way; the others are timed all the same
                    found[name] = problem
            order = []
            for turn in range(max(counts.values(), default=0)):
                names = [name for name, count in counts.items() if turn < count]
                order += names if turn % 2 == 0 else names[::-1]
            seconds = self._queued([graphs[name].replay for name in order])
            for name in counts:
                found[name] = Sample.of([once for of, once in zip(order, seconds, strict=True) if of == name])
            return found
        finally:
            self.synchronize()
            for graph in graphs.values():
                graph.reset()

    def _capture(self, call: Call) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(2):
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except Exception as error:
            with suppress(RuntimeError):  # the error of the broken capture may be reported once more
                self.synchronize()
            raise NotCapturable(" ".join(str(error).split())[:200] or repr(error)) from error
        return graph

    def _queued(self, calls: Sequence[Call]) -> list[float]:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in calls]
        self.synchronize()
        for call, (start, end) in zip(calls, pairs, strict=True):
            self.flush()
            start.record()
            call()
            end.record()
        self.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]

    def eager(self, call: Call) -> Sample:
        """What a caller waits for: from an idle device with a cold L2 until the last kernel has ended.

        Between two events on an idle queue: the time that the host needs to launch is inside, where it is longer than
        the device's.
        """
        for _ in range(2):
            call()
        self.synchronize()
        once = self._eager_once(call)
        return Sample.of([self._eager_once(call) for _ in range(self.repeats.count(once))])

    def _eager_once(self, call: Call) -> float:
        if self.device.type == "cpu":
            start_time = time.perf_counter()
            call()
            return time.perf_counter() - start_time
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.flush()
        self.synchronize()
        start.record()
        call()
        end.record()
        self.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def host(self, call: Call) -> Sample:
        """Seconds until a call returns, the queue being empty before it: the host's own work."""
        for _ in range(3):
            call()
        self.synchronize()
        seconds: list[float] = []
        start = time.perf_counter()
        while len(seconds) < self.repeats.least or (
            len(seconds) < 4 * self.repeats.most and time.perf_counter() - start < self.repeats.seconds
        ):
            before = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - before)
            self.synchronize()
        return Sample.of(seconds)
