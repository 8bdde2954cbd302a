"""The builds that the listing of mnemonics is made of: every kernel of tritonmoe in every form that changes its code.

Calls go through the public functions, so that the launchers decide what a kernel is compiled for. Nothing is executed:
tensors are storage without values, of which huge ones cost address space alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from math import prod

import torch

import tritonmoe
from tritonmoe.stages.combine import run_combine_direct
from tritonmoe.stages.down_direct import run_down_direct
from tritonmoe.stages.gate_up_direct import run_gate_up_direct
from tritonmoe.stages.vector import run_down_vector, run_gate_up_vector
from tritonmoe.tiles import TileRow

from .implementations.every_tile import forced, rows

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# What the builds are grouped by, for work in several processes: a dtype, or what depends on none.
GROUPS = (*DTYPES, "integers")
# Triton lets `tl.dot` of fp32 use less than fp32 where the target has a matrix unit for it.
TF32_TARGETS = ("gfx942", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")

_TOKENS, _EXPERTS, _TOP_K = 64, 8, 2
_ROWS = _TOKENS * _TOP_K
# hidden and ffn: multiples of every block; multiples of a vector and of no block; odd.
_WHOLE, _MASKED, _ODD = (256, 512), (264, 136), (257, 131)
# Beyond this many bytes Triton gives up buffer instructions, whose offsets have 32 bits.
_FAR_BYTES = 2**31
_NORESERVE = 0x4000  # Linux's MAP_NORESERVE, for which Python has a name from 3.13 on
_ACTIVATIONS = ("silu", "gelu_tanh", "swiglu_clamped")

Call = Callable[[], object]


def empty(dtype: torch.dtype, *shape: int, offset: int = 0) -> torch.Tensor:
    """A contiguous tensor that begins `offset` elements behind an aligned address."""
    return torch.empty(offset + prod(shape), dtype=dtype)[offset:].view(shape)


def far(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor whose first dimension is stepped along in more than 2**31 elements; no memory is behind it."""
    step = 2**31 + 128
    inner = prod(shape[1:])
    size = ((shape[0] - 1) * step + inner) * dtype.itemsize
    assert size > _FAR_BYTES
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    flat = torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=dtype)
    strides = [prod(shape[i + 1 :]) for i in range(len(shape))]
    return flat.as_strided(shape, (step, *strides[1:]))


def column_major(weight: torch.Tensor) -> torch.Tensor:
    return weight.transpose(-1, -2).contiguous().transpose(-1, -2)


@dataclass(frozen=True)
class Form:
    """Sizes, layout and arguments of one build of a product."""

    name: str
    hidden: int
    ffn: int
    offset: int = 0
    columns: bool = False
    bias: torch.dtype | None = None
    precision: str = "ieee"
    is_far: bool = False

    def weight(self, dtype: torch.dtype, experts: int, rows: int, columns: int) -> torch.Tensor:
        made = (
            far(dtype, experts, rows, columns)
            if self.is_far
            else empty(dtype, experts, rows, columns, offset=self.offset)
        )
        return column_major(made) if self.columns else made

    def bias_of(self, experts: int, columns: int) -> torch.Tensor | None:
        return None if self.bias is None else empty(self.bias, experts, columns)


_FORMS = (
    Form("vector", *_WHOLE),
    Form("masked", *_MASKED, columns=True, bias=torch.float32),
    Form("odd", *_ODD, bias=torch.bfloat16),
)


def _further(dtype: torch.dtype, target: str) -> list[Form]:
    """Forms that one row of the tile table is enough for."""
    found = [
        Form("unaligned", *_ODD, offset=1, bias=torch.float16),
        Form("columns", *_WHOLE, columns=True),
        Form("half masked", _WHOLE[0], _MASKED[1]),
        Form("half masked too", _MASKED[0], _WHOLE[1], bias=dtype),
        Form("far", *_WHOLE, is_far=True),
        Form("far and odd", *_ODD, is_far=True),
    ]
    if dtype is torch.float32 and target in TF32_TARGETS:
        found += [Form(f"tf32 {form.name}", form.hidden, form.ffn, precision="tf32") for form in _FORMS]
    return found


def rows_for(stage: str, itemsize: int, shared_memory: int) -> list[TileRow]:
    """The rows of the tile table that a target's shared memory admits, chosen there first or not."""
    return [row for row in rows(shared_memory) if row.stage == stage and row.itemsize == itemsize]


def _permutation(experts: int = _EXPERTS) -> tritonmoe.Permutation:
    order, inverse, offsets = (torch.empty(size, dtype=torch.int32) for size in (_ROWS, _ROWS, experts + 1))
    return tritonmoe.Permutation(order, inverse, offsets, _TOP_K, experts)


def _gate_up(dtype: torch.dtype, row: TileRow, form: Form, activation: str) -> Call:
    experts = 2 if form.is_far else _EXPERTS

    def call() -> object:
        return tritonmoe.gate_up(
            empty(dtype, _TOKENS, form.hidden, offset=form.offset),
            _permutation(experts),
            form.weight(dtype, experts, form.ffn, form.hidden),
            form.weight(dtype, experts, form.ffn, form.hidden),
            tritonmoe.Activation(activation),
            form.bias_of(experts, form.ffn),
            form.bias_of(experts, form.ffn),
            input_precision=form.precision,
            tile=row.tile,
        )

    return call


def _down(dtype: torch.dtype, row: TileRow, form: Form) -> Call:
    experts = 2 if form.is_far else _EXPERTS

    def call() -> object:
        return tritonmoe.down(
            empty(dtype, _ROWS, form.ffn, offset=form.offset),
            _permutation(experts),
            form.weight(dtype, experts, form.hidden, form.ffn),
            form.bias_of(experts, form.hidden),
            input_precision=form.precision,
            tile=row.tile,
        )

    return call


def _logits(dtype: torch.dtype, weights: torch.dtype, row: TileRow, experts: int, form: Form) -> Call:
    tokens = min(row.rows_up_to, 256)

    def call() -> object:
        weight = empty(weights, experts, form.hidden, offset=form.offset)
        with forced(row):  # no launch of the router names its tile
            return tritonmoe.router_logits(
                far(dtype, 2, form.hidden) if form.is_far else empty(dtype, tokens, form.hidden, offset=form.offset),
                column_major(weight) if form.columns else weight,
                None if form.bias is None else empty(form.bias, experts),
                input_precision=form.precision,
            )

    return call


def _direct(dtype: torch.dtype, row: TileRow, form: Form, activation: str) -> Call:
    experts, ids = 2 if form.is_far else _EXPERTS, torch.empty(_TOKENS, _TOP_K, dtype=torch.int32)

    def gate_up() -> object:
        return run_gate_up_direct(
            empty(dtype, _TOKENS, form.hidden, offset=form.offset),
            ids,
            form.weight(dtype, experts, form.ffn, form.hidden),
            form.weight(dtype, experts, form.ffn, form.hidden),
            tritonmoe.Activation(activation),
            form.bias_of(experts, form.ffn),
            form.bias_of(experts, form.ffn),
            form.precision,
            row.tile,
        )

    def down() -> object:
        h = empty(dtype, _ROWS, form.ffn, offset=form.offset)
        weight = form.weight(dtype, experts, form.hidden, form.ffn)
        return run_down_direct(h, ids, weight, form.bias_of(experts, form.hidden), form.precision, row.tile)

    return gate_up if row.stage == "gate_up_direct" else down


def _vector(dtype: torch.dtype, top_k: int, form: Form, activation: str) -> Call:
    """Both products of a single token."""
    experts = 2 if form.is_far else _EXPERTS

    def call() -> object:
        x = empty(dtype, 1, form.hidden, offset=form.offset)
        ids, weights = torch.empty(1, top_k, dtype=torch.int32), torch.empty(1, top_k)
        w_gate, w_up = (form.weight(dtype, experts, form.ffn, form.hidden) for _ in range(2))
        biases = (form.bias_of(experts, form.ffn), form.bias_of(experts, form.ffn))
        h = run_gate_up_vector(x, ids, w_gate, w_up, tritonmoe.Activation(activation), *biases)
        w_down = form.weight(dtype, experts, form.hidden, form.ffn)
        bias = form.bias_of(experts, form.hidden)
        return run_down_vector(h, ids, weights, w_down, bias, None if bias is None else x)

    return call


def _combine_direct(dtype: torch.dtype, top_k: int, ids: torch.dtype) -> Call:
    return lambda: run_combine_direct(
        empty(dtype, 5 * top_k, 256), torch.empty(5, top_k), torch.empty(5, top_k, dtype=ids), _EXPERTS, None
    )


def _combine(dtype: torch.dtype, hidden: int, *, addend: bool, offset: int = 0, is_far: bool = False) -> Call:
    def call() -> object:
        return tritonmoe.combine(
            far(dtype, _ROWS, hidden) if is_far else empty(dtype, _ROWS, hidden, offset=offset),
            torch.empty(_TOKENS, _TOP_K),
            _permutation(),
            empty(dtype, _TOKENS, hidden) if addend else None,
        )

    return call


def products(dtype: torch.dtype, target: str, shared_memory: int) -> Iterator[tuple[str, Call]]:
    """The builds of one dtype: router logits, gate_up, down, combine."""
    size = dtype.itemsize
    kinds = cycle(_ACTIVATIONS)
    for stage in ("gate_up", "down"):
        for index, row in enumerate(rows_for(stage, size, shared_memory)):
            for form in (*_FORMS, *(() if index else _further(dtype, target))):
                name = f"{stage} {dtype} {form.name} {row.tile}"
                kind = next(kinds)
                yield name, _gate_up(dtype, row, form, kind) if stage == "gate_up" else _down(dtype, row, form)
    for stage in ("gate_up_direct", "down_direct"):
        for index, row in enumerate(rows_for(stage, size, shared_memory)):
            for form in (*_FORMS, *(() if index else _further(dtype, target))):
                yield f"{stage} {dtype} {form.name} {row.tile}", _direct(dtype, row, form, next(kinds))
    for top_k in (1, 2, 4, 8, 16):
        for form in (*_FORMS, *(_further(dtype, target) if top_k == 2 else ())):
            if form.precision == "ieee":  # no product of matrices
                yield f"vector {dtype} {form.name} {top_k}", _vector(dtype, top_k, form, next(kinds))
    for top_k, ids in ((1, torch.int32), (2, torch.int64), (9, torch.int32)):
        yield f"combine direct {dtype} {top_k}", _combine_direct(dtype, top_k, ids)
    weights = (dtype,) if dtype is torch.float32 else (dtype, torch.float32)
    for weight in weights:
        for index, row in enumerate(rows_for("router", weight.itemsize, shared_memory)):
            for form in (*_FORMS, *(() if index or weight is not dtype else _further(dtype, target))):
                experts = 64 if form.name == "vector" else 37
                name = f"router {dtype} by {weight} {form.name} {row.tile}"
                yield name, _logits(dtype, weight, row, experts, form)
    for hidden, offset in ((40, 0), (64, 0), (256, 0), (2048, 0), (37, 0), (131, 1), (1023, 0)):
        for addend in (False, True):
            yield f"combine {dtype} {hidden} {addend}", _combine(dtype, hidden, addend=addend, offset=offset)
    yield f"combine {dtype} far", _combine(dtype, 256, addend=False, is_far=True)


_RULES = (
    tritonmoe.RouterRule("softmax", renormalize=False),
    tritonmoe.RouterRule("softmax", renormalize=True),
    tritonmoe.RouterRule("sigmoid", renormalize=True),
    tritonmoe.RouterRule("softmax_selected", renormalize=False),
    tritonmoe.RouterRule("softmax", renormalize=False, n_group=4, topk_group=2),
    tritonmoe.RouterRule("sigmoid", renormalize=True, n_group=4, topk_group=2, group_score="top2"),
)
_HEIGHTS = (16, 32, 64, 128)


def _select(experts: int, rule: tritonmoe.RouterRule, bias: torch.dtype | None, offset: int) -> Call:
    def call() -> object:
        return tritonmoe.select_experts(
            empty(torch.float32, _TOKENS, experts, offset=offset),
            min(experts, 2) if rule.n_group == 1 else 2,
            rule,
            None if bias is None else empty(bias, experts),
            None if bias is None else empty(bias, experts),
        )

    return call


def _permute(experts: int, dtype: torch.dtype, tokens: int, top_k: int, offset: int) -> Call:
    return lambda: tritonmoe.permute(empty(dtype, tokens, top_k, offset=offset), experts)


def _schedule(experts: int, height: int, crowded_first: bool) -> Call:
    from tritonmoe.stages.schedule import make_schedule

    return lambda: make_schedule(_permutation(experts), height, crowded_first)


def without_dtype() -> Iterator[tuple[str, Call]]:
    """The builds that no element type of the tokens enters: choice of experts, permutation, schedule."""
    biases = cycle((None, torch.float32, torch.bfloat16, torch.float16))
    for index, rule in enumerate(_RULES):
        # All sizes for the first rule alone: these are the kernels that take longest to compile.
        for experts in (8, 60, 256) if rule.n_group > 1 else (8, 37) if index else (1, 8, 37, 64, 256, 1024):
            yield f"select {rule} {experts}", _select(experts, rule, next(biases), index % 2)
    for dtype, sizes in ((torch.int32, (1, 3, 8, 37)), (torch.int64, (8, 256))):
        for experts in sizes:
            yield f"permute {experts} {dtype}", _permute(experts, dtype, 97, min(experts, 3), experts % 2)
    for experts in (1, 8, 37, 256, 1024):
        for height in _HEIGHTS if experts == 8 else _HEIGHTS[:1]:
            for crowded_first in (False, True):
                yield f"schedule {experts} {height} {crowded_first}", _schedule(experts, height, crowded_first)


def builds(group: str, target: str, shared_memory: int) -> Iterator[tuple[str, Call]]:
    """Name and call of every build of a group (GROUPS) on a target."""
    return products(DTYPES[group], target, shared_memory) if group in DTYPES else without_dtype()
