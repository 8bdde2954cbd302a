"""Launcher of gate_up_kernel."""

from __future__ import annotations

import torch

from ..arguments import (
    accept,
    accepted,
    call_of,
    check_activation,
    check_gate_up,
    check_permutation,
    check_precision,
    check_tile,
    check_tokens,
    parts,
)
from ..launch import (
    cdiv,
    counted,
    describable,
    empty,
    launch,
    require_runnable,
    shared_memory_limit,
    strides,
    unit_flag,
    vector_width,
)
from ..replay import perform
from ..rules import Activation
from ..tiles import Tile, choose
from .gate_up_descriptor import run_gate_up_descriptor
from .gate_up_kernel import gate_up_kernel
from .permute import Permutation
from .schedule import Schedule, make_schedule


def gate_up(
    x: torch.Tensor,
    permutation: Permutation,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None = None,
    up_bias: torch.Tensor | None = None,
    *,
    input_precision: str = "ieee",
    tile: Tile | None = None,
) -> torch.Tensor:
    """h = activation(x_e @ w_gate[e].T + gate_bias[e], x_e @ w_up[e].T + up_bias[e]) for the rows x_e of each expert e.

    x (T, H) float32, float16 or bfloat16; w_gate and w_up (E, F, H) of x's dtype; gate_bias and up_bias (E, F) float32,
    float16 or bfloat16, each optional. Any strides: halves of a packed weight and transposed weights are not copied.
    Returns h (M, F) of x's dtype, contiguous, in sorted order (M = T * top_k). Products, biases and activation
    (tritonmoe.Activation has the formulas) are float32, rounded once to x's dtype. Rows at or beyond offsets[E], whose
    expert id was out of range, are unspecified.
    tile overrides the table's choice (tritonmoe.Tile).

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, range or device or a permutation made
    for other sizes, RuntimeError for CPU tensors without Triton's interpreter.
    """
    description, given = call_of(
        gate_up, x, w_gate, w_up, activation, gate_bias, up_bias, input_precision, tile,
        *parts(permutation, Permutation),
    )  # fmt: skip
    call = accepted(description)
    if call is None:
        tokens, _ = check_tokens(x)
        checked = check_permutation(permutation, x, tokens=tokens)
        check_gate_up(x, checked.num_experts, w_gate, w_up, gate_bias, up_bias)
        check_activation(activation)
        check_precision(input_precision)
        check_tile(tile)
        call = accept(description)
    require_runnable(gate_up_kernel, x)

    def run() -> torch.Tensor:
        chosen = tile or gate_up_tile(x, permutation.order.shape[0], permutation.num_experts)
        schedule = make_schedule(permutation, chosen.block_m, chosen.descriptors)
        return run_gate_up(
            x, permutation, schedule, w_gate, w_up, activation, gate_bias, up_bias, input_precision, chosen
        )

    return perform(call, given, run)


def gate_up_tile(x: torch.Tensor, rows: int, num_experts: int) -> Tile:
    """rows: routed rows of all experts."""
    memory = shared_memory_limit(gate_up_kernel, x.device)
    return choose("gate_up", x.element_size(), cdiv(rows, num_experts), memory)


def run_gate_up(
    x: torch.Tensor,
    permutation: Permutation,
    schedule: Schedule,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    input_precision: str,
    tile: Tile,
) -> torch.Tensor:
    """gate_up, of checked arguments, over a schedule of the tile's height."""
    hidden = x.shape[1]
    ffn = w_gate.shape[1]
    vec = vector_width((hidden, ffn), (x,), (w_gate, w_up))
    if tile.descriptors and describable(vec, permutation.order.shape[0], w_gate, w_up):
        return run_gate_up_descriptor(
            x, permutation, schedule, w_gate, w_up, activation, gate_bias, up_bias, input_precision, tile, vec
        )
    h = empty((permutation.order.shape[0], ffn), x.dtype, x.device)
    num_tiles = schedule.num_tiles
    launch(
        gate_up_kernel,
        num_tiles * cdiv(ffn, tile.block_n),
        x.device,
        x,
        permutation.order,
        permutation.offsets,
        schedule.tile_expert,
        schedule.tile_start,
        w_gate,
        w_up,
        gate_bias,
        up_bias,
        h,
        num_tiles,
        *counted((hidden, ffn), vec),
        permutation.top_k,
        *counted(strides(x), vec),
        *counted(strides(w_gate), vec),
        *counted(strides(w_up), vec),
        *((0, 0) if gate_bias is None else strides(gate_bias)),
        *((0, 0) if up_bias is None else strides(up_bias)),
        float(activation.alpha),
        float(activation.limit),
        ACTIVATION=activation.kind,
        VEC=vec,
        GATE_UNIT=unit_flag(w_gate, vec),
        UP_UNIT=unit_flag(w_up, vec),
        MASK_N=vec == 1 or ffn % tile.block_n != 0,
        MASK_K=vec == 1 or hidden % tile.block_k != 0,
        INPUT_PRECISION=input_precision if x.dtype == torch.float32 else "ieee",
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        GROUP=tile.group_m,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return h
