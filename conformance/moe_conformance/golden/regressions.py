"""Problems that once failed somewhere, kept to be run again: one small JSON file each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..backends import Backend
from ..findings import NonConformance
from ..implementation import Implementation
from ..problem import Problem
from ..record import Record
from ..registry import all_properties, make_trial, run_trial
from ..whole_file import write_whole
from .corpus import CorpusError

FOLDER = "regressions"


class Regression(BaseModel):
    """A property and a problem, what happened there, and when it was promoted (ISO date)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    property: str
    problem: dict[str, Any]
    note: str = Field(min_length=1)
    promoted: str

    def name(self) -> str:
        """Of its file, without the suffix. Raises ValueError as `parsed`."""
        return f"{self.property}-{self.parsed().id}"

    def parsed(self) -> Problem:
        """Raises ValueError for anything that is no problem."""
        return Problem.from_json(self.problem)


class UnusableCase(ValueError):
    """What was given to `promote` names no known property, or no valid problem."""


class AlreadyThere(ValueError):
    """The regression is in the corpus."""


def read_regressions(folder: Path) -> list[Regression]:
    """All of them, by name. Raises CorpusError for a file that is none, or belongs to another name."""
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            regression = Regression.model_validate_json(path.read_text(encoding="utf-8"))
            name = regression.name()
        except (OSError, ValueError) as error:
            raise CorpusError(f"{path} is no regression: {error}") from error
        if regression.property not in all_properties():
            raise CorpusError(f"{path}: there is no property {regression.property}")
        if name != path.stem:
            raise CorpusError(f"{path}: its problem belongs into {name}.json")
        found.append(regression)
    return found


def read_cases(case: str) -> list[dict[str, Any]]:
    """{"property":...,"problem":...} from JSON, from a file that holds it, or from a Record's failures.

    Raises UnusableCase.
    """
    try:
        text = case if case.lstrip().startswith("{") else Path(case).read_text(encoding="utf-8")
        data = json.loads(text)
    except OSError as error:
        raise UnusableCase(f"CASE is neither JSON nor a readable file: {error}") from error
    except ValueError as error:
        raise UnusableCase(f"CASE is no JSON: {error}") from error
    if isinstance(data, dict) and "schema_version" in data:
        try:
            record = Record.model_validate(data)
        except ValidationError as error:
            raise UnusableCase(f"CASE is no Record: {error}") from error
        if not record.failures:
            raise UnusableCase("the Record holds no failure")
        return [{"property": failure.property, "problem": failure.problem} for failure in record.failures]
    if not isinstance(data, dict) or not {"property", "problem"} <= set(data):
        raise UnusableCase('CASE must be {"property":...,"problem":{...}}, or a Record with failures')
    return [data]


def _made(case: dict[str, Any], note: str, today: date) -> Regression:
    prop = all_properties().get(case["property"]) if isinstance(case["property"], str) else None
    if prop is None:
        raise UnusableCase(f"there is no property {case['property']!r}")
    try:
        problem = Problem.from_json(case["problem"])
    except (ValueError, TypeError) as error:
        raise UnusableCase(f"{prop.name}: not a problem: {error}") from error
    if problem.dtype not in prop.dtypes or not prop.accepts(problem):
        raise UnusableCase(f"{prop.name} does not speak of {problem.to_json()}")
    plain = problem.model_dump(exclude_defaults=True)
    return Regression(property=prop.name, problem=plain, note=note, promoted=today.isoformat())


def promote(folder: Path, case: str, note: str, today: date) -> list[Path]:
    """Add a case, or every failure of a Record, to the corpus in `folder`; the files written.

    Raises UnusableCase or AlreadyThere before anything is written. Failures of a Record that share property and problem
    are one.
    """
    made = {regression.name(): regression for regression in (_made(c, note, today) for c in read_cases(case))}
    paths = {folder / FOLDER / f"{name}.json": regression for name, regression in made.items()}
    present = [path.name for path in paths if path.exists()]
    if present:
        raise AlreadyThere(f"already in the corpus: {', '.join(present)}")
    for path, regression in paths.items():
        write_whole(path, (regression.model_dump_json(indent=1) + "\n").encode())
    return list(paths)


@dataclass(frozen=True)
class Replayed:
    """What came of a regression: passed, failed, refused, or left out because it is not declared."""

    regression: Regression
    outcome: Literal["passed", "failed", "refused", "left out"]
    message: str = ""


def replay(regression: Regression, implementation: Implementation, name: str, backend: Backend) -> Replayed:
    """Run one regression as `moe-conformance replay` does."""
    prop, problem, declaration = all_properties()[regression.property], regression.parsed(), implementation.declaration
    declared = set(prop.stages) <= set(declaration.stages) and all(getattr(declaration, need) for need in prop.needs)
    if backend.platform not in prop.backends or not declared or not declaration.supports(problem, prop.kind):
        return Replayed(regression, "left out", "not declared, or for another backend")
    trial = make_trial(prop, problem, implementation, name, backend)
    try:
        run_trial(trial, prop.check)
    except NonConformance as failure:
        return Replayed(regression, "failed", str(failure))
    refused = [verdict.message for verdict in trial.verdicts if verdict.outcome == "refused"]
    return Replayed(regression, "refused" if refused else "passed", "; ".join(refused))
