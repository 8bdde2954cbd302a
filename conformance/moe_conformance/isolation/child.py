"""The process that holds the device: it makes trials, runs them, and answers with findings, until nobody asks."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ..backends import Backend
from ..findings import Findings, NonConformance
from ..implementation import Implementation, load
from ..problem import Problem
from ..registry import Property, all_properties, make_trial, run_trial, unjudged
from ..trial import Trial
from ..waivers import Waivers
from .ends import end_of

_KEPT_BYTES = 2**30  # device memory that a process may keep cached between problems
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Work:
    """What a process judges, and within what.

    memory_share: of a device's memory, for every problem but the heavy ones (Kind.heavy), which have the device's
    lock. log: where its output goes. environment, path: of the process that starts it.
    """

    implementation: str
    backend: Backend
    waivers: Waivers | None = None
    memory_share: float = 1.0
    log: Path | None = None
    environment: dict[str, str] | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came of a problem. `error` is the traceback of an error of the suite's own, "" where there is none.

    `seconds`: the trial alone, without waiting for the device. `last`: the process can, or should, judge nothing more.
    """

    findings: Findings
    error: str = ""
    seconds: float = 0.0
    last: bool = False


def die_with_parent() -> None:
    """Have the kernel end this process with the one that started it, however that ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(work: Work, connection: Connection) -> None:
    """The life of the process: get ready, say so, then answer (property name, problem as JSON) with an Answer each."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for whoever started the run to handle
    if work.environment is not None:  # the server's own is older
        os.environ.clear()
        os.environ.update(work.environment)
    sys.path[:] = work.path or sys.path
    if work.log is not None:
        log = os.open(work.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
    # Written by the signal's own handler, not by Python: also where a kernel keeps the interpreter's lock.
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    torch.set_num_threads(1)
    work.backend.start()
    implementation = load(work.implementation)
    work.backend.take_workspaces()
    connection.send("ready")
    while True:
        try:
            name, text = connection.recv()
        except (EOFError, OSError):
            return
        answer = answered(work, implementation, all_properties()[name], Problem.from_json(text))
        connection.send(answer)
        if answer.last:
            return


def answered(work: Work, implementation: Implementation, prop: Property, problem: Problem) -> Answer:
    """Run one problem in this process."""
    backend, started = work.backend, time.monotonic()
    if work.memory_share < 1:
        torch.cuda.set_per_process_memory_fraction(1.0 if prop.kind.heavy else work.memory_share)
    error, words, ended = "", "", end_of(None)
    findings = unjudged(prop, problem, work.implementation, backend, work.waivers)
    trial: Trial | None = None
    try:
        trial = make_trial(prop, problem, implementation, work.implementation, backend, waivers=work.waivers)
        findings = trial.plain()
        run_trial(trial, prop.check)
    except NonConformance as failure:
        findings, ended = failure.findings, end_of(failure.__cause__)
    except Exception as caught:
        error, words, ended = traceback.format_exc(), f"{type(caught).__name__}: {caught}", end_of(caught)
    trial = None  # its tensors go before memory is given back
    lost = bool(ended or error or findings.failed) and not _device_answers(backend)
    if lost:
        ended = "crashed"
    elif ended == "crashed":
        ended = ""  # an error of one call, that the device has got over
    if ended and not findings.failed:
        findings.blame(f"{ended}: {words or 'the device answers nothing any more'}")
        error = ""
    findings.ended = ended
    if not lost:
        # What a process keeps for itself is missing to the one whose problem fills most of the device.
        backend.release_memory(0 if prop.kind.heavy else _KEPT_BYTES)
    # Something small that is kept in the midst of a heavy problem's memory keeps all of it: more than this process may
    # have for the next problem, which would be the one to fail.
    spent = not lost and prop.kind.heavy and backend.kept_memory > _KEPT_BYTES
    return Answer(findings, error, time.monotonic() - started, last=lost or spent)


def _device_answers(backend: Backend) -> bool:
    """Whether this process can still use its device: one fault, and every call fails from then on."""
    if not backend.is_gpu:
        return True
    try:
        return float(torch.ones(1, device=backend.device).sum()) == 1.0
    except RuntimeError as error:
        return end_of(error) == "out of memory"
