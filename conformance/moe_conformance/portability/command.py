"""The commands of portability: compile, lint-kernels, record-cases, choices.

Torch-free as `python -m moe_conformance.portability`; the same commands are part of `moe-conformance`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path

import click

from . import baseline as kept
from . import cases as cases_file
from . import known as excused
from . import lint
from .cases import CHOSEN, LEVELS, SLICE
from .targets import Target, targets

EXIT_FAILED = 1
CACHE = Path(".moe-conformance") / "compiled"
SHOWN = 40

target_option = click.option(
    "--target", "names", multiple=True, type=click.Choice(list(targets())), help="only this target; may be repeated"
)
cases_option = click.option(
    "--cases", "cases_path", default=cases_file.FILE, type=click.Path(path_type=Path), help="other compile cases"
)
baseline_option = click.option(
    "--baseline", "baseline_path", default=kept.FILE, type=click.Path(path_type=Path), help="another baseline"
)

known_option = click.option(
    "--known", "known_path", default=excused.FILE, type=click.Path(path_type=Path), help="other known findings"
)


def _kernels() -> Path:
    """The folder of tritonmoe, without importing it."""
    found = importlib.util.find_spec("tritonmoe")
    if found is None or found.origin is None:
        raise click.UsageError("tritonmoe is not installed here")
    return Path(found.origin).parent


def _compiler() -> str:
    """The version of the installed Triton, with the interpreter off. A usage error where there is none."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise click.UsageError("TRITON_INTERPRET=1 is set: kernels would be interpreted and not compiled")
    os.environ["TRITON_INTERPRET"] = "0"
    try:
        import triton
    except ImportError as error:
        raise click.UsageError(f"there is no Triton here: {error}") from error
    return str(triton.__version__)


def _cases(path: Path) -> cases_file.Cases:
    try:
        return cases_file.read(path)
    except cases_file.CasesInvalid as error:
        raise click.UsageError(str(error)) from error


def _baseline(path: Path) -> kept.Baseline:
    try:
        return kept.read(path)
    except kept.BaselineInvalid as error:
        raise click.UsageError(str(error)) from error


def _known(version: str, path: Path) -> list[excused.Known]:
    try:
        return excused.read(version, path)
    except excused.KnownInvalid as error:
        raise click.UsageError(str(error)) from error


def _chosen(names: tuple[str, ...]) -> list[Target]:
    return [each for each in targets().values() if not names or each.name in names]


@click.command("lint-kernels")
@click.option("--package", type=click.Path(path_type=Path, exists=True, file_okay=False), help="[default: tritonmoe]")
def lint_kernels(package: Path | None) -> None:
    """Check what the kernels are written with: no vendor, no assembly, no library, no warp width, no switch.

    Exit codes: 0 clean; 1 findings; 2 there is nothing to judge, or the lint does not see its own planted violations.
    """
    if wrong := lint.self_test():
        raise click.UsageError("the lint is not sound: " + "\n".join(wrong))
    try:
        where = package or _kernels()
        found, judged = lint.lint(where), lint.sources(where)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
    for finding in found:
        click.echo(finding)
    click.echo(
        f"{len(found)} findings in {len(judged)} files, source digest {lint.source_digest(where)[:16]}; "
        f"{len(lint.planted())} planted snippets judged right"
    )
    sys.exit(EXIT_FAILED if found else 0)


@click.command("record-cases")
@click.option("--check", is_flag=True, help="compare with the kept cases and write nothing; exit 1 where they differ")
@target_option
@cases_option
def record_cases(check: bool, names: tuple[str, ...], cases_path: Path) -> None:
    """Drive the launchers for every target and keep what each kernel is compiled for (needs torch, no device)."""
    version = _compiler()
    if names and not check:
        raise click.UsageError("a file of cases has every target: --target goes with --check")
    from .recording import record

    made = record([each.name for each in _chosen(names)])
    if not check:
        from ..whole_file import write_whole

        write_whole(cases_path, cases_file.written(version, made.values()))
        click.echo(f"{len(made)} cases, {sum(len(case.levels) for case in made.values())} cells: {cases_path}")
        return
    known = _cases(cases_path).cases
    if names:
        for case in known.values():
            case.levels = {name: level for name, level in case.levels.items() if name in names}
        known = {key: case for key, case in known.items() if case.levels}
    lines = cases_file.differences(known, made)
    for line in lines[:SHOWN]:
        click.echo(line)
    click.echo(f"{len(lines)} differences between {len(known)} kept cases and the launchers'")
    sys.exit(EXIT_FAILED if lines else 0)


@click.command("choices")
@target_option
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(["bf16", "fp16", "fp32"]), help="[default: all]")
@cases_option
@baseline_option
@known_option
def choices(
    names: tuple[str, ...], dtypes: tuple[str, ...], cases_path: Path, baseline_path: Path, known_path: Path
) -> None:
    """Show what the dispatcher chooses on every target for each model and number of tokens (needs torch, no device).

    Exit codes: 0 every choice is in the matrix, without a finding that is not known; 1 one is not; 2 the call is wrong.
    """
    _compiler()
    known, base = _cases(cases_path).cases, _baseline(baseline_path)
    entries = _known(base.triton, known_path)
    from rich.console import Console
    from rich.table import Table

    from . import choices as simulated

    console = Console() if sys.stdout.isatty() else Console(width=200)
    wrong: Counter[str] = Counter()
    count = 0
    rows: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for choice in simulated.choices(_chosen(names), dtypes or simulated.DTYPES):
        count += 1
        wrong.update(simulated.complaints(choice, base, known, entries))
        tiles = tuple(dict.fromkeys(choice.tiles(base)))
        rows.setdefault((choice.target, choice.dtype, tiles), []).append(f"{choice.model}@{choice.tokens}")
    table = Table("target", "dtype", "model @ tokens", "products", title="Choices of the dispatcher", show_lines=True)
    for (target, dtype, tiles), where in rows.items():
        table.add_row(target, dtype, _by_model(where), "\n".join(tiles))
    console.print(table)
    for line in list(wrong)[:SHOWN]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{count} forwards on {len(_chosen(names))} targets, {len(wrong)} complaints", highlight=False)
    sys.exit(EXIT_FAILED if wrong else 0)


def _by_model(where: list[str]) -> str:
    """ "a@1 a@8 b@1" as "a @ 1 8; b @ 1"."""
    by_model: dict[str, list[str]] = {}
    for each in where:
        model, _, tokens = each.partition("@")
        by_model.setdefault(model, []).append(tokens)
    return "; ".join(f"{model} @ {' '.join(tokens)}" for model, tokens in by_model.items())


@click.command("compile")
@target_option
@click.option("--full", is_flag=True, help="every cell, and not the gate's slice alone")
@click.option("--chosen", is_flag=True, help="every cell that is chosen for a model of models.toml")
@click.option("--processes", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help=f"[default: {CACHE}]")
@click.option("--no-cache", is_flag=True, help="compile every cell anew")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), help="write the matrix here as JSON")
@click.option("--write", is_flag=True, help="keep the result as the baseline (with --full or --chosen, all targets)")
@click.option("--compare", "compared", multiple=True, type=click.Path(path_type=Path),
              help="compile nothing: the drift between two recorded matrices or more, in this order")  # fmt: skip
@cases_option
@baseline_option
@known_option
def compile_(
    names: tuple[str, ...],
    full: bool,
    chosen: bool,
    processes: int,
    cache: Path | None,
    no_cache: bool,
    record: Path | None,
    write: bool,
    compared: tuple[Path, ...],
    cases_path: Path,
    baseline_path: Path,
    known_path: Path,
) -> None:
    """Compile every kernel for every target, without a device and without torch, and compare with the baseline.

    Exit codes: 0 no cell is worse than kept, and none that the dispatcher chooses for a model spills, exceeds its
    target's shared memory, misses the matrix units or does not compile, beyond what data/compile_known.toml says and
    no less; 1 not so; 2 the call is wrong. Under another Triton than the baseline's, what is worse is shown as drift
    and does not fail.
    """
    from rich.console import Console

    known = _cases(cases_path).cases
    console = Console() if sys.stdout.isatty() else Console(width=200)
    if compared:
        _drift(console, compared, known)
        return
    if write and (not (full or chosen) or names):
        raise click.UsageError("--write keeps a whole matrix: give --full (or --chosen) and leave --target out")
    if full and chosen:
        raise click.UsageError("--full has what --chosen has, and more: give one of them")
    entries = _known(_compiler(), known_path)
    base = None if write else _baseline(baseline_path)
    from . import compiling, matrix, tables

    try:
        compiling.require_backends(_chosen(names))
        levels = LEVELS if full else (SLICE, CHOSEN) if chosen else (SLICE,)
        where = None if no_cache else cache or CACHE
        made = matrix.build(known, _chosen(names), levels, processes, where, _Told())
    except (compiling.NoBackend, cases_file.CasesInvalid) as error:
        raise click.UsageError(str(error)) from error
    tables.print_matrix(console, made, known)
    parted = excused.sort_out(matrix.findings(made, known), entries, known, made)
    found = parted.unknown
    for entry, count in parted.counts.items():
        if count:
            console.print(f"known: {count} cells: {entry}", markup=False, soft_wrap=True)
    for entry in parted.idle:
        console.print(f"known, and no longer there: {entry}", markup=False, soft_wrap=True)
    broken = [each for each in found if each.level != cases_file.POSSIBLE or (write and each.kind == "compile")]
    possible = Counter(f"{each.kind} on {each.target}" for each in found if each.level == cases_file.POSSIBLE)
    for each in broken[:SHOWN]:
        console.print(f"{each.kind}: {each.target} ({each.level}): {each.message}", markup=False, soft_wrap=True)
    for what, count in sorted(possible.items()):
        console.print(f"of no model's choices: {what}: {count} cells", highlight=False)
    if record is not None:
        made.write(record)
    worse = _against(console, base, made, known) if base is not None else 0
    if write:
        kept.write(baseline_path, made, known)
        console.print(f"baseline: {baseline_path}", highlight=False)
    console.print(
        f"{len(made.cells)} cells in {made.seconds:.0f} s: {len(broken)} findings, {worse} worse", highlight=False
    )
    sys.exit(EXIT_FAILED if broken or worse or parted.idle else 0)


class _Told:
    """A line of progress now and then."""

    def __init__(self) -> None:
        self._done = self._said = 0

    def __call__(self, cells: int) -> None:
        self._done += cells
        if self._done >= self._said + 200:
            self._said = self._done
            click.echo(f"{self._done} cells compiled", err=True)


def _against(console: object, base: kept.Baseline, made: object, known: dict[str, cases_file.Case]) -> int:
    """Print what is worse than the baseline; how many changes fail the run."""
    from rich.console import Console

    from .matrix import Matrix

    assert isinstance(console, Console)
    assert isinstance(made, Matrix)
    changes = kept.changes(base, made, known)
    same = base.triton == made.triton
    if missing := [level for level in made.levels if level not in base.levels]:
        console.print(
            f"the baseline has no cells of level {', '.join(missing)}: compile --full --write", highlight=False
        )
    if changes:
        word = "worse than the baseline" if same else f"drift from the baseline's Triton {base.triton}"
        console.print(f"{word}: {len(changes)}", highlight=False)
    for change in changes[:SHOWN]:
        console.print(f"  {change}", markup=False, highlight=False, soft_wrap=True)
    if same and not changes and (count := kept.better(base, made)):
        console.print(f"{count} cells are better than kept: compile --full --write keeps them", highlight=False)
    return len(changes) if same else 0


def _drift(console: object, files: tuple[Path, ...], known: dict[str, cases_file.Case]) -> None:
    from rich.console import Console

    from . import matrix, tables

    assert isinstance(console, Console)
    if len(files) < 2:
        raise click.UsageError("--compare takes two recorded matrices or more")
    try:
        read = [matrix.read_matrix(path) for path in files]
    except matrix.MatrixInvalid as error:
        raise click.UsageError(str(error)) from error
    tables.print_drift(console, read, known)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
def main() -> None:
    pass


COMMANDS = (compile_, lint_kernels, record_cases, choices)
for _command in COMMANDS:
    main.add_command(_command)
