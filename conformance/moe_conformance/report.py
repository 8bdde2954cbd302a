"""What a person sees: the live progress, the closing table, the failures."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .contract import requirements
from .record import Record
from .registry import all_properties


class LiveProgress:
    """A progress line over the planned problems, fed with the run's events."""

    def __init__(self, console: Console, planned: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("problems", total=planned)
        self._failed = 0

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "end" and event["counts"]:
            self._progress.advance(self._task)
        elif event["event"] == "failure":
            self._failed += 1
            text = f"problems [red]({self._failed} properties failed)"
            self._progress.update(self._task, description=text)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return "inf" if math.isinf(value) else f"{value:.3g}"


def print_failures(console: Console, record: Record) -> None:
    """One block for each failed property: requirement, problem, worst element, replay command."""
    for failure in record.failures:
        console.rule(f"[red]{failure.requirement}[/] {escape(failure.property)}", align="left")
        console.print(escape(failure.report), soft_wrap=True, highlight=False)
    if record.failures:
        console.rule()


def print_table(console: Console, record: Record) -> None:
    """Requirement by problems run, passed, failed, refused, and the largest error/bound in each tier."""
    table = Table(title=f"{record.implementation} on {_where(record)}", title_justify="left")
    for name, justify in (("requirement", "left"), ("", "left"), ("problems", "right"), ("passed", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    waived = ("waived",) if record.waivers else ()
    for name in ("failed", "refused", *waived, "sound", "sharp", "statistical"):
        table.add_column(name, justify="right")
    for tally in record.requirements:
        failed = f"[red]{tally.failed}[/]" if tally.failed else "0"
        counts: tuple[str, ...] = (str(tally.problems), str(tally.passed), failed, str(tally.refused))
        counts += (str(tally.waived),) if waived else ()
        worst = [tally.tiers[tier].worst if tier in tally.tiers else None for tier in ("sound", "sharp", "statistical")]
        table.add_row(tally.requirement, tally.title, *counts, *("" if w is None else _number(w) for w in worst))
    console.print(table)
    console.print("sound, sharp, statistical: the largest error/bound of each tier; 1 is the edge", highlight=False)


def _where(record: Record) -> str:
    environment = record.environment
    packages = environment["packages"]
    versions = f"torch {packages.get('torch')}, triton {packages.get('triton') or packages.get('triton-rocm') or '-'}"
    return f"{environment['backend']}: {environment['device']}, {versions}"


def print_verdict(console: Console, record: Record) -> None:
    """The last lines: the verdict, in words, with the numbers it rests on."""
    colour = {"passed": "green", "failed": "red", "incomplete": "yellow"}[record.verdict]
    waived = sum(case.outcome == "waived" for case in record.cases)
    rate = record.problems / record.seconds if record.seconds else 0.0
    console.print(
        f"[bold {colour}]{record.verdict}[/]: {record.problems} problems, "
        f"{f'[yellow]{waived} waived[/], ' if waived else ''}profile {record.profile}, "
        f"{record.workers} workers, {record.seconds:.0f} s ({rate:.1f} problems/s)"
        + (f"; [yellow]partial[/]: {', '.join(record.partial)}" if record.partial else f"; floor {record.floor}"),
        highlight=False,
    )
    if record.interpreter_repair:
        console.print(f"interpreter repaired: {record.interpreter_repair}", highlight=False)
    for use in record.waivers:
        counts = f"{use.waived} of {use.matched} matching problems waived" if use.matched else "no problem"
        line = (
            f"waiver {use.id} ({use.requirement}, until {use.expires}): {use.status}, {counts}; {use.reason} {use.link}"
        )
        console.print(escape(line), soft_wrap=True, highlight=False)
    for reason in record.reasons:
        console.print(f"  - {escape(reason)}", soft_wrap=True, highlight=False)


def print_requirements(console: Console) -> None:
    """Every requirement of SPEC.md with the properties that check it."""
    by_requirement: dict[str, list[str]] = {name: [] for name in requirements()}
    for prop in all_properties().values():
        for name in prop.requirements:
            by_requirement[name].append(prop.name)
    table = Table("requirement", "", "checked by", "backends", title="Requirements (SPEC.md)", title_justify="left")
    for requirement in requirements().values():
        names = ", ".join(by_requirement[requirement.id])
        table.add_row(requirement.id, requirement.title, names, " ".join(requirement.backends))
    console.print(table)
