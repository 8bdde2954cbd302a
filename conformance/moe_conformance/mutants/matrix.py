"""The result as data: one finding for each mutant, and the tables made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from .. import __version__
from ..contract import requirements
from ..whole_file import write_whole
from .catalogue import Mutant
from .pool import Outcome

Verdict = Literal["killed", "survived", "equivalent", "timeout", "not applicable", "invalid"]
# One letter for each tier; "raised" stands for an exception out of the implementation.
LETTERS = {"exact": "X", "sound": "S", "sharp": "H", "statistical": "T", "raised": "R"}
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:\"'<>]+/)+(?=[^\s/:\"'<>]+\.py\b)")
LEGEND = "X exact claim, S sound bound, H sharp bound, T statistical test, R raised"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seen(_Model):
    """A requirement that a mutant was found to violate, and the tier of the judge that said so."""

    requirement: str
    tier: str


class Kill(_Model):
    """The first problem that showed a mutant. by: what it violated, or "crash" or "error" in `ended`."""

    property: str
    problem: dict[str, Any]
    by: list[Seen]
    ended: str
    message: str
    problems: int
    seconds: float


class Finding(_Model):
    """What became of one mutant. problems and seconds count the whole hunt, the first kill included."""

    id: str
    stage: str
    bug_class: str
    source: str
    verdict: Verdict
    kill: Kill | None = None
    seen: list[Seen] = []
    problems: int = 0
    seconds: float = 0.0
    note: str = ""


class Control(_Model):
    """The unmutated kernels on the same path: how many problems they passed."""

    problems: int
    seconds: float


class Matrix(_Model):
    """A whole run of the gate."""

    schema_version: Literal[1] = 1
    suite: str = __version__
    environment: dict[str, Any]
    profile: str
    seed: int
    source_digest: str
    control: Control
    findings: list[Finding]
    seconds: float

    @property
    def judged(self) -> list[Finding]:
        """Mutants that count: those that apply here and are no equivalent ones."""
        return [f for f in self.findings if f.verdict in ("killed", "survived", "timeout")]

    @property
    def killed(self) -> int:
        return sum(f.verdict == "killed" for f in self.judged)

    @property
    def rate(self) -> float:
        """Killed over judged; 1 where nothing was judged."""
        return self.killed / len(self.judged) if self.judged else 1.0

    def of(self, *verdicts: Verdict) -> list[Finding]:
        return [f for f in self.findings if f.verdict in verdicts]

    def write(self, path: Path) -> None:
        """Write atomically: a reader sees the whole result or none."""
        write_whole(path, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, path: Path) -> Matrix:
        """Raises OSError, or ValueError when the file is not a whole result of this schema."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


def without_folders(text: str) -> str:
    """A message with the names of source files alone: a result says nothing of the machine's folders."""
    return _FOLDERS.sub("", text)


def not_applicable(mutant: Mutant) -> Finding:
    return _finding(mutant, "not applicable", note=mutant.why)


def _finding(mutant: Mutant, verdict: Verdict, **fields: Any) -> Finding:
    return Finding(
        id=mutant.id, stage=mutant.stage, bug_class=mutant.bug_class, source=mutant.source, verdict=verdict, **fields
    )


def finding(outcome: Outcome) -> Finding:
    """What an outcome says about its mutant."""
    mutant, done = outcome.task.mutant, outcome.done or {}
    assert mutant is not None
    kill, note = _kill(outcome), ""
    problems = done.get("problems", outcome.tried)
    seen = done.get("seen") or (outcome.killed or {}).get("seen", [])
    verdict: Verdict
    if outcome.ended == "broken":
        verdict, note, kill = "invalid", without_folders(outcome.log), None
    elif kill is not None and mutant.equivalent is not None:
        verdict, note = "invalid", f"said to be equivalent, and seen: {kill.message}"
    elif kill is not None and not mutant.raises and problems and done.get("raised") == problems:
        verdict, note = "invalid", f"raises on every problem: {kill.message}"
    elif kill is not None:
        verdict, note = "killed", f"ended in a {outcome.ended} later" if outcome.killed and outcome.ended else ""
    elif outcome.ended == "timeout" or not done.get("complete"):
        # A proof does not need the whole budget.
        verdict = "equivalent" if mutant.equivalent is not None else "timeout"
        note = f"{problems} problems without a kill, then the limit"
    else:
        verdict = "equivalent" if mutant.equivalent is not None else "survived"
    shown = [Seen(requirement=r, tier=t) for r, t in seen]
    return _finding(mutant, verdict, kill=kill, seen=shown, problems=problems, seconds=outcome.seconds, note=note)


def _kill(outcome: Outcome) -> Kill | None:
    found = (outcome.done or {}).get("kill") or outcome.killed
    if found is not None:
        by = [Seen(requirement=r, tier=t) for r, t in found["seen"]]
        rest = ("property", "problem", "ended", "message", "problems", "seconds")
        return Kill(by=by, **{name: found[name] for name in rest} | {"message": without_folders(found["message"])})
    if outcome.ended != "crash":
        return None
    tried = outcome.trying or {"property": "", "problem": {}}
    message = without_folders(outcome.log)
    return Kill(**tried, by=[], ended="crash", message=message, problems=outcome.tried, seconds=outcome.seconds)


def _by(found: Iterable[Seen]) -> str:
    return ", ".join(f"{s.requirement} {s.tier}" for s in found)


def killed_by(finding: Finding) -> str:
    """The requirements and tiers of the first kill, or how the process ended."""
    if finding.kill is None:
        return finding.note
    return _by(finding.kill.by) or finding.kill.ended


COLUMNS = ("mutant", "stage", "class", "verdict", "killed by", "problems", "seconds")


def rows(matrix: Matrix) -> list[tuple[str, ...]]:
    """The cells of the table: problems and seconds up to the first kill, or of the whole hunt."""
    made: list[tuple[str, ...]] = []
    for f in matrix.findings:
        problems, seconds = (f.kill.problems, f.kill.seconds) if f.kill else (f.problems, f.seconds)
        counts = (str(problems), f"{seconds:.1f}") if f.verdict != "not applicable" else ("", "")
        made.append((f.id, f.stage, f.bug_class, f.verdict, killed_by(f), *counts))
    return made


def short(requirement: str) -> str:
    """A column's heading: the first two letters and the number."""
    name, _, number = requirement.partition("-")
    return f"{name[:2]}{number}"


def columns(matrix: Matrix) -> list[str]:
    """The requirements that saw a mutant, in the order of SPEC.md."""
    seen = {s.requirement for f in matrix.findings for s in f.seen}
    return [r for r in requirements() if r in seen]


def letters(finding: Finding, requirement: str) -> str:
    """The tiers that saw a mutant through a requirement, one letter each."""
    tiers = {s.tier for s in finding.seen if s.requirement == requirement}
    return "".join(letter for tier, letter in LETTERS.items() if tier in tiers)


def tables(matrix: Matrix) -> list[Table]:
    """The list of mutants, and the matrix of mutants and requirements."""
    listed = Table(*COLUMNS, title=f"{len(matrix.findings)} mutants", title_justify="left")
    colours = {"killed": "green", "survived": "red", "timeout": "red", "invalid": "red"}
    for row in rows(matrix):
        colour = colours.get(row[3])
        listed.add_row(*row[:3], f"[{colour}]{row[3]}[/]" if colour else row[3], *row[4:])
    named = columns(matrix)
    crossed = Table("mutant", *(short(r) for r in named), title=f"Seen by ({LEGEND})", title_justify="left")
    for f in matrix.findings:
        if f.seen:
            crossed.add_row(f.id, *(letters(f, r) for r in named))
    return [listed, crossed]


def summary(matrix: Matrix) -> str:
    """One line: the rate, and what did not count."""
    parts = [f"{matrix.killed} of {len(matrix.judged)} mutants killed ({matrix.rate:.1%})"]
    others: tuple[Verdict, ...] = ("equivalent", "not applicable", "invalid")
    for verdict in others:
        if count := len(matrix.of(verdict)):
            parts.append(f"{count} {verdict}")
    parts.append(f"the unmutated kernels passed {matrix.control.problems} problems")
    return "; ".join(parts)


def markdown(matrix: Matrix) -> str:
    """Both tables and the summary as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    device = matrix.environment.get("device", "")
    lines = [f"{summary(matrix)}. {matrix.environment['backend']}, {device}, profile {matrix.profile}.", ""]
    lines += [line(COLUMNS), line("---" for _ in COLUMNS), *map(line, rows(matrix))]
    named = columns(matrix)
    lines += ["", f"{LEGEND}.", "", line(["mutant", *map(short, named)]), line("---" for _ in ["", *named])]
    lines += [line([f.id, *(letters(f, r) for r in named)]) for f in matrix.findings if f.seen]
    return "\n".join(lines) + "\n"
