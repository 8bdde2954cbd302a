"""`moe-conformance run` and `resume`."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from . import report
from .command_line import EXIT_FAILED, backend_option, implementation_option, ready, screen, waivers_of, waivers_option
from .implementation import STAGES
from .isolation.judge import LIMIT_SECONDS
from .plan import RunOptions
from .profiles import PROFILE_NAMES, profile
from .run import Plan, execute, make_plan
from .rundir import ROOT, RunDirectory, objection, unfinished
from .shards import Shard

record_option = click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="write the Record here")
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="worker processes [default: one a core]"
)


def _shard(context: click.Context, parameter: click.Parameter, value: str | None) -> Shard | None:
    try:
        return None if value is None else Shard.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@implementation_option
@backend_option
@click.option("--profile", "profile_name", default="gate", show_default=True, type=click.Choice(PROFILE_NAMES))
@click.option("--stage", "stages", multiple=True, type=click.Choice(STAGES), help="only this stage; may be repeated")
@record_option
@click.option("--seed", type=int, help="seed of the drawn problems [default: 0; nightly: a new one]")
@click.option("--problems", type=click.IntRange(min=1), help="total number of problems, instead of the profile's")
@click.option("--shard", callback=_shard, metavar="I/N", help="only this shard of the problems, 2/8 say; see `merge`")
@workers_option
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=LIMIT_SECONDS,
    show_default=True,
    help="seconds after which a problem is hung, and its process killed",
)
@click.option(
    "--in-process", is_flag=True, help="no isolation: a crash ends a worker, a hang never ends; for debuggers"
)
@waivers_option
def run(
    implementation: str,
    backend: str,
    profile_name: str,
    stages: tuple[str, ...],
    record: Path | None,
    seed: int | None,
    problems: int | None,
    shard: Shard | None,
    workers: int,
    limit: float,
    in_process: bool,
    waivers_file: Path | None,
) -> None:
    """Judge an implementation against the contract."""
    console = screen()
    for one in unfinished():
        note = f"unfinished: {one}\n  moe-conformance resume {one.directory}"
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    found, made = ready(backend, implementation)
    waivers = waivers_of(waivers_file, implementation, found)
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little") if profile(profile_name, found).random else 0
    options = RunOptions(implementation, found.name, profile_name, stages, seed, problems, shard)
    path = ROOT.resolve() / f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    plan = make_plan(options, found, made, workers, path, waivers, limit=limit, isolated=not in_process)
    if not plan.items:
        raise click.UsageError(f"{implementation} has nothing to check in {stages or STAGES} on {found.name}")
    folder = RunDirectory(path)
    try:
        folder.begin(plan.asked())
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    _carry_out(console, plan, folder, record)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@record_option
@workers_option
def resume(folder: Path | None, record: Path | None, workers: int) -> None:
    """Go on with a run that was killed, from its FOLDER; without one, list such runs and what each lacks."""
    console = screen()
    if folder is None:
        left = unfinished()
        for one in left:
            console.print(f"{one.directory}: {one}", markup=False, highlight=False, soft_wrap=True)
        if not left:
            console.print(f"no unfinished run in {ROOT}", highlight=False)
        return
    held = RunDirectory(folder.resolve())
    try:
        asked = held.again()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    found, made = ready(asked.backend, asked.implementation)
    waivers = waivers_of(Path(asked.waivers), asked.implementation, found) if asked.waivers else None
    if waivers is not None and asked.today is not None:
        waivers = replace(waivers, today=asked.today)
    shard = Shard.parse(asked.shard) if asked.shard else None
    options = RunOptions(
        asked.implementation, asked.backend, asked.profile, asked.stages, asked.seed, asked.problems, shard
    )
    plan = make_plan(options, found, made, workers, held.path, waivers, limit=asked.limit, isolated=asked.isolated)
    now = plan.asked()
    for name in ("source_digest", "spec_digest", "environment", "planned"):
        if getattr(now, name) != getattr(asked, name):
            raise click.UsageError(f"{folder} cannot be taken up: its {name} is not that of today; start anew")
    _carry_out(console, plan, held, record, resumed=True)


def _carry_out(
    console: Console, plan: Plan, folder: RunDirectory, record: Path | None, *, resumed: bool = False
) -> NoReturn:
    """Run a plan, show what came of it, and exit."""
    # Better now than after the run.
    if record is not None and (found := objection(record.resolve().parent)):
        raise click.UsageError(found)
    options = plan.options
    shard = f", shard {options.shard}" if options.shard else ""
    console.print(
        f"{options.implementation} on {plan.backend.name}, profile {options.profile}, seed {options.seed}{shard}: "
        f"about {plan.problems} problems in {len(plan.items)} parts, {plan.workers} workers"
        + (f" on {plan.devices} devices" if plan.devices > 1 else "")
        + (", resumed" if resumed else ""),
        highlight=False,
    )
    with report.LiveProgress(console, plan.problems) as progress:
        result = execute(plan, progress, resume=resumed)
    report.print_failures(console, result)
    report.print_table(console, result)
    report.print_verdict(console, result)
    try:
        folder.done(result.model_dump_json())
        if record is not None:
            result.write(record)
            console.print(f"record: {record}", highlight=False)
    except OSError as error:
        console.print(f"the record cannot be written: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_FAILED)
    if result.verdict == "passed":
        shutil.rmtree(plan.directory, ignore_errors=True)
        sys.exit(0)
    console.print(f"events and pytest's own output: {plan.directory}", highlight=False, soft_wrap=True)
    sys.exit(EXIT_FAILED)
