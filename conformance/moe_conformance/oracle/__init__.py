"""The oracle: every stage written once in ball arithmetic, float64 midpoint and float64 radius.

It knows no implementation and imports no Triton. The sources of every bound are in docs/numerics.md.
"""

from .ball import Arithmetic, Ball
from .experts import combine, down, expected_permutation, forward, gate_up
from .router import RoutingReport, check_routing, logits_ball

__all__ = [
    "Arithmetic",
    "Ball",
    "RoutingReport",
    "check_routing",
    "combine",
    "down",
    "expected_permutation",
    "forward",
    "gate_up",
    "logits_ball",
]
