"""SPEC, section "forward"."""

from moe_conformance import claims
from moe_conformance.registry import conforms
from moe_conformance.trial import Trial


def _judge_forward(trial: Trial) -> None:
    out, ids, weights = trial.implementation.forward(trial.inputs)
    x = trial.inputs.x
    kind = tuple(out.shape) == tuple(x.shape) and out.dtype == x.dtype and out.device == x.device
    found = f"{tuple(out.shape)} {out.dtype} on {out.device}"
    trial.expect("FWD-3", kind, f"out must be {tuple(x.shape)} {x.dtype} on {x.device}, got {found}")
    claims.routing(trial, ids, weights)
    claims.forward_output(trial, "FWD-2" if trial.problem.shared_ffn else "FWD-1", out, ids, weights)


@conforms("FWD-1", "FWD-2", "FWD-3", *claims.ROUTING, stages=("forward",), problems="forward", share=4.0)
def test_forward(trial: Trial) -> None:
    """The output belongs to the routing it reports, and that routing follows the rule."""
    _judge_forward(trial)


@conforms(
    *("FWD-1", "FWD-2", "FWD-3"),
    *claims.ROUTING,
    stages=("forward",),
    problems="models",
    share=0.0,
    backends=("cuda", "rocm"),
)
def test_model_layers(trial: Trial) -> None:
    """The layers of published models, at their real sizes."""
    _judge_forward(trial)
