"""tritonmoe: a fused Mixture-of-Experts inference forward in portable Triton.

Names are imported on first use (PEP 562), so that the kernel files, which need Triton alone, can be imported and
compiled for any target on a machine without torch: ``import tritonmoe.stages.route_kernel``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .forward import MoEOutput as MoEOutput
    from .forward import SharedExpert as SharedExpert
    from .forward import experts_forward as experts_forward
    from .forward import moe_forward as moe_forward
    from .forward import split_gate_up as split_gate_up
    from .rules import Activation as Activation
    from .rules import RouterRule as RouterRule
    from .stages.combine import combine as combine
    from .stages.down import down as down
    from .stages.gate_up import gate_up as gate_up
    from .stages.permute import Permutation as Permutation
    from .stages.permute import permute as permute
    from .stages.route import route as route
    from .stages.route import router_logits as router_logits
    from .stages.route import select_experts as select_experts
    from .tiles import Tile as Tile

_HOMES = {
    "Activation": ".rules",
    "MoEOutput": ".forward",
    "Permutation": ".stages.permute",
    "RouterRule": ".rules",
    "SharedExpert": ".forward",
    "Tile": ".tiles",
    "combine": ".stages.combine",
    "down": ".stages.down",
    "experts_forward": ".forward",
    "gate_up": ".stages.gate_up",
    "moe_forward": ".forward",
    "permute": ".stages.permute",
    "route": ".stages.route",
    "router_logits": ".stages.route",
    "select_experts": ".stages.route",
    "split_gate_up": ".forward",
}

__all__ = [
    "Activation",
    "MoEOutput",
    "Permutation",
    "RouterRule",
    "SharedExpert",
    "Tile",
    "combine",
    "down",
    "experts_forward",
    "gate_up",
    "moe_forward",
    "permute",
    "route",
    "router_logits",
    "select_experts",
    "split_gate_up",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
