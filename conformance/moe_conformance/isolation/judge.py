"""Whoever runs a problem: a process beside this one that is replaced when it is lost, or this process itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from ..findings import Ended
from ..implementation import load
from ..problem import Problem
from ..registry import Property, unjudged
from .child import Answer, Work, answered, serve
from .ends import exit_in_words, place

LIMIT_SECONDS = 300.0  # for a problem: its first launches compile, and the largest ones take tens of seconds
START_SECONDS = 300.0  # torch and Triton from a cold disk
STACK_SECONDS = 1.0  # for a hung process to write where it is
END_SECONDS = 60.0  # for a killed process to go: the driver ends what runs on the device first
# A process that has hung this often gives up: the rest of its problems are reported as not run.
MOST_HUNG = 3


class Judge(Protocol):
    """Runs problems one at a time. `gave_up`: it will not run any more."""

    @property
    def gave_up(self) -> bool: ...
    def run(self, prop: Property, problem: Problem) -> Answer: ...
    def close(self) -> None: ...


class InProcess:
    """Without isolation: what kills or hangs a trial does so to this process. For debuggers."""

    gave_up = False

    def __init__(self, work: Work) -> None:
        work.backend.start()
        self._work, self._implementation = work, load(work.implementation)

    def run(self, prop: Property, problem: Problem) -> Answer:
        return answered(self._work, self._implementation, prop, problem)

    def close(self) -> None:
        """Nothing to end."""


class CannotStart(RuntimeError):
    """The process that should judge died before it could; the message has its last words."""


class Isolated:
    """In a process beside this one, started from a server that has imported everything and touched no device.

    A process that dies or does not answer within `limit` seconds costs the problem it was given; the next problem
    meets a new one.
    """

    def __init__(self, work: Work, limit: float) -> None:
        assert work.log is not None
        self._work, self._limit, self._log = work, limit, work.log
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["moe_conformance.isolation.preload"])
        self._running: tuple[BaseProcess, Connection] | None = None
        self._hung = 0

    @property
    def gave_up(self) -> bool:
        return self._hung >= MOST_HUNG

    def run(self, prop: Property, problem: Problem) -> Answer:
        """Raises CannotStart where no process can be had."""
        process, connection = self._running or self._start()
        seen, started = self._written(), time.monotonic()
        try:
            connection.send((prop.name, problem.to_json()))
            if not connection.poll(self._limit):
                return self._lost(prop, problem, "hung", seen, started)
            answer: Answer = connection.recv()
        except (EOFError, OSError):
            return self._lost(prop, problem, "crashed", seen, started)
        if answer.last:
            self._end(process, connection)
        return answer

    def close(self) -> None:
        if self._running:
            self._end(*self._running)

    def _start(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        work = replace(self._work, environment=dict(os.environ), path=tuple(sys.path))
        process = self._context.Process(target=serve, args=(work, theirs), daemon=True)
        process.start()
        theirs.close()
        self._running = process, ours
        try:
            if ours.poll(START_SECONDS) and ours.recv() == "ready":
                return self._running
        except (EOFError, OSError):
            pass
        code = self._end(process, ours)
        raise CannotStart(f"no process could load {work.implementation}: {exit_in_words(code)}; {self._words(0)}")

    def _lost(self, prop: Property, problem: Problem, ended: Ended, seen: int, started: float) -> Answer:
        """What stands for a problem whose process is gone. `seen`: the log's length before it."""
        assert self._running is not None
        process, connection = self._running
        if ended == "hung":
            self._hung += 1
            # The process may know where it is, if its main thread can be reached by a signal.
            os.kill(process.pid or 0, signal.SIGUSR1)
            time.sleep(STACK_SECONDS)
        code = self._end(process, connection)
        what = f"no answer within {self._limit:g} s" if ended == "hung" else exit_in_words(code)
        where = self._words(seen)
        findings = unjudged(prop, problem, self._work.implementation, self._work.backend, self._work.waivers)
        findings.blame(f"{ended}: {what}{f'; {where}' if where else ''}")
        findings.ended = ended
        return Answer(findings, seconds=time.monotonic() - started)

    def _end(self, process: BaseProcess, connection: Connection) -> int | None:
        """Make sure that a process is gone, and say how it went."""
        self._running = None
        connection.close()
        process.join(0.2)  # one that died by itself has an exit code of its own
        if process.is_alive():
            process.kill()
        process.join(END_SECONDS)
        return process.exitcode

    def _written(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _words(self, seen: int) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as log:
            log.seek(seen)
            return place(log.read().decode(errors="replace"))


def judge(work: Work, limit: float, *, isolated: bool, log: Path) -> Judge:
    """The judge of a worker."""
    return Isolated(replace(work, log=log), limit) if isolated else InProcess(work)
