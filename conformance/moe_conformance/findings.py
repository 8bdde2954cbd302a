"""What came of one property on one problem, as plain data: it can be sent to another process, and needs no tensors."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from .judge import Verdict
from .problem import Problem
from .waivers import Waiver

# How a trial ended that did not run its course. "not run" stands for problems that were given up unseen.
Ended = Literal["", "crashed", "hung", "out of memory", "not run"]


class NonConformance(AssertionError):
    """A requirement is not met. Carries the findings, and prints everything needed to see and replay it."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        super().__init__(findings.report())


@dataclass(kw_only=True)
class Findings:
    """Verdicts with all that a report needs.

    `waivers` are those that match this trial: a failed claim of their requirement is kept as "waived". `note` is a line
    of the report. `ended` says how the implementation took the trial down, "" where it did not.
    """

    property_name: str
    requirements: tuple[str, ...]
    problem: Problem
    implementation_name: str
    backend_name: str
    waivers: tuple[Waiver, ...] = ()
    verdicts: list[Verdict] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    note: str = ""
    ended: Ended = ""

    def plain(self) -> Findings:
        """These findings without what a subclass adds."""
        return Findings(**{each.name: getattr(self, each.name) for each in fields(Findings)})

    def blame(self, message: str) -> None:
        """A failure that no claim made, of the first requirement: an exception, or the end of the process."""
        self.verdicts.append(self._waived(Verdict(self.requirements[0], "failed", math.inf, message)))

    def _waived(self, verdict: Verdict) -> Verdict:
        """`verdict`, or in its place a waived one where it failed and a waiver describes that."""
        names = tuple(waiver.id for waiver in self.waivers if waiver.requirement == verdict.requirement)
        return replace(verdict, outcome="waived", waivers=names) if verdict.failed and names else verdict

    def waiver_use(self) -> dict[str, bool]:
        """The waivers whose requirement was judged here, by id, and whether a failure was waived by them."""
        judged = {v.requirement for v in self.verdicts}
        used = {name for v in self.verdicts for name in v.waivers}
        return {waiver.id: waiver.id in used for waiver in self.waivers if waiver.requirement in judged}

    @property
    def failed(self) -> bool:
        return any(verdict.failed for verdict in self.verdicts)

    # -- report ------------------------------------------------------------------------------------------------------

    def replay(self) -> str:
        """The JSON that `moe-conformance replay` takes."""
        case = {"property": self.property_name, "problem": self.problem_data()}
        return json.dumps(case, separators=(",", ":"))

    def problem_data(self) -> dict[str, Any]:
        """The problem as plain data."""
        data: dict[str, Any] = json.loads(self.problem.to_json())
        return data

    def replay_command(self) -> str:
        """One command that runs this trial again."""
        return (
            f"moe-conformance replay --implementation {shlex.quote(self.implementation_name)} "
            f"--backend {self.backend_name} {shlex.quote(self.replay())}"
        )

    def report(self) -> str:
        """Requirement, problem, worst element and the command that replays it."""
        failed = [v for v in self.verdicts if v.failed]
        lines = [f"{v.requirement} is not met by {self.implementation_name}: {v.message}" for v in failed]
        lines += [f"  property: {self.property_name}", f"  problem:  {self.problem.to_json()}"]
        lines += [f"  note:     {self.note}"] if self.note else []
        lines += [f"  replay:   {self.replay_command()}"]
        return "\n".join(lines)
