"""SPEC, section "relations": two calls compared with each other. What is right is known without knowing the result."""

from typing import Any

import torch

from moe_conformance import oracle, relations
from moe_conformance.implementation import Forward
from moe_conformance.oracle import Ball
from moe_conformance.problem import Problem
from moe_conformance.registry import conforms
from moe_conformance.relations import like
from moe_conformance.trial import Trial

EXPERT_TENSORS = ("w_gate", "w_up", "w_down", "gate_bias", "up_bias", "down_bias")
ROUTER_TENSORS = ("router_weight", "logit_bias", "selection_bias", "expert_scale")
UP = 3  # the exponent by which things are scaled


def _several_tokens(problem: Problem) -> bool:
    return problem.tokens > 1


def _several_experts(problem: Problem) -> bool:
    return problem.experts > 1 and problem.tokens > 0


def _in_range(problem: Problem) -> bool:
    return problem.values not in ("tiny", "huge")


def _above_tiny(problem: Problem) -> bool:
    return problem.values != "tiny"


@conforms("REL-1", stages=("forward",), problems="small_forward", share=0.3, accepts=_several_tokens)
def test_order_of_tokens(trial: Trial) -> None:
    """forward(x[p]) is forward(x)[p]."""
    inputs, declaration = trial.inputs, trial.implementation.declaration
    found = trial.implementation.forward(inputs)
    order = relations.shuffled(trial.problem, "relation.tokens", trial.problem.tokens, inputs.device)
    moved = trial.implementation.forward(inputs.replaced(x=like(inputs.x, inputs.x[order])))
    back = Forward(*(value[order.argsort()] for value in moved))
    exact = declaration.row_invariant or declaration.batch_invariant
    relations.forwards_agree(trial, "REL-1", found, back, exact=exact)


@conforms("REL-2", stages=("forward",), problems="small_forward", share=0.2, accepts=_several_tokens)
def test_batch_may_be_split(trial: Trial) -> None:
    """A batch in two parts gives what it gives in one."""
    inputs, tokens = trial.inputs, trial.problem.tokens
    found = trial.implementation.forward(inputs)
    cut = 1 + trial.problem.seed % (tokens - 1)
    halves = [inputs.replaced(x=like(inputs.x, rows)) for rows in (inputs.x[:cut], inputs.x[cut:])]
    parts = [trial.implementation.forward(half) for half in halves]
    joined = Forward(*(torch.cat(pair) for pair in zip(*parts, strict=True)))
    relations.forwards_agree(trial, "REL-2", found, joined, exact=trial.implementation.declaration.batch_invariant)


@conforms("REL-3", stages=("forward",), problems="small_forward", share=0.3, accepts=_several_experts)
def test_names_of_experts(trial: Trial) -> None:
    """Experts that change places, with all that belongs to them, change the ids and nothing else."""
    inputs = trial.inputs
    found = trial.implementation.forward(inputs)
    old = relations.relabelled(trial.problem, inputs.device)
    tensors = {name: getattr(inputs, name) for name in (*EXPERT_TENSORS, *ROUTER_TENSORS)}
    renamed = inputs.replaced(**{name: like(t, t[old]) for name, t in tensors.items() if t is not None})
    out, ids, weights = trial.implementation.forward(renamed)
    inside = bool(((ids >= 0) & (ids < trial.problem.experts)).all())
    trial.expect("REL-3", inside, "an id is outside [0, E)")
    relations.forwards_agree(trial, "REL-3", found, Forward(out, old[ids.long()], weights), exact=False)


def _all_alike(trial: Trial) -> dict[str, Any]:
    tensors = {name: getattr(trial.inputs, name) for name in EXPERT_TENSORS}
    return {name: like(t, t[:1].expand_as(t)) for name, t in tensors.items() if t is not None}


@conforms(
    "REL-4",
    stages=("permute", "gate_up", "down"),
    problems="experts",
    share=0.2,
    accepts=_several_experts,
    in_turn=True,
)
def test_rows_of_equal_experts(trial: Trial) -> None:
    """Where all experts hold the same weights, the k rows of a token are equal, whichever experts made them."""
    problem, alike = trial.problem, _all_alike(trial)
    inputs, reference = trial.inputs.replaced(**alike), trial.reference.replaced(**alike)
    declaration, permutation = trial.implementation.declaration, trial.permutation()
    order, inverse, offsets = oracle.expected_permutation(reference.ids, problem.experts)
    shape = (problem.tokens, problem.top_k, -1)

    def by_token(ball: Ball) -> Ball:
        return Ball(ball.mid[inverse].reshape(shape), ball.rad[inverse].reshape(shape))

    h = trial.implementation.gate_up(inputs, permutation)
    ball = oracle.gate_up(reference, order, offsets, declaration)
    relations.rows_agree(trial, "REL-4", h[inverse].reshape(shape), by_token(ball), "h")
    rows = trial.reference.h[: problem.tokens][order // problem.top_k]
    y = trial.implementation.down(inputs, rows.clone(), permutation)
    ball = oracle.down(reference, Ball.exact(rows), offsets, declaration)
    relations.rows_agree(trial, "REL-4", y[inverse].reshape(shape), by_token(ball), "y")


@conforms(
    *("REL-4",),
    stages=("permute", "gate_up", "down", "forward"),
    problems="small_forward",
    share=0.15,
    accepts=_several_experts,
)
def test_forward_of_equal_experts(trial: Trial) -> None:
    """Where all experts hold the same weights, out is the sum of a token's routing weights times one FFN of it."""
    alike = _all_alike(trial)
    inputs, reference = trial.inputs.replaced(**alike), trial.reference.replaced(**alike)
    found = trial.implementation.forward(inputs)
    tokens = torch.arange(trial.problem.tokens, device=inputs.device)
    rows = relations.own_rows(trial, inputs, reference, torch.zeros_like(tokens)[:, None])
    relations.weighted_sum(trial, "REL-4", found, rows, tokens[:, None].expand_as(found.ids))


@conforms("REL-5", stages=("permute", "combine"), problems="combine", share=0.2, accepts=_several_experts)
def test_combine_is_linear_in_the_weights(trial: Trial) -> None:
    """Combined with some of the weights, and with the others, and added: as combined with all of them."""
    inputs, reference = trial.inputs.replaced(addend=None), trial.reference
    permutation = trial.permutation()
    words = relations.shuffled(trial.problem, "relation.slots", reference.weights.numel(), inputs.device)
    some = (words % 2 == 0).reshape(reference.weights.shape)
    parts = [reference.weights * some, reference.weights * ~some, reference.weights]
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    outs = [trial.implementation.combine(inputs, inputs.y, weights.clone(), permutation).double() for weights in parts]
    balls = [oracle.combine(Ball.exact(reference.y), Ball.exact(weights), inverse) for weights in parts]
    bound = sum((relations.stored(ball, trial.dtype).rad for ball in balls), torch.zeros_like(outs[0]))
    difference = outs[0] + outs[1] - outs[2]
    trial.record(relations.at_most("REL-5", difference, bound, "combine with parts of the weights"))


@conforms("REL-6", stages=("permute", "combine"), problems="combine", share=0.2, accepts=_above_tiny)
def test_combine_scales_by_powers_of_two(trial: Trial) -> None:
    """y or the routing weights times 2**n, and the addend, give 2**n times the output, to the last bit."""
    inputs, reference, permutation = trial.inputs, trial.reference, trial.permutation()
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    plain = trial.implementation.combine(inputs, inputs.y, inputs.weights, permutation)
    n = -UP if trial.problem.values == "huge" else UP
    # All terms well inside fp32's normal range: no product, no sum and no lower half of a product is ever flushed.
    rows = reference.y[inverse].double().reshape(trial.problem.tokens, trial.problem.top_k, trial.problem.hidden)
    terms = (rows * reference.weights.double()[..., None]).abs()
    safe = (((terms >= 2.0**-70) | (terms == 0)) & (terms < 2.0**110)).all(1)
    y = inputs.y * 2.0**n
    exact = (y[inverse].double().reshape(rows.shape) == rows * 2.0**n).all(1)
    grown = inputs.replaced(**relations.scaled(inputs, addend=n))
    if grown.addend is not None and reference.addend is not None:
        exact &= grown.addend.double() == reference.addend.double() * 2.0**n
    found = trial.implementation.combine(grown, y, inputs.weights, permutation)
    relations.scales(trial, "REL-6", "y", plain, found, n, safe & exact)
    found = trial.implementation.combine(grown, inputs.y, inputs.weights * 2.0**n, permutation)
    relations.scales(trial, "REL-6", "weights", plain, found, n, safe & exact)


@conforms(
    *("REL-6",),
    stages=("permute", "gate_up", "down"),
    problems="experts",
    share=0.3,
    accepts=_in_range,
    dtypes=("fp32", "bf16"),
    in_turn=True,
)
def test_products_scale_by_powers_of_two(trial: Trial) -> None:
    """The up weights, h or the down weights times 2**n, and the biases, give 2**n times the result, to the last bit.

    Not in fp16, whose subnormal inputs matrix units cut off differently (docs/numerics.md).
    """
    inputs, permutation, implementation = trial.inputs, trial.permutation(), trial.implementation
    everywhere = torch.ones((), dtype=torch.bool, device=inputs.device)
    if trial.problem.activation != "swiglu_clamped":  # which clamps up and adds one to it
        plain = implementation.gate_up(inputs, permutation)
        found = implementation.gate_up(inputs.replaced(**relations.scaled(inputs, w_up=UP, up_bias=UP)), permutation)
        relations.scales(trial, "REL-6", "w_up", plain, found, UP, everywhere)
    plain = implementation.down(inputs, inputs.h, permutation)
    grown = inputs.replaced(**relations.scaled(inputs, down_bias=UP))
    found = implementation.down(grown, inputs.h * 2.0**UP, permutation)
    relations.scales(trial, "REL-6", "h", plain, found, UP, everywhere)
    grown = inputs.replaced(**relations.scaled(inputs, w_down=-UP, down_bias=-UP))
    found = implementation.down(grown, inputs.h, permutation)
    relations.scales(trial, "REL-6", "w_down", plain, found, -UP, everywhere)


def _all_chosen(problem: Problem) -> bool:
    return problem.top_k == problem.experts <= 6 and problem.tokens > 0


@conforms(
    *("REL-7",),
    stages=("permute", "gate_up", "down", "forward"),
    problems="small_forward",
    share=0.15,
    accepts=_all_chosen,
)
def test_all_experts_chosen_is_a_dense_sum(trial: Trial) -> None:
    """k = E: out is the weighted sum of every expert's FFN of every token, made by sending all tokens to each."""
    inputs, problem = trial.inputs, trial.problem
    found = trial.implementation.forward(inputs)
    tokens = torch.arange(problem.tokens, device=inputs.device)
    made = [
        relations.own_rows(trial, inputs, trial.reference, torch.full_like(tokens, e)[:, None])
        for e in range(problem.experts)
    ]
    rows = Ball(torch.cat([ball.mid for ball in made]), torch.cat([ball.rad for ball in made]))
    relations.weighted_sum(trial, "REL-7", found, rows, found.ids.long() * problem.tokens + tokens[:, None])


@conforms("REL-8", stages=("permute", "combine"), problems="combine", share=0.2, accepts=_several_experts)
def test_a_weight_of_zero_is_nothing(trial: Trial) -> None:
    """A slot of weight zero adds nothing, whatever finite row it points to."""
    inputs, reference, permutation = trial.inputs, trial.reference, trial.permutation()
    words = relations.shuffled(trial.problem, "relation.slots", reference.weights.numel(), inputs.device)
    off = (words % 2 == 0).reshape(reference.weights.shape)
    weights = reference.weights.masked_fill(off, 0.0)
    order, _, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    largest = torch.finfo(trial.dtype).max
    other = torch.where(reference.y > 0, -largest, largest).to(trial.dtype)
    y = torch.where(off.reshape(-1)[order][:, None], other, reference.y)
    plain = trial.implementation.combine(inputs, inputs.y, weights.clone(), permutation)
    found = trial.implementation.combine(inputs, y, weights.clone(), permutation)
    # As numbers: a sum of nothing but zeros may carry either sign.
    wrong = int((plain != found).sum())
    trial.expect("REL-8", wrong == 0, f"{wrong} elements of out follow rows of weight zero")
