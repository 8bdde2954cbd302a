"""`moe-conformance merge`: the Records of a run's shards, joined into one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .. import report
from ..command_line import EXIT_FAILED, screen
from .merging import NotMergeable, merge_shards
from .reading import RecordInvalid, read_record


@click.command("merge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--record",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="write the whole Record here",
)
def merge(files: tuple[Path, ...], record: Path) -> None:
    """Join the Records of all shards of one run (`run --shard I/N`) and judge the whole.

    Exit codes: 0 the whole run passed; 1 it did not; 2 the files are not the shards of one run: one is missing or there
    twice, they differ in source, plan or device, or their problems are not those that were drawn.
    """
    if record.resolve() in {path.resolve() for path in files}:
        raise click.UsageError(f"--record {record} is one of the shards")
    try:
        whole = merge_shards([read_record(path) for path in files], [str(path) for path in files])
        whole.write(record)
    except (RecordInvalid, NotMergeable, OSError) as error:
        raise click.UsageError(str(error)) from error
    console = screen()
    report.print_failures(console, whole)
    report.print_table(console, whole)
    report.print_verdict(console, whole)
    console.print(f"record: {record}, of {len(files)} shards", highlight=False)
    sys.exit(0 if whole.verdict == "passed" else EXIT_FAILED)
