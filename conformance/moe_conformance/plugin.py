"""The pytest plugin: turns every property into items, one for each part of the plan.

Inert unless an implementation is selected with --moe-implementation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from . import waivers
from .backends import Backend, architecture, resolve
from .explore import Part, explore
from .implementation import Implementation, load
from .plan import RunOptions, chosen_properties, parts
from .problem import Problem
from .profiles import PROFILE_NAMES, Profile, profile
from .registry import Property, make_trial, run_trial
from .runlog import RunLog
from .trial import NonConformance


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("moe-conformance")
    group.addoption("--moe-implementation", help="a shipped implementation or module:factory")
    group.addoption("--moe-backend", default="auto", help="cpu, cuda, rocm or auto")
    group.addoption("--moe-profile", default="dev", choices=PROFILE_NAMES, help="how many problems are drawn")
    group.addoption("--moe-stage", action="append", default=[], help="only this stage (may be given again)")
    group.addoption("--moe-seed", type=int, default=0, help="seed of the drawn problems")
    group.addoption("--moe-problems", type=int, help="total number of problems, instead of the profile's")
    group.addoption("--moe-waivers", help="a file of waivers")
    group.addoption("--moe-date", help="the day, YYYY-MM-DD, on which waivers must be valid [default: today, UTC]")
    group.addoption("--moe-run-dir", default=".moe-conformance/run", help="where the run's event files go")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--moe-implementation"):
        config.stash[SESSION] = Session(config)


class Session:
    """What all items of this process share."""

    def __init__(self, config: pytest.Config) -> None:
        torch.set_num_threads(1)  # one core a worker: xdist provides the parallelism
        options = config.option
        self.options = RunOptions(
            implementation=options.moe_implementation,
            backend=options.moe_backend,
            profile=options.moe_profile,
            stages=tuple(options.moe_stage),
            seed=options.moe_seed,
            problems=options.moe_problems,
        )
        self.backend: Backend = resolve(options.moe_backend)
        self.backend.start()
        self.implementation: Implementation = load(options.moe_implementation)
        self.profile: Profile = profile(options.moe_profile, self.backend)
        self.properties = chosen_properties(self.options, self.backend, self.implementation.declaration)
        self.waivers = self._read_waivers(options.moe_waivers, options.moe_date)
        self._directory = Path(options.moe_run_dir)
        self._log: RunLog | None = None

    def _read_waivers(self, path: str | None, day: str | None) -> waivers.Waivers | None:
        if path is None:
            return None
        on = date.fromisoformat(day) if day else waivers.today()
        name, found = self.options.implementation, self.backend
        return waivers.Waivers(waivers.read(Path(path)), name, found.platform, architecture(found), on, Path(path))

    @property
    def log(self) -> RunLog:
        if self._log is None:
            worker = f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"
            self._log = RunLog(self._directory, worker)
        return self._log

    def parts(self, prop: Property) -> list[Part]:
        if prop not in self.properties:
            return []
        return parts(prop, self.options, self.profile, self.implementation.declaration)

    def run(self, part: Part) -> None:
        """Run all problems of a part."""
        started = time.monotonic()
        try:
            explore(part, self.profile.limits, self.implementation.declaration, lambda p, c: self._trial(part, p, c))
        except NonConformance as failure:
            self.log.failed(failure)
            raise
        finally:
            self.log.item(part.name, time.monotonic() - started)

    def _trial(self, part: Part, problem: Problem, counts: bool) -> None:
        prop = part.prop
        name = self.options.implementation
        trial = make_trial(prop, problem, self.implementation, name, self.backend, waivers=self.waivers)
        self.log.started(trial)
        started = time.monotonic()
        # Problems of many gigabytes take turns: together they would not fit on one device.
        large = FileLock(self._directory / "large.lock") if prop.kind.large else nullcontext()
        with large:
            try:
                run_trial(trial, prop.check)
            finally:
                self.log.finished(trial, time.monotonic() - started, counts=counts)
                del trial
                # What a worker keeps for itself is missing to the one whose problem fills most of the device.
                self.backend.release_memory(0 if prop.kind.large else _KEPT_BYTES)


_KEPT_BYTES = 2**30  # device memory that a worker may keep cached between problems
SESSION = pytest.StashKey[Session]()


class PropertyItem(pytest.Item):
    """One part of one property."""

    def __init__(self, *, part: Part, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def runtest(self) -> None:
        self.config.stash[SESSION].run(self.part)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, NonConformance):
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Parts of large problems first: they take longest, and the others fill the gaps."""
    items.sort(key=lambda item: not (isinstance(item, PropertyItem) and item.part.prop.kind.large))


def _items(collector: pytest.Collector, session: Session, prop: Property) -> Iterator[pytest.Item]:
    for part in session.parts(prop):
        yield PropertyItem.from_parent(collector, name=part.name, part=part)
