"""The kept matrix: what every cell compiled to when somebody last looked, and what a change made worse.

data/compile_baseline.txt has a line for each case and one for each of its targets, so that a change shows as lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..whole_file import write_whole
from .cases import Case
from .compiling import Cell
from .matrix import Matrix
from .targets import settings

FILE = Path(__file__).parent.parent / "data" / "compile_baseline.txt"
_NUMBERS = ("registers", "spills", "scalar_spills", "scratch", "shared", "matrix", "code")
_HEADER = f"""\
# What every compile case compiles to, by target. Written by `moe-conformance compile --write` with --full or --chosen;
# do not edit.
# A case's line has its id and its configuration; below it, for each target: {", ".join(_NUMBERS)},
# and the element types of its products, or the compiler's error.
"""


class BaselineInvalid(ValueError):
    """The file is missing or cut; the message says which."""


@dataclass(frozen=True)
class Baseline:
    """Kept cells of some levels (cases.LEVELS), with the configuration of each case in words."""

    triton: str
    levels: tuple[str, ...]
    configurations: dict[str, str]
    cells: dict[tuple[str, str], Cell]


def written(matrix: Matrix, cases: Mapping[str, Case]) -> str:
    """The file's text."""
    by_case: dict[str, list[Cell]] = defaultdict(list)
    for cell in matrix.cells.values():
        by_case[cell.case].append(cell)
    lines = [_HEADER + f"triton {matrix.triton}", f"levels {' '.join(matrix.levels)}"]
    for key in sorted(by_case, key=lambda each: (cases[each].kernel, cases[each].describe(), each)):
        lines.append(f"{key} {cases[key].describe()}")
        for cell in sorted(by_case[key], key=lambda each: each.target):
            numbers = " ".join(str(getattr(cell, name)) for name in _NUMBERS)
            tail = f"error {cell.error}" if cell.error else ",".join(cell.products) or "-"
            lines.append(f"\t{cell.target} {numbers} {tail}")
    return "\n".join(lines) + "\nend\n"


def write(path: Path, matrix: Matrix, cases: Mapping[str, Case]) -> None:
    write_whole(path, written(matrix, cases))


def read(path: Path = FILE) -> Baseline:
    """The kept matrix. Raises BaselineInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineInvalid(f"{path} cannot be read: {error}. `compile --full --write` makes it") from error
    return parse(text, str(path))


def parse(text: str, path: str) -> Baseline:
    """The kept matrix in a text that came from `path`. Raises BaselineInvalid."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    if len(lines) < 3 or not lines[0].startswith("triton ") or not lines[1].startswith("levels ") or lines[-1] != "end":
        raise BaselineInvalid(f"{path} is no whole baseline")
    configurations: dict[str, str] = {}
    cells: dict[tuple[str, str], Cell] = {}
    case = ""
    try:
        for line in lines[2:-1]:
            if not line.startswith("\t"):
                case, _, configurations[case] = line.partition(" ")
                continue
            name, *rest = line.strip().split(" ", len(_NUMBERS) + 1)
            numbers = {key: int(value) for key, value in zip(_NUMBERS, rest, strict=False)}
            tail = rest[len(_NUMBERS)]
            error = tail.removeprefix("error ") if tail.startswith("error ") else ""
            products = () if error or tail == "-" else tuple(tail.split(","))
            cells[case, name] = Cell(case=case, target=name, error=error, products=products, **numbers)
    except (ValueError, IndexError) as error:
        raise BaselineInvalid(f"{path} is no baseline: {error}") from error
    levels = tuple(lines[1].split()[1:])
    return Baseline(lines[0].removeprefix("triton "), levels, configurations, cells)


@dataclass(frozen=True, order=True)
class Change:
    """A cell that became worse (or new, or gone), in words."""

    target: str
    configuration: str
    message: str

    def __str__(self) -> str:
        return f"{self.target}: {self.configuration}: {self.message}"


def worse(old: Cell, new: Cell) -> list[str]:
    """In what a cell became worse; empty where in nothing that counts."""
    if new.error:
        return [] if old.error else [f"does not compile any more: {new.error}"]
    if old.error:
        return []
    found = []
    for name, words in (
        ("spills", "spilled registers"),
        ("scalar_spills", "spilled scalar registers"),
        ("scratch", "bytes of private memory"),
        ("shared", "bytes of shared memory"),
    ):
        before, after = getattr(old, name), getattr(new, name)
        if after > before:
            found.append(f"{words} {before} -> {after}")
    if old.matrix and not new.matrix:
        found.append(f"matrix instructions {old.matrix} -> 0")
    for name, slack in (("registers", settings().registers_slack), ("code", settings().code_slack)):
        before, after = getattr(old, name), getattr(new, name)
        if after > before * (1 + slack):
            words = "registers" if name == "registers" else "bytes of code"
            found.append(f"{words} {before} -> {after} (+{after / max(before, 1) - 1:.0%}, allowed +{slack:.0%})")
    return found


def _matched(baseline: Baseline, matrix: Matrix, cases: Mapping[str, Case]) -> dict[tuple[str, str], Cell]:
    """The kept cell of each new one: the same case, or else one of the same configuration, in order.

    A kernel that gets another argument changes the id of all its cases; its configurations stay what they are.
    """
    found = {key: baseline.cells[key] for key in matrix.cells if key in baseline.cells}
    free: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for key in sorted(baseline.cells.keys() - found.keys()):
        free[key[1], baseline.configurations[key[0]]].append(baseline.cells[key])
    for key in sorted(matrix.cells.keys() - found.keys()):
        candidates = free[key[1], cases[key[0]].describe()]
        if candidates:
            found[key] = candidates.pop(0)
    return found


def changes(baseline: Baseline, matrix: Matrix, cases: Mapping[str, Case]) -> list[Change]:
    """What is worse than the baseline, not in it, or in it and no longer made; over the levels that both have."""
    matched = _matched(baseline, matrix, cases)
    made = []
    for key, cell in matrix.cells.items():
        kept_level = cases[key[0]].levels.get(key[1]) in baseline.levels
        words = worse(matched[key], cell) if key in matched else ["not in the baseline"] if kept_level else []
        made += [Change(cell.target, cases[key[0]].describe(), text) for text in words]
    if set(matrix.levels) >= set(baseline.levels):
        used = {cell.key for cell in matched.values()}
        for key in sorted(baseline.cells.keys() - used):
            if key[1] in matrix.targets:
                made.append(Change(key[1], baseline.configurations[key[0]], "in the baseline, and no longer made"))
    return sorted(made)


def better(baseline: Baseline, matrix: Matrix) -> int:
    """Cells with fewer spills, registers or bytes than were kept: a reason to write the baseline anew."""
    same = matrix.cells.keys() & baseline.cells.keys()
    return sum(_sum(matrix.cells[key]) < _sum(baseline.cells[key]) for key in same)


def _sum(cell: Cell) -> tuple[int, ...]:
    return cell.spills, cell.registers, cell.code


def total(cells: Iterable[Cell], name: str) -> int:
    """Sum of a number over cells."""
    return sum(int(getattr(cell, name)) for cell in cells)
