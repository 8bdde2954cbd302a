"""What a model decides about routing and activation, as plain frozen data (no tensor library is imported here).

Non-finite logits
-----------------
A token is *broken* when one of its logits (bias added) is NaN or +Inf, when one of its selection values is NaN, or when
all of its logits are -Inf under a softmax rule. A broken token gets ``top_k`` weights of NaN; its expert ids are still
distinct and inside ``[0, E)``, so nothing downstream can read or write out of bounds, and no other token is touched.
A -Inf logit otherwise is legal: its score is 0 and it ranks behind every finite one; NaN ranks behind -Inf.
Exact ties, of experts and of groups, go to the lowest index; -0.0 ties with +0.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

SCORINGS = ("softmax", "sigmoid", "softmax_selected")
GROUP_SCORES = ("max", "top2")
ACTIVATIONS = ("silu", "gelu_tanh", "swiglu_clamped")


def _require_int(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _require_finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    if not isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def _require_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {value!r} of type {type(value).__name__}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


@dataclass(frozen=True)
class RouterRule:
    """How logits become expert ids and weights.

    scoring
        ``"softmax"``: p = softmax over all E logits (Mixtral, Qwen-MoE, OLMoE).
        ``"sigmoid"``: s = 1 / (1 + exp(-logit)) (DeepSeek-V3, arXiv 2412.19437, eq. 15).
        ``"softmax_selected"``: softmax over the k selected logits only (gpt-oss).
    renormalize
        divide the selected scores by (their sum + 1e-20, the epsilon of DeepSeek-V3's published code); selected scores
        that sum to 0 give weights of 0. Must be False for ``"softmax_selected"``, whose weights already sum to 1.
    n_group, topk_group, group_score
        experts form ``n_group`` equal runs of neighbours; only the ``topk_group`` best runs may be selected from.
        A run's score is the largest selection value in it (``"max"``) or the sum of its two largest (``"top2"``).
    scaling_factor
        multiplies every weight, after renormalization.

    The selection value is the logit for the softmax rules without selection bias and groups, else score + selection
    bias (the score of ``"softmax_selected"`` being p here); weights never contain the selection bias.

    Raises TypeError for a field of the wrong kind, ValueError for one out of range or for a strange combination.
    """

    scoring: str
    renormalize: bool
    n_group: int = 1
    topk_group: int = 1
    group_score: str = "max"
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        _require_choice("scoring", self.scoring, SCORINGS)
        if not isinstance(self.renormalize, bool):
            raise TypeError(
                f"renormalize must be a bool, got {self.renormalize!r} of type {type(self.renormalize).__name__}"
            )
        if self.renormalize and self.scoring == "softmax_selected":
            raise ValueError("renormalize must be False for scoring='softmax_selected', whose weights already sum to 1")
        _require_int("n_group", self.n_group)
        _require_int("topk_group", self.topk_group)
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group must be between 1 and n_group={self.n_group}, got {self.topk_group}")
        _require_choice("group_score", self.group_score, GROUP_SCORES)
        _require_finite("scaling_factor", self.scaling_factor)


@dataclass(frozen=True)
class Activation:
    """The function between the two expert matrices, of gate g and up u, evaluated in float32.

    ``"silu"``: g * sigmoid(g) * u.
    ``"gelu_tanh"``: g * sigmoid(2 * sqrt(2 / pi) * (g + 0.044715 * g**3)) * u, the tanh form of GELU
    (Hendrycks and Gimpel, arXiv 1606.08415) rewritten with 1 + tanh(z) = 2 * sigmoid(2 * z).
    ``"swiglu_clamped"`` (gpt-oss): g' = min(g, limit), u' = clamp(u, -limit, limit), (u' + 1) * g' * sigmoid(alpha *
    g').

    ``alpha`` and ``limit`` concern ``"swiglu_clamped"`` only; they are values at run time, not part of a compiled
    kernel. Raises TypeError for a field of the wrong kind, ValueError for one out of range (limit must be positive).
    """

    kind: str = "silu"
    alpha: float = 1.702
    limit: float = 7.0

    def __post_init__(self) -> None:
        _require_choice("kind", self.kind, ACTIVATIONS)
        _require_finite("alpha", self.alpha)
        if _require_finite("limit", self.limit) <= 0.0:
            raise ValueError(f"limit must be positive, got {self.limit}")
