"""route: router logits, then the selection of experts and their weights."""

import triton
import triton.language as tl

from .matmul_kernel import element_count, element_stride, load_bias, load_rows, load_weights, weight_pointers

NEVER = tl.constexpr(-(2**31))  # below every ordered_bits: an expert that does not exist, or not any more
NAN = tl.constexpr(-(2**31) + 1)  # ordered_bits of every NaN


@triton.jit(
    do_not_specialize=["tokens", "hidden", "num_experts", "x_row", "x_column", "w_n", "w_k", "bias_n"],
)
def logits_kernel(
    x,
    w_router,
    bias,
    logits,
    tokens,
    hidden,
    num_experts,
    x_row,
    x_column,
    w_n,
    w_k,
    bias_n,
    VEC: tl.constexpr,
    W_UNIT: tl.constexpr,
    MASK_N: tl.constexpr,
    MASK_K: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    hidden = element_count(hidden, VEC)
    num_columns = tl.cdiv(num_experts, BLOCK_N)
    token = (tl.program_id(0) // num_columns).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    token_inside = token < tokens
    # Rows behind the last token read token 0, which exists; their results are not stored.
    row = tl.where(token_inside, token, 0)
    n = (tl.program_id(0) % num_columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_inside = n < num_experts
    k = tl.arange(0, BLOCK_K)

    k_stride = element_stride(w_k, W_UNIT == "k", VEC)
    x_k_stride = element_stride(x_column, VEC > 1, VEC)
    x_pointers = x + row[:, None] * element_stride(x_row, False, VEC) + tl.cast(k, tl.int64)[None, :] * x_k_stride
    w_pointers = weight_pointers(w_router, 0, n, k, 0, element_stride(w_n, W_UNIT == "n", VEC), k_stride)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, hidden, BLOCK_K):
        k_inside = k < hidden - start
        # A float32 router on 16-bit tokens: the tokens widen, exactly, and the product is a float32 one.
        rows = load_rows(x_pointers, k_inside, MASK_K).to(w_router.dtype.element_ty)
        w = load_weights(w_pointers, n_inside, k_inside, MASK_N, MASK_K)
        total = tl.dot(rows, w, total, input_precision=INPUT_PRECISION, out_dtype=tl.float32)
        x_pointers += BLOCK_K * x_k_stride
        w_pointers += BLOCK_K * k_stride

    if bias is not None:
        total += load_bias(bias, 0, n, n_inside, 0, bias_n)
    mask = token_inside[:, None] & n_inside[None, :]
    tl.store(logits + token[:, None] * num_experts + n[None, :], total, mask=mask)


@triton.jit
def ordered_bits(value):
    """int32 in the order of the float32 values: -0 equals +0, NaN lies below -Inf, and NEVER below all.

    Integer work only, so no device's treatment of NaN or of subnormals has a say in which expert is chosen.
    """
    bits = value.to(tl.int32, bitcast=True)
    bits = tl.where(bits == -2147483648, 0, bits)
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return tl.where(nan, NAN, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def value_of(ordered):
    """The float32 that ordered_bits made this of; +0 for -0, some NaN for a NaN."""
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def first_best(ordered, index):
    """Where a row has its greatest value; of several, those of the lowest index.

    Two reductions of 32 bits: of one that has value and index in 64, each step costs a GPU several instructions.
    """
    best = ordered == tl.max(ordered, axis=1)[:, None]
    lowest = tl.min(tl.where(best, index, 0x7FFFFFFF), axis=1)
    return best & (index == lowest[:, None])


@triton.jit
def softmax(logit, member):
    """Softmax of each row over its members, 0 elsewhere and in a row whose members are all -Inf."""
    peak = tl.max(tl.where(member, logit, float("-inf")), axis=1)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    part = tl.where(member, tl.exp(logit - peak[:, None]), 0.0)
    total = tl.sum(part, axis=1)
    total = tl.where(total == 0.0, 1.0, total)
    return tl.div_rn(part, tl.broadcast_to(total[:, None], part.shape))


@triton.jit
def keep_best_groups(ordered, expert, group_size, n_group, topk_group, TOP2: tl.constexpr):
    """ordered, with NEVER for every expert outside the topk_group best groups. Of equal groups the first is better."""
    exists = ordered != NEVER
    group = tl.broadcast_to((expert // group_size)[None, :], ordered.shape)
    group_ordered = tl.full(ordered.shape, NEVER, tl.int32)
    for index in range(n_group):
        member = exists & (group == index)
        inside = tl.where(member, ordered, NEVER)
        score = value_of(tl.max(inside, axis=1))
        if TOP2:
            second = tl.max(tl.where(first_best(inside, expert[None, :]), NEVER, inside), axis=1)
            # A group of one expert has no second: its score is that expert's value.
            score = tl.where(second == NEVER, score, score + value_of(second))
        group_ordered = tl.where(member, ordered_bits(score)[:, None], group_ordered)
    kept = tl.full(ordered.shape, NEVER, tl.int32)
    for _ in range(topk_group):
        hit = first_best(group_ordered, group)
        kept = tl.where(hit & exists, ordered, kept)
        group_ordered = tl.where(hit, NEVER, group_ordered)
    return kept


@triton.jit(
    do_not_specialize=[
        "tokens", "num_experts", "top_k", "n_group", "topk_group", "logits_row", "logits_column", "bias_stride",
        "scale_stride", "scaling_factor",
    ]
)  # fmt: skip
def select_kernel(
    logits,
    selection_bias,
    expert_scale,
    ids,
    weights,
    tokens,
    num_experts,
    top_k,
    n_group,
    topk_group,
    logits_row,
    logits_column,
    bias_stride,
    scale_stride,
    scaling_factor,
    SCORING: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    GROUPED: tl.constexpr,
    TOP2: tl.constexpr,
    TOKENS: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    expert = tl.arange(0, EXPERTS)
    token_inside = token < tokens
    exists = tl.broadcast_to((expert < num_experts)[None, :], (TOKENS, EXPERTS))
    pointers = logits + token[:, None] * logits_row + tl.cast(expert, tl.int64)[None, :] * logits_column
    logit = tl.load(pointers, mask=token_inside[:, None] & exists, other=0.0)

    bits = logit.to(tl.int32, bitcast=True)
    nan_or_plus_inf = ((bits & 0x7FFFFFFF) > 0x7F800000) | (bits == 0x7F800000)
    # One reduction tells both: 2 where a token has NaN or +Inf, else 1 where it has anything but -Inf.
    worst = tl.where(nan_or_plus_inf, 2, (bits != -8388608).to(tl.int32))  # the bits of -Inf
    worst = tl.max(tl.where(exists, worst, 0), axis=1)
    # Scores are taken of clean logits: what NaN and +Inf do to a token is decided by its flag, not by arithmetic.
    clean = tl.where(nan_or_plus_inf, 0.0, logit)
    if SCORING == "sigmoid":
        broken = worst == 2
        score = tl.div_rn(1.0, 1.0 + tl.exp(-clean))
    else:
        broken = worst != 1
        score = softmax(clean, exists)

    value = score
    if (SCORING != "sigmoid") and (selection_bias is None) and (not GROUPED):
        # Logits and not their softmax: equal order without the ties that rounding and underflow of exp would add.
        value = logit
    if selection_bias is not None:
        bias_pointers = selection_bias + tl.cast(expert, tl.int64) * bias_stride
        value += tl.load(bias_pointers, mask=expert < num_experts, other=0.0).to(tl.float32)[None, :]
    ordered = tl.where(exists, ordered_bits(value), NEVER)
    if selection_bias is not None:  # without one, a value is NaN where its logit is
        broken = broken | (tl.max((ordered == NAN).to(tl.int32), axis=1) > 0)

    if GROUPED:
        ordered = keep_best_groups(ordered, expert, num_experts // n_group, n_group, topk_group, TOP2)
    rank = tl.full((TOKENS, EXPERTS), -1, tl.int32)
    for step in range(top_k):
        hit = first_best(ordered, expert[None, :])
        rank = tl.where(hit, step, rank)
        ordered = tl.where(hit, NEVER, ordered)

    chosen = rank >= 0
    weight = score
    if SCORING == "softmax_selected":
        # Anew among the chosen: with a selection bias the largest logit may not be one of them.
        weight = softmax(clean, chosen)
    elif RENORMALIZE:
        total = tl.sum(tl.where(chosen, score, 0.0), axis=1) + 1e-20
        weight = tl.div_rn(score, tl.broadcast_to(total[:, None], (TOKENS, EXPERTS)))
    weight *= scaling_factor
    if expert_scale is not None:
        scale_pointers = expert_scale + tl.cast(expert, tl.int64) * scale_stride
        weight *= tl.load(scale_pointers, mask=expert < num_experts, other=0.0).to(tl.float32)[None, :]
    weight = tl.where(broken[:, None], float("nan"), weight)

    place = token[:, None] * top_k + rank
    mask = chosen & token_inside[:, None]
    tl.store(ids + place, tl.broadcast_to(expert[None, :], (TOKENS, EXPERTS)), mask=mask)
    tl.store(weights + place, weight, mask=mask)
