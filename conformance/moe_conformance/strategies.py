"""What Hypothesis draws: the structure of a problem and a seed, never tensor elements.

Strategies are constructive: every draw is a valid problem, within the declaration of the implementation and the limits
of the backend. They shrink towards few tokens, few experts, the plainest router and the plainest values.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .implementation import Declaration
from .integers import ACTIVATIONS
from .kinds import KINDS
from .problem import Layout, Load, Problem, Router, Values
from .profiles import Limits

# Counts of experts that models use, and their neighbours: not powers of two, padded lanes, several warps.
EXPERT_COUNTS = (16, 24, 60, 64, 72, 96, 128, 160, 256, 384, 512, 1000, 1024)
VALUES: tuple[Values, ...] = ("normal", "aligned", "positive", "integers", "spiky", "mixed", "tiny", "huge")
LONG = 512  # products of a sum beyond which the worst-case bound of random signs loses its power
LAYOUTS: tuple[Layout, ...] = (
    "contiguous", "padded", "offset", "transposed", "packed", "interleaved", "column_major", "spaced",
)  # fmt: skip


def sizes(limit: int) -> st.SearchStrategy[int]:
    """A size from 1 to `limit`: small, at or beside a multiple of 16, or anything."""
    near = st.builds(
        lambda tiles, delta: min(limit, max(1, 16 * tiles + delta)),
        st.integers(1, max(1, limit // 16)),
        st.sampled_from((0, 1, -1, 8)),
    )
    return st.one_of(st.integers(1, min(limit, 33)), near, st.integers(1, limit))


def expert_counts(limit: int) -> st.SearchStrategy[int]:
    """A number of experts from 1 to `limit`: small ones often, model-like ones where allowed."""
    listed = [count for count in EXPERT_COUNTS if count <= limit]
    small = st.integers(1, min(9, limit))
    return st.one_of(small, small, st.sampled_from(listed)) if listed else small


def token_counts(limit: int) -> st.SearchStrategy[int]:
    """A number of tokens from 0 to `limit`."""
    return st.one_of(st.integers(0, min(limit, 20)), sizes(min(limit, 300)), sizes(limit))


def chosen_counts(experts: int, limit: int) -> st.SearchStrategy[int]:
    """k from 1 to E: mostly up to 8, sometimes all."""
    most = min(experts, limit)
    return st.one_of(st.integers(1, min(8, most)), st.just(most), st.integers(1, most))


@st.composite
def routers(draw: st.DrawFn, experts: int, top_k: int, declaration: Declaration) -> Router:
    """A router rule that the declaration allows and that leaves at least k experts eligible."""
    scoring: Any = draw(st.sampled_from(declaration.scorings), label="scoring")
    fields: dict[str, Any] = {"scoring": scoring}
    if scoring != "softmax_selected":
        fields["renormalize"] = draw(st.booleans(), label="renormalize")
    if declaration.logit_bias:
        fields["logit_bias"] = draw(st.booleans(), label="logit_bias")
    if declaration.selection_bias and scoring != "softmax_selected":
        fields["selection_bias"] = draw(st.booleans(), label="selection_bias")
    if declaration.expert_scale:
        fields["expert_scale"] = draw(st.booleans(), label="expert_scale")
    fields["scaling_factor"] = draw(st.sampled_from((1.0, 2.5, 0.3)), label="scaling_factor")
    counts = [g for g in range(1, min(experts, 16) + 1) if experts % g == 0]
    if declaration.groups and scoring != "softmax_selected" and len(counts) > 1:
        groups = draw(st.sampled_from(counts), label="groups")
        fewest = -(-top_k // (experts // groups))
        fields |= {"groups": groups, "groups_kept": draw(st.integers(fewest, groups), label="groups_kept")}
        fields["group_score"] = draw(st.sampled_from(("max", "top2")), label="group_score")
    return Router(**fields)


@st.composite
def loads(draw: st.DrawFn, experts: int, top_k: int) -> Load:
    """An expert load, with empty experts where k leaves room."""
    empty = draw(st.one_of(st.just(0), st.integers(0, experts - top_k)), label="empty")
    kind: Any = draw(st.sampled_from(("uniform", "round_robin", "zipf", "one_hot", "few_hot")), label="load")
    if kind == "zipf":
        return Load(kind=kind, s=draw(st.sampled_from((0.5, 1.0, 1.2, 2.0, 3.0)), label="s"), empty=empty)
    if kind == "few_hot":
        return Load(kind=kind, hot=draw(st.integers(2, 4), label="hot"), empty=empty)
    return Load(kind=kind, empty=empty)


@st.composite
def problems(draw: st.DrawFn, kind_name: str, dtype: str, limits: Limits, declaration: Declaration) -> Problem:
    """A problem of a kind (kinds.KINDS) in `dtype`. Fields that the kind does not read keep their plain values."""
    kind = KINDS[kind_name]
    if kind_name == "precision":
        return draw(precision_problems(dtype, limits, declaration))
    if kind_name == "exact":
        return draw(exact_problems(dtype, limits, declaration))
    routing_only = not kind.ffn and kind_name != "combine"
    experts_limit = min(limits.routed_experts if routing_only else limits.experts, declaration.max_experts)
    experts = draw(expert_counts(experts_limit), label="experts")
    top_k = draw(chosen_counts(experts, limits.route_top_k if routing_only else 16), label="top_k")
    tokens_limit = limits.routed_tokens if routing_only else limits.tokens
    if kind_name == "small_forward":
        tokens_limit = min(tokens_limit, 40)
    # k or E in the hundreds with thousands of tokens costs minutes and shows nothing that fewer tokens do not.
    tokens_limit = max(1, min(tokens_limit, 2**20 // (experts * max(1, top_k // 8))))
    tokens = draw(token_counts(tokens_limit), label="tokens")
    fields: dict[str, Any] = {"tokens": tokens, "experts": experts, "top_k": top_k, "hidden": 1, "ffn": 1}
    fields |= {"dtype": dtype, "load": draw(loads(experts, top_k)), "seed": draw(st.integers(0, 2**32 - 1))}
    if kind_name == "permute":
        return Problem(**fields)
    largest = 2**16 if kind_name == "small_forward" else limits.weights
    # Most problems are small, so that many fit; the budget of a few reaches the limit.
    budget = draw(st.sampled_from([min(2**power, largest) for power in (14, 17, 20, 62)]), label="budget")
    per_row = max(1, min(budget // experts, limits.rows_times_weights // max(1, tokens * top_k)))
    fields["hidden"] = draw(sizes(max(1, min(limits.hidden, per_row))), label="hidden")
    if kind.ffn:
        fields["ffn"] = draw(sizes(max(1, min(limits.ffn, per_row // fields["hidden"]))), label="ffn")
        fields["activation"] = draw(st.sampled_from(declaration.activations), label="activation")
        fields["expert_bias"] = declaration.expert_bias and draw(st.booleans(), label="expert_bias")
    if kind.layout:
        fields["layout"] = draw(st.sampled_from([n for n in LAYOUTS if n in declaration.layouts]), label="layout")
    if kind.router:
        fields["router"] = draw(routers(experts, top_k, declaration))
        tied = draw(st.sampled_from(("free", "free", "exact", "near")), label="ties")
        fields["ties"], fields["near_ties"] = tied == "exact", tied == "near" and fields["hidden"] > 1
    if kind.shared and declaration.shared_expert and draw(st.booleans(), label="shared expert"):
        fields["shared_ffn"] = draw(sizes(min(limits.ffn, 64)), label="shared_ffn")
        fields["shared_gate"] = draw(st.booleans(), label="shared_gate")
    long_sums = max(fields["hidden"], fields["ffn"]) > LONG
    fields["values"] = draw(st.sampled_from(("aligned",) * 8 + VALUES if long_sums else VALUES), label="values")
    if dtype == "fp32" and kind.multiplies:
        fields["input_precision"] = draw(input_precisions(declaration), label="input_precision")
    return Problem(**fields)


@st.composite
def precision_problems(draw: st.DrawFn, dtype: str, limits: Limits, declaration: Declaration) -> Problem:
    """Long sums and enough elements (10,000 and more in every output) for the statistical tier, few experts."""
    experts = draw(st.integers(1, min(3, declaration.max_experts)), label="experts")
    top_k = draw(st.integers(1, min(2, experts)), label="top_k")
    lengths = st.one_of(st.just(limits.long), st.integers(limits.long // 2, limits.long))
    fields: dict[str, Any] = {"experts": experts, "top_k": top_k, "dtype": dtype, "tokens": draw(st.integers(40, 64))}
    fields |= {"hidden": draw(lengths, label="hidden"), "ffn": draw(lengths, label="ffn")}
    fields["activation"] = draw(st.sampled_from(declaration.activations), label="activation")
    fields["layout"] = draw(st.sampled_from([n for n in LAYOUTS if n in declaration.layouts]), label="layout")
    fields["expert_bias"] = declaration.expert_bias and draw(st.booleans(), label="expert_bias")
    fields["router"] = draw(routers(experts, top_k, declaration))
    fields["values"] = draw(st.sampled_from(("normal", "normal", "aligned", "positive")), label="values")
    if dtype == "fp32":
        fields["input_precision"] = draw(input_precisions(declaration), label="input_precision")
    return Problem(**fields, seed=draw(st.integers(0, 2**32 - 1)))


@st.composite
def exact_problems(draw: st.DrawFn, dtype: str, limits: Limits, declaration: Declaration) -> Problem:
    """Problems of the exact lane (integers.py): sums of any length, weights that are powers of two."""
    experts = draw(expert_counts(min(limits.experts, declaration.max_experts)), label="experts")
    most = min(16, 1 << (experts.bit_length() - 1))
    scoring: Any = draw(st.sampled_from(declaration.scorings), label="scoring")
    renormalize = scoring != "softmax_selected" and draw(st.booleans(), label="renormalize")
    equal_shares = renormalize or scoring == "softmax_selected"  # 1/k, exact for powers of two
    counts = [1 << n for n in range(most.bit_length())] if equal_shares else list(range(1, most + 1))
    top_k = draw(st.sampled_from(counts), label="top_k")
    router = Router(
        scoring=scoring,
        renormalize=renormalize,
        scaling_factor=draw(st.sampled_from((1.0, 2.0, 0.5)), label="scaling_factor"),
        logit_bias=declaration.logit_bias and draw(st.booleans(), label="logit_bias"),
        selection_bias=declaration.selection_bias and scoring != "softmax_selected" and draw(st.booleans()),
        expert_scale=declaration.expert_scale and draw(st.booleans(), label="expert_scale"),
    )
    tokens = draw(token_counts(limits.tokens), label="tokens")
    per_row = max(1, min(limits.weights // experts, limits.rows_times_weights // max(1, tokens * top_k)))
    hidden = draw(sizes(min(limits.hidden, per_row)), label="hidden")
    ffn = draw(sizes(max(1, min(limits.ffn, per_row // hidden))), label="ffn")
    fields: dict[str, Any] = {"tokens": tokens, "hidden": hidden, "ffn": ffn, "experts": experts, "top_k": top_k}
    fields |= {"dtype": dtype, "router": router, "values": "exact", "seed": draw(st.integers(0, 2**32 - 1))}
    fields["activation"] = draw(st.sampled_from([a for a in ACTIVATIONS if a in declaration.activations]))
    fields["expert_bias"] = declaration.expert_bias and draw(st.booleans(), label="expert_bias")
    fields["layout"] = draw(st.sampled_from([n for n in LAYOUTS if n in declaration.layouts]), label="layout")
    fields["load"] = draw(loads(experts, top_k))
    if dtype == "fp32" and "ieee" not in declaration.input_precisions:
        fields["input_precision"] = "tf32"
    return Problem(**fields)


def input_precisions(declaration: Declaration) -> st.SearchStrategy[Any]:
    """A declared precision of fp32 products. TF32 is one case in four: its bound is 2**13 times wider."""
    declared = declaration.input_precisions
    return st.sampled_from([p for p in declared if p == "ieee"] * 3 + [p for p in declared if p != "ieee"])
