"""The command line `moe-conformance`.

Exit codes: 0 everything asked for ran and passed; 1 a requirement is not met, or the run is incomplete (coverage,
floor of executed problems, a worker lost); 2 the call is wrong or the asked backend is missing; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console
from rich.table import Table

from . import interpreter
from .backends import NAMES, Backend, BackendMissing, architecture, describe, resolve, triton_environment
from .contract import requirements
from .drill.command import drill
from .evidence.certify_command import certify
from .evidence.diff_command import diff
from .evidence.merge_command import merge
from .golden.command import golden
from .implementation import SHIPPED, STAGES, Implementation, UnknownImplementation, load
from .isolation.judge import LIMIT_SECONDS
from .mutants.command import mutants
from .plan import RunOptions
from .portability.command import COMMANDS
from .problem import Problem
from .profiles import PROFILE_NAMES
from .registry import all_properties
from .rundir import ROOT, RunDirectory, objection, unfinished
from .shards import Shard
from .tiles import tiles
from .waivers import Waivers, WaiversInvalid
from .waivers import read as read_waivers
from .waivers import today as utc_today

if TYPE_CHECKING:
    from .run import Plan

EXIT_FAILED = 1

implementation_option = click.option(
    "--implementation", default="tritonmoe", show_default=True, metavar="NAME|module:factory", help="what is judged"
)
backend_option = click.option(
    "--backend", default="auto", show_default=True, type=click.Choice([*NAMES, "auto"]), help="where it runs"
)
waivers_option = click.option(
    "--waivers",
    "waivers_file",
    type=click.Path(path_type=Path),
    help="known failures [default: ./waivers.toml, if any]",
)

record_option = click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="write the Record here")
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="worker processes [default: one a core]"
)


def _shard(context: click.Context, parameter: click.Parameter, value: str | None) -> Shard | None:
    try:
        return None if value is None else Shard.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _waivers(path: Path | None, implementation: str, backend: Backend) -> Waivers | None:
    """The waivers of a file, or None without one. Exits with code 2 where the file is not right in every entry."""
    if path is None:
        path = Path("waivers.toml")
        if not path.exists():
            return None
    try:
        entries = read_waivers(path)
    except WaiversInvalid as error:
        raise click.UsageError(str(error)) from error
    return Waivers(entries, implementation, backend.platform, architecture(backend), utc_today(), path)


def _console() -> Console:
    # Outside a terminal lines are not cut at 80 columns: logs are searched, and problems are long.
    return Console() if sys.stdout.isatty() else Console(width=160)


def _prepared(backend_name: str, implementation_name: str) -> tuple[Backend, Implementation]:
    """Backend and implementation, or a clean exit with code 2."""
    try:
        backend = resolve(backend_name)
        # Before Triton is imported: kernels become interpreted or compiled functions at import.
        os.environ.update(triton_environment(backend.name))
        backend.start()
        sys.path.insert(0, os.getcwd())  # module:factory names are looked up where the user stands
        implementation = load(implementation_name)
    except (BackendMissing, UnknownImplementation, ImportError, TypeError) as error:
        raise click.UsageError(str(error)) from error
    if backend.platform not in implementation.declaration.backends:
        raise click.UsageError(f"{implementation_name} does not run on {backend.name}")
    return backend, implementation


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.version_option(package_name="tritonmoe-conformance")
def main() -> None:
    pass


@main.command()
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
    from .profiles import profile
    from .run import make_plan

    console = _console()
    for one in unfinished():
        note = f"unfinished: {one}\n  moe-conformance resume {one.directory}"
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    found, made = _ready(backend, implementation)
    waivers = _waivers(waivers_file, implementation, found)
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


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@record_option
@workers_option
def resume(folder: Path | None, record: Path | None, workers: int) -> None:
    """Go on with a run that was killed, from its FOLDER; without one, list such runs and what each lacks."""
    from .run import make_plan

    console = _console()
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
    found, made = _ready(asked.backend, asked.implementation)
    waivers = _waivers(Path(asked.waivers), asked.implementation, found) if asked.waivers else None
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


def _ready(backend: str, implementation: str) -> tuple[Backend, Implementation]:
    """Backend and implementation, the interpreter's self-check passed."""
    found, made = _prepared(backend, implementation)
    if problems := _interpreter_problems(made, found):
        raise click.UsageError("; ".join(problems))
    return found, made


def _carry_out(
    console: Console, plan: Plan, folder: RunDirectory, record: Path | None, *, resumed: bool = False
) -> NoReturn:
    """Run a plan, show what came of it, and exit."""
    from . import report
    from .run import execute

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


def _interpreter_problems(implementation: Implementation, backend: Backend) -> list[str]:
    if not backend.interprets or not implementation.declaration.uses_triton:
        return []
    return [f"the interpreter's self-check failed: {text}" for text in interpreter.self_check()]


@main.command()
@implementation_option
@backend_option
@waivers_option
@click.argument("case")
def replay(implementation: str, backend: str, waivers_file: Path | None, case: str) -> None:
    """Run one problem again. CASE is the JSON of a failure, or a file that holds it.

    A failure stays one here; a waiver that describes it is named below it.
    """
    from .findings import NonConformance
    from .registry import make_trial, run_trial

    try:
        path = Path(case)
        text = path.read_text(encoding="utf-8") if not case.lstrip().startswith("{") else case
        data = json.loads(text)
        prop = all_properties()[data["property"]]
        problem = Problem.from_json(data["problem"])
    except OSError as error:
        raise click.UsageError(f"CASE is neither JSON nor a readable file: {error}") from error
    except KeyError as error:
        raise click.UsageError(f"CASE needs a known property and a problem; not found: {error}") from error
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"CASE is not a problem: {error}") from error
    found, made = _prepared(backend, implementation)
    declaration = made.declaration
    if found.platform not in prop.backends:
        raise click.UsageError(f"{prop.name} is checked on {', '.join(prop.backends)} only, not on {found.name}")
    if not set(prop.stages) <= set(declaration.stages) or not all(getattr(declaration, n) for n in prop.needs):
        raise click.UsageError(f"{implementation} does not declare what {prop.name} needs")
    if not declaration.supports(problem, prop.kind):
        raise click.UsageError(f"{implementation} does not declare support for this problem")
    waivers = _waivers(waivers_file, implementation, found)
    trial = make_trial(prop, problem, made, implementation, found)
    console = _console()
    try:
        run_trial(trial, prop.check)
    except NonConformance as failure:
        console.print(str(failure), markup=False, highlight=False, soft_wrap=True)
        broken = {verdict.requirement for verdict in failure.findings.verdicts if verdict.failed}
        for waiver in waivers.matching(prop.name, problem) if waivers else ():
            if waiver.requirement in broken:
                line = f"a run waives this by {waiver.id} until {waiver.expires}: {waiver.reason} {waiver.link}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_FAILED)
    for verdict in trial.verdicts:
        line = f"{verdict.requirement}: {verdict.outcome}, worst error/bound {verdict.worst:.3g} {verdict.message}"
        console.print(line.rstrip(), highlight=False)
    if any(verdict.outcome == "refused" for verdict in trial.verdicts):
        sys.exit(EXIT_FAILED)


@main.command()
@backend_option
@implementation_option
def doctor(backend: str, implementation: str) -> None:
    """Show device, versions and self-checks; exit 2 where the asked backend is missing."""
    found, made = _prepared(backend, implementation)
    console = _console()
    table = Table(show_header=False, title=f"backend {found.name}", title_justify="left")
    for name, value in describe(found).items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, shown)
    for name in NAMES:
        try:
            table.add_row(f"backend {name}", f"present ({resolve(name).device})")
        except BackendMissing as error:
            table.add_row(f"backend {name}", f"missing: {error}")
    failures = _interpreter_problems(made, found)
    if found.interprets and made.declaration.uses_triton:
        table.add_row("interpreter", "; ".join(failures) or f"self-check passed; repaired: {interpreter.REPAIR}")
    console.print(table)
    sys.exit(EXIT_FAILED if failures else 0)


@main.command()
@backend_option
@implementation_option
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="write the findings here")
def probe(backend: str, implementation: str, json_file: Path | None) -> None:
    """Measure the device's matrix units; exit 1 where one costs more than the implementation declares (kappa)."""
    from .units import probe as units

    found, made = _prepared(backend, implementation)
    console = _console()
    report = units.probe(found, implementation, made.declaration)
    units.print_report(console, report)
    if json_file is not None:
        report.write(json_file)
        console.print(f"findings: {json_file}", highlight=False)
    sys.exit(EXIT_FAILED if report.complaints else 0)


@main.command("list")
def list_() -> None:
    """List requirements with the properties that check them, and the shipped implementations."""
    from .report import print_requirements

    console = _console()
    print_requirements(console)
    table = Table("implementation", "", "must pass", title="Implementations", title_justify="left")
    for name, shipped in SHIPPED.items():
        table.add_row(name, shipped.summary, "yes" if shipped.conforms else "no")
    console.print(table)
    console.print(f"{len(requirements())} requirements, {len(all_properties())} properties", highlight=False)


main.add_command(certify)
main.add_command(diff)
main.add_command(drill)
main.add_command(golden)
main.add_command(merge)
main.add_command(mutants)
main.add_command(tiles)
for _command in COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main()
