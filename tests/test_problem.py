"""Problem: plain data that survives JSON, with an id that never changes silently."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moe_conformance.backends import Backend
from moe_conformance.implementation import Declaration
from moe_conformance.kinds import KINDS
from moe_conformance.problem import Load, Problem, Router
from moe_conformance.profiles import profile
from moe_conformance.strategies import problems

SIZES = {"tokens": 5, "hidden": 7, "ffn": 6, "experts": 12, "top_k": 4}
FIXED = Problem(
    **SIZES,
    dtype="bf16",
    router=Router(
        scoring="sigmoid", renormalize=True, selection_bias=True, groups=4, groups_kept=2, group_score="top2"
    ),
    activation="gelu_tanh",
    load=Load(kind="zipf", s=1.2, empty=1),
    values="mixed",
    layout="padded",
    seed=77,
)
LIMITS = profile("dev", Backend("cpu", "cpu")).limits


def test_canonical_json_is_stable():
    """Records of other machines and other days refer to these texts and ids."""
    assert FIXED.to_json() == (
        '{"activation":"gelu_tanh","dtype":"bf16","experts":12,"ffn":6,"hidden":7,"layout":"padded","load":{"empty":1,'
        '"kind":"zipf","s":1.2},"router":{"group_score":"top2","groups":4,"groups_kept":2,"renormalize":true,'
        '"scoring":"sigmoid","selection_bias":true},"seed":77,"tokens":5,"top_k":4,"values":"mixed"}'
    )
    assert FIXED.id == "0f37bf32f4aa"
    assert Problem(**SIZES).to_json() == '{"experts":12,"ffn":6,"hidden":7,"tokens":5,"top_k":4}'
    assert Problem(**SIZES).id == "694cf0201660"


def test_defaults_are_stable():
    """Defaults are left out of the JSON, so another default would give an old id a new meaning."""
    assert Problem(**SIZES).model_dump() == {
        **SIZES,
        "dtype": "fp32",
        "input_precision": "ieee",
        "router": {
            "scoring": "softmax",
            "renormalize": False,
            "logit_bias": False,
            "selection_bias": False,
            "groups": 1,
            "groups_kept": 1,
            "group_score": "max",
            "scaling_factor": 1.0,
            "expert_scale": False,
        },
        "activation": "silu",
        "expert_bias": False,
        "shared_ffn": 0,
        "shared_gate": False,
        "load": {"kind": "uniform", "s": 1.0, "hot": 2, "empty": 0},
        "values": "normal",
        "layout": "contiguous",
        "ties": False,
        "near_ties": False,
        "seed": 0,
    }


def test_id_is_a_function_of_the_fields_alone():
    spelled_out = Problem.from_json(json.dumps(FIXED.model_dump()))
    reordered = Problem.from_json(dict(reversed(FIXED.model_dump().items())))
    assert spelled_out.id == reordered.id == FIXED.id
    assert spelled_out == reordered == FIXED


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_json_round_trip(data):
    kind = data.draw(st.sampled_from([name for name, kind in KINDS.items() if kind.drawn]))
    dtype = data.draw(st.sampled_from(("fp32", "fp16", "bf16")))
    problem = data.draw(problems(kind, dtype, LIMITS, Declaration("any")))
    text = problem.to_json()
    back = Problem.from_json(text)
    assert back == problem
    assert back.to_json() == text
    assert back.id == problem.id
    assert "\n" not in text
    assert Problem.from_json(json.loads(text)) == problem


@pytest.mark.parametrize("name", [*SIZES, "seed"])
def test_every_number_counts_in_the_id(name):
    other = FIXED.model_copy(update={name: getattr(FIXED, name) + 1})
    assert other.id != FIXED.id


CONTRADICTIONS = {
    "more choices than experts": ({"top_k": 13}, "top_k"),
    "more choices than busy experts": ({"top_k": 4, "load": {"empty": 9}}, "load.empty"),
    "groups that do not divide the experts": ({"router": {"groups": 5}}, "does not divide"),
    "more groups kept than there are": ({"router": {"groups": 4, "groups_kept": 5}}, "exceeds"),
    "choices that do not fit the kept groups": ({"router": {"groups": 4, "groups_kept": 1}}, "do not fit"),
    "renormalized softmax of the selected": (
        {"router": {"scoring": "softmax_selected", "renormalize": True}},
        "renormalize must be false",
    ),
    "a gate without a shared expert": ({"shared_gate": True}, "shared_ffn"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_rejected(case):
    changes, message = CONTRADICTIONS[case]
    with pytest.raises(ValidationError, match=message):
        Problem.from_json({**SIZES, **changes})


INVALID = {
    "unknown field": {"batch": 3},
    "unknown router field": {"router": {"temperature": 2.0}},
    "unknown load field": {"load": {"alpha": 2.0}},
    "unknown dtype": {"dtype": "fp8"},
    "unknown layout": {"layout": "swizzled"},
    "unknown scoring": {"router": {"scoring": "sinkhorn"}},
    "negative tokens": {"tokens": -1},
    "no hidden columns": {"hidden": 0},
    "no experts": {"experts": 0, "top_k": 0},
    "too many experts": {"experts": 1025},
    "a fraction of a token": {"tokens": 2.5},
    "a number as text": {"tokens": "5"},
    "a truth as a number": {"tokens": True},
    "an infinite factor": {"router": {"scaling_factor": float("inf")}},
    "not a number": {"router": {"scaling_factor": float("nan")}},
    "a seed beyond 32 bits": {"seed": 2**32},
    "a negative seed": {"seed": -1},
    "a steep load": {"load": {"kind": "zipf", "s": 3.5}},
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_fields_are_rejected(case):
    with pytest.raises(ValidationError):
        Problem.from_json({**SIZES, **INVALID[case]})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"tokens":5}', '{"tokens":5} trailing'])
def test_other_text_is_rejected(text):
    with pytest.raises(ValueError, match=r"JSON|valid|required|Extra data|Expecting"):
        Problem.from_json(text)


@pytest.mark.parametrize("missing", SIZES)
def test_sizes_have_no_default(missing):
    with pytest.raises(ValidationError, match=missing):
        Problem.from_json({k: v for k, v in SIZES.items() if k != missing})


def test_a_problem_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        FIXED.tokens = 6


def test_routed_rows():
    assert FIXED.routed_rows == 20
