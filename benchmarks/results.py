"""Results as data: what was measured, on what, under which protocol. Reports and checks read nothing but the file."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .floor import Ceilings
from .timing import Clock, Sample

SCHEMA = 1
FILE = "results.json"


@dataclass
class Measured:
    """One implementation (or stage) of a case. Seconds.

    error: relative Frobenius error against the reference (None for a stage). wrong: it is beyond the tolerance, and
    nothing was timed. graph is None where no graph could be recorded; graph_note says why. failure: the exception.
    """

    graph: Sample | None = None
    eager: Sample | None = None
    host: Sample | None = None
    error: float | None = None
    wrong: bool = False
    failure: str | None = None
    graph_note: str | None = None

    @property
    def best(self) -> Sample | None:
        """The graph's timing, or the eager one without it."""
        return self.graph or self.eager


@dataclass
class Case:
    """One shape, token count and load. floor, stage_floor: seconds, from the run's own ceilings. published_floor: from
    the ceilings of the published table."""

    shape: str
    tokens: int
    load: str
    active: int
    digest: str
    floor: float
    stage_floor: float
    published_floor: float
    implementations: dict[str, Measured] = field(default_factory=dict)
    stages: dict[str, Measured] = field(default_factory=dict)
    failure: str | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        return self.shape, self.tokens, self.load

    def ratio(self, implementation: str) -> float | None:
        """Time over floor; None where there is no time."""
        measured = self.implementations.get(implementation)
        sample = measured.best if measured else None
        return sample.median / self.floor if sample else None


@dataclass
class Results:
    """A run. complete: False while it goes on, and where a time limit ended it."""

    protocol: dict[str, Any]
    ceilings: Ceilings
    implementations: dict[str, str]
    cases: list[Case] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0
    schema: int = SCHEMA

    def write(self, path: Path) -> None:
        """A reader sees the old file or the new one, never half of one."""
        write_json(path, asdict(self))

    @staticmethod
    def read(path: Path) -> Results:
        """Raises OSError, or ValueError where the file is not a result of this schema."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["schema"] != SCHEMA:
                raise ValueError(f"{path}: schema {data['schema']}, this version reads {SCHEMA}")
            data["ceilings"] = Ceilings(**data["ceilings"])
            data["cases"] = [_case(each) for each in data["cases"]]
            return Results(**data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a result of `python -m benchmarks run`: {error!r}") from error


def _case(data: dict[str, Any]) -> Case:
    for kind in ("implementations", "stages"):
        data[kind] = {name: _measured(each) for name, each in data[kind].items()}
    return Case(**data)


def _measured(data: dict[str, Any]) -> Measured:
    for clock in ("graph", "eager", "host"):
        data[clock] = Sample(**data[clock]) if data[clock] else None
    return Measured(**data)


def write_json(path: Path, data: object) -> None:
    """Atomically, NaN and infinities as Python writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def protocol(clock: Clock, dtype: str) -> dict[str, Any]:
    """What somebody needs to measure the same thing again."""
    repeats = clock.repeats
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "dtype": dtype,
        "timed": "router logits to output; softmax and top-k inside, the router's product outside",
        "graph": "CUDA graph replay, events around each replay, L2 flushed by reading between replays, median",
        "eager": "events around a call on an idle queue, L2 flushed before, median",
        "host": "host seconds of a call that is not waited for, the queue being empty, median",
        "repeats": asdict(repeats),
        "flush_bytes": clock.flush_bytes,
        "versions": versions(),
        "device": describe(clock.device),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("triton", "triton-rocm", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name in ("cuda", "hip"):
        if value := getattr(torch.version, name, None):
            found[name] = value
    return found


def describe(device: torch.device) -> dict[str, Any]:
    if device.type == "cpu":
        return {"name": platform.machine(), "kind": "cpu"}
    facts = torch.cuda.get_device_properties(device)
    return {
        "name": facts.name,
        "kind": "hip" if torch.version.hip else "cuda",
        "memory_bytes": facts.total_memory,
        "processors": facts.multi_processor_count,
        "l2_bytes": getattr(facts, "L2_cache_size", None),
        "architecture": getattr(facts, "gcnArchName", f"sm_{facts.major}{facts.minor}"),
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
