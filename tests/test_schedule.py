"""Row tiles in two orders, and the programs of crowded experts that take turns with the others."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

import tritonmoe
from moe_conformance import interpreter
from tritonmoe.stages.schedule import make_schedule
from tritonmoe.stages.turns_kernel import in_turns

interpreter.repair()
BLOCK_M = 32


@triton.jit
def numbers_kernel(numbers, share, total, turn, BLOCK: tl.constexpr):
    program = tl.arange(0, BLOCK)
    tl.store(numbers + program, in_turns(program, total, tl.load(share), turn), mask=program < total)


def numbers(total, crowded, turn):
    """The numbers of all programs, as launched, `crowded` of which belong to crowded experts."""
    share = ceil(Fraction(2**31 * crowded, total))
    found = torch.full((total,), -1, dtype=torch.int32)
    given = torch.tensor([share - 2**32 * (share >= 2**31)], dtype=torch.int32)
    numbers_kernel[(1,)](found, given, total, turn, 512)
    return found.tolist()


@given(st.lists(st.integers(0, 100), min_size=1, max_size=9), st.integers(0, 40))
def test_every_used_tile_is_in_both_lists(rows, dropped):
    """The second has the tiles of experts with several before the others, each kind in the order of the first."""
    ids = torch.tensor([expert for expert, count in enumerate(rows) for _ in range(count)] + [-1] * dropped)
    if not len(ids):
        return
    permutation = tritonmoe.permute(ids[:, None], len(rows))
    made = make_schedule(permutation, BLOCK_M, crowded_first=True)
    used = int(made.tiles_used[0])
    want = []
    for expert, count in enumerate(rows):
        first = sum(rows[:expert])
        want += [(expert, first + at, at // BLOCK_M, first + count) for at in range(0, count, BLOCK_M)]
    assert [tuple(each) for each in zip(made.tile_expert.tolist(), made.tile_start.tolist(), strict=True)] == [
        *[each[:2] for each in want],
        *[(-1, 0)] * (made.num_tiles - used),
    ]
    crowded = [each for each in want if rows[each[0]] > BLOCK_M]
    assert made.crowded_first is not None
    found = [tuple(each) for each in made.crowded_first[:, :used].T.tolist()]
    assert found == crowded + [each for each in want if each not in crowded]
    if used:
        assert int(made.tiles_used[1]) % 2**32 == ceil(Fraction(2**31 * len(crowded), used))


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total))))
def test_crowded_programs_are_spread_evenly(sizes):
    """Every number once; and among the first n launched, n times their share of crowded ones, rounded down."""
    total, crowded = sizes
    found = numbers(total, crowded, 1)
    assert sorted(found) == list(range(total))
    assert [each for each in found if each < crowded] == list(range(crowded))
    assert [each for each in found if each >= crowded] == list(range(crowded, total))
    for launched in range(total + 1):
        assert sum(each < crowded for each in found[:launched]) == launched * crowded // total


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total))), st.integers(1, 64))
def test_turns_of_several_programs_are_spread_like_programs(sizes, turn):
    """Every number once; each turn has numbers that follow each other, and what is left over is at the end."""
    total, crowded = sizes
    found = numbers(total, crowded, turn)
    assert sorted(found) == list(range(total))
    whole = total // turn
    assert found[whole * turn :] == list(range(whole * turn, total))
    first = found[: whole * turn : turn]
    assert found[: whole * turn] == [start + at for start in first for at in range(turn)]
    # A turn is a program of `whole` ones; the share of crowded ones among all programs holds for turns, rounded down.
    of_crowded = crowded * whole // total
    assert [start // turn for start in first if start // turn < of_crowded] == list(range(of_crowded))
    for launched in range(whole + 1):
        assert sum(start // turn < of_crowded for start in first[:launched]) == launched * crowded // total
