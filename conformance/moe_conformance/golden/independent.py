"""Every stage a second time, at 50 digits: the answers of the golden corpus and the bounds on a correct kernel's error.

Written from SPEC.md with mpmath and NumPy alone; it shares no code with the oracle, torch or the kernels. Problems come
as plain dicts (the fields of Problem, defaults included) and tensors as NumPy arrays: float64 arrays that hold the low
precision inputs exactly, integers as int64. Where the bounds come from: arithmetic.py.

Expert products of fp32 are those at IEEE precision; TF32 is not covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arithmetic import (
    FORMATS,
    GELU,
    SILU,
    SWIGLU,
    UNKNOWN,
    Binary,
    Number,
    Real,
    U,
    dot,
    exactly,
    fifty,
    gated,
    mpf,
    plus,
    shares,
    sigmoid,
    softmax,
    times,
    weighted_sum,
)

Tensors = Mapping[str, np.ndarray]
Fields = Mapping[str, Any]
Row = list[Number]

LIMIT = 7.0  # of the clamped SwiGLU
ADDED = mpf(10) ** -20  # what a renormalizing sum may be guarded with
LEAST_SUM = mpf(2) ** -60  # of scores; below it the guard alone decides the quotient


class Answer(NamedTuple):
    """float64 arrays of one shape: the exact value, the bound on a correct result before its store (inf: nothing is
    claimed), and the magnitude of the operands (arithmetic.Number)."""

    answer: np.ndarray
    radius: np.ndarray
    size: np.ndarray


class Routing(NamedTuple):
    """ids (T,k) int64 in ascending order, their weights, and the tokens at which another choice may be right too."""

    ids: np.ndarray
    weights: Answer
    contested: list[int]


def _answer(rows: Sequence[Row], width: int) -> Answer:
    shape = (len(rows), width)
    made = tuple(np.zeros(shape) for _ in range(3))
    for r, row in enumerate(rows):
        for c, number in enumerate(row):
            mid = float(number.mid)
            made[0][r, c], made[2][r, c] = mid, float(number.size)
            exact = max(number.high - number.mid, number.mid - number.low)
            # float64 may round answer and radius down.
            made[1][r, c] = float(exact) * (1 + 2.0**-40) + abs(mid) * 2.0**-52 if number.known else np.inf
    return Answer(*made)


def _exact_rows(array: np.ndarray) -> list[Row]:
    return [[exactly(v) for v in row] for row in array.tolist()]


def _plain_rows(array: np.ndarray) -> list[list[Real]]:
    return [[mpf(v) for v in row] for row in array.tolist()]


def _floor(problem: Fields) -> Real:
    if problem["input_precision"] != "ieee":
        raise ValueError("the golden corpus covers input_precision ieee only")
    return mpf(0) if problem["dtype"] == "fp32" else FORMATS[problem["dtype"]].smallest_normal


# -- route -----------------------------------------------------------------------------------------------------------


class _Router:
    """Logits and scores of one problem, token by token."""

    def __init__(self, problem: Fields, tensors: Tensors) -> None:
        self.problem, self.rule = problem, problem["router"]
        self.experts: int = problem["experts"]
        self.weight = _plain_rows(tensors["router_weight"])
        self.logit_bias = self._optional(tensors, "logit_bias")
        self.selection_bias = self._optional(tensors, "selection_bias")
        self.expert_scale = self._optional(tensors, "expert_scale")
        # Sums of small integers are exact in fp32, so that equal logits are equal for everyone.
        integers = problem["values"] in ("integers", "exact") and not problem["near_ties"]
        self.exact = problem["ties"] or integers
        self.floor = _floor(problem)

    def _optional(self, tensors: Tensors, name: str) -> list[Real] | None:
        return [mpf(v) for v in tensors[name].tolist()] if name in tensors else None

    def logits(self, token: Row) -> Row:
        biases = self.logit_bias or [None] * self.experts
        return [dot(token, row, bias, self.floor) for row, bias in zip(self.weight, biases, strict=True)]

    def scores(self, logits: Row) -> Row:
        if self.rule["scoring"] == "softmax":
            return softmax(logits)
        return [sigmoid(v) for v in logits] if self.rule["scoring"] == "sigmoid" else logits

    def choose(self, logits: Row, scores: Row) -> tuple[list[int], bool]:
        """The k experts with the highest selection values, ascending, and whether another choice may be right too."""
        values = scores
        if self.selection_bias is not None:
            values = [plus(v, exactly(b)) for v, b in zip(scores, self.selection_bias, strict=True)]
        eligible, contested = self._groups(values)
        ranked = sorted(eligible, key=lambda e: (-values[e].mid, e))
        chosen, left = ranked[: self.problem["top_k"]], ranked[self.problem["top_k"] :]
        for a in chosen:
            contested |= any(not (values[a].low > values[b].high or self._tied(a, b, logits)) for b in left)
        return sorted(chosen), contested

    def _tied(self, first: int, second: int, logits: Row) -> bool:
        """An exact tie, which the lower id wins: equal logits and biases, in one group."""
        size = self.experts // self.rule["groups"]
        bias = self.selection_bias or [0] * self.experts
        same = logits[first].mid == logits[second].mid and bias[first] == bias[second]
        return bool(self.exact and same and first < second and first // size == second // size)

    def _groups(self, values: Row) -> tuple[list[int], bool]:
        count, kept = self.rule["groups"], self.rule["groups_kept"]
        size = self.experts // count
        best = 2 if self.rule["group_score"] == "top2" and size > 1 else 1
        scores = []
        for g in range(count):
            members = values[g * size : (g + 1) * size]
            mid, low, high = (
                fifty.fsum(sorted((getattr(m, end) for m in members), reverse=True)[:best])
                for end in ("mid", "low", "high")
            )
            score = Number(mid, low, high, abs(mid))
            scores.append(score.widened(U) if best > 1 else score)
        ranked = sorted(range(count), key=lambda g: (-scores[g].mid, g))
        contested = any(scores[a].low <= scores[b].high for a in ranked[:kept] for b in ranked[kept:])
        return [g * size + i for g in ranked[:kept] for i in range(size)], contested

    def weights(self, logits: Row, scores: Row, ids: Sequence[int]) -> Row:
        """Of the experts `ids`, in their order."""
        if self.rule["scoring"] == "softmax_selected":
            found = softmax([logits[e] for e in ids])
        else:
            found = [scores[e] for e in ids]
            if self.rule["renormalize"]:
                enough = all(w.known for w in found) and fifty.fsum(w.low for w in found) >= LEAST_SUM
                found = shares(found, [mpf(0)] * len(found), ADDED) if enough else [UNKNOWN] * len(found)
        factor = mpf(self.rule["scaling_factor"])
        if factor != 1:
            # It reaches the kernel as fp32.
            in_fp32 = exactly(factor).widened(U, mpf(0))
            found = [times(w, in_fp32) for w in found]
        if self.expert_scale is not None:
            found = [times(w, exactly(self.expert_scale[e])) for w, e in zip(found, ids, strict=True)]
        return found


def _routed(
    problem: Fields, tensors: Tensors, given: np.ndarray | None
) -> tuple[list[list[int]], list[Row], list[int]]:
    router = _Router(problem, tensors)
    ids: list[list[int]] = []
    weights, contested = [], []
    for t, token in enumerate(_exact_rows(tensors["x"])):
        logits = router.logits(token)
        scores = router.scores(logits)
        chosen, unsure = router.choose(logits, scores)
        chosen = chosen if given is None else given[t].tolist()
        ids.append(chosen)
        weights.append(router.weights(logits, scores, chosen))
        contested += [t] if unsure else []
    return ids, weights, contested


def route(problem: Fields, tensors: Tensors, ids: np.ndarray | None = None) -> Routing:
    """tensors: x, router_weight and, where the rule has them, logit_bias, selection_bias, expert_scale. With `ids`
    (T,k), the weights of those experts in that order."""
    chosen, weights, contested = _routed(problem, tensors, ids)
    made = np.array(chosen, dtype=np.int64).reshape(problem["tokens"], problem["top_k"])
    return Routing(made, _answer(weights, problem["top_k"]), contested)


# -- permute ---------------------------------------------------------------------------------------------------------


def permute(problem: Fields, tensors: Tensors) -> dict[str, np.ndarray]:
    """tensors: ids (T,k). order (M), inverse (M), offsets (E+1), int64."""
    flat = tensors["ids"].reshape(-1).tolist()
    order = [r for e in range(problem["experts"]) for r, owner in enumerate(flat) if owner == e]
    inverse = [0] * len(flat)
    for position, r in enumerate(order):
        inverse[r] = position
    offsets = [sum(owner < e for owner in flat) for e in range(problem["experts"] + 1)]
    columns = {"order": order, "inverse": inverse, "offsets": offsets}
    return {name: np.array(column, dtype=np.int64) for name, column in columns.items()}


# -- experts ---------------------------------------------------------------------------------------------------------


class _Experts:
    """The products and the activation, with the rounding points an implementation declares."""

    def __init__(self, problem: Fields, tensors: Tensors, rounds: frozenset[str]) -> None:
        self.problem, self.tensors, self.rounds = problem, tensors, rounds
        self.floor = _floor(problem)
        self._rows: dict[tuple[str, int], list[list[Real]]] = {}

    def point(self, name: str) -> Binary | None:
        return FORMATS[self.problem["dtype"]] if name in self.rounds else None

    def linear(self, row: Row, name: str, expert: int, bias: str = "") -> Row:
        """`row` times an expert's weight, plus its bias where there is one. Expert -1: the tensor has no experts."""
        if (name, expert) not in self._rows:
            array = self.tensors[name]
            self._rows[name, expert] = _plain_rows(array if expert < 0 else array[expert])
        weight = self._rows[name, expert]
        biases: list[Any] = [None] * len(weight)
        if bias in self.tensors:
            biases = [mpf(v) for v in self.tensors[bias][expert].tolist()]
        return [dot(row, column, b, self.floor) for column, b in zip(weight, biases, strict=True)]

    def activated(self, gate: Number, up: Number) -> Number:
        gate, up = gate.rounded(self.point("gate_up")), up.rounded(self.point("gate_up"))
        after, kind = self.point("activation"), self.problem["activation"]
        if kind == "swiglu_clamped":
            gate = gate.clamped(-fifty.inf, mpf(LIMIT))
            up = plus(up.clamped(mpf(-LIMIT), mpf(LIMIT)), exactly(1.0)).rounded(after)
            return times(gated(gate, SWIGLU).rounded(after), up)
        return times(gated(gate, GELU if kind == "gelu_tanh" else SILU).rounded(after), up)

    def gate_up(self, row: Row, expert: int) -> Row:
        gate = self.linear(row, "w_gate", expert, "gate_bias")
        up = self.linear(row, "w_up", expert, "up_bias")
        return [self.activated(g, u) for g, u in zip(gate, up, strict=True)]

    def whole(self, row: Row, expert: int) -> Row:
        """One expert's y for one token, h and y rounded where that is declared."""
        h = [v.rounded(self.point("h")) for v in self.gate_up(row, expert)]
        return [v.rounded(self.point("y")) for v in self.linear(h, "w_down", expert, "down_bias")]

    def shared(self, row: Row) -> Row:
        """The shared expert's contribution for one token."""
        gate, up = self.linear(row, "shared.w_gate", -1), self.linear(row, "shared.w_up", -1)
        h = [self.activated(g, u).rounded(self.point("h")) for g, u in zip(gate, up, strict=True)]
        y = [v.rounded(self.point("y")) for v in self.linear(h, "shared.w_down", -1)]
        if "shared.gate" not in self.tensors:
            return y
        factor = sigmoid(self.linear(row, "shared.gate", -1)[0])
        return [times(v, factor).rounded(self.point("shared")) for v in y]


def _sorted_rows(problem: Fields, tensors: Tensors) -> list[tuple[int, int]]:
    """(token, expert) of every row in expert order."""
    order, flat = permute(problem, tensors)["order"].tolist(), tensors["ids"].reshape(-1).tolist()
    return [(r // problem["top_k"], flat[r]) for r in order]


def gate_up(problem: Fields, tensors: Tensors, rounds: frozenset[str]) -> Answer:
    """tensors: ids, x, w_gate, w_up and, with expert biases, gate_bias, up_bias. h (M,F), rows in expert order."""
    experts, x = _Experts(problem, tensors, rounds), _exact_rows(tensors["x"])
    return _answer([experts.gate_up(x[t], e) for t, e in _sorted_rows(problem, tensors)], problem["ffn"])


def down(problem: Fields, tensors: Tensors) -> Answer:
    """tensors: ids, h (M,F), w_down and, with expert biases, down_bias. y (M,H), rows in expert order."""
    experts = _Experts(problem, tensors, frozenset())
    rows = zip(_exact_rows(tensors["h"]), _sorted_rows(problem, tensors), strict=True)
    return _answer([experts.linear(row, "w_down", e, "down_bias") for row, (_, e) in rows], problem["hidden"])


def combine(problem: Fields, tensors: Tensors) -> Answer:
    """tensors: ids, y (M,H) in expert order, weights (T,k) and, with a shared expert, addend (T,H). out (T,H)."""
    inverse = permute(problem, tensors)["inverse"].reshape(problem["tokens"], problem["top_k"]).tolist()
    y, weights = _exact_rows(tensors["y"]), _exact_rows(tensors["weights"])
    addend = _exact_rows(tensors["addend"]) if "addend" in tensors else None
    out = []
    for t in range(problem["tokens"]):
        extra = addend[t] if addend else None
        out.append(_combined(weights[t], [y[p] for p in inverse[t]], extra, problem["hidden"]))
    return _answer(out, problem["hidden"])


def _combined(weights: Row, rows: list[Row], extra: Row | None, width: int) -> Row:
    return [weighted_sum(weights, [row[c] for row in rows], extra[c] if extra else None) for c in range(width)]


def forward(
    problem: Fields,
    tensors: Tensors,
    rounds: frozenset[str],
    ids: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Answer:
    """out (T,H) of the whole forward. tensors: those of route and gate_up, w_down, down_bias, and the shared expert's
    as "shared.w_gate", ... With `ids` and `weights` (T,k, exact) that routing is used, else the one of `route`, with
    the error of its weights."""
    if ids is None or weights is None:
        chosen, factors, _ = _routed(problem, tensors, None)
    else:
        chosen, factors = ids.tolist(), _exact_rows(weights)
    experts = _Experts(problem, tensors, rounds)
    out = []
    for token, own, parts in zip(_exact_rows(tensors["x"]), chosen, factors, strict=True):
        extra = experts.shared(token) if problem["shared_ffn"] else None
        out.append(_combined(parts, [experts.whole(token, e) for e in own], extra, problem["hidden"]))
    return _answer(out, problem["hidden"])
