"""generate: the same bytes everywhere, in the promised layout, with the promised values."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch

from moe_conformance import generate as module
from moe_conformance.generate import TENSOR_NAMES, generate
from moe_conformance.loads import expert_loads
from moe_conformance.problem import Load, Problem, Router

SIZES = {"tokens": 5, "hidden": 7, "ffn": 6, "experts": 4, "top_k": 2}
LAYOUTS = ("contiguous", "padded", "spaced", "transposed", "offset", "packed", "interleaved")
EVERYTHING = {
    "router": Router(logit_bias=True, selection_bias=True, expert_scale=True),
    "expert_bias": True,
    "shared_ffn": 5,
    "shared_gate": True,
}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and digest(a) == digest(b)


# Computed once, on Linux x86-64; every platform must find the same. A change here makes all older records incomparable.
DIGESTS = {
    "fp32": {
        "x": "1f17d07edce5487b",
        "router_weight": "1801197c09a521dc",
        "w_gate": "1f6f0cec253e05a3",
        "w_down": "1a9e0979ade14470",
        "ids": "9792533a822cc4d3",
        "weights": "5684933ecbc4218c",
        "y": "8dd26ea5050806bc",
    },
    "fp16": {
        "x": "25515891e829a783",
        "router_weight": "1e347153427b5ab0",
        "w_gate": "7493a054d6c62656",
        "w_down": "46c89aad8b777357",
        "ids": "9792533a822cc4d3",
        "weights": "5684933ecbc4218c",
        "y": "c0f66f9fa5817849",
    },
    "bf16": {
        "x": "b7baf72d1841311c",
        "router_weight": "92893166727f8b5f",
        "w_gate": "c505354308ff5e4f",
        "w_down": "9ecc2c9f85e6643f",
        "ids": "9792533a822cc4d3",
        "weights": "5684933ecbc4218c",
        "y": "160273858fa426af",
    },
}


@pytest.mark.parametrize("dtype", DIGESTS)
def test_bytes_are_the_same_everywhere(dtype):
    inputs = generate(Problem(**SIZES, dtype=dtype, load=Load(kind="zipf", empty=1), seed=3), "cpu")
    assert {name: digest(getattr(inputs, name)) for name in DIGESTS[dtype]} == DIGESTS[dtype]


def test_scales_are_the_same_everywhere():
    """Scales are powers of two nearest to a root, ties upwards, by integers alone: no C library has a say."""
    inputs = generate(Problem(**SIZES), "cpu")
    found = [inputs._in_scale(n) for n in (1, 2, 3, 8, 24, 32, 128, 512, 2048, 8192)]
    assert found == [2.0**-e for e in (0, 1, 1, 2, 2, 3, 4, 5, 6, 7)]
    aligned = generate(Problem(**SIZES, values="aligned"), "cpu")
    for n in range(1, 3000):
        for value, scale in ((n, inputs._in_scale(n)), (n * n, aligned._in_scale(n))):
            root = int(1 / scale)
            assert root == 1 / scale
            assert root.bit_count() == 1
            assert root**2 <= 2 * value < 4 * root**2, (value, root)


def test_the_steering_column_has_no_last_bit_of_a_logarithm():
    """Rounded to 1/256 of an octave, about 0.3% of a load; empty experts lie 24 octaves below."""
    problem = Problem(**SIZES | {"experts": 40, "hidden": 2}, load=Load(kind="zipf", s=1.2, empty=3), seed=3)
    wanted = np.asarray(expert_loads(problem), dtype=np.float64)
    octaves = generate(problem, "cpu").router_weight[:, 0].double().numpy() / np.log(2)
    assert np.abs(octaves * 256 - np.round(octaves * 256)).max() < 1e-3
    busy = wanted > 0
    assert np.abs(octaves[busy] - np.log2(wanted[busy] / wanted.max())).max() <= 1 / 512 + 1e-5
    assert np.abs(octaves[~busy] + 24).max() < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_streams_do_not_depend_on_the_order_of_access(layout):
    problem = Problem(**SIZES, **EVERYTHING, layout=layout, values="mixed", seed=5)
    names = sorted(TENSOR_NAMES)
    forwards, backwards = generate(problem, "cpu"), generate(problem, "cpu")
    for name in names:
        getattr(forwards, name)
    for name in reversed(names):
        getattr(backwards, name)
    first, second = forwards.made(), backwards.made()
    assert set(first) == set(second) == {*TENSOR_NAMES - {"shared"}} | {f"shared.{n}" for n in vars(forwards.shared)}
    for name in first:
        assert same_bits(first[name], second[name]), name


def test_tensors_and_seeds_have_streams_of_their_own():
    problem = Problem(**SIZES, **EVERYTHING)
    other = Problem(**SIZES, **EVERYTHING, seed=1)
    made = []
    for inputs in (generate(problem, "cpu"), generate(other, "cpu")):
        for name in TENSOR_NAMES - {"ids"}:
            getattr(inputs, name)
        # Column 0 of x and router_weight is set by hand; the last columns are random in every tensor.
        made += [t.flatten()[-4:].tolist() for t in inputs.made().values() if t.is_floating_point()]
    assert len({tuple(values) for values in made}) == len(made)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_are_the_same_in_every_layout(layout):
    plain = generate(Problem(**SIZES, **EVERYTHING, seed=9), "cpu")
    laid = generate(Problem(**SIZES, **EVERYTHING, seed=9, layout=layout), "cpu")
    for name in TENSOR_NAMES - {"shared"}:
        assert same_bits(getattr(plain, name), getattr(laid, name)), name


MATRICES = ("x", "router_weight", "w_gate", "w_up", "w_down", "gate_bias", "up_bias", "down_bias")


def gaps(view: torch.Tensor) -> torch.Tensor:
    """The elements of the storage behind `view` that the view does not show."""
    everything = torch.empty(0, dtype=view.dtype).set_(view.untyped_storage())
    shown = torch.zeros(everything.numel(), dtype=torch.bool)
    shown.as_strided(view.shape, view.stride(), view.storage_offset()).fill_(True)
    assert int(shown.sum()) == view.numel(), "elements of the view overlap"
    return everything[~shown]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("layout", ["padded", "spaced", "offset", "transposed"])
def test_layouts_are_what_their_names_say(layout, name):
    view = getattr(generate(Problem(**SIZES, **EVERYTHING, layout=layout), "cpu"), name)
    plain = torch.empty(view.shape)
    between = gaps(view)
    if layout == "transposed":
        assert view.stride() == plain.mT.contiguous().mT.stride()
        assert not view.is_contiguous()
        assert between.numel() == 0
        return
    assert bool(between.isnan().all())
    if layout in ("padded", "spaced"):
        gap = 7 if layout == "padded" else 16
        rows = view.numel() // view.shape[-1]
        assert view.stride(-1) == 1
        assert view.stride(-2) == view.shape[-1] + gap
        assert between.numel() == gap * rows
        assert (gap * view.element_size() % 16 == 0) == (layout == "spaced"), "whole vectors"
    else:
        assert view.stride() == plain.stride()
        assert view.storage_offset() == 1
        assert view.data_ptr() % 16, "the base must be unaligned"
        assert between.numel() == 1


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
def test_gate_and_up_are_views_of_one_storage(layout):
    inputs = generate(Problem(**SIZES, layout=layout), "cpu")
    gate, up, ffn, hidden = inputs.w_gate, inputs.w_up, SIZES["ffn"], SIZES["hidden"]
    assert gate.untyped_storage().data_ptr() == up.untyped_storage().data_ptr()
    assert gate.untyped_storage().nbytes() == 4 * SIZES["experts"] * 2 * ffn * hidden
    step = hidden if layout == "packed" else 2 * hidden
    assert gate.stride() == up.stride() == (2 * ffn * hidden, step, 1)
    assert up.storage_offset() - gate.storage_offset() == (ffn * hidden if layout == "packed" else hidden)
    # A look at one half fills neither with the other's values.
    assert not torch.equal(gate, up)


def test_ties_repeat_router_rows_in_threes():
    inputs = generate(Problem(tokens=3, hidden=9, ffn=1, experts=8, top_k=2, ties=True), "cpu")
    rows = inputs.router_weight
    for expert in range(8):
        assert torch.equal(rows[expert], rows[expert // 3 * 3])
    assert not torch.equal(rows[0], rows[3])


LOADS = [
    Load(kind=kind, empty=e) for kind, e in itertools.product(("uniform", "round_robin", "zipf", "few_hot"), (0, 2))
]
LOADS += [Load(kind="one_hot"), Load(kind="one_hot", empty=2)]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.kind}-{load.empty}")
def test_ids_follow_the_load(load):
    problem = Problem(tokens=600, hidden=1, ffn=1, experts=9, top_k=3, load=load, seed=4)
    ids = generate(problem, "cpu").ids
    assert ids.shape == (600, 3)
    assert ids.dtype == torch.int32
    active = 9 - load.empty
    assert int(ids.min()) >= 0
    assert int(ids.max()) < active, "empty experts never get a row"
    assert all(len(set(row)) == 3 for row in ids.tolist())
    counts = np.bincount(ids.flatten().numpy(), minlength=9)
    wanted = np.asarray(expert_loads(problem))
    if load.kind == "one_hot":
        assert counts.max() == 600, "every token goes to the hot expert"
        assert counts.argmax() == wanted.argmax()
    elif load.kind == "few_hot":
        assert sorted(counts.argsort()[-2:]) == sorted(wanted.argsort()[-2:])
        assert counts[wanted == wanted.max()].min() == 600
    elif load.kind == "round_robin":
        assert counts[:active].max() - counts[:active].min() <= 1
    elif load.kind == "uniform":
        assert counts[:active].min() > 0.7 * 1800 / active
    else:
        first = np.bincount(ids[:, 0].numpy(), minlength=9)[:active]
        assert list(first.argsort()[-2:]) == list(wanted[:active].argsort()[-2:])


def test_large_tensors_repeat_a_pool_of_prime_length():
    pool = module.POOL
    assert all(pool % d for d in range(2, int(pool**0.5) + 1))
    rows, columns = 2**11 + 3, 2**11
    problem = Problem(tokens=rows, hidden=columns, ffn=1, experts=2, top_k=1, dtype="fp16")
    y = generate(problem, "cpu").y.flatten()
    assert y.numel() == rows * columns > pool
    assert torch.equal(y[pool:], y[: y.numel() - pool])
    small = generate(problem.model_copy(update={"tokens": 1}), "cpu").y.flatten()
    assert torch.equal(y[:columns], small), "the pool is the stream that small tensors read"


def test_replaced_shares_what_was_made_and_replaces_the_rest():
    inputs = generate(Problem(**SIZES), "cpu")
    x, w_up = inputs.x, inputs.w_up
    changed = inputs.replaced(x=x + 1, top_k=1)
    assert torch.equal(changed.x, x + 1)
    assert changed.w_up is w_up
    assert (changed.top_k, inputs.top_k) == (1, 2)
    assert inputs.x is x
