"""`moe-conformance diff`: Records of two or more platforms, side by side."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ..contract import requirements
from ..record import Record, Tally
from ..whole_file import write_whole
from .comparison import Comparison, NotComparable, Pair, compare_all
from .reading import RecordInvalid, label, read_record

EXIT_FAILED = 1
SHOWN = 10  # disagreements printed for each pair; the JSON has all


@click.command("diff")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="error distributions that differ by more than chance fail too")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="write the comparison here")
def diff(files: tuple[Path, ...], strict: bool, json_file: Path | None) -> None:
    """Compare Records of several platforms: the same source, the same problems, verdict by verdict.

    Any platforms: cuda, rocm, the interpreter (cpu), executed AMD code (exec:...). Platforms with the same sizes must
    have run the same cases; runs on a CPU draw smaller problems by design, and are compared where they meet.

    Exit codes: 0 every Record is a whole, clean, passed run of profile gate, they ran the same cases and agree in every
    verdict; 1 not so; 2 a file is no Record, or they are not of one source under one contract.
    """
    if len(files) < 2:
        raise click.UsageError("diff takes two Records or more")
    if json_file is not None and json_file.resolve() in {path.resolve() for path in files}:
        raise click.UsageError(f"--json {json_file} is one of the Records")
    try:
        comparison = compare_all([read_record(path) for path in files], [str(path) for path in files])
    except (RecordInvalid, NotComparable) as error:
        raise click.UsageError(str(error)) from error
    console = Console() if sys.stdout.isatty() else Console(width=200)
    print_comparison(console, comparison)
    found = [spread for pair in comparison.pairs for spread in pair.flagged]
    if json_file is not None:
        write_whole(json_file, json.dumps(as_data(comparison), indent=1))
    if comparison.reasons or (strict and found):
        sys.exit(EXIT_FAILED)


def _number(value: float) -> str:
    return "0" if value == 0 else "inf" if math.isinf(value) else f"{value:.3g}"


def _unsealed(record: Record) -> str:
    return "" if record.seal else " (unsealed: written by an older suite)"


def _head(records: list[Record]) -> Table:
    table = Table("", *(label(record) for record in records), title="Records", title_justify="left")
    rows: dict[str, list[str]] = {
        "device": [str(r.environment.get("device")) for r in records],
        "driver": [str(r.environment.get("driver") or r.environment.get("hip") or "-") for r in records],
        "torch": [str(r.environment["packages"].get("torch")) for r in records],
        "triton": [
            str(r.environment["packages"].get("triton") or r.environment["packages"].get("triton-rocm"))
            for r in records
        ],
        "repair": [r.interpreter_repair or "-" for r in records],
        "commit": [f"{(r.commit or '-')[:10]}{', dirty' if r.dirty else ''}" for r in records],
        "problems": [str(r.problems) for r in records],
        "verdict": [f"{r.verdict}{_unsealed(r)}" for r in records],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def _tally(tally: Tally | None) -> str:
    if tally is None:
        return "-"
    bad = [f"{getattr(tally, name)} {name}" for name in ("failed", "refused", "waived") if getattr(tally, name)]
    return f"{tally.passed}/{tally.problems} {_number(tally.worst)}{''.join(f', {each}' for each in bad)}"


def _requirements(records: list[Record]) -> Table:
    title = "Requirements: passed/problems, worst error/bound"
    table = Table("requirement", "", *(label(record) for record in records), title=title, title_justify="left")
    found = [{tally.requirement: tally for tally in record.requirements} for record in records]
    for known in requirements().values():
        if any(known.id in each for each in found):
            table.add_row(known.id, known.title, *(_tally(each.get(known.id)) for each in found))
    return table


def _spreads(pair: Pair) -> Table:
    names = " | ".join(pair.labels)
    table = Table(title=f"error/bound on the common problems: {names}", title_justify="left")
    for name in ("property", "pairs", "equal", "medians", "worst", "furthest apart", "p, lean", "p, shape", ""):
        table.add_column(name, justify="left" if name == "property" else "right")
    suspicious = {spread.name for spread in pair.flagged}
    for each in pair.spreads:
        table.add_row(
            each.name,
            str(each.pairs),
            str(each.equal),
            " | ".join(map(_number, each.medians)),
            " | ".join(map(_number, each.worst)),
            _number(each.furthest),
            f"{each.lean:.2g}",
            f"{each.shape:.2g}",
            "[yellow]differs[/]" if each.name in suspicious else "",
        )
    return table


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Records, requirements, pairs, and the verdict with its reasons."""
    records = comparison.records
    console.print(_head(records))
    first = records[0]
    console.print(
        f"one source: {first.source_digest[:16]}, implementation {first.implementation}, contract "
        f"{first.spec_digest[:16]}, profile {first.profile}, seed {first.seed}",
        highlight=False,
    )
    console.print(_requirements(records))
    for pair in comparison.pairs:
        console.print(_spreads(pair))
        one, two = pair.labels
        console.print(
            f"{one} and {two}: {pair.common} problems in common; by design only on {one} {pair.by_design[0]}, "
            f"only on {two} {pair.by_design[1]}; not run where they should have been: {sum(pair.missing)}; "
            f"different outcomes: {len(pair.disagreements)}; error distributions that differ: {len(pair.flagged)}",
            highlight=False,
            soft_wrap=True,
        )
        for each in pair.disagreements[:SHOWN]:
            worst = " | ".join(map(_number, each.worst))
            line = f"  {each.property} {each.problem}: {' | '.join(each.outcomes)}, error/bound {worst}"
            console.print(line, highlight=False, soft_wrap=True)
    if comparison.reasons:
        console.print("[bold red]not shown to agree[/]:")
        for reason in comparison.reasons:
            console.print(f"  - {reason}", highlight=False, soft_wrap=True)
    else:
        console.print("[bold green]agree[/]: the same source, the same cases, every verdict the same", highlight=False)


def as_data(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON-ready data."""
    return {
        "schema_version": 1,
        "records": [
            {"label": label(r), "seal": r.seal, "verdict": r.verdict, "repair": r.interpreter_repair}
            for r in comparison.records
        ],
        "source_digest": comparison.records[0].source_digest,
        "pairs": [
            {
                "labels": pair.labels,
                "common": pair.common,
                "by_design": pair.by_design,
                "missing": pair.missing,
                "outcomes": {f"{a} | {b}": count for (a, b), count in sorted(pair.outcomes.items())},
                "disagreements": [asdict(each) for each in pair.disagreements],
                "spreads": [asdict(each) for each in pair.spreads],
                "flagged": [each.name for each in pair.flagged],
            }
            for pair in comparison.pairs
        ],
        "reasons": comparison.reasons,
    }
