"""The operators of torch.library: sound by torch's own check, whole under torch.compile, equal to the functions."""

from __future__ import annotations

import pytest
import torch

import tritonmoe
from moe_conformance import interpreter
from moe_conformance.generate import generate
from moe_conformance.problem import Problem
from tritonmoe import operators

interpreter.repair()
RULE = tritonmoe.RouterRule("sigmoid", renormalize=True, n_group=2, topk_group=1, scaling_factor=2.5)
ACTIVATION = tritonmoe.Activation("swiglu_clamped", limit=5.0)


def arguments(tokens: int, *, everything: bool = False) -> dict:
    problem = Problem(
        tokens=tokens, hidden=16, ffn=8, experts=4, top_k=2, dtype="fp32", expert_bias=everything,
        shared_ffn=8 if everything else 0,
    )  # fmt: skip
    made = generate(problem, "cpu", whole_forward=True)
    names = ("x", "router_weight", "w_gate", "w_up", "w_down")
    found = {name: getattr(made, name) for name in names} | {"top_k": 2, "rule": RULE, "activation": ACTIVATION}
    if everything:
        found |= {name: getattr(made, name) for name in ("gate_bias", "up_bias", "down_bias")}
        found |= {"shared_expert": tritonmoe.SharedExpert(**vars(made.shared)), "selection_bias": torch.rand(4)}
    return found


def calls(tokens: int, everything: bool) -> list[tuple]:
    """Each operator with its arguments."""
    given = arguments(tokens, everything=everything)
    tensors = [given[name] for name in ("x", "router_weight", "w_gate", "w_up", "w_down")]
    rule, activation = operators._rule_fields(RULE), operators._activation_fields(ACTIVATION)
    biases = [given.get(name) for name in ("gate_bias", "up_bias", "down_bias")]
    shared = operators._shared_fields(given.get("shared_expert"))
    logits = tritonmoe.router_logits(tensors[0], tensors[1])
    ids, weights = tritonmoe.select_experts(logits, 2, RULE)
    selection = given.get("selection_bias")
    ops = torch.ops.tritonmoe
    return [
        (ops.select_experts, (logits, 2, *rule, selection, None)),
        (ops.experts_forward, (tensors[0], ids, weights, *tensors[2:], *activation, *biases, *shared, "ieee")),
        (ops.moe_forward, (*tensors, 2, *rule, *activation, None, selection, None, *biases, *shared, "ieee")),
    ]


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, 40])
@pytest.mark.parametrize("index", range(3))
def test_opcheck(index, tokens, everything):
    operator, given = calls(tokens, everything)[index]
    torch.library.opcheck(operator, given)


@pytest.mark.parametrize("everything", [False, True])
def test_the_same_bits_as_the_functions(everything):
    given = arguments(3, everything=everything)
    for found, want in zip(operators.moe_forward(**given), tritonmoe.moe_forward(**given), strict=True):
        assert torch.equal(found, want)


def layer(x, router_weight, w_gate, w_up, w_down, **given):
    out, ids, weights = operators.moe_forward(x * 2, router_weight, w_gate, w_up, w_down, **given)
    given = {name: given[name] for name in ("activation", "shared_expert") if name in given}
    again = operators.experts_forward(x, ids, weights, w_gate, w_up, w_down, **given)
    return out + again, operators.select_experts(x[:, :4].float(), 2, RULE)[1]


@pytest.mark.parametrize("everything", [False, True])
def test_one_graph_for_every_number_of_tokens(everything):
    """fullgraph: nothing of it runs outside of the graph. The second count of tokens makes the first dynamic."""
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for tokens in (3, 5, 7):
            given = arguments(tokens, everything=everything)
            for found, want in zip(compiled(**given), layer(**given), strict=True):
                assert torch.equal(found, want)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("rule", "sigmoid", TypeError),
        ("activation", "silu", TypeError),
        ("shared_expert", 1, TypeError),
        ("top_k", 5, ValueError),
        ("shared_expert", tritonmoe.SharedExpert(torch.zeros(8, 16), torch.zeros(8, 16), None), TypeError),
    ],
)
def test_errors_are_those_of_the_functions(name, value, error):
    given = arguments(3) | {name: value}
    with pytest.raises(error, match=name) as ours:
        operators.moe_forward(**given)
    with pytest.raises(error) as theirs:
        tritonmoe.moe_forward(**given)
    assert str(ours.value) == str(theirs.value)
