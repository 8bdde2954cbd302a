"""The matrix: cases by targets, compiled in several processes, and what is wrong with the result by itself."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..whole_file import write_whole
from .cases import LEVELS, POSSIBLE, Case
from .compiling import Cell, compile_case
from .targets import Target, target, targets

_BATCH = 8
CRASHED = "the compiler ended its process"


@dataclass(frozen=True)
class Matrix:
    """A compiled matrix. levels: how far down cases.LEVELS it goes. seconds: wall time."""

    triton: str
    levels: tuple[str, ...]
    targets: tuple[str, ...]
    seconds: float
    cells: dict[tuple[str, str], Cell]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        content = {
            "schema_version": 1,
            "triton": self.triton,
            "levels": self.levels,
            "targets": self.targets,
            "seconds": round(self.seconds, 1),
            "cells": [asdict(self.cells[key]) for key in sorted(self.cells)],
        }
        write_whole(path, json.dumps(content))


class MatrixInvalid(ValueError):
    """A file is no matrix of this schema; the message names it."""


def read_matrix(path: Path) -> Matrix:
    """The matrix in a file. Raises MatrixInvalid."""
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if read["schema_version"] != 1:
            raise MatrixInvalid(f"{path} has schema_version {read['schema_version']}, this suite reads 1")
        cells = [Cell(**{**cell, "products": tuple(cell["products"])}) for cell in read["cells"]]
        return Matrix(
            read["triton"],
            tuple(read["levels"]),
            tuple(read["targets"]),
            read["seconds"],
            {cell.key: cell for cell in cells},
        )
    except OSError as error:
        raise MatrixInvalid(f"{path} cannot be read: {error}") from error
    except MatrixInvalid:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise MatrixInvalid(f"{path} is no matrix of compiled cells: {error}") from error


def jobs(cases: Iterable[Case], chosen: Sequence[Target], levels: Sequence[str]) -> list[tuple[Case, Target]]:
    """The cells to compile, the longest kernels first in no order that matters for the result."""
    return [(case, each) for case in cases for each in chosen if case.levels.get(each.name) in levels]


def _batch(batch: list[tuple[Case, str]], cache: Path | None) -> list[Cell]:
    return [compile_case(case, target(name), cache) for case, name in batch]


def compile_all(
    wanted: Sequence[tuple[Case, Target]],
    processes: int,
    cache: Path | None,
    told: Callable[[int], None] = lambda done: None,
) -> dict[tuple[str, str], Cell]:
    """Every cell, in processes of their own: Triton compiles in one thread. A crash costs its own cell alone."""
    plain = [(case, each.name) for case, each in wanted]
    batches = [plain[start : start + _BATCH] for start in range(0, len(plain), _BATCH)]
    found, lost = _in_pool(batches, processes, cache, told)
    for batch in lost:
        for single in batch:
            cells, crashed = _in_pool([[single]], 1, cache, told)
            found |= cells
            if crashed:
                found[single[0].id, single[1]] = Cell(single[0].id, single[1], error=CRASHED)
    return found


def _in_pool(
    batches: list[list[tuple[Case, str]]], processes: int, cache: Path | None, told: Callable[[int], None]
) -> tuple[dict[tuple[str, str], Cell], list[list[tuple[Case, str]]]]:
    found: dict[tuple[str, str], Cell] = {}
    lost = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        waiting = {pool.submit(_batch, batch, cache): batch for batch in batches}
        for future in as_completed(waiting):
            try:
                cells = future.result()
            except BrokenProcessPool:
                lost.append(waiting[future])
                continue
            found |= {cell.key: cell for cell in cells}
            told(len(cells))
    return found, lost


def build(
    cases: dict[str, Case],
    chosen: Sequence[Target],
    levels: Sequence[str],
    processes: int,
    cache: Path | None,
    told: Callable[[int], None] = lambda done: None,
) -> Matrix:
    """Compile the matrix with the installed Triton."""
    import triton

    begin = time.monotonic()
    cells = compile_all(jobs(cases.values(), chosen, levels), processes, cache, told)
    seconds = time.monotonic() - begin
    return Matrix(triton.__version__, tuple(levels), tuple(each.name for each in chosen), seconds, cells)


@dataclass(frozen=True, order=True)
class Finding:
    """Something wrong with a cell by itself. kind: compile, spills, shared or matrix. amount: how much of it."""

    kind: str
    target: str
    case: str
    level: str
    message: str
    amount: int = 0


def findings_of(cell: Cell, case: Case) -> list[Finding]:
    """What is wrong with a cell, whatever it was before."""
    limits, level = targets()[cell.target], case.levels.get(cell.target, POSSIBLE)

    def finding(kind: str, message: str, amount: int = 0) -> Finding:
        return Finding(kind, cell.target, case.id, level, f"{case.describe()}: {message}", amount)

    if cell.error:
        return [finding("compile", f"does not compile: {cell.error}")]
    found = []
    if cell.spills or cell.scratch:
        message = f"spills {cell.spills} registers, {cell.scratch} bytes of memory a lane"
        found.append(finding("spills", message, max(cell.spills, 1)))
    if cell.shared > limits.shared_memory:
        message = f"needs {cell.shared} bytes of shared memory of {limits.shared_memory}"
        found.append(finding("shared", message, cell.shared))
    expected = [name for name in cell.products if name in limits.matrix]
    if expected and not cell.matrix:
        found.append(finding("matrix", f"multiplies {', '.join(expected)} without a matrix instruction"))
    return found


def findings(matrix: Matrix, cases: dict[str, Case]) -> list[Finding]:
    """What is wrong with a matrix by itself, chosen cells first."""
    found = [each for key, cell in matrix.cells.items() for each in findings_of(cell, cases[key[0]])]
    return sorted(found, key=lambda each: (LEVELS.index(each.level), each))
