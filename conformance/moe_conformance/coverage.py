"""Coverage: what a run must have met, or it fails. A run that never saw an empty expert proves nothing about one."""

from __future__ import annotations

from collections.abc import Iterable

from .implementation import Declaration
from .kinds import Kind
from .problem import Problem

TILE = 16  # the smallest tile side that tl.dot takes: any kernel's tail is a tail of this


def features(problem: Problem, kind: Kind) -> set[str]:
    """What a problem exercises by its own fields. Routing features are added by the trial from the actual ids."""
    found = {f"dtype {problem.dtype}"}
    if problem.tokens <= 1:
        found.add(f"T={problem.tokens}")
    if problem.top_k == problem.experts:
        found.add("k=E")
    if problem.routed_rows > TILE and problem.routed_rows % TILE:
        found.add("tail tile in rows")
    if kind.reads_hidden and problem.hidden > TILE and problem.hidden % TILE:
        found.add("tail tile in hidden")
    if kind.ffn:
        if problem.ffn > TILE and problem.ffn % TILE:
            found.add("tail tile in ffn")
        found.add(f"activation {problem.activation}")
    if kind.router:
        found |= router_features(problem)
    return found


def router_features(problem: Problem) -> set[str]:
    """The parts of the router rule that a problem uses."""
    router = problem.router
    found = {f"router {router.scoring}"}
    flags = {
        "renormalize": router.renormalize,
        "no renormalization": not router.renormalize and router.scoring != "softmax_selected",
        "logit bias": router.logit_bias,
        "selection bias": router.selection_bias,
        "groups": router.groups > 1,
        "expert scale": router.expert_scale,
        "scaling factor": router.scaling_factor != 1.0,
    }
    return found | {f"router {name}" for name, used in flags.items() if used}


def required(stages: Iterable[str], declaration: Declaration) -> set[str]:
    """What a run over `stages` with an implementation so declared must have met."""
    run = set(stages)
    wanted = {f"dtype {dtype}" for dtype in declaration.dtypes} | {"T=0", "T=1", "k=E"}
    wanted |= {"empty expert", "one hot expert", "tail tile in rows"}
    if run & {"gate_up", "down", "forward"}:
        wanted |= {"tail tile in hidden", "tail tile in ffn"}
        wanted |= {f"activation {kind}" for kind in declaration.activations}
    if run & {"route", "forward"}:
        wanted |= {"tie", "near tie, decided", "near tie, undecided"}
        wanted |= {f"router {scoring}" for scoring in declaration.scorings}
        wanted |= {"router scaling factor"}
        if set(declaration.scorings) & {"softmax", "sigmoid"}:
            wanted |= {"router renormalize", "router no renormalization"}
        optional = {
            "router groups": declaration.groups,
            "router selection bias": declaration.selection_bias,
            "router logit bias": declaration.logit_bias,
            "router expert scale": declaration.expert_scale,
        }
        wanted |= {name for name, supported in optional.items() if supported}
    return wanted
