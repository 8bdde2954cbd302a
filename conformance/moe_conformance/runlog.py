"""The log of a run: one JSON line for each event, flushed at once, one file for each worker.

A problem is on disk before it is launched, so a crash leaves behind what caused it, and a run that was killed can be
taken up again.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .findings import Findings
from .problem import Problem

LOST_TWICE = 2  # a problem whose worker died this often is not tried again


class LogLost(OSError):
    """An event cannot be written, for want of room most likely: what is not written did not happen."""


@dataclass
class RunLog:
    """Writes the events of one worker into `directory`."""

    directory: Path
    worker: str

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        # A name of its own: the file of an earlier worker may end in half a line.
        path = self.directory / f"events-{self.worker}-{time.time_ns():x}.jsonl"
        self._file = path.open("x", encoding="utf-8")

    def _write(self, event: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(event, separators=(",", ":"), default=str) + "\n")
            self._file.flush()
        except OSError as error:
            raise LogLost(f"{self._file.name} cannot be written: {error}") from error

    def close(self) -> None:
        """What could not be written before is tried once more by closing, and has been told of."""
        with suppress(OSError):
            self._file.close()

    def started(self, property_name: str, problem: Problem) -> None:
        """Before anything of the trial is launched."""
        data = json.loads(problem.to_json())
        self._write({"event": "start", "property": property_name, "id": problem.id, "problem": data})

    def finished(self, findings: Findings, seconds: float, *, counts: bool) -> None:
        """After the trial, whatever its outcome. `counts` is False for trials made while shrinking."""
        verdicts = [
            {
                "requirement": v.requirement,
                "tier": v.tier,
                "outcome": v.outcome,
                "worst": v.worst if math.isfinite(v.worst) else None,
            }
            | ({"message": v.message} if v.message else {})
            for v in findings.verdicts
        ]
        self._write(
            {
                "event": "end",
                "property": findings.property_name,
                "id": findings.problem.id,
                "counts": counts,
                "seconds": round(seconds, 4),
                "features": sorted(findings.features),
                "verdicts": verdicts,
            }
            | ({"waivers": use} if (use := findings.waiver_use()) else {})
            | ({"ended": findings.ended} if findings.ended else {})
        )

    def failed(self, findings: Findings) -> None:
        """The shrunk failure of a part, or a problem that took its process with it."""
        verdict = next(v for v in findings.verdicts if v.failed)
        self._write(
            {
                "event": "failure",
                "property": findings.property_name,
                "requirement": verdict.requirement,
                "problem": findings.problem_data(),
                "report": findings.report(),
            }
        )

    def item(self, name: str, seconds: float, *, stopped: bool, problems: list[str] | None) -> None:
        """A part is done. stopped: a failure ended it early. problems: the ids of all it drew, whoever runs them."""
        self._write({"event": "item", "name": name, "seconds": round(seconds, 3), "stopped": stopped}
                    | ({"problems": problems} if problems is not None else {}))  # fmt: skip


class Tail:
    """Reads a run's events as they are written. A line cut short by a crash is never returned."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: dict[Path, int] = {}

    def new_events(self) -> Iterator[dict[str, Any]]:
        """The whole lines that were added since the last call."""
        for path in sorted(self._directory.glob("events-*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offsets[path] = self._offsets.get(path, 0) + len(line)
                    yield json.loads(line)


class Earlier:
    """What the workers of a run have done before this one, when it is taken up again."""

    def __init__(self, directory: Path) -> None:
        self.parts: set[str] = set()
        self._done: set[tuple[str, str]] = set()
        starts: Counter[tuple[str, str]] = Counter()
        for event in Tail(directory).new_events():
            if event["event"] == "item":
                self.parts.add(event["name"])
            elif event["event"] in ("start", "end"):
                key = (event["property"], event["id"])
                starts[key] += 1 if event["event"] == "start" else -1
                outcomes = {v["outcome"] for v in event.get("verdicts", [])}
                # One that failed runs again where its part was not finished: for the report, and for a smaller one.
                if event["event"] == "end" and event["counts"] and outcomes and "failed" not in outcomes:
                    self._done.add(key)
        self._lost = {key for key, count in starts.items() if count >= LOST_TWICE}

    def done(self, property_name: str, problem: Problem) -> bool:
        """Whether it was judged, and nothing was wrong."""
        return (property_name, problem.id) in self._done

    def lost(self, property_name: str, problem: Problem) -> bool:
        """Whether its worker died each time that it was tried, and that is often enough."""
        return (property_name, problem.id) in self._lost
