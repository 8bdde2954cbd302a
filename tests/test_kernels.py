"""What the kernels promise to their callers beyond the contract: dropped ids, views, argument errors, tiles."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import tritonmoe
from moe_conformance import interpreter, oracle
from moe_conformance.generate import Inputs, generate
from moe_conformance.implementation import load
from moe_conformance.judge import judge
from moe_conformance.oracle import Ball
from moe_conformance.problem import Load, Problem
from tritonmoe import tiles
from tritonmoe.launch import describable
from tritonmoe.stages import route as route_module
from tritonmoe.stages.down_direct import run_down_direct
from tritonmoe.stages.gate_up_direct import run_gate_up_direct

interpreter.repair()
OURS = load("tritonmoe")
SILU = tritonmoe.Activation("silu")
RULE = tritonmoe.RouterRule("softmax", renormalize=True)


def inputs(**fields) -> Inputs:
    sizes = {"tokens": 7, "hidden": 20, "ffn": 18, "experts": 4, "top_k": 2, "seed": 2}
    return generate(Problem(**sizes | fields), "cpu", whole_forward=True)


def experts(made: Inputs, ids: torch.Tensor, weights: torch.Tensor, **more) -> torch.Tensor:
    return tritonmoe.experts_forward(made.x, ids, weights, made.w_gate, made.w_up, made.w_down, **more)


# -- dropped ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("stranger", [-1, 4, 5, 2**31 - 1, -(2**31)])
def test_dropped_ids_contribute_nothing(stranger, dtype):
    """A choice outside [0, E) is as if its weight were zero, to the last bit, and even if that weight is NaN."""
    made = inputs(dtype=dtype)
    ids, weights = made.ids.clone(), made.weights.clone()
    dropped = torch.zeros(7, 2, dtype=torch.bool)
    dropped[0, 1] = dropped[3, 0] = dropped[5, 0] = dropped[5, 1] = True
    want = experts(made, ids, weights.masked_fill(dropped, 0.0))
    found = experts(made, ids.masked_fill(dropped, stranger), weights.masked_fill(dropped, float("nan")))
    assert torch.equal(found, want)
    assert not bool(found[5].any()), "a token without experts gives zeros"


def test_all_ids_dropped():
    made = inputs(shared_ffn=5)
    shared = tritonmoe.SharedExpert(**vars(made.shared))
    nobody = torch.full((7, 2), -1, dtype=torch.int32)
    assert not bool(experts(made, nobody, made.weights).any())
    alone = experts(made, nobody, made.weights, shared_expert=shared)
    both = experts(made, made.ids, torch.zeros(7, 2), shared_expert=shared)
    assert bool(alone.any())
    assert torch.equal(alone, both)


def test_64_bit_ids_are_compared_at_their_width():
    made = inputs()
    want = experts(made, made.ids, made.weights)
    assert torch.equal(experts(made, made.ids.long(), made.weights), want)
    beyond = made.ids.long()
    beyond[2] += 2**32  # wraps to a legal expert in 32 bits
    assert torch.equal(experts(made, beyond, made.weights)[2], torch.zeros(20))
    strided = torch.stack((made.ids.long(), made.ids.long() + 1), dim=-1)[..., 0]
    assert torch.equal(experts(made, strided, made.weights), want)


def test_permutation_sorts_dropped_rows_behind_every_expert():
    ids = torch.tensor([[2, -1], [0, 7], [2, 0]])
    found = tritonmoe.permute(ids, 3)
    assert found.offsets.tolist() == [0, 2, 2, 4]
    assert found.order.tolist() == [2, 5, 0, 4, 1, 3]
    assert found.inverse.tolist() == [2, 4, 0, 5, 3, 1]


# -- packed weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "shape"), list(itertools.product(("concatenated", "interleaved"), ((3, 8, 5), (3, 8))))
)
def test_split_gate_up_gives_views(layout, shape):
    packed = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    gate, up = tritonmoe.split_gate_up(packed, layout)
    halves = (packed[:, :4], packed[:, 4:]) if layout == "concatenated" else (packed[:, ::2], packed[:, 1::2])
    for view, half in zip((gate, up), halves, strict=True):
        assert torch.equal(view, half)
        assert view.untyped_storage().data_ptr() == packed.untyped_storage().data_ptr()
        assert view.shape == (3, 4, *shape[2:])


@pytest.mark.parametrize(
    ("packed", "layout", "error", "name"),
    [
        (torch.zeros(2, 7, 3), "concatenated", ValueError, "w13"),
        (torch.zeros(2, 0, 3), "concatenated", ValueError, "w13"),
        (torch.zeros(4), "concatenated", ValueError, "w13"),
        (torch.zeros(2, 8, 3, dtype=torch.int32), "concatenated", TypeError, "w13"),
        ([[1.0]], "concatenated", TypeError, "w13"),
        (torch.zeros(2, 8, 3), "swizzled", ValueError, "layout"),
        (torch.zeros(2, 8, 3), None, TypeError, "layout"),
    ],
)
def test_split_gate_up_refuses(packed, layout, error, name):
    with pytest.raises(error, match=name):
        tritonmoe.split_gate_up(packed, layout)


# -- argument errors of the stages (those of moe_forward are BAD-1) --------------------------------------------------

MADE = inputs()
PERMUTATION = tritonmoe.permute(MADE.ids, 4)
OTHER = tritonmoe.permute(MADE.ids[:5], 4)
LOGITS = torch.zeros(7, 4)
GOOD = {
    "route": dict(x=MADE.x, router_weight=MADE.router_weight, top_k=2, rule=RULE),
    "router_logits": dict(x=MADE.x, router_weight=MADE.router_weight),
    "select_experts": dict(logits=LOGITS, top_k=2, rule=RULE),
    "permute": dict(ids=MADE.ids, num_experts=4),
    "gate_up": dict(x=MADE.x, permutation=PERMUTATION, w_gate=MADE.w_gate, w_up=MADE.w_up, activation=SILU),
    "down": dict(h=MADE.h, permutation=PERMUTATION, w_down=MADE.w_down),
    "combine": dict(y=MADE.y, weights=MADE.weights, permutation=PERMUTATION),
    "experts_forward": dict(
        x=MADE.x, ids=MADE.ids, weights=MADE.weights, w_gate=MADE.w_gate, w_up=MADE.w_up, w_down=MADE.w_down
    ),
}
FEW = tritonmoe.RouterRule("sigmoid", renormalize=False, n_group=4, topk_group=1)
SHORT = replace(PERMUTATION, inverse=PERMUTATION.inverse[1:])
ODD = tritonmoe.RouterRule("sigmoid", renormalize=False, n_group=3)
BAD = [
    ("route", "x", MADE.x.int(), TypeError, "x"),
    ("route", "top_k", 5, ValueError, "top_k"),
    ("route", "top_k", True, TypeError, "top_k"),
    ("route", "top_k", 2.0, TypeError, "top_k"),
    ("route", "rule", "softmax", TypeError, "rule"),
    ("route", "rule", FEW, ValueError, "top_k"),
    ("route", "rule", ODD, ValueError, "n_group"),
    ("route", "selection_bias", torch.zeros(5), ValueError, "selection_bias"),
    ("route", "expert_scale", torch.zeros(4).long(), TypeError, "expert_scale"),
    ("route", "input_precision", "fp8", ValueError, "input_precision"),
    ("router_logits", "router_weight", MADE.router_weight[:, 1:], ValueError, "router_weight"),
    ("router_logits", "router_weight", torch.zeros(1025, 20), ValueError, "1024"),
    ("router_logits", "logit_bias", [0.0] * 4, TypeError, "logit_bias"),
    ("router_logits", "input_precision", None, TypeError, "input_precision"),
    ("select_experts", "logits", LOGITS.half(), TypeError, "logits"),
    ("select_experts", "logits", LOGITS[0], ValueError, "logits"),
    ("select_experts", "logits", torch.zeros(7, 0), ValueError, "logits"),
    ("select_experts", "top_k", 0, ValueError, "top_k"),
    ("permute", "ids", MADE.ids.short(), TypeError, "ids"),
    ("permute", "ids", MADE.ids[0], ValueError, "ids"),
    ("permute", "ids", torch.zeros(0, 0, dtype=torch.int32), ValueError, "top_k"),
    ("permute", "num_experts", 0, ValueError, "num_experts"),
    ("permute", "num_experts", 1025, ValueError, "num_experts"),
    ("permute", "num_experts", "4", TypeError, "num_experts"),
    ("gate_up", "permutation", MADE.ids, TypeError, "permutation"),
    ("gate_up", "permutation", OTHER, ValueError, "permutation"),
    ("gate_up", "permutation", replace(PERMUTATION, order=PERMUTATION.order.long()), TypeError, "permutation.order"),
    ("gate_up", "permutation", replace(PERMUTATION, num_experts=3), ValueError, "permutation.offsets"),
    ("gate_up", "w_gate", MADE.w_gate.half(), TypeError, "w_gate"),
    ("gate_up", "w_up", MADE.w_up[:3], ValueError, "w_up"),
    ("gate_up", "activation", "silu", TypeError, "activation"),
    ("gate_up", "gate_bias", torch.zeros(4, 17), ValueError, "gate_bias"),
    ("gate_up", "tile", (16, 16, 16), TypeError, "tile"),
    ("down", "h", MADE.h[:13], ValueError, "permutation"),
    ("down", "h", MADE.h.to("meta"), ValueError, "h"),
    ("down", "permutation", OTHER, ValueError, "permutation"),
    ("down", "w_down", MADE.w_down[..., 1:], ValueError, "w_down"),
    ("down", "down_bias", torch.zeros(4), ValueError, "down_bias"),
    ("combine", "y", MADE.y.double(), TypeError, "y"),
    ("combine", "weights", MADE.weights.half(), TypeError, "weights"),
    ("combine", "weights", MADE.weights.T, ValueError, "weights"),
    ("combine", "permutation", SHORT, ValueError, "permutation.inverse"),
    ("combine", "addend", MADE.x.half(), TypeError, "addend"),
    ("combine", "addend", MADE.x[1:], ValueError, "addend"),
    ("experts_forward", "ids", MADE.ids[1:], ValueError, "ids"),
    ("experts_forward", "ids", MADE.ids.float(), TypeError, "ids"),
    ("experts_forward", "weights", MADE.weights[:, :1], ValueError, "weights"),
    ("experts_forward", "shared_expert", (MADE.x,), TypeError, "shared_expert"),
]


@pytest.mark.parametrize(("stage", "argument", "value", "error", "name"), BAD)
def test_bad_arguments_of_a_stage_are_named(stage, argument, value, error, name):
    with pytest.raises(error, match=name.replace(".", r"\.")):
        getattr(tritonmoe, stage)(**GOOD[stage] | {argument: value})


@pytest.mark.parametrize("stage", GOOD)
def test_the_good_arguments_are_good(stage):
    """Each table entry differs from this call in one argument, so that argument is the reason."""
    assert getattr(tritonmoe, stage)(**GOOD[stage]) is not None


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"block_m": 8}, ValueError),
        ({"block_n": 48}, ValueError),
        ({"num_warps": 3}, ValueError),
        ({"num_stages": 0}, ValueError),
        ({"group_m": 0}, ValueError),
        ({"turn": 0}, ValueError),
        ({"halves_from": -1}, ValueError),
        ({"block_k": 16.0}, TypeError),
    ],
)
def test_impossible_tiles_are_refused(fields, error):
    with pytest.raises(error, match=next(iter(fields))):
        replace(tritonmoe.Tile(16, 16, 16, 1, 4, 1), **fields)


# -- tiles -----------------------------------------------------------------------------------------------------------

SHAPES = sorted(
    {
        (r.stage, r.tile.block_m, r.tile.block_n, r.tile.block_k, r.tile.group_m, r.tile.descriptors)
        for r in tiles.table()
    }
)
# A loop over columns in groups, tails on every side, an empty expert, one expert with most rows.
TAILS = {"tokens": 33, "hidden": 75, "ffn": 67, "experts": 3, "top_k": 1, "load": Load(kind="zipf", s=2.0, empty=1)}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(("stage", "m", "n", "k", "group", "descriptors"), SHAPES)
def test_every_tile_of_the_table_is_right(stage, m, n, k, group, descriptors, dtype, monkeypatch):
    # Descriptors want steps of 16 bytes; the tails are then of whole vectors.
    made = inputs(**(TAILS | {"hidden": 72, "ffn": 136} if descriptors else TAILS), dtype=dtype)
    tile = tritonmoe.Tile(m, n, k, group, 1, 1, descriptors, int(descriptors))
    order, _, offsets = oracle.expected_permutation(made.ids, 3)
    permutation = tritonmoe.permute(made.ids, 3)
    if stage == "router":
        monkeypatch.setattr(route_module, "choose", lambda *_: tile)
        found = tritonmoe.router_logits(made.x, made.router_weight)
        ball = oracle.logits_ball(made, OURS.declaration.arithmetic(made.problem))
    elif stage == "gate_up":
        found = tritonmoe.gate_up(made.x, permutation, made.w_gate, made.w_up, SILU, tile=tile)
        ball = oracle.gate_up(made, order, offsets, OURS.declaration)
    elif stage == "gate_up_direct":
        # In the order of the routed rows, and sorted here.
        found = run_gate_up_direct(made.x, made.ids, made.w_gate, made.w_up, SILU, None, None, "ieee", tile)[order]
        ball = oracle.gate_up(made, order, offsets, OURS.declaration)
    elif stage == "down_direct":
        given = torch.empty_like(made.h)
        given[order] = made.h
        found = run_down_direct(given, made.ids, made.w_down, None, "ieee", tile)[order]
        ball = oracle.down(made, Ball.exact(made.h), offsets, OURS.declaration)
    else:
        assert stage == "down"
        found = tritonmoe.down(made.h, permutation, made.w_down, tile=tile)
        ball = oracle.down(made, Ball.exact(made.h), offsets, OURS.declaration)
    verdict = judge(stage.removesuffix("_direct"), found, ball, found.dtype)
    assert verdict.outcome == "passed", verdict


@pytest.mark.parametrize("turn", [1, 3, 32])
def test_the_order_of_programs_and_half_tiles_change_no_bit(turn):
    """What a row tile is and when its program runs decides nothing about an element: each is summed along K alone."""
    ids = torch.tensor([[0]] * 150 + [[2]] * 3 + [[3]] * 70 + [[-1]] * 5 + [[4]] * 64)
    permutation = tritonmoe.permute(ids[torch.randperm(len(ids))], 5)
    h, w_down = torch.randn(len(ids), 72), torch.randn(5, 136, 72)
    plain = tritonmoe.Tile(64, 32, 32, 2, 1, 1, descriptors=True)
    found = [
        tritonmoe.down(h, permutation, w_down, tile=replace(plain, turn=turn, **fields))[:-5]
        for fields in ({}, {"per_processor": 1}, {"halves_from": 72}, {"halves_from": 0, "group_m": 8})
    ]
    assert all(torch.equal(found[0], each) for each in found[1:])
    x, w_gate, w_up = torch.randn(len(ids), 72), torch.randn(5, 40, 72), torch.randn(5, 40, 72)
    first, second = (
        tritonmoe.gate_up(x, permutation, w_gate, w_up, SILU, tile=replace(plain, **fields))[:-5]
        for fields in ({}, {"turn": turn, "gather_below": 41})
    )
    assert torch.equal(first, second)


def test_many_direct_rows_of_shallow_experts_take_wide_blocks():
    def columns(rows, depth):
        return tiles.find("down_direct", 2, rows, 227 * 1024, depth).block_n

    assert (columns(129, 512), columns(256, 1024)) == (256, 256)
    assert (columns(128, 512), columns(129, 1025), columns(129, None)) == (128, 128, 128)


def test_the_table_has_a_tile_for_every_device():
    """64 KB of shared memory serve every stage, element size and number of rows; fewer than any row wants do not."""
    for stage, itemsize, rows in itertools.product(
        ("router", "gate_up", "down"), (2, 4), (0, 1, 16, 17, 64, 65, 10**9)
    ):
        for memory in (65536, 99 * 1024, 227 * 1024, None):
            chosen = tiles.choose(stage, itemsize, rows, memory)
            (row,) = [r for r in tiles.table() if r.stage == stage and r.tile == chosen and r.rows_up_to >= rows][:1]
            assert (row.shared_memory or 0) <= (memory or 0)
        with pytest.raises(RuntimeError, match="shared memory"):
            tiles.choose(stage, itemsize, rows, 1024)


def test_fp32_takes_smaller_tiles_only_where_there_are_too_few_registers():
    """The tile of a device with more shared memory than any of those that spill with it stays what it was."""

    def blocks(stage, memory):
        tile = tiles.choose(stage, 4, 10**6, memory)
        return tile.block_m, tile.block_n, tile.block_k, tile.num_warps

    for memory in (160 * 1024, 163 * 1024, 227 * 1024):
        assert blocks("router", memory) == (64, 32, 32, 4)
        assert blocks("gate_up", memory) == (64, 32, 32, 8)
    for memory in (64 * 1024, 99 * 1024):
        assert blocks("router", memory) == (64, 32, 32, 8)
    assert blocks("gate_up", 99 * 1024) == (64, 16, 32, 8)
    assert blocks("gate_up", 64 * 1024) == (64, 32, 16, 8)


@pytest.mark.parametrize(
    ("slots", "half", "single"),
    [(1, (8, 256), (8, 256)), (4, (2, 512), (2, 512)), (5, (8, 256), (4, 256)), (9, (2, 256), (2, 256))],
)
def test_a_single_token_of_fp32_with_many_experts_takes_fewer_columns(slots, half, single):
    for itemsize, expected in ((2, half), (4, single)):
        block = tiles.vector_block("down_vector", slots, itemsize, host=False)
        assert (block.columns, block.depth) == expected
        assert tiles.vector_block("down_vector", slots, itemsize, host=True).columns == 64


def test_descriptors_are_for_layouts_and_sizes_that_they_can_describe():
    weight = torch.empty(2, 16, 24, dtype=torch.float16)
    assert describable(8, 2**20, weight, weight)
    assert not describable(1, 2**20, weight)
    assert not describable(8, 2**20, weight, weight.transpose(1, 2).contiguous().transpose(1, 2))
    assert not describable(8, 2**31 - 1, weight)  # a tile would reach beyond what 32 bits hold


# -- the forward of experts --------------------------------------------------------------------------------------------


def magnitude(made: Inputs) -> torch.Tensor:
    """The forward with every product taken by its size: what roundings are relative to."""
    absolute = [tensor.abs() for tensor in (made.x, made.w_gate, made.w_up, made.w_down)]
    x, w_gate, w_up, w_down = absolute
    h = torch.einsum("th,efh->tef", x, w_gate) * torch.einsum("th,efh->tef", x, w_up)  # |silu(v)| <= |v|
    return torch.einsum("tef,ehf->teh", h, w_down).sum(1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of rows that nothing was written to, and that are not stored
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("tokens", "top_k"), [(1, 3), (5, 3), (40, 3)])
def test_rows_without_an_expert_add_nothing_in_any_regime(tokens, top_k, dtype):
    """A single token, rows found without a sort, sorted rows: an id outside [0, E), also one that wraps into it, has no
    output and its weight is not looked at."""
    made = inputs(tokens=tokens, hidden=40, ffn=24, experts=4, top_k=top_k)
    ids = made.ids.to(dtype).clone()
    weights = made.weights.clone()
    ids[0, 0], weights[0, 0] = (2**32 if dtype == torch.int64 else 4), float("nan")
    ids[-1, 1], weights[-1, 1] = -1, float("inf")
    found = tritonmoe.experts_forward(made.x, ids, weights, made.w_gate, made.w_up, made.w_down)
    permutation = tritonmoe.permute(ids, 4)
    h = tritonmoe.gate_up(made.x, permutation, made.w_gate, made.w_up, SILU)
    wanted = tritonmoe.combine(tritonmoe.down(h, permutation, made.w_down), weights, permutation)
    assert found.isfinite().all()
    # Both sum 40 and 24 products in fp32, in other orders: 64 roundings of 2**-24 each way at the most.
    torch.testing.assert_close(found, wanted, rtol=0, atol=2 * 64 * 2.0**-24 * float(magnitude(made).max()))


# -- imports and devices ---------------------------------------------------------------------------------------------

NO_TORCH = """
import importlib, pkgutil, sys
sys.modules["torch"] = None  # any import of torch raises ImportError
import tritonmoe
names = [m.name for m in pkgutil.iter_modules([tritonmoe.__path__[0] + "/stages"]) if m.name.endswith("_kernel")]
for name in names:
    importlib.import_module("tritonmoe.stages." + name)
print(len(names), sorted(set(dir(tritonmoe)) & {"route", "permute", "moe_forward"}))
try:
    tritonmoe.route
except ImportError:
    print("torch is asked for on first use")
"""


def test_kernel_files_can_be_imported_without_torch(python):
    done = python("-c", NO_TORCH, TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["16 ['moe_forward', 'permute', 'route']", "torch is asked for on first use"]


CPU_TENSORS = """
import torch, tritonmoe
try:
    tritonmoe.permute(torch.zeros(2, 1, dtype=torch.int32), 2)
except RuntimeError as error:
    print(error)
"""


def test_cpu_tensors_without_the_interpreter_are_refused(python):
    done = python("-c", CPU_TENSORS, TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
    assert "set the environment variable TRITON_INTERPRET=1" in done.stdout


def test_every_public_name_is_there():
    assert set(tritonmoe.__all__) == set(tritonmoe._HOMES) <= set(dir(tritonmoe))
    for name in tritonmoe.__all__:
        assert getattr(tritonmoe, name).__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tritonmoe.no_such_name
