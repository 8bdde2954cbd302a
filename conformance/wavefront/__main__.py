"""AMD assembly texts, as Triton writes them, looked at without executing them.

Exit codes: 0 nothing to report; 1 something is: an instruction that is not modelled, a wait that is missing; 2 the call
is wrong or a text cannot be read.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from . import listing as listings
from .assembly import Instruction, Kernel
from .faults import UnsupportedInstruction, WavefrontError
from .semantics.table import mnemonics, supported
from .target import target, targets
from .waits import findings

EXIT_FOUND = 1


class Unusable(click.ClickException):
    """A text that cannot be read, or a target that is not known: the caller's to mend."""

    exit_code = 2


@contextmanager
def _caller_errors() -> Iterator[None]:
    """One line instead of a traceback for what the caller gave."""
    try:
        yield
    except (WavefrontError, OSError) as error:
        raise Unusable(" ".join(str(error).split())) from error


def _console() -> Console:
    # Outside a terminal lines are not cut at 80 columns: logs are searched, and instructions are long.
    return Console(highlight=False) if sys.stdout.isatty() else Console(width=160, highlight=False)


def _say(text: str) -> None:
    """A line as it is: operands in brackets are no markup, and nothing is wrapped."""
    click.echo(text)


files_argument = click.argument("paths", nargs=-1, required=True, metavar="FILES", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
def main() -> None:
    pass


@main.command("targets")
def show_targets() -> None:
    """The targets with their limits, and how many mnemonics are modelled for each."""
    table = Table("target", "family", "lanes", "LDS bytes", "processors", "mnemonics")
    for each in targets().values():
        known = len(mnemonics(each.family))
        table.add_row(each.name, each.family, str(each.wave), str(each.lds), str(each.processors), str(known))
    _console().print(table)


@main.command("listing")
@click.argument("paths", nargs=-1, metavar="[FILES or folders]", type=click.Path(path_type=Path))
@click.option("--target", "names", multiple=True, metavar="TARGET", help="only texts of this target; may be repeated")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="write the listing here")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path, dir_okay=False), help="write a table here")
def show_listing(
    paths: tuple[Path, ...], names: tuple[str, ...], json_file: Path | None, markdown_file: Path | None
) -> None:
    """The mnemonics that texts use, by target, and whether every use of them is modelled.

    Folders are searched for *.amdgcn and *.s. Without FILES: the mnemonics that are modelled.
    """
    with _caller_errors():
        chosen = {target(name).name for name in names} or set(targets())
        if not paths:
            for name in (name for name in targets() if name in chosen):
                _say(f"{name}: {' '.join(mnemonics(target(name).family))}")
            return
        found = listings.Listings()
        for path in listings.texts(paths):
            kernel = listings.read(path)
            if kernel.target in chosen or not names:
                found.take(kernel, str(path))
        if not found.by_target:
            raise Unusable(f"no text is for {', '.join(sorted(chosen))}")
        if json_file is not None:
            data = {name: each.as_data() for name, each in sorted(found.by_target.items())}
            json_file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        if markdown_file is not None:
            markdown_file.write_text(_markdown(found), encoding="utf-8")
    _print_listing(found)
    if found.unsupported:
        sys.exit(EXIT_FOUND)


def _rows(found: listings.Listings) -> list[tuple[str, dict[str, str]]]:
    """Mnemonics with a cell for each target: how often it is used, and how many of the uses are not modelled."""
    refused = {name: each.refused() for name, each in found.by_target.items()}
    every = sorted({mnemonic for each in found.by_target.values() for mnemonic in each.counts})

    def cell(name: str, mnemonic: str) -> str:
        count, wrong = found.by_target[name].counts.get(mnemonic, 0), refused[name].get(mnemonic, 0)
        return "" if not count else f"{count}" if not wrong else f"{count} ({wrong} not modelled)"

    return [(mnemonic, {name: cell(name, mnemonic) for name in found.by_target}) for mnemonic in every]


def _print_listing(found: listings.Listings) -> None:
    table = Table("mnemonic", *found.by_target)
    for mnemonic, cells in _rows(found):
        table.add_row(mnemonic, *cells.values())
    _console().print(table)
    for each in found.unsupported:
        _say(f"not modelled: {each.reason} in {each.where}")
    for name, listing in found.by_target.items():
        wrong = len(listing.unsupported)
        _say(
            f"{name}: {listing.texts} texts, {listing.counts.total()} instructions, {len(listing.counts)} mnemonics, "
            + (f"{wrong} uses not modelled" if wrong else "all modelled")
        )


def _markdown(found: listings.Listings) -> str:
    lines = [f"| mnemonic | {' | '.join(found.by_target)} |", "| --- |" + " ---: |" * len(found.by_target)]
    lines += [f"| `{mnemonic}` | {' | '.join(cells.values())} |" for mnemonic, cells in _rows(found)]
    if found.unsupported:
        lines += ["", "Not modelled:", "", *(f"- {each.reason}" for each in found.unsupported)]
    return "\n".join(lines) + "\n"


@main.command("waits")
@files_argument
def show_waits(paths: tuple[Path, ...]) -> None:
    """Registers used before the load that fills them is waited for, and LDS writes that a barrier does not wait for.

    FILES are texts, or folders of them. What this lint cannot see is said in wavefront/waits.py.
    """
    total = 0
    with _caller_errors():
        every = listings.texts(paths)
        for path in every:
            kernel = listings.read(path)
            try:
                told = findings(kernel)
            except UnsupportedInstruction as error:
                raise Unusable(f"{path}: {error}") from error
            for each in told:
                _say(f"{path}: {each}")
            total += len(told)
    _say(f"{len(every)} texts, {total} findings")
    if total:
        sys.exit(EXIT_FOUND)


# What an instruction is about, by the beginning of its name; the first that fits.
_CLASSES = (
    ("matrix", r"v_(mfma|smfmac|wmma|swmmac)"),
    ("vector", r"v_"),
    ("LDS", r"ds_"),
    ("global memory", r"(buffer|tbuffer|global|flat)_"),
    ("scratch", r"scratch_"),
    ("scalar memory", r"s_(load|buffer_load|store|dcache|prefetch)"),
    ("waits and hints", r"s_(waitcnt|wait_|nop|sleep|setprio|delay_alu|clause|set_inst_prefetch|sched)"),
    ("barriers", r"s_barrier"),
    ("branches and ends", r"s_(branch|cbranch|endpgm|setpc|swappc|call)"),
    ("scalar", r"s_"),
    ("other", r""),
)


def _class(insn: Instruction) -> str:
    return next(name for name, pattern in _CLASSES if re.match(pattern, insn.mnemonic))


def _registers(kernel: Kernel) -> dict[str, int]:
    """The highest register that each bank's operands name, plus one: descriptors count with symbols in some texts."""
    most = {"v": 0, "s": 0, "a": 0}
    for insn in kernel.instructions:
        for operand in (*insn.operands, *(insn.second.operands if insn.second else ())):
            # Scalar numbers above 105 stand for registers with names, such as vcc.
            if operand.kind in most and not (operand.kind == "s" and operand.index > 105):
                most[operand.kind] = max(most[operand.kind], operand.index + operand.count)
    return most


@main.command("show")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def show_kernel(path: Path) -> None:
    """A text in short: name, target, registers, memory, arguments, instructions by class."""
    with _caller_errors():
        kernel = listings.read(path)
        chosen = target(kernel.target)
    used, described = _registers(kernel), kernel.descriptor
    table = Table(show_header=False)
    explicit = sum(not each.kind.startswith("hidden_") for each in kernel.arguments)
    rows: list[tuple[str, Any]] = [
        ("kernel", kernel.name),
        ("target", f"{chosen.name} ({chosen.family}, {chosen.wave} lanes)"),
        ("registers", f"{used['v']} vector, {used['a']} accumulation, {used['s']} scalar"),
        # Triton's LDS is dynamic: how much a launch asks for stands beside the text, in the kernel's metadata.
        ("LDS", f"{described.get('group_segment_fixed_size', 0)} bytes fixed, the rest is the launch's"),
        ("scratch", f"{described.get('private_segment_fixed_size', 0)} bytes a lane"),
        (
            "arguments",
            f"{explicit} and {len(kernel.arguments) - explicit} hidden, {kernel.argument_bytes} bytes",
        ),
        ("instructions", len(kernel.instructions)),
    ]
    counted = Counter(_class(insn) for insn in kernel.instructions)
    rows += [(f"  {name}", counted[name]) for name, _ in _CLASSES if counted[name]]
    missing = {i.mnemonic for i in kernel.instructions if not supported(i.mnemonic, chosen.family)}
    if missing:
        rows.append(("not modelled", ", ".join(sorted(missing))))
    for name, value in rows:
        table.add_row(name, str(value))
    _console().print(table)


if __name__ == "__main__":
    main(prog_name="python -m wavefront")
