"""The regression guard: time/floor of a result against that of a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from .results import Case, Results
from .timing import Repeats
from .workloads import shapes

BROKEN = ("slower", "missing", "wrong", "failed", "another load")


@dataclass(frozen=True)
class Finding:
    """A cell. before, after: time/floor, None without a time. verdict: "ok", "faster" or one of BROKEN."""

    shape: str
    tokens: int
    load: str
    before: float
    after: float | None
    verdict: str

    @property
    def change(self) -> float | None:
        """after / before - 1."""
        return None if self.after is None else self.after / self.before - 1.0


def compare(before: Results, after: Results, implementation: str, tolerance: float) -> list[Finding]:
    """One finding for each cell that the baseline has a time for. Cells that only `after` has are not looked at."""
    current = {case.key: case for case in after.cases}
    findings = []
    for case in before.cases:
        ratio = case.ratio(implementation)
        if ratio is None:
            continue
        found = current.get(case.key)
        now = found.ratio(implementation) if found else None
        findings.append(Finding(*case.key, ratio, now, _verdict(case, found, implementation, ratio, now, tolerance)))
    return findings


def _verdict(
    case: Case, found: Case | None, implementation: str, before: float, after: float | None, tolerance: float
) -> str:
    measured = found.implementations.get(implementation) if found else None
    if found is None or measured is None:
        return "missing"
    if measured.wrong:
        return "wrong"
    if after is None:
        return "failed"
    if found.digest != case.digest:
        return "another load"  # other ids were routed: the two ratios say nothing about each other
    if case.implementations[implementation].graph is not None and measured.graph is None:
        return "failed"  # the graph is gone: an eager time is no substitute
    if after > before * (1.0 + tolerance):
        return "slower"
    return "faster" if after < before / (1.0 + tolerance) else "ok"


def broken(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict in BROKEN]


def table(findings: list[Finding], tolerance: float) -> Table:
    made = Table(title=f"time/floor before and now, tolerance {tolerance:.0%}", title_justify="left")
    for column in ("shape", "T", "load", "before", "now", "change", "verdict"):
        made.add_column(column)
    for finding in findings:
        change = finding.change
        made.add_row(
            finding.shape,
            str(finding.tokens),
            finding.load,
            f"{finding.before:.2f}",
            "-" if finding.after is None else f"{finding.after:.2f}",
            "-" if change is None else f"{change:+.1%}",
            f"[red]{finding.verdict}[/red]" if finding.verdict in BROKEN else finding.verdict,
        )
    return made


def measure_again(
    before: Results,
    implementation: str,
    device: torch.device,
    seconds: float | None,
    output: Path,
    say: Callable[[str], None],
) -> Results:
    """Measures the cells of a baseline: every load and token count that it has, for one implementation."""
    from .run import Options, run

    known = shapes()
    repeats = before.protocol.get("repeats", {})
    options = Options(
        [known[name] for name in dict.fromkeys(case.shape for case in before.cases) if name in known],
        sorted({case.tokens for case in before.cases}),
        list(dict.fromkeys(case.load for case in before.cases)),
        (implementation,),
        Repeats(**repeats),
        str(before.protocol.get("dtype", "bf16")),
        device,
        seconds,
        output / "check",  # never over the baseline itself
        stages=False,
        only=frozenset(case.key for case in before.cases),
    )
    return run(options, say)
