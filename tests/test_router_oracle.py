"""The router's oracle against definitions by enumeration: every set of experts, every corner of the balls."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_conformance.oracle import Ball
from moe_conformance.oracle import router as r
from moe_conformance.problem import Router

QUIET = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def row(values: list[float], radii: list[float]) -> Ball:
    return Ball(torch.tensor([values], dtype=torch.float64), torch.tensor([radii], dtype=torch.float64))


def corners(ball: Ball):
    """Every way to put each value at one of its two ends."""
    return itertools.product(*zip(ball.low[0].tolist(), ball.high[0].tolist(), strict=True))


def chosen_sets(experts: int, k: int):
    return itertools.combinations(range(experts), k)


def ids_of(chosen) -> torch.Tensor:
    return torch.tensor([list(chosen)], dtype=torch.int32)


# Eighths: sums of two are exact, and equal values are frequent.
EIGHTHS = st.integers(-6, 6).map(lambda v: v / 8)
RADIUS = st.sampled_from((0.0, 0.125, 0.25, 0.5))


def some_top_set(values, members, k: int, chosen) -> bool:
    """Whether `chosen` is a k largest set of `members`, ties broken in its favour."""
    left = [values[e] for e in members if e not in chosen]
    return not left or min(values[e] for e in chosen) >= max(left)


@QUIET
@given(st.lists(st.tuples(EIGHTHS, RADIUS), min_size=1, max_size=6), st.data())
def test_selection_by_enumeration(pairs, data):
    """A set is right exactly when it is a top-k set for some values inside the balls."""
    ball = row(*map(list, zip(*pairs, strict=True)))
    experts = len(pairs)
    k = data.draw(st.integers(1, experts))
    eligible = torch.ones(1, experts, dtype=torch.bool)
    for chosen in chosen_sets(experts, k):
        possible = any(some_top_set(values, range(experts), k, chosen) for values in corners(ball))
        violations = r.check_selection(ids_of(chosen), ball, eligible)
        assert (not violations) == possible, chosen


@QUIET
@given(st.lists(st.tuples(EIGHTHS, RADIUS), min_size=6, max_size=6), st.sampled_from((2, 3)), st.data())
def test_groups_by_enumeration(pairs, groups, data):
    """A group may be used exactly when it is among the best for some values; it must be searched when it always is."""
    ball = row(*map(list, zip(*pairs, strict=True)))
    size = 6 // groups
    kept = data.draw(st.integers(1, groups))
    score = data.draw(st.sampled_from(("max", "top2")))
    k = data.draw(st.integers(1, min(3, kept * size)))
    rule = Router(groups=groups, groups_kept=kept, group_score=score)
    best = 2 if score == "top2" else 1
    maybe, always = set(), set(range(groups))
    for values in corners(ball):
        parts = [sorted(values[g * size : (g + 1) * size], reverse=True) for g in range(groups)]
        scores = [sum(part[:best]) for part in parts]
        maybe |= {g for g in range(groups) if sum(s > scores[g] for s in scores) < kept}
        always &= {g for g in range(groups) if sum(s >= scores[g] for s in scores) <= kept}
    for chosen in chosen_sets(6, k):
        used = {e // size for e in chosen}
        violations, eligible = r.check_groups(ids_of(chosen), ball, rule)
        assert (not violations) == (len(used) <= kept and used <= maybe), chosen
        assert eligible[0].tolist() == [e // size in used | always for e in range(6)]
        assert {v.requirement for v in violations} <= {"ROUTE-5"}


@QUIET
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=6, max_size=6), st.sampled_from((1, 2, 3)))
def test_ties_by_enumeration(pairs, groups):
    """Of two experts with equal logit and bias in one group, the higher is never chosen without the lower."""
    logits = torch.tensor([[float(a) for a, _ in pairs]], dtype=torch.float64)
    bias = torch.tensor([float(b) for _, b in pairs])
    size = 6 // groups
    alike = [
        (low, high)
        for low, high in itertools.combinations(range(6), 2)
        if pairs[low] == pairs[high] and low // size == high // size
    ]
    for k in range(1, 7):
        for chosen in chosen_sets(6, k):
            wrong = any(high in chosen and low not in chosen for low, high in alike)
            found = r.check_ties(ids_of(reversed(chosen)), logits, bias, Router(groups=groups))
            assert bool(found) == wrong, chosen


def test_ties_without_a_bias():
    logits = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert not r.check_ties(torch.tensor([[1, 0], [1, 0]]), logits, None, Router())
    found = r.check_ties(torch.tensor([[1, 0], [2, 1]]), logits, None, Router())
    assert [(v.requirement, v.token) for v in found] == [("ROUTE-3", 1)]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 1], [2, 2]]), "chosen twice: [2, 2]"),
        (torch.tensor([[0, 1], [2, 4]]), "outside [0, 4)"),
        (torch.tensor([[0, 1], [-1, 2]]), "outside [0, 4)"),
        (torch.tensor([[0, 1, 2], [1, 2, 3]]), "must be (2, 2)"),
        (torch.tensor([[0.0, 1.0], [1.0, 2.0]]), "int32 or int64"),
        (torch.tensor([[0, 1], [1, 2]], dtype=torch.int16), "int32 or int64"),
    ],
)
def test_malformed_ids_are_reported(ids, message):
    (found,) = r.check_ids(ids, 2, 2, 4)
    assert found.requirement == "ROUTE-1"
    assert message in found.message
    assert found.token in (0, 1)
