"""SPEC, section "route"."""

from moe_conformance import claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


@conforms(*claims.ROUTING, stages=("route",), problems="route", share=2.0)
def test_route(trial: Trial) -> None:
    """Ids and weights follow the rule, within the error a correct fp32 router may make."""
    ids, weights = trial.implementation.route(trial.inputs)
    claims.routing(trial, ids, weights)
