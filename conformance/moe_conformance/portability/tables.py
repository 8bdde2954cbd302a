"""The matrix as tables for a person: by target, by kernel, and the drift between versions of Triton."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.console import Console
from rich.table import Table

from .baseline import total, worse
from .cases import Case
from .compiling import Cell
from .matrix import Matrix, findings_of
from .targets import targets

SHOWN = 20  # changed cells printed for each pair of versions


def _columns(table: Table, *names: str) -> None:
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index else "left")


def _by_target(matrix: Matrix) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {name: [] for name in matrix.targets}
    for cell in matrix.cells.values():
        found[cell.target].append(cell)
    return found


def print_matrix(console: Console, matrix: Matrix, cases: Mapping[str, Case]) -> None:
    """One row a target; then one row a kernel with its most registers on each target."""
    title = f"Triton {matrix.triton}: {len(matrix.cells)} cells ({', '.join(matrix.levels)})"
    table = Table(title=title, title_justify="left")
    _columns(table, "target", "cells", "compiled", "spilling", "most spilled", "most registers", "scalar spills")
    for name in ("shared memory", "of", "products", "on matrix units", "code KiB", "compiler s"):
        table.add_column(name, justify="right")
    for name, cells in _by_target(matrix).items():
        good = [cell for cell in cells if not cell.error]
        table.add_row(
            name,
            str(len(cells)),
            str(len(good)),
            str(sum(bool(cell.spills or cell.scratch) for cell in good)),
            str(max((cell.spills for cell in good), default=0)),
            str(max((cell.registers for cell in good), default=0)),
            str(sum(bool(cell.scalar_spills) for cell in good)),
            str(max((cell.shared for cell in good), default=0)),
            str(targets()[name].shared_memory),
            str(sum(bool(cell.products) for cell in good)),
            str(sum(bool(cell.products and cell.matrix) for cell in good)),
            str(total(good, "code") // 1024),
            f"{sum(cell.seconds for cell in good):.0f}",
        )
    console.print(table)
    title = "Most registers of a lane by kernel (!: some cell spills; x: some cell does not compile)"
    table = Table(title=title, title_justify="left")
    _columns(table, "kernel", *matrix.targets)
    by_kernel: dict[str, dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in matrix.cells.values():
        by_kernel[cases[cell.case].kernel.partition(":")[2]][cell.target].append(cell)
    for kernel in sorted(by_kernel):
        table.add_row(kernel, *(_registers(by_kernel[kernel][name]) for name in matrix.targets))
    console.print(table)


def _registers(cells: Sequence[Cell]) -> str:
    if not cells:
        return "-"
    marks = ("x" if any(cell.error for cell in cells) else "") + ("!" if any(cell.spills for cell in cells) else "")
    return f"{marks}{max(cell.registers for cell in cells)}"


def drift_rows(old: Matrix, new: Matrix) -> tuple[list[list[str]], list[str]]:
    """Two matrices over their common cells: a row for each target, and each cell that became worse, in words."""
    rows, lines = [], []
    pairs: dict[str, list[tuple[Cell, Cell]]] = defaultdict(list)
    for key in sorted(old.cells.keys() & new.cells.keys()):
        pairs[key[1]].append((old.cells[key], new.cells[key]))
    for name in targets():
        if name not in pairs:
            continue
        compiled = [(a, b) for a, b in pairs[name] if not a.error and not b.error]
        counts: Counter[str] = Counter()
        for a, b in pairs[name]:
            words = worse(a, b)
            counts["worse"] += bool(words)
            counts["better"] += bool(worse(b, a)) and not words
            lines += [f"{name} {a.case}: {text}" for text in words]
        rows.append(
            [
                name,
                str(len(pairs[name])),
                f"{sum(bool(a.error) for a, _ in pairs[name])} | {sum(bool(b.error) for _, b in pairs[name])}",
                f"{sum(bool(a.spills) for a, _ in compiled)} | {sum(bool(b.spills) for _, b in compiled)}",
                *(_change(compiled, field) for field in ("registers", "shared", "code")),
                f"{sum(bool(a.matrix) for a, _ in compiled)} | {sum(bool(b.matrix) for _, b in compiled)}",
                str(counts["worse"]),
                str(counts["better"]),
            ]
        )
    return rows, lines


def _change(pairs: Sequence[tuple[Cell, Cell]], name: str) -> str:
    before, after = total((a for a, _ in pairs), name), total((b for _, b in pairs), name)
    return f"{after / before - 1:+.1%}" if before else "-"


def print_drift(console: Console, matrices: Sequence[Matrix], cases: Mapping[str, Case]) -> None:
    """Each matrix against the one before it."""
    for old, new in pairwise(matrices):
        rows, lines = drift_rows(old, new)
        title = f"Triton {old.triton} | {new.triton}: cells in both"
        table = Table(title=title, title_justify="left")
        _columns(table, "target", "cells", "not compiled", "spilling", "registers", "shared", "code", "matrix units")
        for name in ("worse", "better"):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for line in lines[:SHOWN]:
            name, _, rest = line.partition(" ")
            key, _, words = rest.partition(": ")
            what = cases[key].describe() if key in cases else key
            console.print(f"  {name} {what}: {words}", markup=False, highlight=False, soft_wrap=True)
        if len(lines) > SHOWN:
            console.print(f"  and {len(lines) - SHOWN} more", highlight=False)
    for matrix in matrices:
        found = [
            each for key, cell in matrix.cells.items() if key[0] in cases for each in findings_of(cell, cases[key[0]])
        ]
        kinds = Counter((each.kind, each.level) for each in found)
        words = ", ".join(f"{count} {kind} ({level})" for (kind, level), count in sorted(kinds.items()))
        console.print(f"Triton {matrix.triton}: findings: {words or 'none'}", highlight=False)
