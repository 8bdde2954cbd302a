"""Problem -> tensors: the same bytes on every platform, torch version and vendor.

Every tensor has a stream of random numbers of its own (streams.py), so tensors can be made lazily and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from .formats import FORMATS
from .guards import Guards
from .loads import draw_ids, expert_loads
from .problem import Problem
from .streams import POOL, raw_words, sample, sampled
from .ties import near_tie_gaps, tie_leaders

# Where the "tiny" and "huge" regimes put results, as a power of two: bf16 and fp32 near 1e-30 and 1e9 or more (out of
# fp16's reach), fp16 at the edge of its subnormal numbers and of overflow.
TINY = {"fp32": -100, "bf16": -100, "fp16": -14}
HUGE = {"fp32": 30, "bf16": 30, "fp16": 14}

# Elements between rows by layout: an odd number, or whole vectors of 16 bytes in every dtype.
_GAPS = {"padded": 7, "spaced": 16}


def _near_root(value: int) -> int:
    """The power of two nearest to sqrt(value), by integer arithmetic: no libm decides a scale."""
    return 1 << (((2 * value).bit_length() - 1) // 2)


class GateUp(NamedTuple):
    """w_gate and w_up (E,F,H), which packed layouts keep in one storage."""

    w_gate: torch.Tensor
    w_up: torch.Tensor


@dataclass
class SharedExpertInputs:
    """The shared expert's weights: w_gate, w_up (Fs,H), w_down (H,Fs), gate (1,H) or None."""

    w_gate: torch.Tensor
    w_up: torch.Tensor
    w_down: torch.Tensor
    gate: torch.Tensor | None


T = TypeVar("T")


def made_once(make: Callable[[Any], T]) -> cached_property[T]:
    """A tensor or several, made on first use, between guard bands where the inputs have them."""

    def placed(inputs: Inputs) -> Any:
        if inputs.guards is None:
            return make(inputs)
        with inputs.guards.paused():  # an implementation may be the first to ask, while its own memory is watched
            made = make(inputs)
        return inputs.guards.placed_parts(make.__name__, made)

    return cached_property(placed)


@dataclass
class Inputs:
    """The tensors of a problem, made on first use. Attributes an implementation reads (dtype = the problem's):

    x (T,H), router_weight (E,H), logit_bias/selection_bias/expert_scale (E) fp32 or None, w_gate and w_up (E,F,H),
    w_down (E,H,F), gate_bias/up_bias (E,F), down_bias (E,H) or None, shared (SharedExpertInputs or None); and for
    stages judged alone: ids (T,k) int32, weights (T,k) fp32, h (M,F), y (M,H) rows in expert order, addend (T,H).
    `overrides` replaces any of them by name (non-finite and bad-input properties use it). With `guards` every tensor,
    also a replaced one, lies between guard bands.
    """

    problem: Problem
    device: torch.device
    top_k: int  # the problem's, unless a bad-input property asks for another
    whole_forward: bool = False
    overrides: dict[str, object] = field(default_factory=dict)
    guards: Guards | None = None

    def __post_init__(self) -> None:
        self.__dict__.update(self.overrides)  # where cached_property looks first

    def replaced(self, **overrides: object) -> Inputs:
        """A copy that shares the tensors made so far, with some replaced; `problem` and `top_k` may be replaced too."""
        problem, top_k = overrides.pop("problem", self.problem), overrides.pop("top_k", self.top_k)
        shared = {k: v for k, v in self.__dict__.items() if k in TENSOR_NAMES}
        tensors = {k: v for k, v in overrides.items() if isinstance(v, torch.Tensor)}
        changed = {**shared, **overrides, **(self.guards.placed(tensors) if self.guards else {})}
        # A bad-input property may ask for a top_k that is no int at all.
        made = type(self)
        return made(problem, self.device, top_k, self.whole_forward, changed, self.guards)  # type: ignore[arg-type]

    def made(self) -> dict[str, torch.Tensor]:
        """The tensors made so far, by name."""
        found = {k: v for k, v in self.__dict__.items() if isinstance(v, torch.Tensor)}
        shared = self.__dict__.get("shared")
        if shared is not None:
            found |= {f"shared.{k}": v for k, v in vars(shared).items() if v is not None}
        return found

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor called `name`, as in `made`."""
        owner, _, part = name.rpartition(".")
        found = getattr(getattr(self, owner) if owner else self, part)
        assert isinstance(found, torch.Tensor)
        return found

    # -- values ------------------------------------------------------------------------------------------------------

    @property
    def _exact(self) -> bool:
        return self.problem.ties or self.problem.values == "integers"

    def _values(self, name: str, shape: tuple[int, ...], scale: float = 1.0, regime: str | None = None) -> torch.Tensor:
        """Values in the problem's regime times `scale` (a power of two), rounded to its dtype, contiguous."""
        dtype = FORMATS[self.problem.dtype].dtype
        regime = self.problem.values if regime is None else regime
        count = math.prod(shape)
        values = sampled(self.problem.seed, name, min(count, POOL), regime) * scale
        tensor = torch.from_numpy(values).to(dtype).to(self.device)
        if count > POOL:
            tensor = tensor.repeat(-(-count // POOL))[:count]
        tensor = tensor.reshape(shape)
        if regime == "mixed" and shape[-1]:
            rows = math.prod(shape[:-1])
            exponents = (raw_words(self.problem.seed, name + ".rows", rows) >> np.uint64(40)).astype(np.int64) % 13 - 6
            factors = torch.from_numpy(np.exp2(exponents.astype(np.float64))).to(self.device, dtype)
            tensor = tensor * factors.reshape(*shape[:-1], 1)
        return tensor

    def _in_scale(self, fan_in: int) -> float:
        # Products over `fan_in` terms land near one. Terms that do not cancel need 1/fan_in, those that do its root.
        aligned = self.problem.values in ("positive", "aligned")
        return 1.0 / _near_root(fan_in**2 if aligned else fan_in)

    def _signs(self, name: str, *shape: int) -> torch.Tensor:
        """Random signs, as +-1 in the problem's dtype, for the regime "aligned"; ones in every other regime.

        In "aligned" every row of x carries one sign pattern over H times a sign of its own, and so does every row of
        the weights: all products of a sum then have one sign (but for the constant column 0 of x), while inputs and
        results have both. Such sums are well conditioned, so the worst-case bound stays sharp at any length, which it
        cannot with random signs.
        """
        dtype = FORMATS[self.problem.dtype].dtype
        if self.problem.values != "aligned":
            return torch.ones(shape, dtype=dtype, device=self.device)
        bits = (raw_words(self.problem.seed, "signs." + name, math.prod(shape)) >> np.uint64(63)).astype(np.int64)
        return torch.from_numpy(1 - 2 * bits).reshape(shape).to(self.device, dtype)

    @property
    def _range_scale(self) -> float:
        table = {"tiny": TINY, "huge": HUGE}.get(self.problem.values)
        return 2.0 ** table[self.problem.dtype] if table else 1.0

    # -- layouts -----------------------------------------------------------------------------------------------------

    def _laid_out(self, tensor: torch.Tensor, *, weight: bool = False) -> torch.Tensor:
        """The same values in the problem's memory layout; whatever lies between them in storage is NaN.

        "column_major" turns weights alone: kernels that load whole vectors do so along either axis of a weight, but of
        tokens only along the rows. "spaced" leaves whole vectors between rows, "padded" an odd number of elements: for
        kernels that load vectors only where every step allows it, which may yet take rows to follow each other.
        """
        layout = self.problem.layout
        if tensor.numel() == 0 or tensor.dim() < 2:
            return tensor
        if layout in _GAPS:
            storage = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + _GAPS[layout]), math.nan)
            view = storage[..., : tensor.shape[-1]]
        elif layout == "transposed" or (layout == "column_major" and weight):
            view = tensor.new_empty((*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2])).transpose(-1, -2)
        elif layout == "offset":
            view = tensor.new_full((tensor.numel() + 1,), math.nan)[1:].view(tensor.shape)
        else:
            return tensor
        return view.copy_(tensor)

    # -- forward inputs ----------------------------------------------------------------------------------------------

    @made_once
    def x(self) -> torch.Tensor:
        return self._laid_out(self._x_values())

    def _x_values(self) -> torch.Tensor:
        p = self.problem
        regime = "integers" if self._exact else "normal" if p.values in ("tiny", "huge") else None
        x = self._values("x", (p.tokens, p.hidden), regime=regime)
        x *= self._signs("tokens", p.tokens, 1) * self._signs("hidden", p.hidden)
        x[:, 0] = 1.0  # constant: the router's column 0 steers the load
        if p.near_ties:
            x[:, 1:2] = 1.0  # constant too: the router's column 1 sets the experts of a group apart
        return x

    @made_once
    def router_weight(self) -> torch.Tensor:
        p = self.problem
        shape = (p.experts, p.hidden)
        wanted = np.asarray(expert_loads(p), dtype=np.float64)
        # log2 of the wanted load; experts meant to stay empty sit 24 octaves below the rest.
        # Rounded to 1/256, so that the last bit of a libm's logarithm cannot show.
        steer = np.round(256 * np.log2(np.where(wanted > 0, wanted / wanted.max(), 2.0**-24))) / 256
        if self._exact:
            weight = self._values("router_weight", shape, regime="integers")
            column = torch.from_numpy(np.round(steer))
        else:
            regime = p.values if p.values not in ("tiny", "huge", "mixed", "spiky") else "normal"
            # Aligned logits differ by the spread of their sums alone: 16 times larger, they still differ at H = 7168.
            gain = 16.0 if p.values == "aligned" else 1.0
            weight = self._values("router_weight", shape, self._in_scale(p.hidden) * gain, regime)
            weight *= self._signs("router", p.experts, 1) * self._signs("hidden", p.hidden)
            column = torch.from_numpy(steer * math.log(2.0))
        weight[:, 0] = column.to(weight)
        leader = tie_leaders(p)
        if leader is not None:
            weight = weight[torch.from_numpy(leader).to(self.device)]
        if p.near_ties:
            weight[:, 1:2] = torch.from_numpy(near_tie_gaps(p, "router_weight")).to(weight)[:, None]
        return self._laid_out(weight, weight=True)

    def _expert_vector(self, name: str, scale: float) -> torch.Tensor:
        p = self.problem
        values = sample(raw_words(p.seed, name, p.experts), "integers" if self._exact else "normal") * scale
        leader = tie_leaders(p)
        if leader is not None:
            values = values[leader]
        if p.near_ties:
            values = values + near_tie_gaps(p, name)
        return torch.from_numpy(values).to(torch.float32).to(self.device)

    @made_once
    def logit_bias(self) -> torch.Tensor | None:
        return self._expert_vector("logit_bias", 0.5) if self.problem.router.logit_bias else None

    @made_once
    def selection_bias(self) -> torch.Tensor | None:
        if not self.problem.router.selection_bias:
            return None
        # Shifted, so that selection values have both signs: a masked group at 0 then beats eligible experts.
        return self._expert_vector("selection_bias", 0.125) - 0.5

    @made_once
    def expert_scale(self) -> torch.Tensor | None:
        if not self.problem.router.expert_scale:
            return None
        return self._expert_vector("expert_scale", 0.25).abs() + 0.5

    def _gate_up_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        p = self.problem
        shape = (p.experts, p.ffn, p.hidden)
        scale = self._in_scale(p.hidden)
        gate = self._values("w_gate", shape, scale, "normal" if p.values in ("tiny", "huge") else None)
        # In a whole forward the range regimes act on the down projection alone, so that h stays representable.
        up = self._values("w_up", shape, scale * self._up_range_scale)
        gate_signs, up_signs = self._gate_up_signs()
        gate *= gate_signs * self._signs("hidden", p.hidden)
        up *= up_signs * self._signs("hidden", p.hidden)
        return gate, up

    def _gate_up_pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        p = self.problem
        gate, up = self._gate_up_values()
        if p.layout == "packed":
            both = torch.cat((gate, up), dim=1)
            return both[:, : p.ffn], both[:, p.ffn :]
        if p.layout == "interleaved":
            both = torch.stack((gate, up), dim=2).reshape(p.experts, 2 * p.ffn, p.hidden)
            return both[:, 0::2], both[:, 1::2]
        return self._laid_out(gate, weight=True), self._laid_out(up, weight=True)

    def _gate_up_signs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Signs (E,F,1) of the rows of gate and up that leave h with one sign pattern over F times a sign per row.

        SiLU and GELU keep the sign of gate, so h has the sign of gate times that of up; the clamped SwiGLU adds one to
        an up below one, so h has the sign of gate.
        """
        p = self.problem
        pattern = self._signs("ffn", p.ffn)
        if p.activation == "swiglu_clamped":
            gate, up = self._signs("gate", p.experts, 1) * pattern, self._signs("up", p.experts, p.ffn)
        else:
            gate = self._signs("gate", p.experts, p.ffn)
            up = gate * pattern
        return gate[..., None], up[..., None]

    @property
    def _up_range_scale(self) -> float:
        return 1.0 if self.whole_forward else self._range_scale

    @made_once
    def _pair(self) -> GateUp:
        return GateUp(*self._gate_up_pair())  # together: packed halves stay views of one storage

    @made_once
    def w_gate(self) -> torch.Tensor:
        return self._pair[0]

    @made_once
    def w_up(self) -> torch.Tensor:
        return self._pair[1]

    @made_once
    def w_down(self) -> torch.Tensor:
        return self._laid_out(self._down_values(), weight=True)

    def _down_values(self) -> torch.Tensor:
        p = self.problem
        weight = self._values("w_down", (p.experts, p.hidden, p.ffn), self._in_scale(p.ffn) * self._range_scale)
        weight *= self._signs("down", p.hidden, 1) * self._signs("ffn", p.ffn)
        return weight

    def _bias(self, name: str, columns: int, scale: float) -> torch.Tensor | None:
        # As large as the products it is added to: a bias must neither drown them nor vanish beside them.
        if not self.problem.expert_bias:
            return None
        values = self._values(name, (self.problem.experts, columns), 0.5 * scale)
        return self._laid_out(values * self._signs(name, self.problem.experts, columns))

    @made_once
    def gate_bias(self) -> torch.Tensor | None:
        return self._bias("gate_bias", self.problem.ffn, 1.0)

    @made_once
    def up_bias(self) -> torch.Tensor | None:
        return self._bias("up_bias", self.problem.ffn, self._up_range_scale)

    @made_once
    def down_bias(self) -> torch.Tensor | None:
        return self._bias("down_bias", self.problem.hidden, self._range_scale)

    @made_once
    def shared(self) -> SharedExpertInputs | None:
        p = self.problem
        if not p.shared_ffn:
            return None
        scale, wide = self._in_scale(p.hidden), "normal" if p.values in ("tiny", "huge") else None
        inner, outer = (p.shared_ffn, p.hidden), (p.hidden, p.shared_ffn)
        pattern, gate_signs = self._signs("hidden", p.hidden), self._signs("shared.gate", p.shared_ffn, 1)
        down_signs = self._signs("down", p.hidden, 1)
        return SharedExpertInputs(
            w_gate=self._values("shared.w_gate", inner, scale, wide) * gate_signs * pattern,
            w_up=self._values("shared.w_up", inner, scale, wide) * gate_signs * pattern,
            w_down=self._values("shared.w_down", outer, self._in_scale(p.shared_ffn) * self._range_scale) * down_signs,
            gate=self._values("shared.gate", (1, p.hidden), scale, wide) * pattern if p.shared_gate else None,
        )

    # -- inputs of stages judged alone -------------------------------------------------------------------------------

    @made_once
    def ids(self) -> torch.Tensor:
        p = self.problem
        words = raw_words(p.seed, "ids", p.tokens * p.top_k).reshape(p.tokens, p.top_k)
        return torch.from_numpy(draw_ids(p, words)).to(self.device)

    @made_once
    def weights(self) -> torch.Tensor:
        p = self.problem
        words = raw_words(p.seed, "weights", p.tokens * p.top_k)
        # One weight in four is negative: no router makes one, but combine is a plain sum of products.
        signs = np.where((words & np.uint64(3)) == 0, -1.0, 1.0)
        values = torch.from_numpy((sample(words, "positive") * signs).astype(np.float32))
        return values.reshape(p.tokens, p.top_k).to(self.device)

    @made_once
    def h(self) -> torch.Tensor:
        wide = "normal" if self.problem.values in ("tiny", "huge") else None
        rows, ffn = self.problem.routed_rows, self.problem.ffn
        signs = self._signs("rows", rows, 1) * self._signs("ffn", ffn)
        return self._values("h", (rows, ffn), regime=wide) * signs

    @made_once
    def y(self) -> torch.Tensor:
        return self._values("y", (self.problem.routed_rows, self.problem.hidden), self._range_scale)

    @made_once
    def addend(self) -> torch.Tensor | None:
        if not self.problem.shared_ffn:
            return None
        return self._values("addend", (self.problem.tokens, self.problem.hidden), self._range_scale)


TENSOR_NAMES = frozenset(
    name for name, value in vars(Inputs).items() if isinstance(value, cached_property) and not name.startswith("_")
)


def generate(
    problem: Problem, device: torch.device | str, *, whole_forward: bool = False, guards: Guards | None = None
) -> Inputs:
    """The inputs of `problem` on `device`; `whole_forward` keeps the range regimes to the down projection."""
    from .integers import ExactInputs  # which is made of this module's Inputs

    kind = ExactInputs if problem.values == "exact" else Inputs
    return kind(problem, torch.device(device), problem.top_k, whole_forward, guards=guards)
