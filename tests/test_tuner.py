"""The tuner of the tile table: candidates, what is timed, and the rows that it proposes."""

from __future__ import annotations

import tomllib

import torch
from benchmarks import tune
from benchmarks.floor import Ceilings
from benchmarks.layer import make_batch, make_layer
from benchmarks.timing import Clock, Deadline, Repeats
from benchmarks.workloads import shapes

import tritonmoe
from moe_conformance import interpreter
from tritonmoe.tiles import table

interpreter.repair()
CPU = torch.device("cpu")
TINY = shapes()["tiny"]
TILE = {"block_m": 64, "block_n": 64, "block_k": 128, "group_m": 1, "num_warps": 4, "num_stages": 3}


def test_the_best_candidate_that_ran_is_proposed_as_a_row_of_the_table():
    current = tune.Score("down", 16, {}, {"a T=1": 2.0}, current=True)
    tile = {**TILE, "descriptors": True, "halves_from": 0}
    better = tune.Score("down", 16, tile, {"a T=1": 1.5})
    failed = tune.Score("down", 16, {**TILE, "num_warps": 8}, {"a T=1": 1.0}, failure="out of resources")
    (row,) = tomllib.loads(tune.proposal([current, better, failed], 2))["down"]
    # 3 stages of (64 + 64) rows, 128 deep, 2 bytes: 98,304, a multiple of 32 KiB
    assert row == {"itemsize": 2, "rows_up_to": 16, "shared_memory": 98304, "tile": tile}
    assert "keep the table's tile" in tune.proposal([current, failed], 2)


def test_classes_that_differ_by_depth_have_a_row_each():
    scores = [
        tune.Score("down_direct", 256, tile, {"a T=1": ratio}, current=not tile, depth_up_to=depth)
        for depth, ratio in ((1024, 1.5), (None, 1.25))
        for tile, ratio in (({}, 2.0), (TILE, ratio))
    ]
    first, second = tomllib.loads(tune.proposal(scores, 2))["down_direct"]
    assert first["depth_up_to"] == 1024
    assert "depth_up_to" not in second
    kept = tune.proposal([score for score in scores if score.current], 2)
    assert "# down_direct up to 256 rows, F up to 1024: keep" in kept
    assert "# down_direct up to 256 rows: keep" in kept


def test_candidates_are_tiles_of_stages_in_the_table():
    for each in tune.candidates():
        assert all(tritonmoe.Tile(**tile) for tile in each.tiles)
    assert set(tune.tunable()) <= {row.stage for row in table()}


def test_the_tables_first_choices_are_among_the_candidates():
    """Else a run of the tuner could not find what the table has. First choices: of a device with 224 KiB, 16 bits."""
    for each in tune.candidates():
        rows = [
            row
            for row in table()
            if (row.stage, row.itemsize) == (each.stage, 2)
            and each.rows_up_to <= row.rows_up_to
            and row.depth_up_to in (None, each.depth_up_to)
        ]
        fields = {field: getattr(rows[0].tile, field) for field in TILE}
        assert any(fields == {field: tile[field] for field in TILE} for tile in each.tiles), each.stage


def test_classes_of_direct_stages_are_timed_where_the_forward_takes_them():
    layer = make_layer(TINY, torch.float32, CPU)
    direct = tune.Class("down_direct", 24, (8, 4096), ())
    assert direct.tokens(layer) == [8 // TINY.top_k]
    assert tune.Class("down", 24, (8, 4096), ()).tokens(layer) == [
        rows * TINY.experts // TINY.top_k for rows in (8, 4096)
    ]
    assert tune.Class("down_direct", 24, (8,), (), depth_up_to=TINY.ffn - 1).tokens(layer) == []
    assert tune.Class("down_direct", 24, (8,), (), depth_above=TINY.ffn).tokens(layer) == []


def test_a_shape_belongs_to_one_class_by_its_depth():
    classes = [each for each in tune.candidates() if each.stage == "down_direct"]
    for up_to in {each.rows_up_to for each in classes}:
        bounds = [(each.depth_above, each.depth_up_to) for each in classes if each.rows_up_to == up_to]
        assert bounds == [(0, 1024), (1024, None)]


def test_a_stage_is_the_same_with_any_tile():
    layer = make_layer(TINY, torch.float32, CPU)
    batch = make_batch(TINY, 4, "uniform", torch.float32, CPU)
    tile = tritonmoe.Tile(16, 32, 32, 1, 1, 1)
    made = tune.calls(layer, batch)
    assert set(made) == set(tune.tunable())
    for call in made.values():
        torch.testing.assert_close(call(tile), call(None))


def test_a_candidate_that_cannot_run_is_left_out_and_says_why(monkeypatch):
    good = {**TILE, "block_m": 16, "block_k": 32, "num_warps": 1, "num_stages": 1}
    group = tune.Class("down", 16, (4,), (good, {**good, "block_m": 17}))
    monkeypatch.setattr(tune, "candidates", lambda: (group,))
    said: list[str] = []
    ceilings = Ceilings(1e12, 1e12)
    clock = Clock(CPU, Repeats(2, 2))
    current, ran, refused = tune.tune(["down"], [TINY], "bf16", clock, ceilings, Deadline(None), said.append)
    assert current.current
    assert set(current.ratios) == set(ran.ratios) == {f"tiny T={4 * TINY.experts // TINY.top_k}"}
    assert refused.failure is not None
    assert "block_m" in refused.failure
    assert len(said) == 1
