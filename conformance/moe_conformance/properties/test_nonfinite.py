"""SPEC, section "non-finite values": a NaN or Inf reaches exactly the outputs it must."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from moe_conformance import claims, oracle
from moe_conformance.generate import Inputs
from moe_conformance.oracle import Ball
from moe_conformance.problem import Problem
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


def _several_tokens(problem: Problem) -> bool:
    return problem.tokens > 1


def _several_experts(problem: Problem) -> bool:
    return problem.experts > 1


@conforms("NONFIN-1", stages=("forward",), problems="small_forward", share=0.6, accepts=_several_tokens)
def test_sick_token_is_isolated(trial: Trial) -> None:
    """A token of NaN gives a row of NaN, one of Inf may give anything; every other row is what it is without it."""
    inputs, tokens, seed = trial.inputs, trial.problem.tokens, trial.problem.seed
    sick, kind = seed % tokens, (math.nan, math.inf)[seed // tokens % 2]
    x = inputs.x.clone()
    x[sick] = kind
    out, ids, weights = trial.implementation.forward(inputs.replaced(x=x))
    if math.isnan(kind):
        trial.expect("NONFIN-1", bool(out[sick].isnan().all()), f"row {sick} of a NaN token is not all NaN")
    broken = oracle.router.check_ids(ids, tokens, inputs.top_k, trial.problem.experts)
    trial.expect("NONFIN-1", not broken, broken[0].message if broken else "")
    well = torch.arange(tokens, device=x.device) != sick
    clean = trial.reference.replaced(x=trial.reference.x[well])
    ball = oracle.forward(clean, ids[well], weights[well], trial.implementation.declaration)
    trial.judge("NONFIN-1", out[well], ball)


@conforms(
    "NONFIN-1", stages=("permute", "gate_up"), problems="experts", share=0.3, accepts=_several_tokens, in_turn=True
)
def test_sick_row_of_gate_up_is_isolated(trial: Trial) -> None:
    """NaN in one element of a token makes all its rows of h NaN, and no other row."""
    inputs, reference = trial.inputs, trial.reference
    sick = trial.problem.seed % trial.problem.tokens
    x = inputs.x.clone()
    x[sick, trial.problem.seed % trial.problem.hidden] = math.nan
    h = trial.implementation.gate_up(inputs.replaced(x=x), trial.permutation())
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    mine = order // inputs.top_k == sick
    trial.expect("NONFIN-1", bool(h[mine].isnan().all()), f"h of token {sick}, which holds a NaN, is not all NaN")
    ball = oracle.gate_up(reference, order, offsets, trial.implementation.declaration)
    trial.judge("NONFIN-1", h[~mine], ball[~mine])


@conforms("NONFIN-2", stages=("forward",), problems="small_forward", share=0.6)
def test_unused_expert_is_isolated(trial: Trial) -> None:
    """NaN in the weights of an expert that no token chose changes no output."""
    inputs, implementation = trial.inputs, trial.implementation
    _, ids, _ = implementation.forward(inputs)
    used = torch.zeros(trial.problem.experts, dtype=torch.bool, device=ids.device)
    used[ids.reshape(-1).long()] = True
    sick = {}
    for name in ("w_gate", "w_up", "w_down", "gate_bias", "up_bias", "down_bias"):
        tensor = getattr(inputs, name)
        if tensor is not None:
            sick[name] = tensor.clone()
            sick[name][~used] = math.nan
    out, ids, weights = implementation.forward(inputs.replaced(**sick))
    claims.forward_output(trial, "NONFIN-2", out, ids, weights)


@conforms("NONFIN-3", stages=("route",), problems="route", share=0.8, accepts=_several_tokens)
def test_nonfinite_logits_keep_ids_valid(trial: Trial) -> None:
    """NaN and Inf logits: ids stay distinct and in range, weights become NaN, other tokens are untouched."""
    inputs, problem, reference = trial.inputs, trial.problem, trial.reference
    x = inputs.x.clone()
    kinds = (math.nan, math.inf, -math.inf)
    sick = torch.arange(problem.tokens, device=x.device) % 2 == problem.seed % 2
    tokens = torch.nonzero(sick).flatten()
    turn = problem.seed + torch.arange(tokens.numel(), device=x.device)
    x[tokens, turn % problem.hidden] = torch.tensor(kinds, dtype=x.dtype, device=x.device)[turn % 3]
    ids, weights = trial.implementation.route(inputs.replaced(x=x))
    broken = oracle.router.check_ids(ids, problem.tokens, inputs.top_k, problem.experts)
    trial.expect("NONFIN-3", not broken, broken[0].message if broken else "")
    logits = x.double() @ reference.router_weight.double().T
    poisoned = (logits.isnan() | logits.isposinf()).any(-1)
    visible = bool(weights[poisoned].isnan().all())
    trial.expect("NONFIN-3", visible, "a token with a NaN or +Inf logit has weights that are not NaN")
    well = ~sick
    clean = reference.replaced(x=reference.x[well])
    found = oracle.logits_ball(clean, trial.arithmetic)
    scores = oracle.router.scores_ball(found, problem.router)
    trial.judge_fp32("NONFIN-3", weights[well], oracle.router.weights_ball(ids[well], found, scores, clean))


@conforms("NONFIN-5", stages=("route",), problems="route", share=0.5, accepts=_several_experts)
def test_minus_infinity_switches_an_expert_off(trial: Trial) -> None:
    """Router weights of -Inf on the constant coordinate give logits of -Inf: score zero, ranked behind all others."""
    problem = trial.problem
    off = torch.arange(problem.experts, device=trial.inputs.device) % 3 == problem.seed % 2
    weight = trial.inputs.router_weight.clone()
    weight[off, 0] = -math.inf
    ids, weights = trial.implementation.route(trial.inputs.replaced(router_weight=weight))
    # For the oracle -1e30: as far behind every finite logit, and its score is zero to the last bit.
    finite = trial.reference.router_weight.double().clone()
    finite[off, 0] = -1e30
    reference = trial.reference.replaced(router_weight=finite)
    report = oracle.check_routing(reference, ids, trial.arithmetic, exact=False)
    found = report.violations[0] if report.violations else None
    trial.expect("NONFIN-5", found is None, f"token {found.token}: {found.message}" if found else "")
    assert report.weights is not None
    trial.judge_fp32("NONFIN-5", weights, report.weights)


@conforms("NONFIN-4", stages=("permute", "combine"), problems="combine", share=0.5)
def test_overflow_becomes_infinity(trial: Trial) -> None:
    """Sums beyond the format's range are stored as Inf of their sign, sums within it are finite."""
    reference = trial.reference
    top = torch.finfo(trial.dtype).max
    y = reference.y.sign().masked_fill(reference.y == 0, 1.0) * (top / trial.problem.top_k)
    weights = torch.where(reference.weights.abs() > 0.5, 1.25, 0.5)
    inputs = trial.inputs.replaced(y=y.clone(), weights=weights.clone(), addend=None)
    out = trial.implementation.combine(inputs, inputs.y, inputs.weights, trial.permutation())
    _, inverse, _ = oracle.expected_permutation(reference.ids, trial.problem.experts)
    trial.judge("NONFIN-4", out, oracle.combine(Ball.exact(y), Ball.exact(weights), inverse))


def _products_alone(problem: Problem) -> bool:
    return problem.activation != "swiglu_clamped" and not problem.expert_bias


@conforms(
    "NONFIN-4",
    stages=("permute", "gate_up", "down"),
    problems="experts",
    share=0.3,
    accepts=_products_alone,
    dtypes=("fp16",),
)
def test_products_may_exceed_the_format(trial: Trial) -> None:
    """fp16: products beyond 65504 are Inf when stored as y, and pass through the activation when h is in range."""
    inputs, reference, declaration = trial.inputs, trial.reference, trial.implementation.declaration
    order, _, offsets = oracle.expected_permutation(reference.ids, trial.problem.experts)
    permutation = trial.permutation()
    large = reference.h * 2.0**10
    w_down = reference.w_down * 2.0**6
    y = trial.implementation.down(inputs.replaced(w_down=w_down.clone()), large.clone(), permutation)
    ball = oracle.down(reference.replaced(w_down=w_down), Ball.exact(large), offsets, declaration)
    trial.judge("NONFIN-4", y, ball)
    if "gate_up" in declaration.rounds:
        return  # declared to store the products themselves: they overflow, rightly
    edits = {"x": reference.x * 2.0**8, "w_gate": reference.w_gate * 2.0**9, "w_up": reference.w_up * 2.0**-11}
    h = trial.implementation.gate_up(inputs.replaced(**{n: t.clone() for n, t in edits.items()}), permutation)
    trial.judge("NONFIN-4", h, oracle.gate_up(reference.replaced(**edits), order, offsets, declaration))


def _used(problem: Problem) -> bool:
    return problem.tokens > 0


def _exactly(trial: Trial, value: Tensor, clean: Tensor, reached: Tensor, ball: Callable[[], Ball], what: str) -> None:
    """`value` is not finite where `reached`; elsewhere it has the clean call's bits, or is within the bound."""
    missed = int(value[reached].isfinite().sum())
    trial.expect("NONFIN-6", missed == 0, f"{what}: {missed} of {int(reached.sum())} elements do not show it")
    if claims.same_bits(value[~reached], clean[~reached]):
        trial.expect("NONFIN-6", True, "")
    else:
        found = ball()
        trial.judge("NONFIN-6", value[~reached], Ball(found.mid[~reached], found.rad[~reached]))


def _sick(trial: Trial, name: str, *index: int) -> tuple[Inputs, str]:
    """The inputs with NaN, or Inf in every other problem, in one element of a tensor."""
    kind = (math.nan, math.inf)[trial.problem.seed // 2 % 2]
    tensor = getattr(trial.inputs, name).clone()
    tensor[index] = kind
    return trial.inputs.replaced(**{name: tensor}), f"{kind} in {name}[{', '.join(map(str, index))}]"


@conforms("NONFIN-6", stages=("permute", "gate_up", "down"), problems="experts", share=0.2, accepts=_used, in_turn=True)
def test_sick_weight_reaches_its_column(trial: Trial) -> None:
    """NaN or Inf in one weight of an expert shows in one column of the rows of that expert, and nowhere else."""
    problem, declaration, reference = trial.problem, trial.implementation.declaration, trial.reference
    inputs, permutation, implementation = trial.inputs, trial.permutation(), trial.implementation
    order, _, offsets = oracle.expected_permutation(reference.ids, problem.experts)
    row = problem.seed % problem.routed_rows
    expert_of = reference.ids.reshape(-1).long()[order]
    expert, n, k = int(expert_of[row]), problem.seed % problem.hidden, problem.seed % problem.ffn
    sick, what = _sick(trial, "w_down", expert, n, k)
    clean = implementation.down(inputs, inputs.h, permutation)
    value = implementation.down(sick, inputs.h, permutation)
    reached = torch.zeros_like(value, dtype=torch.bool)
    reached[expert_of == expert, n] = True
    _exactly(
        trial,
        value,
        clean,
        reached,
        lambda: oracle.down(reference, Ball.exact(reference.h), offsets, declaration),
        what,
    )
    clean = implementation.gate_up(inputs, permutation)
    for name in ("w_gate", "w_up"):
        sick, what = _sick(trial, name, expert, k, n)
        value = implementation.gate_up(sick, permutation)
        reached = torch.zeros_like(value, dtype=torch.bool)
        reached[expert_of == expert, k] = True
        if bool(getattr(sick, name).isinf().any()):
            # Infinite gates and ups may be clamped, and act(-Inf) may be zero: what they reach may be anything.
            value = value.masked_fill(reached, math.nan)
        _exactly(trial, value, clean, reached, lambda: oracle.gate_up(reference, order, offsets, declaration), what)


@conforms("NONFIN-6", stages=("forward",), problems="small_forward", share=0.2, accepts=_used)
def test_sick_weight_reaches_the_tokens_that_use_it(trial: Trial) -> None:
    """NaN or Inf in one row of w_down of an expert shows in one column of the tokens that chose it, only there."""
    problem = trial.problem
    clean = trial.implementation.forward(trial.inputs)
    chosen = clean.ids[problem.seed % problem.tokens]
    expert, n = int(chosen[problem.seed % problem.top_k]), problem.seed % problem.hidden
    sick, what = _sick(trial, "w_down", expert, n, problem.seed % problem.ffn)
    out, ids, weights = trial.implementation.forward(sick)
    same = claims.same_bits(ids, clean.ids) and claims.same_bits(weights, clean.weights)
    trial.expect("NONFIN-6", same, f"{what} changes the routing")
    uses = (ids == expert) & (weights != 0)  # a slot of weight zero may be left out, or may show it
    reached = torch.zeros_like(out, dtype=torch.bool)
    reached[uses.any(-1), n] = True
    either = ((ids == expert) & (weights == 0)).any(-1) & ~uses.any(-1)
    out, plain = out.clone(), clean.out
    out[either, n] = plain[either, n]

    def ball() -> Ball:
        return oracle.forward(trial.reference, ids, weights, trial.implementation.declaration)

    _exactly(trial, out, plain, reached, ball, what)


@conforms("NONFIN-6", stages=("permute", "combine"), problems="combine", share=0.2, accepts=_used)
def test_sick_row_reaches_its_token(trial: Trial) -> None:
    """NaN or Inf in one element of y shows in one element of out; in a routing weight, in one row of out."""
    problem, reference, permutation = trial.problem, trial.reference, trial.permutation()
    order, inverse, _ = oracle.expected_permutation(reference.ids, problem.experts)
    row, n = problem.seed % problem.routed_rows, problem.seed % problem.hidden
    token, slot = divmod(int(order[row]), problem.top_k)
    clean = trial.implementation.combine(trial.inputs, trial.inputs.y, trial.inputs.weights, permutation)

    def ball() -> Ball:
        addend = None if reference.addend is None else Ball.exact(reference.addend)
        return oracle.combine(Ball.exact(reference.y), Ball.exact(reference.weights), inverse, addend)

    for name, index in (("y", (row, n)), ("weights", (token, slot))):
        sick, what = _sick(trial, name, *index)
        value = trial.implementation.combine(sick, sick.y, sick.weights, permutation)
        reached = torch.zeros_like(value, dtype=torch.bool)
        reached[token, n if name == "y" else slice(None)] = True
        _exactly(trial, value, clean, reached, ball, what)
