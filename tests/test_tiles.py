"""The problems that every row of the tile table is judged by (moe_conformance.tiles)."""

from __future__ import annotations

import pytest
import torch

from moe_conformance.generate import generate
from moe_conformance.problem import Problem
from moe_conformance.tiles import TURNS, problems
from tritonmoe.launch import cdiv
from tritonmoe.tiles import TileRow, table

IN_TURNS = [row for row in table() if row.tile.turn > 1]


@pytest.mark.parametrize("row", IN_TURNS, ids=lambda row: f"{row.tile.block_m} high, turns of {row.tile.turn}")
def test_programs_in_turns_have_a_last_turn_that_must_not_be_counted(row: TileRow):
    """Sizes as tritonmoe.stages.turns_kernel has them: with the unfinished turn there would be one more of crowded
    experts than there are."""
    problem = Problem.model_validate({**TURNS, "dtype": "bf16"})
    rows = torch.bincount(generate(problem, "cpu").ids.flatten().long(), minlength=problem.experts)
    tiles = [cdiv(int(count), row.tile.block_m) for count in rows]
    used, crowded = sum(tiles), sum(count for count in tiles if count > 1)
    turns, rest = divmod(used * cdiv(problem.ffn, row.tile.block_n), row.tile.turn)
    assert rest
    assert crowded * (turns + 1) // used > crowded * turns // used
    assert problem in [each for _, each in problems("gate_up", "bf16", row.tile.turn)]
    assert problem not in [each for _, each in problems("gate_up", "bf16")]


def test_some_rows_take_turns():
    assert IN_TURNS
