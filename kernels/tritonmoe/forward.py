"""The forward, by regime: a single token, rows so few that sorting costs more than it saves, or sorted rows.

Sorted rows go through the stages in a row, the same kernels as when called one by one. The other two regimes have
kernels of their own for gate_up and down; they round at the same points. Sizes that the host knows choose the regime,
never data of the device, so that a call can be captured in a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import arguments
from .launch import cdiv, empty, require_runnable, shared_memory_limit
from .replay import perform
from .rules import Activation, RouterRule
from .stages.combine import run_combine, run_combine_direct
from .stages.combine_kernel import combine_kernel
from .stages.down import down_tile, run_down
from .stages.down_direct import run_down_direct
from .stages.gate_up import gate_up_tile, run_gate_up
from .stages.gate_up_direct import run_gate_up_direct
from .stages.permute import Permutation, identity_permutation, run_permute
from .stages.route import run_router_logits, run_select_experts
from .stages.schedule import Schedule, make_schedule
from .stages.vector import MOST_SLOTS, run_down_vector, run_gate_up_vector
from .tiles import Tile, find

LAYOUTS = ("concatenated", "interleaved")
_MOST_DIRECT_ROWS = 8  # routed rows per expert on average; with more, one tile of rows is not enough for each
_SILU = Activation("silu")
_SHARED_GATE = RouterRule("sigmoid", renormalize=False)


@dataclass(frozen=True)
class SharedExpert:
    """An expert that every token visits: w_gate (Fs, H), w_up (Fs, H), w_down (H, Fs), all of x's dtype.

    gate (1, H), of x's dtype or float32: the expert's output is multiplied by sigmoid(x @ gate.T) (Qwen2-MoE, Qwen3.5);
    without it, by 1 (DeepSeek-V3). The shapes are checked where the expert is used.
    """

    w_gate: torch.Tensor
    w_up: torch.Tensor
    w_down: torch.Tensor
    gate: torch.Tensor | None = None


class MoEOutput(NamedTuple):
    """out (T, H) of x's dtype, ids (T, k) int32, weights (T, k) float32."""

    out: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor


def split_gate_up(w13: torch.Tensor, layout: str = "concatenated") -> tuple[torch.Tensor, torch.Tensor]:
    """(w_gate, w_up), each (E, F, H), as views of a packed weight (E, 2F, H); nothing is copied.

    A packed bias (E, 2F) splits the same way, into (E, F) each. layout "concatenated": the first F rows are gate, the
    rest up (Hugging Face's and vLLM's w13); "interleaved": rows alternate, gate first (gpt-oss).

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, an odd 2F or an unknown layout.
    """
    sizes: list[tuple[str, int | None]] = [("num_experts", None), ("2 * ffn", None), ("hidden", None)]
    is_bias = getattr(w13, "ndim", 3) == 2
    arguments.check_tensor("w13", w13, sizes[:2] if is_bias else sizes, arguments.FLOATS)
    if not isinstance(layout, str):
        raise TypeError(f"layout must be a str, got {layout!r} of type {type(layout).__name__}")
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(map(repr, LAYOUTS))}, got {layout!r}")
    if w13.shape[1] % 2:
        raise ValueError(f"w13 must have an even second dimension, got shape {tuple(w13.shape)}")
    if layout == "interleaved":
        return w13[:, 0::2], w13[:, 1::2]
    ffn = w13.shape[1] // 2
    return w13[:, :ffn], w13[:, ffn:]


def experts_forward(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    *,
    activation: Activation = _SILU,
    gate_bias: torch.Tensor | None = None,
    up_bias: torch.Tensor | None = None,
    down_bias: torch.Tensor | None = None,
    shared_expert: SharedExpert | None = None,
    input_precision: str = "ieee",
) -> torch.Tensor:
    """out (T, H) of x's dtype: gate_up, down and combine for a routing that was decided elsewhere.

    x (T, H); ids (T, k) int32 or int64, ids outside [0, E) contribute nothing; weights (T, k) float32; w_gate and w_up
    (E, F, H), w_down (E, H, F) of x's dtype; gate_bias and up_bias (E, F), down_bias (E, H) of any float dtype. Any
    strides. Rounding points: h and y are rounded to x's dtype, the sum once at the end; everything between is float32.
    A shared expert's y, and its product with the gate if it has one, are rounded to x's dtype before they enter that
    sum.

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, range or device, RuntimeError for CPU
    tensors without Triton's interpreter; always before anything is launched.
    """
    description, given = arguments.call_of(
        experts_forward, x, ids, weights, w_gate, w_up, w_down, activation, gate_bias, up_bias, down_bias,
        input_precision, *arguments.parts(shared_expert, SharedExpert),
    )  # fmt: skip
    call = arguments.accepted(description)
    if call is None:
        tokens, _ = arguments.check_tokens(x)
        _check_experts(
            x, None, w_gate, w_up, w_down, activation, gate_bias, up_bias, down_bias, shared_expert, input_precision
        )
        arguments.check_tensor("ids", ids, [("tokens", tokens), ("top_k", None)], arguments.IDS, x)
        arguments.check_int("top_k (the columns of ids)", ids.shape[1], 1, arguments.MAX_EXPERTS)
        arguments.check_rows(tokens, ids.shape[1])
        arguments.check_tensor("weights", weights, [("tokens", tokens), ("top_k", ids.shape[1])], (torch.float32,), x)
        call = arguments.accept(description)
    require_runnable(combine_kernel, x)

    def run() -> torch.Tensor:
        return _run_experts(
            x, ids, weights, w_gate, w_up, w_down, activation, gate_bias, up_bias, down_bias, shared_expert,
            input_precision,
        )  # fmt: skip

    return perform(call, given, run)


def moe_forward(
    x: torch.Tensor,
    router_weight: torch.Tensor,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    *,
    top_k: int,
    rule: RouterRule,
    activation: Activation = _SILU,
    logit_bias: torch.Tensor | None = None,
    selection_bias: torch.Tensor | None = None,
    expert_scale: torch.Tensor | None = None,
    gate_bias: torch.Tensor | None = None,
    up_bias: torch.Tensor | None = None,
    down_bias: torch.Tensor | None = None,
    shared_expert: SharedExpert | None = None,
    input_precision: str = "ieee",
) -> MoEOutput:
    """The whole forward: route, then experts_forward. Returns (out (T, H), ids (T, k) int32, weights (T, k) float32).

    x (T, H) float32, float16 or bfloat16; router_weight (E, H) of x's dtype or float32; expert weights and biases as in
    experts_forward; logit_bias, selection_bias and expert_scale (E) as in route. Weights of NaN, which a token with
    non-finite logits gets, make that token's output NaN and touch no other token.
    Nothing waits for the device, nothing is copied to the host, inputs are not modified: the call can be captured in a
    graph.

    Raises TypeError for the wrong kind or dtype, ValueError for a wrong shape, range, device or combination,
    RuntimeError for CPU tensors without Triton's interpreter; always before anything is launched.
    """
    description, given = arguments.call_of(
        moe_forward, x, router_weight, w_gate, w_up, w_down, top_k, rule, activation, logit_bias, selection_bias,
        expert_scale, gate_bias, up_bias, down_bias, input_precision, *arguments.parts(shared_expert, SharedExpert),
    )  # fmt: skip
    call = arguments.accepted(description)
    if call is None:
        arguments.check_tokens(x)
        experts = arguments.check_router(x, router_weight, logit_bias, input_precision)
        arguments.check_selection(top_k, rule, experts, selection_bias, expert_scale, x)
        _check_experts(
            x, experts, w_gate, w_up, w_down, activation, gate_bias, up_bias, down_bias, shared_expert, input_precision
        )  # fmt: skip
        call = arguments.accept(description)
    require_runnable(combine_kernel, x)

    def run() -> tuple[torch.Tensor, ...]:
        logits = run_router_logits(x, router_weight, logit_bias, input_precision)
        ids, weights = run_select_experts(logits, top_k, rule, selection_bias, expert_scale)
        out = _run_experts(
            x, ids, weights, w_gate, w_up, w_down, activation, gate_bias, up_bias, down_bias, shared_expert,
            input_precision,
        )  # fmt: skip
        return out, ids, weights

    return MoEOutput(*perform(call, given, run))


def _check_experts(
    x: torch.Tensor,
    experts: int | None,
    w_gate: object,
    w_up: object,
    w_down: object,
    activation: object,
    gate_bias: object,
    up_bias: object,
    down_bias: object,
    shared_expert: object,
    input_precision: object,
) -> None:
    hidden = x.shape[1]
    found, ffn = arguments.check_gate_up(x, experts, w_gate, w_up, gate_bias, up_bias)
    arguments.check_down(x, found, ffn, hidden, w_down, down_bias)
    arguments.check_activation(activation)
    arguments.check_precision(input_precision)
    if shared_expert is None:
        return
    if not isinstance(shared_expert, SharedExpert):
        raise TypeError(f"shared_expert must be a tritonmoe.SharedExpert or None, got {type(shared_expert).__name__}")
    inner = [("shared ffn", None), ("hidden", hidden)]
    shared_ffn = arguments.check_tensor("shared_expert.w_gate", shared_expert.w_gate, inner, (x.dtype,), x).shape[0]
    inner = [("shared ffn", shared_ffn), ("hidden", hidden)]
    arguments.check_tensor("shared_expert.w_up", shared_expert.w_up, inner, (x.dtype,), x)
    inner = [("hidden", hidden), ("shared ffn", shared_ffn)]
    arguments.check_tensor("shared_expert.w_down", shared_expert.w_down, inner, (x.dtype,), x)
    if shared_expert.gate is not None:
        dtypes = (x.dtype,) if x.dtype == torch.float32 else (x.dtype, torch.float32)
        arguments.check_tensor("shared_expert.gate", shared_expert.gate, [("one", 1), ("hidden", hidden)], dtypes, x)


def _run_experts(
    x: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
    shared_expert: SharedExpert | None,
    input_precision: str,
) -> torch.Tensor:
    if x.shape[0] == 0:
        return empty(x.shape, x.dtype, x.device)
    addend = None if shared_expert is None else _run_shared(x, shared_expert, activation, input_precision)
    if x.shape[0] == 1 and ids.shape[1] <= MOST_SLOTS:
        h = run_gate_up_vector(x, ids, w_gate, w_up, activation, gate_bias, up_bias)
        return run_down_vector(h, ids, weights, w_down, down_bias, addend)
    tiles = direct_tiles(x, ids.numel(), *w_gate.shape[:2])
    if tiles is not None:
        h = run_gate_up_direct(x, ids, w_gate, w_up, activation, gate_bias, up_bias, input_precision, tiles[0])
        y = run_down_direct(h, ids, w_down, down_bias, input_precision, tiles[1])
        return run_combine_direct(y, weights, ids, w_gate.shape[0], addend)
    tile = gate_up_tile(x, ids.numel(), w_gate.shape[0])
    permutation, schedule = run_permute(ids, w_gate.shape[0], tile)
    y = _run_ffn(
        x, permutation, schedule, tile, w_gate, w_up, w_down, activation, gate_bias, up_bias, down_bias, input_precision
    )
    return run_combine(y, weights, permutation, addend)


def direct_tiles(x: torch.Tensor, rows: int, num_experts: int, ffn: int) -> tuple[Tile, Tile] | None:
    """The tiles of gate_up_direct and down_direct for so many routed rows; None where they are better sorted."""
    if cdiv(rows, num_experts) > _MOST_DIRECT_ROWS:
        return None
    memory = shared_memory_limit(combine_kernel, x.device)
    first = find("gate_up_direct", x.element_size(), rows, memory)
    second = find("down_direct", x.element_size(), rows, memory, ffn)
    return None if first is None or second is None else (first, second)


def _run_ffn(
    x: torch.Tensor,
    permutation: Permutation,
    schedule: Schedule,
    tile: Tile,
    w_gate: torch.Tensor,
    w_up: torch.Tensor,
    w_down: torch.Tensor,
    activation: Activation,
    gate_bias: torch.Tensor | None,
    up_bias: torch.Tensor | None,
    down_bias: torch.Tensor | None,
    input_precision: str,
) -> torch.Tensor:
    """y (M, H) in sorted order. tile, schedule: gate_up's; one schedule serves down, too, if its tiles are as high."""
    h = run_gate_up(
        x, permutation, schedule, w_gate, w_up, activation, gate_bias, up_bias, input_precision, tile
    )  # fmt: skip
    tile = down_tile(h, permutation)
    if tile.block_m != schedule.block_m or (tile.descriptors and schedule.crowded_first is None):
        schedule = make_schedule(permutation, tile.block_m, tile.descriptors)
    return run_down(h, schedule, permutation, w_down, down_bias, input_precision, tile)


def _run_shared(x: torch.Tensor, shared: SharedExpert, activation: Activation, input_precision: str) -> torch.Tensor:
    """The shared expert's output (T, H): the routed experts' kernels with one expert that every token visits."""
    permutation = identity_permutation(x.shape[0], x.device)
    w_gate, w_up, w_down = shared.w_gate.unsqueeze(0), shared.w_up.unsqueeze(0), shared.w_down.unsqueeze(0)
    tile = gate_up_tile(x, x.shape[0], 1)
    schedule = make_schedule(permutation, tile.block_m, tile.descriptors)
    y = _run_ffn(
        x, permutation, schedule, tile, w_gate, w_up, w_down, activation, None, None, None, input_precision
    )  # fmt: skip
    if shared.gate is None:
        return y
    # Sigmoid scoring with a single expert is sigmoid(x @ gate.T): the router's kernels serve here too.
    logits = run_router_logits(x, shared.gate, None, input_precision)
    _, weights = run_select_experts(logits, 1, _SHARED_GATE, None, None)
    return run_combine(y, weights, permutation, None)
