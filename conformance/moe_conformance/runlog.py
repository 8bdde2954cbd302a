"""The log of a run: one JSON line for each event, flushed at once, one file for each worker.

A problem is on disk before it is launched, so a crash leaves behind what caused it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .trial import NonConformance, Trial


@dataclass
class RunLog:
    """Writes the events of one worker into `directory`."""

    directory: Path
    worker: str

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file = (self.directory / f"events-{self.worker}.jsonl").open("a", encoding="utf-8")

    def _write(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps(event, separators=(",", ":"), default=str) + "\n")
        self._file.flush()

    def started(self, trial: Trial) -> None:
        """Before anything of the trial is launched."""
        problem = json.loads(trial.problem.to_json())
        self._write({"event": "start", "property": trial.property_name, "id": trial.problem.id, "problem": problem})

    def finished(self, trial: Trial, seconds: float, *, counts: bool) -> None:
        """After the trial, whatever its outcome. `counts` is False for trials made while shrinking."""
        verdicts = [
            {
                "requirement": v.requirement,
                "tier": v.tier,
                "outcome": v.outcome,
                "worst": v.worst if math.isfinite(v.worst) else None,
            }
            | ({"message": v.message} if v.message else {})
            for v in trial.verdicts
        ]
        self._write(
            {
                "event": "end",
                "property": trial.property_name,
                "id": trial.problem.id,
                "counts": counts,
                "seconds": round(seconds, 4),
                "features": sorted(trial.features),
                "verdicts": verdicts,
            }
            | ({"waivers": use} if (use := trial.waiver_use()) else {})
        )

    def failed(self, failure: NonConformance) -> None:
        """The shrunk failure of a part."""
        trial = failure.trial
        verdict = next(v for v in trial.verdicts if v.failed)
        self._write(
            {
                "event": "failure",
                "property": trial.property_name,
                "requirement": verdict.requirement,
                "problem": json.loads(trial.problem.to_json()),
                "report": trial.report(),
            }
        )

    def item(self, name: str, seconds: float) -> None:
        """A part is done."""
        self._write({"event": "item", "name": name, "seconds": round(seconds, 3)})


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
