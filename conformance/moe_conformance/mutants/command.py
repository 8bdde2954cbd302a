"""`moe-conformance mutants`: plant known defects in the shipped kernels and count those that the suite sees."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..backends import NAMES
from ..plan import RunOptions
from ..profiles import PROFILE_NAMES
from ..whole_file import write_whole
from . import matrix, pool
from .catalogue import STAGES, Mutant, catalogue
from .hunt import Queue, relevant

FLOORS = {"cpu": 0.95, "gpu": 1.0}
SECONDS = 900.0
EQUIVALENT_SECONDS = 20.0  # an equivalent mutant has a proof: a part of the budget checks it
CONTROL_SECONDS = 3600.0


@dataclass(frozen=True)
class Chosen:
    """What the user asked for."""

    backend: str
    mutants: list[Mutant]
    profile: str
    problems: int | None
    workers: int
    seconds: float | None
    floor: float | None


@click.command()
@click.option("--backend", default="auto", show_default=True, type=click.Choice([*NAMES, "auto"]), help="where it runs")
@click.option("--only", multiple=True, metavar="ID", help="only this mutant; may be repeated")
@click.option("--stage", "stages", multiple=True, type=click.Choice(STAGES), help="only this stage; may be repeated")
@click.option("--profile", default="gate", show_default=True, type=click.Choice(PROFILE_NAMES))
@click.option("--problems", type=click.IntRange(min=1), help="total number of problems, instead of the profile's")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="child processes [default: one a core]")
@click.option("--seconds", type=float, help="limit for one mutant [default: 900]")
@click.option("--floor", type=click.FloatRange(0, 1), help="least kill rate [default: 0.95 on the CPU, 1 on a GPU]")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="write the result here as JSON")
@click.option("--markdown", "document", type=click.Path(path_type=Path, dir_okay=False), help="and here as Markdown")
@click.option("--list", "listing", is_flag=True, help="list the mutants and stop")
def mutants(
    backend: str,
    only: tuple[str, ...],
    stages: tuple[str, ...],
    profile: str,
    problems: int | None,
    workers: int,
    seconds: float | None,
    floor: float | None,
    record: Path | None,
    document: Path | None,
    listing: bool,
) -> None:
    """Plant known defects in the shipped kernels, one at a time, and count those that the suite sees.

    Exit codes: 0 the kill rate meets the floor; 1 it does not, or a mutant is invalid; 2 the call is wrong, the
    backend is missing, or the unmutated kernels fail on the same path.
    """
    console = Console() if sys.stdout.isatty() else Console(width=200)
    unknown = set(only) - {m.id for m in catalogue()}
    if unknown:
        raise click.UsageError(f"no such mutant: {', '.join(sorted(unknown))}")
    asked = [m for m in catalogue() if (not only or m.id in only) and (not stages or m.stage in stages)]
    if listing:
        _list(console, asked)
        return
    chosen = Chosen(backend, asked, profile, problems, workers, seconds, floor)
    result, floor = _run(console, chosen)
    for table in matrix.tables(result):
        console.print(table)
    if record is not None:
        result.write(record)
    if document is not None:
        write_whole(document, matrix.markdown(result))
    console.print(matrix.summary(result), highlight=False)
    for f in result.of("survived", "timeout", "invalid"):
        console.print(f"  {f.verdict}: {f.id} ({f.source}) {f.note}", highlight=False, markup=False, soft_wrap=True)
    met = result.rate >= floor and not result.of("invalid")
    console.print(f"floor {floor:.0%}: {'met' if met else 'not met'}", highlight=False)
    sys.exit(0 if met else 1)


def _list(console: Console, asked: list[Mutant]) -> None:
    table = Table("mutant", "stage", "class", "where", "source", title=f"{len(asked)} mutants", title_justify="left")
    for m in asked:
        where = "equivalent" if m.equivalent else m.where
        table.add_row(m.id, m.stage, m.bug_class, where, escape(m.source))
    console.print(table)


def _options(backend: str, *, profile: str, problems: int | None) -> RunOptions:
    return RunOptions(pool.NAME, backend, profile, problems=problems)


def _run(console: Console, chosen: Chosen) -> tuple[matrix.Matrix, float]:
    """Control, then all mutants. The result, and the floor that holds for its backend."""
    started = time.monotonic()
    make_options = partial(_options, profile=chosen.profile, problems=chosen.problems)
    try:
        drawn = pool.draw(chosen.backend, make_options)
    except pool.PlannerError as error:
        raise click.UsageError(str(error)) from error
    backend, found = drawn.backend, drawn.queues
    pool.preload(backend)
    workers = chosen.workers or max(1, len(os.sched_getaffinity(0)))
    seconds = chosen.seconds or SECONDS
    floor = FLOORS["gpu" if backend.is_gpu else "cpu"] if chosen.floor is None else chosen.floor
    here = [m for m in chosen.mutants if drawn.reaches(m)]
    limits = {m.id: min(seconds, EQUIVALENT_SECONDS) if m.equivalent else seconds for m in here}
    tasks = [pool.Task(m, m.stage, relevant(found, m.stage), limits[m.id]) for m in here]
    console.print(
        f"{len(tasks)} mutants on {backend.name}, profile {chosen.profile}, {workers} workers; control first",
        highlight=False,
    )
    needed = {queue.part for task in tasks for queue in task.queues}
    control = _control(console, [q for q in found if q.part in needed], drawn, workers)
    made = {m.id: matrix.not_applicable(m) for m in chosen.mutants if m not in here}
    for outcome in pool.run_all(tasks, backend, workers, drawn.devices):
        one = matrix.finding(outcome)
        made[one.id] = one
        text = f"{one.id}: {one.verdict} {matrix.killed_by(one)} ({one.problems} problems, {one.seconds} s)"
        text = f"{len(made)}/{len(chosen.mutants)} {text}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    result = matrix.Matrix(
        environment=drawn.environment,
        profile=chosen.profile,
        seed=0,
        source_digest=drawn.source_digest,
        control=control,
        findings=[made[m.id] for m in chosen.mutants],
        seconds=round(time.monotonic() - started, 1),
    )
    return result, floor


def _control(console: Console, needed: list[Queue], drawn: pool.Drawn, workers: int) -> matrix.Control:
    """The unmutated copy through the same machinery. Ends the command with code 2 if anything fails."""
    # Small queues of every kind to each child, so that they end together.
    shares = [needed[i::workers] for i in range(workers)]
    problems, seconds = 0, 0.0
    tasks = [pool.Task(None, "", share, CONTROL_SECONDS) for share in shares if share]
    for outcome in pool.run_all(tasks, drawn.backend, workers, drawn.devices):
        done = outcome.done or {}
        failure = done.get("kill") or (outcome.killed or {"message": outcome.log} if not done else None)
        if failure is not None or not done.get("complete"):
            console.print("the unmutated kernels fail on this path, so that a kill would prove nothing:")
            console.print(str(failure or outcome.log), highlight=False, markup=False, soft_wrap=True)
            sys.exit(2)
        problems, seconds = problems + done["problems"], max(seconds, outcome.seconds)
    console.print(f"control: {problems} problems passed in {seconds:.0f} s", highlight=False)
    return matrix.Control(problems=problems, seconds=round(seconds, 1))
