"""Problem: one MoE forward as frozen, plain data.

A Problem holds sizes, dtype, router rule, activation, expert load, value regime, memory layout and a seed. Nothing
else is needed to rebuild the same tensors on any machine, so a failure is one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DType = Literal["fp32", "fp16", "bf16"]
Scoring = Literal["softmax", "sigmoid", "softmax_selected"]
ActivationKind = Literal["silu", "gelu_tanh", "swiglu_clamped"]
LoadKind = Literal["uniform", "zipf", "one_hot", "few_hot", "round_robin"]
Values = Literal["normal", "positive", "integers", "spiky", "tiny", "huge", "mixed", "aligned", "exact"]
Layout = Literal["contiguous", "padded", "transposed", "offset", "packed", "interleaved", "column_major", "spaced"]

MAX_EXPERTS = 1024


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Router(_Plain):
    """The rule that turns router logits into expert ids and weights (SPEC, section "route").

    `groups_kept` of `groups` expert groups stay eligible, ranked by `group_score`: the group's best expert ("max",
    DeepSeek-V2) or the sum of its two best ("top2", DeepSeek-V3).
    """

    scoring: Scoring = "softmax"
    renormalize: bool = False
    logit_bias: bool = False
    selection_bias: bool = False
    groups: int = Field(default=1, ge=1)
    groups_kept: int = Field(default=1, ge=1)
    group_score: Literal["max", "top2"] = "max"
    scaling_factor: float = 1.0
    expert_scale: bool = False


class Load(_Plain):
    """How routed rows spread over the experts: `s` is Zipf's exponent, `hot` the number of hot experts, `empty` the
    number of experts (the last ones) that receive no row."""

    kind: LoadKind = "uniform"
    s: float = Field(default=1.0, ge=0.0, le=3.0)
    hot: int = Field(default=2, ge=1)
    empty: int = Field(default=0, ge=0)


class Problem(_Plain):
    """One MoE forward. T=tokens, H=hidden, F=ffn, E=experts, k=top_k; see SPEC.md for the stages.

    Raises pydantic.ValidationError (a ValueError) when the fields contradict each other.
    """

    tokens: int = Field(ge=0)
    hidden: int = Field(ge=1)
    ffn: int = Field(ge=1)
    experts: int = Field(ge=1, le=MAX_EXPERTS)
    top_k: int = Field(ge=1)
    dtype: DType = "fp32"
    input_precision: Literal["ieee", "tf32"] = "ieee"
    router: Router = Router()
    activation: ActivationKind = "silu"
    expert_bias: bool = False
    shared_ffn: int = Field(default=0, ge=0)
    shared_gate: bool = False
    load: Load = Load()
    values: Values = "normal"
    layout: Layout = "contiguous"
    ties: bool = False
    near_ties: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _consistent(self) -> Problem:
        if self.top_k > self.experts - self.load.empty:
            raise ValueError(
                f"top_k must be at most experts - load.empty = {self.experts - self.load.empty}, got {self.top_k}"
            )
        router = self.router
        if self.experts % router.groups:
            raise ValueError(f"router.groups={router.groups} does not divide experts={self.experts}")
        if router.groups_kept > router.groups:
            raise ValueError(f"router.groups_kept={router.groups_kept} exceeds router.groups={router.groups}")
        if self.top_k > router.groups_kept * (self.experts // router.groups):
            raise ValueError(f"top_k={self.top_k} experts do not fit into {router.groups_kept} kept groups")
        if router.scoring == "softmax_selected" and router.renormalize:
            raise ValueError("softmax_selected weights sum to one already: renormalize must be false")
        if self.near_ties and (self.ties or self.values == "exact"):
            raise ValueError("near_ties contradicts ties, and values = exact, whose ties are exact")
        if self.shared_gate and not self.shared_ffn:
            raise ValueError("shared_gate needs shared_ffn > 0")
        return self

    @property
    def routed_rows(self) -> int:
        return self.tokens * self.top_k

    @property
    def exact_logits(self) -> bool:
        """Router logits are sums of small integers: exact in fp32 in any order, so that ties are real."""
        return self.ties or (self.values in ("integers", "exact") and not self.near_ties)

    def to_json(self) -> str:
        """Canonical one-line JSON: keys sorted, fields that hold their default left out."""
        return json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | dict[str, Any]) -> Problem:
        """Parse what `to_json` wrote. Raises ValueError (pydantic's or json's) for anything else."""
        data = text if isinstance(text, dict) else json.loads(text)
        return cls.model_validate(data)

    @property
    def id(self) -> str:
        """Digest of the canonical JSON: the same problem has the same id on every machine."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
