"""The command line `moe-conformance`.

Exit codes: 0 everything asked for ran and passed; 1 a requirement is not met, or the run is incomplete (coverage,
floor of executed problems, a worker lost); 2 the call is wrong or the asked backend is missing; 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.table import Table

from . import interpreter
from .backends import NAMES, BackendMissing, describe, resolve
from .command_line import (
    EXIT_FAILED,
    backend_option,
    implementation_option,
    interpreter_problems,
    prepared,
    screen,
    waivers_of,
    waivers_option,
)
from .contract import requirements
from .drill.command import drill
from .evidence.certify_command import certify
from .evidence.diff_command import diff
from .evidence.merge_command import merge
from .golden.command import golden
from .implementation import SHIPPED
from .mutants.command import mutants
from .portability.command import COMMANDS
from .problem import Problem
from .registry import all_properties
from .run_command import resume, run
from .tiles import tiles


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.version_option(package_name="tritonmoe-conformance")
def main() -> None:
    pass


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
    found, made = prepared(backend, implementation)
    declaration = made.declaration
    if found.platform not in prop.backends:
        raise click.UsageError(f"{prop.name} is checked on {', '.join(prop.backends)} only, not on {found.name}")
    if not set(prop.stages) <= set(declaration.stages) or not all(getattr(declaration, n) for n in prop.needs):
        raise click.UsageError(f"{implementation} does not declare what {prop.name} needs")
    if not declaration.supports(problem, prop.kind):
        raise click.UsageError(f"{implementation} does not declare support for this problem")
    waivers = waivers_of(waivers_file, implementation, found)
    trial = make_trial(prop, problem, made, implementation, found)
    console = screen()
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
    found, made = prepared(backend, implementation)
    console = screen()
    table = Table(show_header=False, title=f"backend {found.name}", title_justify="left")
    for name, value in describe(found).items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, shown)
    for name in NAMES:
        try:
            table.add_row(f"backend {name}", f"present ({resolve(name).device})")
        except BackendMissing as error:
            table.add_row(f"backend {name}", f"missing: {error}")
    failures = interpreter_problems(made, found)
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

    found, made = prepared(backend, implementation)
    console = screen()
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

    console = screen()
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
main.add_command(resume)
main.add_command(run)
main.add_command(tiles)
for _command in COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main()
