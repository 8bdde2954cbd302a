"""The pytest plugin: turns every property into items, one for each part of the plan.

Inert unless an implementation is selected with --moe-implementation.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import date
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from filelock import FileLock

from . import devices, waivers
from .backends import Backend, architecture, resolve
from .explore import Part, explore
from .findings import Findings, NonConformance
from .implementation import Declaration, load
from .isolation.child import Work, die_with_parent
from .isolation.judge import LIMIT_SECONDS, Judge, judge
from .plan import RunOptions, chosen_properties, parts
from .problem import Problem
from .profiles import PROFILE_NAMES, Profile, profile
from .registry import Property, unjudged
from .runlog import Earlier, LogLost, RunLog
from .shards import Shard

T = TypeVar("T")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("moe-conformance")
    group.addoption("--moe-implementation", help="a shipped implementation or module:factory")
    group.addoption("--moe-backend", default="auto", help="cpu, cuda, rocm, exec:TARGET or auto")
    group.addoption("--moe-profile", default="dev", choices=PROFILE_NAMES, help="how many problems are drawn")
    group.addoption("--moe-stage", action="append", default=[], help="only this stage (may be given again)")
    group.addoption("--moe-seed", type=int, default=0, help="seed of the drawn problems")
    group.addoption("--moe-problems", type=int, help="total number of problems, instead of the profile's")
    group.addoption("--moe-shard", type=Shard.parse, help="run only the problems of shard I/N")
    group.addoption("--moe-waivers", help="a file of waivers")
    group.addoption("--moe-date", help="the day, YYYY-MM-DD, on which waivers must be valid [default: today, UTC]")
    group.addoption("--moe-architecture", help="the device's architecture, for waivers [default: asked of the device]")
    group.addoption("--moe-run-dir", default=".moe-conformance/run", help="where the run's event files go")
    group.addoption("--moe-devices", type=int, default=1, help="visible GPUs, to be shared out among the workers")
    group.addoption("--moe-workers", type=int, default=1, help="how many workers share them")
    group.addoption("--moe-limit", type=float, default=LIMIT_SECONDS, help="seconds after which a problem hangs")
    group.addoption(
        "--moe-declaration", help="a file with the implementation's pickled Declaration, written by the run"
    )
    group.addoption("--moe-in-process", action="store_true", help="no isolation: a crash ends the worker")
    group.addoption("--moe-resume", action="store_true", help="go on where the event files of the run end")
    group.addoption("--moe-managed", action="store_true", help="end with the process that started this one")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--moe-implementation"):
        config.stash[SESSION] = Session(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is not None:
        session.close()


class SuiteError(Exception):
    """An error between the implementation and its judge; the message is the traceback."""


class Session:
    """What all items of this process share. With xdist the controller has one too, and runs nothing."""

    def __init__(self, config: pytest.Config) -> None:
        torch.set_num_threads(1)  # one core a worker: xdist provides the parallelism
        options = config.option
        if options.moe_managed:
            die_with_parent()
        self._given = options
        self._directory = Path(options.moe_run_dir)
        self.options = RunOptions(
            implementation=options.moe_implementation,
            backend=options.moe_backend,
            profile=options.moe_profile,
            stages=tuple(options.moe_stage),
            seed=options.moe_seed,
            problems=options.moe_problems,
            shard=options.moe_shard,
        )
        runs_items = hasattr(config, "workerinput") or not getattr(options, "numprocesses", None)
        # Before anything asks the runtime for a device.
        self._lease = self._taken() if runs_items else None
        self.backend: Backend = resolve(options.moe_backend)
        self.declaration = self._declared()
        self.profile: Profile = profile(options.moe_profile, self.backend)
        self.properties = chosen_properties(self.options, self.backend, self.declaration)
        self.waivers = self._read_waivers()
        self._earlier = Earlier(self._directory) if options.moe_resume and runs_items else None
        self._drawn: list[str] = []

    @property
    def workers(self) -> int:
        """Of the whole run."""
        return int(self._given.moe_workers)

    def _taken(self) -> devices.Lease | None:
        name, given = self._given.moe_backend, self._given
        backend = Backend(name, "cuda" if name in ("cuda", "rocm") else "cpu")
        return devices.take(backend, self._directory / "leases", given.moe_devices, given.moe_workers)

    def _declared(self) -> Declaration:
        """What the implementation declares: as the run wrote it down, so that this process loads nothing of it and asks
        no device; without that, by loading it."""
        path = self._given.moe_declaration
        if path is not None:
            found = pickle.loads(Path(path).read_bytes())
            assert isinstance(found, Declaration)
            return found
        self.backend.start()
        return load(self.options.implementation).declaration

    def _read_waivers(self) -> waivers.Waivers | None:
        path, day, built_for = self._given.moe_waivers, self._given.moe_date, self._given.moe_architecture
        if path is None:
            return None
        on = date.fromisoformat(day) if day else waivers.today()
        name, found = self.options.implementation, self.backend
        built_for = built_for or architecture(found)
        return waivers.Waivers(waivers.read(Path(path)), name, found.platform, built_for, on, Path(path))

    @cached_property
    def log(self) -> RunLog:
        return RunLog(self._directory, self._worker)

    @property
    def _worker(self) -> str:
        return f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"

    @cached_property
    def judge(self) -> Judge:
        share = self._lease.share if self._lease else 1.0
        work = Work(self.options.implementation, self.backend, self.waivers, memory_share=share)
        return judge(
            work,
            self._given.moe_limit,
            isolated=not self._given.moe_in_process,
            log=(self._directory / f"judge-{self._worker}.log").resolve(),
        )

    def close(self) -> None:
        if "judge" in vars(self):
            self.judge.close()
        if "log" in vars(self):
            self.log.close()
        if self._lease:
            self._lease.release()

    def parts(self, prop: Property) -> list[Part]:
        if prop not in self.properties:
            return []
        return parts(prop, self.options, self.profile, self.declaration)

    def run(self, part: Part) -> None:
        """Run all problems of a part."""
        if self._earlier and part.name in self._earlier.parts:
            return
        started, self._drawn, stopped = time.monotonic(), [], True
        try:
            explore(part, self.profile.limits, self.declaration, lambda p, c: self._trial(part, p, c))
            stopped = False
        except NonConformance as failure:
            # One that took its process with it was reported when it did, and stopped nothing.
            stopped = not failure.findings.ended
            if stopped:
                self.log.failed(failure.findings)
            raise
        finally:
            ids = sorted(set(self._drawn)) if self.options.shard else None
            self.log.item(part.name, time.monotonic() - started, stopped=stopped, problems=ids)

    def _trial(self, part: Part, problem: Problem, counts: bool) -> None:
        prop, shard = part.prop, self.options.shard
        if counts:
            self._drawn.append(problem.id)
        if shard is not None and not shard.holds(problem.id):
            return
        if self._earlier and self._earlier.done(prop.name, problem):
            return
        if self._earlier and self._earlier.lost(prop.name, problem):
            self._report(
                self._without_trial(prop, problem, "crashed", "crashed: its worker died with it, twice"), counts
            )
            return
        if self.judge.gave_up:
            self.log.finished(self._without_trial(prop, problem, "not run"), 0.0, counts=counts)
            return
        self.log.started(prop.name, problem)
        # Problems of many gigabytes take turns: together they would not fit on one device.
        device = self._lease.device if self._lease else 0
        turn = FileLock(self._directory / f"heavy-{device}.lock") if prop.kind.heavy else nullcontext()
        with turn:
            answer = self.judge.run(prop, problem)
        if answer.error:
            self.log.finished(answer.findings, answer.seconds, counts=counts)
            raise SuiteError(answer.error)
        self._report(answer.findings, counts, answer.seconds)

    def _report(self, findings: Findings, counts: bool, seconds: float = 0.0) -> None:
        self.log.finished(findings, seconds, counts=counts)
        if findings.failed:
            if findings.ended:
                self.log.failed(findings)
            raise NonConformance(findings)

    def _without_trial(self, prop: Property, problem: Problem, ended: Any, message: str = "") -> Findings:
        findings = unjudged(prop, problem, self.options.implementation, self.backend, self.waivers)
        findings.ended = ended
        findings.features.clear()  # nothing was met
        if message:
            findings.blame(message)
        return findings


SESSION = pytest.StashKey[Session]()


class PropertyItem(pytest.Item):
    """One part of one property."""

    def __init__(self, *, part: Part, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def runtest(self) -> None:
        try:
            self.config.stash[SESSION].run(self.part)
        except LogLost as error:
            # A run that cannot write down what it sees is over. What it has written can be taken up again.
            self.session.shouldstop = str(error)
            raise

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, NonConformance | SuiteError | LogLost):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.part.prop.check.__code__.co_firstlineno, self.name


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> list[pytest.Item] | None:
    prop = getattr(obj, "conformance_property", None)
    if prop is None:
        return None
    session = collector.config.stash.get(SESSION, None)
    if session is None:
        raise pytest.UsageError("the conformance properties need --moe-implementation NAME or module:factory")
    return list(_items(collector, session, prop))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    session = config.stash.get(SESSION, None)
    found = [item for item in items if isinstance(item, PropertyItem)]
    if session is not None and len(found) == len(items):
        declaration = session.declaration
        ordered = in_order(found, lambda item: urgency(item.part, declaration), session.workers)
        items[:] = list[pytest.Item](ordered)


def urgency(part: Part, declaration: Declaration) -> tuple[bool, int]:
    """By what parts are handed out, the greatest first: problems of gigabytes, which take turns on a device and must
    not wait for each other at the end, then the longest."""
    return part.prop.kind.large, part.effort(declaration)


def in_order(items: list[T], urgency: Callable[[T], Any], workers: int) -> list[T]:
    """`items` as they are to be handed out: the most urgent first, so that no worker begins a long one when the others
    end.

    xdist gives each worker two to begin with, and then one for each that it has done. The second ones are the shortest
    of that round, in turn: nobody waits for two of the longest.
    """
    ordered = sorted(items, key=urgency, reverse=True)
    first, second = ordered[:workers], ordered[workers : 2 * workers]
    dealt = [item for pair in zip_longest(first, reversed(second)) for item in pair if item is not None]
    return dealt + ordered[2 * workers :]


def _items(collector: pytest.Collector, session: Session, prop: Property) -> Iterator[pytest.Item]:
    for part in session.parts(prop):
        yield PropertyItem.from_parent(collector, name=part.name, part=part)
