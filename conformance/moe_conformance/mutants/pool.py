"""Child processes: each judges one mutant, with the mutated copy of the kernels first on its path.

The parent has imported everything but the kernels, and starts children by fork: a child then needs milliseconds and
not seconds. That is safe because the parent runs no thread and touches no device.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ..backends import Backend, describe, resolve, shared_memory, triton_environment
from ..devices import mask_of
from ..implementation import Implementation, load, source_digest
from ..isolation.ends import is_device_failure
from ..plan import RunOptions
from .build import PACKAGE, build
from .catalogue import Mutant
from .hunt import Queue, hunt, queues

GRACE = 30.0  # seconds beyond its limit after which a child that does not come back is killed
NAME = "tritonmoe"


@dataclass(frozen=True)
class Task:
    """One child's work. mutant: None for the unmutated copy. seconds: its limit."""

    mutant: Mutant | None
    stage: str
    queues: list[Queue]
    seconds: float


@dataclass
class Outcome:
    """What a child reported: the first kill, the whole hunt, and how the process ended."""

    task: Task
    seconds: float = 0.0
    trying: dict[str, Any] | None = None
    tried: int = 0
    killed: dict[str, Any] | None = None
    done: dict[str, Any] | None = None
    ended: str = ""  # "", "timeout", "crash" (a signal) or "broken" (it could not even start)
    log: str = ""


@dataclass(frozen=True)
class Drawn:
    """What the child that plans reports: the device, how many of its kind there are, the problems of every part, and
    the bytes of shared memory that a program may have (None: no limit)."""

    backend: Backend
    devices: int
    environment: dict[str, Any]
    source_digest: str
    queues: list[Queue]
    shared_memory: int | None

    def reaches(self, mutant: Mutant) -> bool:
        """Whether the mutated code can show its defect here."""
        offered = self.shared_memory
        return (self.backend.is_gpu or mutant.where == "cpu") and (offered is None or offered >= mutant.shared_memory)


class PlannerError(RuntimeError):
    """The child that draws the problems ended without them; the message is its last words."""


def draw(backend_name: str, make_options: Callable[[str], RunOptions]) -> Drawn:
    """The backend and the problems, from a child: the parent must import no kernel and touch no device.

    Raises PlannerError, where the backend is missing too.
    """
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_draw_child, args=(sending, backend_name, make_options))
    child.start()
    sending.close()
    try:
        kind, found = receiving.recv()
    except EOFError:
        kind, found = "error", "it died"
    child.join()
    if kind == "error":
        raise PlannerError(found)
    assert isinstance(found, Drawn)
    return found


def _draw_child(sending: Connection, backend_name: str, make_options: Callable[[str], RunOptions]) -> None:
    try:
        backend = resolve(backend_name)
        os.environ.update(triton_environment(backend.name))
        backend.start()
        implementation = load(NAME)
        found = queues(make_options(backend.name), backend, implementation)
        devices = torch.cuda.device_count() if backend.is_gpu else 1
        offered = shared_memory(backend)
        sending.send(
            ("drawn", Drawn(backend, devices, describe(backend), source_digest(implementation), found, offered))
        )
    except Exception as error:
        sending.send(("error", f"{type(error).__name__}: {error}"))


def preload(backend: Backend) -> None:
    """Import what every child needs, but not the kernels."""
    os.environ.update(triton_environment(backend.name))
    torch.set_num_threads(1)
    for name in ("triton", "triton.language", "moe_conformance.registry", "moe_conformance.implementations.eager"):
        importlib.import_module(name)
    if backend.interprets:
        importlib.import_module("triton.runtime.interpreter")
    if PACKAGE in sys.modules:
        raise RuntimeError(f"{PACKAGE} is imported already: children could not import a mutated copy")


@dataclass(frozen=True)
class Place:
    """Where a child works: its backend, which of the devices, its folder, and the lock for problems of gigabytes."""

    backend: Backend
    device: int
    folder: Path
    lock: Path


def _child(task: Task, place: Place, sending: Connection) -> None:
    backend, folder, lock = place.backend, place.folder, place.lock
    os.environ.update(mask_of(backend, place.device, os.environ))
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    backend.start()
    build(task.mutant.edits if task.mutant else (), folder)
    sys.path.insert(0, str(folder))
    implementation = load(NAME)
    used = Path(sys.modules[PACKAGE].__file__ or "").parent
    if used != folder / PACKAGE:
        raise RuntimeError(f"the kernels came from {used}, not from the mutated copy")
    if task.mutant and task.mutant.wrap:
        implementation = _wrapped(task.mutant.wrap, implementation)
    name = task.mutant.id if task.mutant else NAME

    def tell(kind: str, value: dict[str, Any]) -> None:
        sending.send((kind, value))

    result = hunt(
        task.queues, task.stage, implementation, name, backend, seconds=task.seconds, tell=tell, lock=FileLock(lock)
    )
    sending.send(("done", {**vars(result), "seen": sorted(result.seen)}))


def _wrapped(name: str, implementation: Implementation) -> Implementation:
    from . import wrapped

    made: Implementation = getattr(wrapped, name)(implementation)
    return made


@dataclass
class _Running:
    process: BaseProcess
    receiving: Connection
    outcome: Outcome
    place: Place
    started: float = field(default_factory=time.monotonic)

    def read(self) -> bool:
        """Take over what the child has sent; False once it has closed its end."""
        try:
            while self.receiving.poll():
                kind, value = self.receiving.recv()
                if kind == "trying":
                    self.outcome.trying, self.outcome.tried = value, self.outcome.tried + 1
                else:
                    setattr(self.outcome, kind, value)
        except (EOFError, OSError):
            return False
        return True


def run_all(tasks: list[Task], backend: Backend, workers: int, devices: int = 1) -> Iterator[Outcome]:
    """Judge all tasks, `workers` at a time on so many devices, and yield the outcomes as they come."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(tasks)), list[_Running]()
    with tempfile.TemporaryDirectory(prefix="moe-mutants-") as root:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    used = [one.place.device for one in running]
                    device = min(range(devices), key=used.count)
                    folder = Path(tempfile.mkdtemp(dir=root))
                    place = Place(backend, device, folder, Path(root) / f"large-{device}.lock")
                    running.append(_start(context, waiting.pop(), place))
                wait([r.receiving for r in running], timeout=1.0)
                for one in list(running):
                    open_still = one.read()
                    overdue = time.monotonic() - one.started > one.outcome.task.seconds + GRACE
                    if open_still and not overdue:
                        continue
                    running.remove(one)
                    yield _finish(one, overdue and open_still)
        finally:
            for one in running:
                one.process.kill()
                one.process.join()


def _start(context: Any, task: Task, place: Place) -> _Running:
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(task, place, sending))
    process.start()
    sending.close()  # the child's end alone stays open: when it dies, the pipe ends
    return _Running(process, receiving, Outcome(task), place)


def _finish(one: _Running, overdue: bool) -> Outcome:
    if overdue:
        one.process.kill()
    one.process.join()
    one.receiving.close()
    outcome = one.outcome
    outcome.seconds = round(time.monotonic() - one.started, 2)
    if outcome.done is None:
        log = one.place.folder / "log"
        text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
        # A device that gave up may first be noticed between two problems.
        died = (one.process.exitcode or 0) < 0 or is_device_failure(text)
        outcome.ended = "timeout" if overdue else "crash" if died else "broken"
        outcome.log = f"exit code {one.process.exitcode}; {text[-400:]}"
    return outcome
