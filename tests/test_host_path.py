"""What calls remember: checks that passed, and what was launched. Never a tensor, never too much."""

from __future__ import annotations

import gc
import weakref
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tritonmoe
from moe_conformance import bad_input, interpreter
from moe_conformance.generate import Inputs, generate
from moe_conformance.implementation import load
from moe_conformance.problem import Problem
from moe_conformance.profiles import landmark_problems
from tritonmoe import arguments
from tritonmoe.replay import _packed

interpreter.repair()
OURS = load("tritonmoe")
RULE = tritonmoe.RouterRule("softmax", renormalize=True)
TOKENS = (1, 3, 40)  # a single token, few rows, sorted rows


def inputs(**fields) -> Inputs:
    sizes = {"tokens": 3, "hidden": 32, "ffn": 16, "experts": 4, "top_k": 2, "seed": 3, "dtype": "bf16"}
    return generate(Problem(**sizes | fields), "cpu", whole_forward=True)


def forward(made: Inputs, **changed) -> torch.Tensor:
    names = ("x", "router_weight", "w_gate", "w_up", "w_down", "gate_bias", "up_bias", "down_bias")
    tensors = {name: getattr(made, name) for name in names}
    return tritonmoe.moe_forward(**{**tensors, "top_k": 2, "rule": RULE, **changed}).out


# -- checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", bad_input.cases(), ids=lambda case: case.id)
def test_a_bad_input_is_refused_after_a_good_call_and_each_time(case):
    (problem,) = landmark_problems("bad_input", "fp16")
    made = generate(problem, "cpu", whole_forward=True)
    OURS.forward(made)
    for _ in range(2):
        assert bad_input.attempt(OURS, made, case) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_k", 2.0), ("top_k", True), ("activation", ["silu"]), ("rule", {}), ("input_precision", ["ieee"])],
)
def test_values_that_compare_equal_or_have_no_hash_are_still_told_apart(name, value):
    made = inputs()
    forward(made, top_k=1)
    forward(made)
    for _ in range(2):
        with pytest.raises(TypeError, match=name):
            forward(made, **{name: value})


def test_a_call_is_told_by_which_of_its_tensors_is_not_aligned():
    buffer = torch.zeros(17)
    aligned, not_aligned = buffer[:8], buffer[1:9]
    assert not_aligned.data_ptr() % 16
    pairs = [(aligned, aligned), (aligned, not_aligned), (not_aligned, aligned), (not_aligned, not_aligned)]
    seen = {arguments.call_of(forward, *pair)[0] for pair in pairs}
    assert len(seen) == 4
    assert arguments.call_of(forward, buffer[4:12], aligned)[0] in seen


def test_a_negated_view_is_refused_after_its_like():
    plain = torch.randn(3, 4)
    negated = torch.complex(plain, plain).conj().imag
    like = torch.complex(plain, plain).imag
    assert negated.is_neg()
    assert negated.stride() == like.stride()
    tritonmoe.select_experts(like, 2, RULE)
    with pytest.raises(ValueError, match="negated"):
        tritonmoe.select_experts(negated, 2, RULE)


def test_a_tensor_without_an_address_is_checked_and_not_remembered():
    before = len(arguments._accepted)
    batch = torch.zeros(2, 3, 4)
    with pytest.raises(TypeError, match="top_k"):
        torch.vmap(lambda logits: tritonmoe.select_experts(logits, 2.0, RULE))(batch)
    with pytest.raises(RuntimeError, match="storage"):
        torch.vmap(lambda logits: tritonmoe.select_experts(logits, 2, RULE))(batch)
    assert len(arguments._accepted) == before


# -- layouts ---------------------------------------------------------------------------------------------------------


def crooked(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose address is no multiple of 16."""
    buffer = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    return buffer[1:].view(tensor.shape).copy_(tensor)


def spread(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose last dimension is stepped along in twos."""
    return torch.stack((tensor, tensor), dim=-1)[..., 0]


def turned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose last two dimensions are laid out the other way round."""
    return tensor.mT.contiguous().mT


@pytest.mark.parametrize("change", [crooked, spread, turned])
@pytest.mark.parametrize("name", ["x", "router_weight", "w_gate", "w_up", "w_down"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_another_layout_is_another_call(tokens, name, change):
    made = inputs(tokens=tokens)
    want = forward(made)
    assert torch.equal(forward(made, **{name: change(getattr(made, name))}), want)
    assert torch.equal(forward(made), want)


@pytest.mark.parametrize("tokens", TOKENS)
def test_other_dtypes_and_values_have_other_results(tokens):
    made = inputs(tokens=tokens, expert_bias=True, shared_ffn=8)
    shared = tritonmoe.SharedExpert(**vars(made.shared))
    want = forward(made, shared_expert=shared)
    assert torch.equal(forward(made, shared_expert=shared, down_bias=made.down_bias.float()), want)
    assert not torch.equal(forward(made, shared_expert=shared, down_bias=None), want)
    assert not torch.equal(forward(made, shared_expert=None), want)
    assert not torch.equal(forward(made, shared_expert=shared, activation=tritonmoe.Activation("gelu_tanh")), want)
    halved = tritonmoe.SharedExpert(shared.w_gate, shared.w_up, shared.w_down / 2)
    assert not torch.equal(forward(made, shared_expert=halved), want)
    clamped = [tritonmoe.Activation("swiglu_clamped", limit=limit) for limit in (0.01, 5.0)]
    assert not torch.equal(*[forward(made, activation=each) for each in clamped])


@pytest.mark.parametrize("tokens", TOKENS)
def test_the_stages_and_the_forward_agree_when_called_again(tokens):
    made = inputs(tokens=tokens)
    for _ in range(2):
        logits = tritonmoe.router_logits(made.x, made.router_weight)
        ids, weights = tritonmoe.select_experts(logits, 2, RULE)
        out = tritonmoe.experts_forward(made.x, ids, weights, made.w_gate, made.w_up, made.w_down)
        assert torch.equal(out, forward(made))


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(arguments, "MOST_CALLS", 5)
    arguments._accepted.clear()
    for tokens in range(1, 30):
        tritonmoe.permute(torch.zeros(tokens, 2, dtype=torch.int32), 4)
        assert len(arguments._accepted) <= 5


@pytest.mark.parametrize("tokens", TOKENS)
def test_no_tensor_is_kept(tokens):
    made = inputs(tokens=tokens, shared_ffn=8)
    shared = tritonmoe.SharedExpert(*[getattr(made.shared, each).clone() for each in ("w_gate", "w_up", "w_down")])
    x = made.x.clone()
    out = forward(made, x=x, shared_expert=shared)
    alive = [weakref.ref(tensor) for tensor in (x, shared.w_gate, shared.w_up, shared.w_down, out)]
    del x, shared, out
    gc.collect()
    assert [each() for each in alive] == [None] * 5


# -- replays ---------------------------------------------------------------------------------------------------------


@given(st.data())
def test_tensors_that_live_at_the_same_time_lie_apart(data):
    """Of any launches of any tensors: places are aligned, inside the workspace, and apart where lives overlap."""
    sizes = data.draw(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
    launches = data.draw(st.lists(st.sets(st.integers(0, len(sizes) - 1), max_size=4), min_size=1, max_size=10))
    tensors = [torch.empty(size, dtype=torch.uint8) for size in sizes]
    places, workspace = _packed(tensors, launches)
    assert [place.nbytes for place in places] == sizes
    ends = [place.offset + place.nbytes for place in places]
    assert max(ends) <= workspace <= sum(-(-size // 256) * 256 for size in sizes)
    assert all(place.offset % 256 == 0 for place in places)
    for one, other in combinations(range(len(sizes)), 2):
        lives = [[at for at, used in enumerate(launches) if each in used] for each in (one, other)]
        if all(lives) and lives[0][0] <= lives[1][-1] and lives[1][0] <= lives[0][-1]:
            assert ends[one] <= places[other].offset or ends[other] <= places[one].offset


def test_a_workspace_is_no_larger_than_what_lives_at_once():
    """A chain, in which each launch reads what the one before it wrote."""
    tensors = [torch.empty(1024, dtype=torch.uint8) for _ in range(6)]
    _, workspace = _packed(tensors, [{0}, *[{at, at + 1} for at in range(5)]])
    assert workspace == 2048


def test_replays_of_compiled_kernels(python):
    done = python(str(Path(__file__).with_name("replays.py")), TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr


def test_launches_that_wait_for_their_compilation(python):
    done = python(str(Path(__file__).with_name("together.py")), TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stderr
