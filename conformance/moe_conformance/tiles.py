"""`moe-conformance tiles`: every row of tritonmoe's tile table on a few problems, exact ones among them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click
import torch
from rich.table import Table

from .backends import NAMES, Backend, shared_memory
from .command_line import prepared, screen
from .findings import NonConformance
from .implementation import Implementation
from .problem import Problem
from .registry import all_properties, make_trial, run_trial

# Sizes with whole vectors, with odd tails, and with more rows an expert than the highest tile; and the exact lane.
SHAPES = (
    {"tokens": 40, "hidden": 144, "ffn": 80, "experts": 5, "top_k": 2, "seed": 1},
    {"tokens": 19, "hidden": 99, "ffn": 67, "experts": 3, "top_k": 2, "layout": "padded", "seed": 2},
    {"tokens": 300, "hidden": 72, "ffn": 136, "experts": 2, "top_k": 1, "seed": 3},
)
EXACT = (
    {"tokens": 37, "hidden": 96, "ffn": 72, "experts": 4, "top_k": 2, "values": "exact", "seed": 4},
    {"tokens": 150, "hidden": 57, "ffn": 41, "experts": 2, "top_k": 2, "values": "exact", "seed": 5},
)
# For rows whose programs take turns: the last turn is no whole one, and would be one of crowded experts if it were.
TURNS = {
    **{"tokens": 300, "hidden": 72, "ffn": 1544, "experts": 4, "top_k": 1, "seed": 1},
    "load": {"kind": "zipf", "s": 1.2},
}
PROPERTIES = {
    "route": ("route", "route_is_exact"),
    "gate_up": ("gate_up", "gate_up_is_exact"),
    "down": ("down", "down_is_exact"),
    "forward": ("forward", "forward_is_exact"),  # the direct stages have no other door
}


@dataclass
class Count:
    """What came of one row: problems that passed and failed, and the first failure in words."""

    passed: int = 0
    refused: int = 0
    failed: int = 0
    message: str = ""

    def complaint(self) -> str:
        """What is wrong with the row: its first failure, or that no problem said anything about it."""
        return self.message or ("" if self.passed else "no problem passed")


def problems(stage: str, dtype: str, turn: int = 1) -> Iterator[tuple[str, Problem]]:
    """The property and the problem of each trial. turn: the row's."""
    ordinary, exact = PROPERTIES[stage]
    for name, shapes in ((ordinary, SHAPES if turn == 1 else (*SHAPES, TURNS)), (exact, EXACT)):
        for shape in shapes:
            yield name, Problem.model_validate({**shape, "dtype": dtype})


def judge_row(stage: str, dtype: str, made: Implementation, backend: Backend, count: Count, turn: int = 1) -> None:
    """All problems of one row in one dtype, the row being forced already. turn: the row's."""
    for name, problem in problems(stage, dtype, turn):
        prop = all_properties()[name]
        trial = make_trial(prop, problem, made, "tritonmoe", backend)
        try:
            run_trial(trial, prop.check)
        except NonConformance as failure:
            count.failed += 1
            count.message = count.message or str(failure)
            continue
        refused = any(verdict.outcome == "refused" for verdict in trial.verdicts)
        count.refused += refused
        count.passed += not refused


@click.command()
@click.option("--backend", default="auto", show_default=True, type=click.Choice([*NAMES, "auto"]), help="where it runs")
def tiles(backend: str) -> None:
    """Judge tritonmoe with every row of its tile table that the backend's shared memory admits; exit 1 on a failure."""
    found, made = prepared(backend, "tritonmoe")
    from .implementations.every_tile import DTYPES, forced, name_of, rows, stage_of

    torch.set_num_threads(1)
    console = screen()
    table = Table("tile", "dtype", "passed", "refused", "failed", title=f"every tile on {found.name}")
    messages = []
    for row in rows(shared_memory(found)):
        for dtype in DTYPES[row.itemsize] if row.itemsize else ("bf16", "fp16", "fp32"):
            count = Count()
            with forced(row):
                judge_row(stage_of(row), dtype, made, found, count, row.tile.turn)
            table.add_row(name_of(row), dtype, str(count.passed), str(count.refused), str(count.failed))
            if complaint := count.complaint():
                messages.append(f"{name_of(row)}, {dtype}: {complaint}")
    console.print(table)
    for message in messages:
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(1 if messages else 0)
