"""Checks of public arguments, made before anything is allocated or launched.

TypeError: the wrong kind of object, dtype or layout. ValueError: shape, range, device, or a strange combination.
Messages name the argument, what it got and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from .launch import VECTOR_BYTES
from .rules import Activation, RouterRule
from .tiles import Tile

if TYPE_CHECKING:
    from .replay import Replay
    from .stages.permute import Permutation

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
IDS = (torch.int32, torch.int64)
PRECISIONS = ("ieee", "tf32")
MAX_EXPERTS = 1024  # a token's scores live in one program, padded to a power of two
MAX_ROWS = 2**31 - 1  # routed rows are numbered in int32
REACH = 2**31 - 1  # bytes that a signed offset of 32 bits can reach
MOST_CALLS = 4096  # remembered at a time; then all are forgotten

Given = tuple[list[torch.Tensor], list[int]]  # a call's tensors in their order, and their addresses


class Call:
    """A call whose checks have passed; the same object for calls that call_of describes alike, while it is remembered.

    replays: by device index, what such calls have launched (tritonmoe.replay).
    """

    def __init__(self) -> None:
        self.replays: dict[int, Replay] = {}


_accepted: dict[object, Call] = {}


def call_of(function: Callable[..., object], *values: object) -> tuple[tuple[object, ...], Given]:
    """What checks, launchers and compiled kernels may look at, and the tensors among the values.

    Of a tensor that is all but its elements, of its address the alignment. Everything else counts by type and value:
    True and 1.0 equal 1.

    Triton compiles one kernel for addresses that are multiples of 16 and another for the rest; for devices that have
    instructions for it, also one for memory that offsets of 32 bits reach.
    """
    # One flat list, since this is done for every call: what follows a type is told by it, and by a tensor's device.
    seen: list[object] = [function]
    tensors: list[torch.Tensor] = []
    addresses: list[int] = []
    bits = 0
    for value in values:
        if value is None:
            seen.append(None)
        elif not isinstance(value, torch.Tensor):
            seen += (type(value), value)
        else:
            tensors.append(value)
            try:
                address = value.data_ptr()
                addresses.append(address)
                bits |= address
                seen += (
                    type(value),
                    value.device,
                    value.dtype,
                    value.shape,
                    value.stride(),
                    value.is_neg(),
                    value.untyped_storage().nbytes() > REACH,
                )
            except RuntimeError:  # a tensor without an address, as tracers make them, or that has no strides
                seen.append([])  # unhashable: such a call is never remembered
    # Nearly always every address is a multiple, and one look at all of them says so.
    seen.append(bits % VECTOR_BYTES == 0 or tuple(address % VECTOR_BYTES == 0 for address in addresses))
    return tuple(seen), (tensors, addresses)


def parts(value: object, kind: type) -> tuple[object, ...]:
    """For call_of: a dataclass that holds tensors, by its fields, since tensors compare and hash by identity."""
    return (kind, *vars(value).values()) if type(value) is kind else (value,)


def accepted(description: tuple[object, ...]) -> Call | None:
    """The call that was described so and whose checks passed: they depend on nothing else, and would pass again."""
    try:
        return _accepted.get(description)
    except TypeError:  # something unhashable among the values: the checks will say what
        return None


def accept(description: tuple[object, ...]) -> Call:
    """Remembers a call whose checks have all passed."""
    call = Call()
    if len(_accepted) >= MOST_CALLS:
        _accepted.clear()
    try:
        return _accepted.setdefault(description, call)
    except TypeError:  # it is checked each time then
        return call


def forget() -> None:
    """Forgets all calls: the next of each is checked and launched as a first one, with what its launchers now say."""
    _accepted.clear()


def check_int(name: str, value: object, low: int, high: int, high_name: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high_name}{high}, got {value}")


def check_tensor(
    name: str,
    value: object,
    sizes: Sequence[tuple[str, int | None]],
    dtypes: Sequence[torch.dtype],
    like: torch.Tensor | None = None,
) -> torch.Tensor:
    """sizes: for each dimension its name and the size it must have; None leaves it free."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must have layout torch.strided, got {value.layout}")
    if value.dtype not in dtypes:
        allowed = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"{name} must have dtype {allowed}, got {value.dtype}")
    wanted = ", ".join(label if size is None else f"{label}={size}" for label, size in sizes)
    shape = tuple(value.shape)
    if len(shape) != len(sizes) or any(want not in (None, got) for (_, want), got in zip(sizes, shape, strict=True)):
        raise ValueError(f"{name} must have shape ({wanted}), got {shape}")
    for (label, _), size in zip(sizes, shape, strict=True):
        if size < 1 and label not in ("tokens", "rows"):
            raise ValueError(f"{name} must have {label} of at least 1, got shape {shape}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name} must be on device {like.device} as the other tensors, got {value.device}")
    if value.device.type == "meta":
        raise ValueError(f"{name} must have data, got a tensor on device meta")
    if value.is_neg():
        raise ValueError(f"{name} must not be a lazily negated view; pass {name}.resolve_neg()")
    return value


def check_vector(name: str, value: object, experts: int, like: torch.Tensor) -> None:
    if value is not None:
        check_tensor(name, value, [("num_experts", experts)], FLOATS, like)


def check_precision(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"input_precision must be a str, got {value!r} of type {type(value).__name__}")
    if value not in PRECISIONS:
        raise ValueError(f"input_precision must be one of {', '.join(map(repr, PRECISIONS))}, got {value!r}")


def check_tile(tile: object) -> None:
    if tile is not None and not isinstance(tile, Tile):
        raise TypeError(f"tile must be a tritonmoe.Tile or None, got {type(tile).__name__}")


def check_activation(activation: object) -> None:
    if not isinstance(activation, Activation):
        raise TypeError(f"activation must be a tritonmoe.Activation, got {type(activation).__name__}")


def check_rows(tokens: int, top_k: int) -> None:
    if tokens * top_k > MAX_ROWS:
        raise ValueError(f"tokens * top_k must be below 2**31, got {tokens} * {top_k}")


def check_tokens(x: object) -> tuple[int, int]:
    value = check_tensor("x", x, [("tokens", None), ("hidden", None)], FLOATS)
    return value.shape[0], value.shape[1]


def check_rule(rule: object, top_k: object, experts: int, top_k_is_given: bool = True) -> None:
    if not isinstance(rule, RouterRule):
        raise TypeError(f"rule must be a tritonmoe.RouterRule, got {type(rule).__name__}")
    if experts > MAX_EXPERTS:
        raise ValueError(f"num_experts must be between 1 and {MAX_EXPERTS}, got {experts}")
    check_int("top_k", top_k, 1, experts, "num_experts=")
    assert isinstance(top_k, int)
    if experts % rule.n_group:
        raise ValueError(f"n_group must divide num_experts={experts}, got {rule.n_group}")
    eligible = rule.topk_group * (experts // rule.n_group)
    if eligible < top_k:
        raise ValueError(
            f"top_k must be at most {eligible}, the experts of topk_group={rule.topk_group} groups of "
            f"{experts // rule.n_group}, got {top_k}"
        )


def check_router(x: torch.Tensor, router_weight: object, logit_bias: object, input_precision: object) -> int:
    """The number of experts. x was checked before."""
    hidden = x.shape[1]
    dtypes = (x.dtype,) if x.dtype == torch.float32 else (x.dtype, torch.float32)
    weight = check_tensor("router_weight", router_weight, [("num_experts", None), ("hidden", hidden)], dtypes, x)
    experts = weight.shape[0]
    if experts > MAX_EXPERTS:
        raise ValueError(f"num_experts must be between 1 and {MAX_EXPERTS}, got {experts} (router_weight)")
    check_vector("logit_bias", logit_bias, experts, x)
    check_precision(input_precision)
    return experts


def check_selection(
    top_k: object, rule: object, experts: int, selection_bias: object, expert_scale: object, like: torch.Tensor
) -> None:
    check_rule(rule, top_k, experts)
    assert isinstance(top_k, int)
    check_rows(like.shape[0], top_k)
    check_vector("selection_bias", selection_bias, experts, like)
    check_vector("expert_scale", expert_scale, experts, like)


def check_permutation(
    value: object, like: torch.Tensor, tokens: int | None = None, rows: int | None = None
) -> Permutation:
    """A permutation whose fields agree with each other and with the sizes of the call."""
    from .stages.permute import Permutation

    if not isinstance(value, Permutation):
        raise TypeError(f"permutation must be a tritonmoe.Permutation, got {type(value).__name__}")
    check_int("permutation.num_experts", value.num_experts, 1, MAX_EXPERTS)
    check_int("permutation.top_k", value.top_k, 1, MAX_EXPERTS)
    made_for = check_tensor("permutation.order", value.order, [("rows", None)], (torch.int32,), like).shape[0]
    check_tensor("permutation.inverse", value.inverse, [("rows", made_for)], (torch.int32,), like)
    bounds = [("num_experts + 1", value.num_experts + 1)]
    check_tensor("permutation.offsets", value.offsets, bounds, (torch.int32,), like)
    for field in ("order", "inverse", "offsets"):
        if not getattr(value, field).is_contiguous():
            raise ValueError(f"permutation.{field} must be contiguous, got stride {getattr(value, field).stride()}")
    if tokens is not None and made_for != tokens * value.top_k:
        raise ValueError(
            f"permutation must be for tokens * top_k = {tokens} * {value.top_k} rows, got one for {made_for} rows"
        )
    if rows is not None and made_for != rows:
        raise ValueError(f"permutation must be for {rows} rows, got one for {made_for} rows")
    return value


def check_gate_up(
    x: torch.Tensor, experts: int | None, w_gate: object, w_up: object, gate_bias: object, up_bias: object
) -> tuple[int, int]:
    """(experts, ffn). x was checked before; experts is None where the weights decide it."""
    sizes = [("num_experts", experts), ("ffn", None), ("hidden", x.shape[1])]
    gate = check_tensor("w_gate", w_gate, sizes, (x.dtype,), x)
    experts, ffn = gate.shape[0], gate.shape[1]
    if experts > MAX_EXPERTS:
        raise ValueError(f"num_experts must be between 1 and {MAX_EXPERTS}, got {experts} (w_gate)")
    check_tensor("w_up", w_up, [("num_experts", experts), ("ffn", ffn), ("hidden", x.shape[1])], (x.dtype,), x)
    for name, bias in (("gate_bias", gate_bias), ("up_bias", up_bias)):
        if bias is not None:
            check_tensor(name, bias, [("num_experts", experts), ("ffn", ffn)], FLOATS, x)
    return experts, ffn


def check_down(
    like: torch.Tensor, experts: int, ffn: int, hidden: int | None, w_down: object, down_bias: object
) -> int:
    """The number of output columns. like is the tensor whose dtype and device the weight shares."""
    sizes = [("num_experts", experts), ("hidden", hidden), ("ffn", ffn)]
    weight = check_tensor("w_down", w_down, sizes, (like.dtype,), like)
    if down_bias is not None:
        check_tensor("down_bias", down_bias, [("num_experts", experts), ("hidden", weight.shape[1])], FLOATS, like)
    return weight.shape[1]
