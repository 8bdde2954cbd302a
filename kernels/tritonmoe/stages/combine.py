"""Launcher of combine_kernel."""

from __future__ import annotations

import torch

from ..arguments import FLOATS, accept, accepted, call_of, check_permutation, check_tensor, parts
from ..launch import (
    cdiv,
    counted,
    empty,
    is_interpreted,
    launch,
    next_power_of_two,
    require_runnable,
    strides,
    vector_width,
)
from ..replay import perform
from .combine_kernel import combine_kernel
from .permute import Permutation

# A program has one token, so that each of its loads has one row's address, and is one warp: many small programs keep
# more loads on their way. With few slots it is wider: there would be too little in it to wait for. Against 4 tokens and
# 4 warps on one H200: 11.3 to 5.8 us at 8 tokens and 76.3 to 72.5 at 8,192 (8 slots), 17.3 to 16.0 at 2,048 (2 slots).
_COLUMNS = 256
_COLUMNS_OF_FEW = 512
_FEW_SLOTS = 3
_HOST_TOKENS = 8  # a program of Triton's interpreter costs more than its elements
_SLOTS = 8  # experts of a token whose rows are on their way at a time
_FEWEST_COLUMNS = 64  # narrower rows share one compiled kernel


def combine(
    y: torch.Tensor, weights: torch.Tensor, permutation: Permutation, addend: torch.Tensor | None = None
) -> torch.Tensor:
    """out[t] = sum over j = 0 .. k-1, in that order, of weights[t, j] * y[inverse[t * k + j]], plus addend[t].

    y (M, H) float32, float16 or bfloat16, in sorted order; weights (T, k) float32; addend (T, H) of y's dtype (a shared
    expert's output). Any strides. Returns out (T, H) of y's dtype, contiguous: summed in float32, rounded once. Rows
    whose position is offsets[E] or beyond (dropped ids) contribute nothing: neither their y nor their weight is read.

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape or device or a permutation made for other
    sizes, RuntimeError for CPU tensors without Triton's interpreter.
    """
    description, given = call_of(combine, y, weights, addend, *parts(permutation, Permutation))
    call = accepted(description)
    if call is None:
        check_tensor("y", y, [("rows", None), ("hidden", None)], FLOATS)
        checked = check_permutation(permutation, y, rows=y.shape[0])
        tokens, rest = divmod(y.shape[0], checked.top_k)
        if rest:
            raise ValueError(f"y must have a multiple of top_k={checked.top_k} rows, got {y.shape[0]}")
        check_tensor("weights", weights, [("tokens", tokens), ("top_k", checked.top_k)], (torch.float32,), y)
        if addend is not None:
            check_tensor("addend", addend, [("tokens", tokens), ("hidden", y.shape[1])], (y.dtype,), y)
        call = accept(description)
    require_runnable(combine_kernel, y)
    return perform(call, given, lambda: run_combine(y, weights, permutation, addend))


def run_combine(
    y: torch.Tensor, weights: torch.Tensor, permutation: Permutation, addend: torch.Tensor | None
) -> torch.Tensor:
    """combine, of checked arguments."""
    return _run(y, weights, permutation, None, permutation.num_experts, addend)


def run_combine_direct(
    y: torch.Tensor,
    weights: torch.Tensor,
    ids: torch.Tensor,
    num_experts: int,
    addend: torch.Tensor | None,
) -> torch.Tensor:
    """combine of a y (T * k, H) that lies in the order of ids (T, k); rows with ids outside [0, E) are not read."""
    return _run(y, weights, None, ids, num_experts, addend)


def _run(
    y: torch.Tensor,
    weights: torch.Tensor,
    permutation: Permutation | None,
    ids: torch.Tensor | None,
    num_experts: int,
    addend: torch.Tensor | None,
) -> torch.Tensor:
    tokens, hidden = weights.shape[0], y.shape[1]
    widest = _COLUMNS_OF_FEW if weights.shape[1] <= _FEW_SLOTS else _COLUMNS
    columns = min(widest, max(_FEWEST_COLUMNS, next_power_of_two(hidden)))
    block = _HOST_TOKENS if is_interpreted(combine_kernel) else 1
    vec = vector_width((hidden,), (y,) if addend is None else (y, addend))
    out = empty((tokens, hidden), y.dtype, y.device)
    launch(
        combine_kernel,
        cdiv(tokens, block) * cdiv(hidden, columns),
        y.device,
        y,
        weights,
        None if permutation is None else permutation.inverse,
        None if permutation is None else permutation.offsets,
        ids,
        addend,
        out,
        tokens,
        hidden // vec,
        weights.shape[1],
        num_experts,
        *((0, 0) if ids is None else strides(ids)),
        *counted(strides(y), vec),
        *strides(weights),
        *((0, 0) if addend is None else counted(strides(addend), vec)),
        VEC=vec,
        TOKENS=block,
        COLUMNS=columns,
        SLOTS=min(_SLOTS, next_power_of_two(weights.shape[1])),
        num_warps=1,
    )
    return out
