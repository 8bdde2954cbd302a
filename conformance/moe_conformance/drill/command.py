"""`moe-conformance drill`: does a fault cost one problem here, or the run?"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from ..backends import NAMES, Backend
from ..command_line import EXIT_FAILED, prepared, screen
from ..implementation import load
from ..isolation.judge import MOST_HUNG
from ..plan import RunOptions
from ..record import Outcome, Record
from ..run import execute, make_plan
from . import harmful

PROBLEMS = 400  # of all properties together; the drill takes those of one stage
LIMIT_SECONDS = 10.0


@dataclass(frozen=True)
class Fault:
    """A class of harmful.py, what a problem that it harms must be reported as, and whether it needs a device."""

    name: str
    outcome: Outcome
    device: bool = False


FAULTS = (
    Fault("Segfaults", "crashed"),
    Fault("Exits", "crashed"),
    Fault("Killed", "crashed"),
    Fault("SpinsWithTheLock", "hung"),
    Fault("Sleeps", "hung"),
    Fault("IgnoresSignals", "hung"),
    Fault("Hoards", "out of memory"),
    Fault("KernelStoresFarOutside", "crashed", device=True),
    Fault("KernelNeverEnds", "hung", device=True),
)


def complaints(fault: Fault, record: Record, control: Record, most_hung: int) -> list[str]:
    """What is wrong with a run over a fault: every problem reported, the harmed ones as what they are, the others
    passed. Workers that hung `most_hung` times may have given up the rest."""
    found = []
    if record.problem_set != control.problem_set:
        found.append(f"{record.problems} problems were reported, and not the {control.problems} of a run without harm")
    if sorted(record.parts) != control.expected.parts:
        found.append("parts are missing")
    if record.verdict != "failed":
        found.append(f"the verdict is {record.verdict}")
    outcomes = Counter(case.outcome for case in record.cases)
    allowed: set[Outcome] = {"passed", fault.outcome}
    if fault.outcome == "hung" and outcomes["hung"] >= most_hung:
        allowed.add("not run")
    if strange := set(outcomes) - allowed:
        found.append(f"problems ended as {', '.join(sorted(strange))}")
    for outcome in ("passed", fault.outcome):
        if not outcomes[outcome]:
            found.append(f"no problem {outcome}")
    harmed = sum(outcomes[name] for name in ("crashed", "hung", "out of memory"))
    if len(record.failures) != harmed:
        found.append(f"{harmed} problems were harmed and {len(record.failures)} reported as failures")
    if any(failure.problem["experts"] not in harmful.HARMED for failure in record.failures):
        found.append("a problem that was not harmed is reported as a failure")
    return found


@click.command("drill")
@click.option("--backend", default="auto", show_default=True, type=click.Choice([*NAMES, "auto"]), help="where it runs")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="worker processes of each run"
)
@click.option(
    "--limit", type=click.FloatRange(min=0.1), default=LIMIT_SECONDS, show_default=True, help="seconds to hang"
)
@click.option(
    "--together", type=click.IntRange(min=1), default=1, show_default=True, help="faults drilled at the same time"
)
@click.option("--only", multiple=True, type=click.Choice([fault.name for fault in FAULTS]), help="this fault")
def drill(backend: str, workers: int, limit: float, together: int, only: tuple[str, ...]) -> None:
    """Run implementations that really segfault, hang, leave, exhaust memory, and on a GPU fault and hang in a kernel.

    Each must cost the problems that it harms: these reported as what happened to them, all others passed, none lost.
    Exit code 1 where one does not.
    """
    found, _ = prepared(backend, "eager")
    console = screen()
    table = Table(
        "fault", "", "problems", "passed", "harmed", "not run", "seconds", title=f"fault drill on {found.name}"
    )
    control = _record(found, "Harmless", workers, limit)
    messages = [] if control.verdict == "passed" else [f"without harm: {control.verdict}, {'; '.join(control.reasons)}"]
    table.add_row(
        "(none)", control.verdict, str(control.problems), str(control.problems), "", "", f"{control.seconds:.0f}"
    )
    drilled = [fault for fault in FAULTS if (not only or fault.name in only) and (found.is_gpu or not fault.device)]
    # Threads, since each run is processes of its own. The faults in their order, each said when it is known: so a drill
    # that is cut short has said what it saw.
    with ThreadPoolExecutor(together) as threads:
        runs = threads.map(lambda fault: _record(found, fault.name, workers, limit), drilled)
        for fault, record in zip(drilled, runs, strict=True):
            outcomes = Counter(case.outcome for case in record.cases)
            wrong = complaints(fault, record, control, MOST_HUNG)
            messages += [f"{fault.name}: {text}" for text in wrong]
            seen = f"{outcomes[fault.outcome]} {fault.outcome}"
            counts = (str(record.problems), str(outcomes["passed"]), seen, str(outcomes["not run"]))
            held = "[red]wrong[/]" if wrong else "held"
            table.add_row(fault.name, held, *counts, f"{record.seconds:.0f}")
            report = record.failures[0].report.splitlines()[0] if record.failures else "no failure"
            console.print(f"{fault.name}: {held}, {seen}: {escape(report)}", highlight=False)
    console.print(table)
    for message in messages:
        console.print(f"  - {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(EXIT_FAILED if messages else 0)


def _record(backend: Backend, name: str, workers: int, limit: float) -> Record:
    """The Record of a run over one of the classes, in a folder of its own."""
    implementation = f"{harmful.__name__}:{name}"
    options = RunOptions(implementation, backend.name, "gate", ("permute",), problems=PROBLEMS)
    with tempfile.TemporaryDirectory(prefix="moe-drill-") as folder:
        plan = make_plan(options, backend, load(implementation), workers, Path(folder), limit=limit)
        return execute(plan, lambda event: None)
