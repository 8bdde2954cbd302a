"""`moe-conformance golden`: stored answers of an independent computation, and problems that once failed.

Exit codes: 0 everything agrees; 1 something disagrees; 2 the call is wrong, or the corpus cannot be read: a file is
missing, truncated, or was changed.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from ..backends import NAMES, Backend
from ..command_line import prepared, screen
from ..implementation import Implementation
from .corpus import CorpusError, read_manifest
from .regressions import Replayed, promote, read_regressions, replay
from .verify import Checked, check_entry, summary

EXIT_DISAGREES, EXIT_UNUSABLE = 1, 2

corpus_option = click.option(
    "--corpus",
    default="golden",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="the corpus",
)


class Unreadable(click.ClickException):
    """The corpus cannot be used."""

    exit_code = EXIT_UNUSABLE


def _needs_mpmath() -> None:
    try:
        import mpmath  # noqa: F401
    except ImportError as error:
        raise click.UsageError("this command needs mpmath: pip install 'tritonmoe-conformance[golden]'") from error


@click.group(help=__doc__)
def golden() -> None:
    pass


@golden.command()
@click.option("--implementation", default="tritonmoe", show_default=True, metavar="NAME|module:factory")
@click.option("--backend", default="auto", show_default=True, type=click.Choice([*NAMES, "auto"]))
@corpus_option
def verify(implementation: str, backend: str, corpus: Path) -> None:
    """Check the corpus, the oracle and an implementation against each other; then run every regression."""
    found, made = prepared(backend, implementation)
    torch.set_num_threads(1)  # the products are small: threads would only wait for each other
    console = screen()
    try:
        entries = read_manifest(corpus).entries
        regressions = read_regressions(corpus)
        checked = [check_entry(corpus, entry, made, found) for entry in entries]
    except CorpusError as error:
        raise Unreadable(str(error)) from error
    replayed = [replay(regression, made, implementation, found) for regression in regressions]
    _report(console, checked, replayed, made, found)


def _report(
    console: Console, checked: list[Checked], replayed: list[Replayed], made: Implementation, backend: Backend
) -> None:
    for one in checked:
        for fault in one.faults:
            console.print(f"{one.entry.name}: {fault}", markup=False, highlight=False, soft_wrap=True)
        if one.faults:
            console.print(f"  problem: {one.entry.parsed().to_json()}", markup=False, highlight=False, soft_wrap=True)
    for again in replayed:
        if again.outcome in ("failed", "refused"):
            text = f"regression {again.regression.name()} {again.outcome}: {again.message}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    title = f"golden corpus, {made.declaration.name} on {backend.name}"
    table = Table("stage", title=title, title_justify="left")
    for column in ("entries", "at fault", "oracle: difference", "compared", "error/bound"):
        table.add_column(column, justify="right")
    for row in summary(checked):
        numbers = (str(row["entries"]), str(row["at fault"]), f"{row['difference']:.1e}", str(row["compared"]))
        table.add_row(row["stage"], *numbers, f"{row['worst']:.3g}" if row["compared"] else "-")
    console.print(table)
    left_out: dict[str, int] = defaultdict(int)
    for one in checked:
        left_out[one.left_out] += bool(one.left_out)
    for reason, count in sorted(left_out.items()):
        if count:
            console.print(f"{count} entries say nothing about {made.declaration.name}: {reason}", highlight=False)
    outcomes = {o: sum(r.outcome == o for r in replayed) for o in ("passed", "failed", "refused", "left out")}
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items() if count)
    console.print(f"regressions: {counts or 'none'}", highlight=False)
    faults = sum(bool(one.faults) for one in checked) + outcomes["failed"] + outcomes["refused"]
    nothing = all(one.left_out for one in checked)
    if nothing:
        console.print(f"no entry could be compared with {made.declaration.name}", highlight=False)
    console.print("disagrees" if faults or nothing else f"agrees: {len(checked)} entries", highlight=False)
    sys.exit(EXIT_DISAGREES if faults or nothing else 0)


@golden.command()
@corpus_option
@click.option("--replace", is_flag=True, help="let answers that are there change or go")
def write(corpus: Path, replace: bool) -> None:
    """Compute the answers of DIR/problems.toml anew with mpmath, and write what is new."""
    _needs_mpmath()
    from .write import write as write_corpus

    try:
        done = write_corpus(corpus, replace=replace)
    except CorpusError as error:
        raise Unreadable(str(error)) from error
    counts = f"{len(done.new)} new, {len(done.changed)} changed, {len(done.gone)} gone"
    click.echo(f"{len(done.entries)} entries: {counts}")


@golden.command("promote")
@corpus_option
@click.option("--note", required=True, help="what happened there, in a sentence")
@click.argument("case")
def promote_(corpus: Path, note: str, case: str) -> None:
    """Keep a failure as a regression. CASE is its JSON, a file that holds it, or a Record: then all of its failures."""
    if not corpus.is_dir():
        raise Unreadable(f"{corpus} is no folder")
    try:
        for path in promote(corpus, case, note, datetime.now(UTC).date()):
            click.echo(f"wrote {os.fspath(path)}")
    except ValueError as error:  # UnusableCase, AlreadyThere, or an empty note
        raise click.UsageError(str(error)) from error


@golden.command()
@click.option("--problems", "count", default=500, show_default=True, type=click.IntRange(min=1), help="how many, about")
@click.option("--seed", default=0, show_default=True, help="which ones")
def independence(count: int, seed: int) -> None:
    """Compare the torch oracle with mpmath at 50 digits on random small problems."""
    _needs_mpmath()
    from .independence import independence as compared

    torch.set_num_threads(1)
    console = screen()
    ratios: dict[str, list[np.ndarray]] = defaultdict(list)
    differences: dict[str, float] = defaultdict(float)
    problems: dict[str, int] = defaultdict(int)
    faults = 0
    for one in compared(count, seed):
        problems[one.stage] += 1
        differences[one.stage] = max(differences[one.stage], one.agreement.difference)
        ratios[one.stage] += one.agreement.ratios
        faults += bool(one.agreement.faults)
        for fault in one.agreement.faults:
            text = f"{one.stage}: {fault}\n  problem: {one.problem.to_json()}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    table = Table("stage", title=f"oracle and mpmath, seed {seed}", title_justify="left")
    for column in ("problems", "values", "largest difference", "radius ratio 1 %", "median", "99 %", "largest"):
        table.add_column(column, justify="right")
    for stage, number in problems.items():
        values = np.concatenate(ratios[stage]) if ratios[stage] else np.zeros(0)
        marks = np.quantile(values, (0.01, 0.5, 0.99, 1.0)) if values.size else ()
        table.add_row(stage, str(number), str(values.size), f"{differences[stage]:.1e}", *(f"{m:.3g}" for m in marks))
    console.print(table)
    console.print(f"{faults} of {sum(problems.values())} problems disagree", highlight=False)
    sys.exit(EXIT_DISAGREES if faults else 0)
