"""The folder of a run: what was asked for, the events of its workers, and a lock that says whether it still goes on.

A run that was killed leaves a folder without `record.json` that nobody holds: a later one finds it and takes it up.
"""

from __future__ import annotations

import platform
import tempfile
from datetime import date
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from .runlog import Tail
from .whole_file import write_whole

ROOT = Path(".moe-conformance")
_ASKED, _DONE, _LOCK = "asked.json", "record.json", "run.lock"


class Asked(BaseModel):
    """What a run was asked for, and of what: enough to take it up again, and to see that it is still the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    implementation: str
    backend: str
    profile: str
    stages: tuple[str, ...]
    seed: int
    problems: int | None
    shard: str | None
    waivers: str | None
    today: date | None
    limit: float
    isolated: bool
    planned: int
    started: str
    source_digest: str
    spec_digest: str
    environment: dict[str, object]


class Unfinished(BaseModel):
    """A run that ended before its time."""

    model_config = ConfigDict(frozen=True)

    directory: Path
    asked: Asked
    executed: int
    in_flight: list[str]

    def __str__(self) -> str:
        asked = self.asked
        where = f", shard {asked.shard}" if asked.shard else ""
        at = f"; last tried: {', '.join(self.in_flight[:3])}" if self.in_flight else ""
        return (
            f"{asked.implementation} on {asked.backend}, profile {asked.profile}, seed {asked.seed}{where}, started "
            f"{asked.started}: {self.executed} of about {asked.planned} problems done{at}"
        )


class RunDirectory:
    """A run's folder, held by this process from `begin` or `again` to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / _LOCK)

    def begin(self, asked: Asked) -> None:
        """A new run. Raises OSError, FileExistsError among them where there is a run already."""
        if (self.path / _ASKED).exists():
            raise FileExistsError(f"{self.path} holds a run already")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(timeout=0)
        write_whole(self.path / _ASKED, asked.model_dump_json(indent=1))

    def again(self) -> Asked:
        """Take an unfinished run up. Raises ValueError for a folder that is none, or whose run goes on."""
        asked = read(self.path)
        if (self.path / _DONE).exists():
            raise ValueError(f"the run in {self.path} came to its end")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"the run in {self.path} still goes on") from None
        return asked

    def done(self, record: str) -> None:
        """The run came to its end, whatever that was."""
        write_whole(self.path / _DONE, record)
        self._lock.release()


def read(path: Path) -> Asked:
    """What the run in a folder was asked for. Raises ValueError."""
    try:
        return Asked.model_validate_json((path / _ASKED).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} holds no run: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path / _ASKED} is not what a run writes: {error.errors()[0]['msg']}") from error


def unfinished(root: Path = ROOT) -> list[Unfinished]:
    """The runs under `root` that ended before their time, the oldest first; other folders are passed over."""
    found = []
    for path in root.glob("run-*"):
        try:
            asked = read(path)
        except ValueError:
            continue
        if (path / _DONE).exists() or _held(path):
            continue
        ended, started = set[tuple[str, str]](), dict[tuple[str, str], str]()
        for event in Tail(path).new_events():
            key = (event.get("property", ""), event.get("id", ""))
            if event["event"] == "start":
                started[key] = f"{key[0]} {key[1]}"
            elif event["event"] == "end":
                started.pop(key, None)
                if event["counts"]:
                    ended.add(key)
        found.append(Unfinished(directory=path, asked=asked, executed=len(ended), in_flight=sorted(started.values())))
    return sorted(found, key=lambda one: (one.asked.started, str(one.directory)))


def _held(path: Path) -> bool:
    try:
        with FileLock(path / _LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def objection(folder: Path) -> str | None:
    """Why nothing can be written to a folder (which is made), or None."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-") as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    return None


def cache_of_host(base: str | None) -> Path:
    """Triton's cache for this host, below the caller's TRITON_CACHE_DIR or Triton's own place: a home folder may be
    shared by machines whose compilers and devices differ, over a file system on which locks do not hold."""
    return (Path(base) if base else Path.home() / ".triton" / "cache") / (platform.node() or "host")
