"""The command line. Exit codes: 0 done; 1 a check failed, or a result is incomplete; 2 the call is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from . import workloads
from .commands import cold, dtypes, suite, traffic, tune
from .competitors import NAMES
from .options import (
    EXIT_FAILED,
    chosen_loads,
    chosen_shapes,
    console,
    device,
    device_option,
    dtype_option,
    names,
    numbers,
    output_option,
    say,
)
from .results import FILE, Results
from .timing import Repeats


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
def main() -> None:
    pass


def _matrix(command: Any) -> Any:
    """The options that choose cases."""
    for option in (
        click.option("--shapes", help="comma-separated names of data/workloads.toml [default: all but tiny]"),
        click.option("--tokens", help="comma-separated token counts [default: 1,8,32,128,512,2048,8192]"),
        click.option("--loads", default="uniform", show_default=True, help="comma-separated: uniform, zipf1.2, zipf2"),
        click.option(
            "--repeats", default=30, show_default=True, type=click.IntRange(min=5), help="most timings a case"
        ),
        click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="overall time limit, kept cleanly"),
    ):
        command = option(command)
    return command


@main.command()
@_matrix
@click.option("--implementations", default=",".join(NAMES), show_default=True, help="comma-separated")
@click.option("--long/--no-long", default=False, help="add T=32768 for the shapes of 256 experts")
@click.option("--stages/--no-stages", default=True, help="time our stages one by one as well")
@click.option("--plots/--no-plots", default=True, help="write the plots beside the results")
@dtype_option
@device_option
@output_option
def run(
    shapes: str | None,
    tokens: str | None,
    loads: str,
    repeats: int,
    seconds: float | None,
    implementations: str,
    long: bool,
    stages: bool,
    plots: bool,
    dtype: str,
    device_name: str,
    output: Path,
) -> None:
    """Time our forward, its stages, and every competitor that is installed, each checked for correctness first."""
    from . import report
    from .run import Options
    from .run import run as measure

    wanted = tuple(names(implementations))
    if unknown := set(wanted) - set(NAMES):
        raise click.UsageError(f"no implementation {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    options = Options(
        chosen_shapes(shapes),
        numbers(tokens, workloads.token_counts()),
        chosen_loads(loads),
        wanted,
        Repeats(most=repeats),
        dtype,
        device(device_name),
        seconds,
        output,
        stages,
        long,
    )
    results = measure(options, say)
    report.print_all(console(), results)
    say(f"results: {output / FILE}")
    if plots:
        _draw(results, output)
    sys.exit(0 if results.complete else EXIT_FAILED)


def _draw(results: Results, output: Path) -> None:
    from . import plots

    try:
        for path in plots.draw(results, output):
            say(f"plot: {path}")
    except ImportError:
        say("no plots: matplotlib is not installed (dependency group `benchmarks`)")


@main.command()
@click.argument("results", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--plots/--no-plots", default=True, help="write the plots beside the results")
def report(results: Path, plots: bool) -> None:
    """Print the tables of a result again, and draw its plots."""
    from . import report as tables

    found = _read(results)
    tables.print_all(console(), found)
    if plots:
        _draw(found, results.parent)


def _read(path: Path) -> Results:
    try:
        return Results.read(path)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error


@main.command()
@click.argument("baseline", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--current",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="compare this result [default: measure the baseline's cells now]",
)
@click.option("--tolerance", default=0.10, show_default=True, type=click.FloatRange(min=0), help="relative change")
@click.option("--implementation", default="tritonmoe", show_default=True, type=click.Choice(NAMES))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="time limit of the measurement")
@device_option
@output_option
def check(
    baseline: Path,
    current: Path | None,
    tolerance: float,
    implementation: str,
    seconds: float | None,
    device_name: str,
    output: Path,
) -> None:
    """Regression guard: fail where time/floor has grown. Ratios are compared, never absolute times."""
    from . import check as guard

    before = _read(baseline)
    if current is None:
        after = guard.measure_again(before, implementation, device(device_name), seconds, output, say)
    else:
        after = _read(current)
    findings = guard.compare(before, after, implementation, tolerance)
    console().print(guard.table(findings, tolerance))
    broken = guard.broken(findings)
    say(f"{len(broken)} of {len(findings)} cells broken")
    sys.exit(EXIT_FAILED if broken or not findings else 0)


for command in (traffic, dtypes, cold, suite, tune):
    main.add_command(command)
