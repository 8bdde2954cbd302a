"""Records from files, with every reason why one cannot be believed."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ..record import ENDS, Record, problem_set_digest


class RecordInvalid(ValueError):
    """A file is no Record, or not the one that a run wrote; the message names the file."""


def read_record(path: Path) -> Record:
    """The Record in a file. Raises RecordInvalid: unreadable, truncated, of another schema, or inconsistent."""
    try:
        record = Record.read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RecordInvalid(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordInvalid(f"{path} is no whole record: {f'{where}: ' if where else ''}{first['msg']}") from error
    except ValueError as error:
        raise RecordInvalid(f"{path}: {error}") from error
    if found := inconsistencies(record):
        raise RecordInvalid(f"{path} contradicts itself: {'; '.join(found)}")
    return record


def inconsistencies(record: Record) -> list[str]:
    """Where a Record's summary does not follow from its cases: no run writes such a thing."""
    found = []
    if record.problem_set != problem_set_digest(record.cases):
        found.append("the digest of the problem set is not that of its cases")
    if len({(case.property, case.problem) for case in record.cases}) != len(record.cases):
        found.append("a case occurs twice")
    for tally in record.requirements:
        if tally.problems != tally.passed + tally.failed + tally.refused + tally.waived:
            found.append(f"the counts of {tally.requirement} do not add up")
        if tally.problems > len(record.cases):
            found.append(f"{tally.requirement} was judged on more problems than were run")
    outcomes = {case.outcome for case in record.cases}
    bad = outcomes & {"failed", "unfinished", *ENDS}
    failed = bool(record.failures) or bad or any(tally.failed for tally in record.requirements)
    if record.verdict == "passed" and (failed or record.reasons):
        found.append("its verdict is 'passed', and it lists failures or reasons")
    if record.verdict == "passed" and record.floor is not None and record.problems < record.floor.required:
        found.append("its verdict is 'passed' below its own floor of problems")
    if record.verdict != "passed" and not record.reasons:
        found.append(f"its verdict is {record.verdict!r}, and it names no reason")
    if record.partial and record.floor is not None:
        found.append("it is a partial run and has a floor")
    return found


def platform(record: Record) -> str:
    """cpu, cuda, rocm, or exec: the platform of a Record's backend."""
    return str(record.environment.get("backend", "?")).partition(":")[0]


def label(record: Record) -> str:
    """A short name: the backend, and the architecture where the backend does not say it."""
    backend = str(record.environment.get("backend", "?"))
    architecture = str(record.environment.get("architecture", ""))
    return backend if architecture in ("", backend.partition(":")[2]) else f"{backend} {architecture}"


def size_class(record: Record) -> str:
    """Platforms of one class draw the same problems: "gpu", or "cpu" with its small sizes."""
    return "gpu" if platform(record) in ("cuda", "rocm") else "cpu"
