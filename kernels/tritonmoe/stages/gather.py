"""Launcher of gather_kernel."""

from __future__ import annotations

import torch

from ..launch import cdiv, counted, empty, launch, next_power_of_two, strides
from .gather_kernel import gather_kernel
from .permute import Permutation

_ELEMENTS = 4096  # tokens times columns of one program
_COLUMNS = 1024
_FEWEST_COLUMNS = 64  # narrower rows share one compiled kernel


def sorted_rows(x: torch.Tensor, permutation: Permutation, vec: int) -> torch.Tensor:
    """(M, H) of x's dtype, contiguous: row p is the token of sorted position p. x (T, H) was checked before.

    vec: tritonmoe.launch.vector_width of x. Rows at or beyond offsets[E] are not written. Where every token goes to one
    expert in order, x itself is returned if it is contiguous.
    """
    if permutation.in_order and x.is_contiguous():
        return x
    tokens, hidden = x.shape
    rows = empty((permutation.order.shape[0], hidden), x.dtype, x.device)
    columns = min(_COLUMNS, max(_FEWEST_COLUMNS, next_power_of_two(hidden)))
    block = min(8, _ELEMENTS // columns)
    launch(
        gather_kernel,
        cdiv(tokens, block) * cdiv(hidden, columns),
        x.device,
        x,
        permutation.inverse,
        permutation.offsets,
        rows,
        tokens,
        hidden // vec,
        permutation.top_k,
        permutation.num_experts,
        *counted(strides(x), vec),
        VEC=vec,
        TOKENS=block,
        COLUMNS=columns,
        num_warps=4,
    )
    return rows
