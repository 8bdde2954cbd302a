"""Adapter for this project's kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

import tritonmoe

from .. import interpreter
from ..generate import Inputs
from ..implementation import Declaration, Forward, Permutation, Routing, package_files
from ..problem import Router


def _rule(router: Router) -> tritonmoe.RouterRule:
    return tritonmoe.RouterRule(
        scoring=router.scoring,
        renormalize=router.renormalize,
        n_group=router.groups,
        topk_group=router.groups_kept,
        group_score=router.group_score,
        scaling_factor=router.scaling_factor,
    )


def _native(permutation: Permutation) -> tritonmoe.Permutation:
    assert isinstance(permutation.native, tritonmoe.Permutation)
    return permutation.native


def _input_precisions() -> tuple[str, ...]:
    """Those of fp32 products that Triton's compiler knows for this process's device: gfx950 and RDNA have no TF32."""
    known = TritonMoE.declaration.input_precisions
    if interpreter.enabled():
        return known
    from triton.compiler.compiler import make_backend
    from triton.runtime import driver

    try:
        target = driver.active.get_current_target()
    except RuntimeError:  # no device and no driver: nothing will run
        return known
    allowed = make_backend(target).parse_options({}).allowed_dot_input_precisions
    return tuple(name for name in known if name in allowed)


class TritonMoE:
    """tritonmoe as it is called by users; in the interpreter with bfloat16 repaired."""

    declaration = Declaration(
        name="tritonmoe",
        rounds=frozenset({"h", "y", "shared"}),
        checks_arguments=True,
        capturable=True,
        # Tiles follow from the number of rows alone, and a row of a tile meets K in the same order wherever it lies.
        # More tokens may mean another tile, hence other steps of K: no batch invariance.
        row_invariant=True,
        uses_triton=True,
    )

    def __init__(self) -> None:
        interpreter.repair()
        self.declaration = replace(TritonMoE.declaration, input_precisions=_input_precisions())

    @staticmethod
    def source_files() -> list[Path]:
        return package_files(Path(tritonmoe.__file__).parent)

    def route(self, inputs: Inputs) -> Routing:
        ids, weights = tritonmoe.route(
            inputs.x,
            inputs.router_weight,
            inputs.top_k,
            _rule(inputs.problem.router),
            logit_bias=inputs.logit_bias,
            selection_bias=inputs.selection_bias,
            expert_scale=inputs.expert_scale,
            input_precision=inputs.problem.input_precision,
        )
        return Routing(ids, weights)

    def permute(self, ids: Tensor, num_experts: int) -> Permutation:
        native = tritonmoe.permute(ids, num_experts)
        return Permutation(native.order, native.inverse, native.offsets, native)

    def gate_up(self, inputs: Inputs, permutation: Permutation) -> Tensor:
        return tritonmoe.gate_up(
            inputs.x,
            _native(permutation),
            inputs.w_gate,
            inputs.w_up,
            tritonmoe.Activation(inputs.problem.activation),
            gate_bias=inputs.gate_bias,
            up_bias=inputs.up_bias,
            input_precision=inputs.problem.input_precision,
        )

    def down(self, inputs: Inputs, h: Tensor, permutation: Permutation) -> Tensor:
        return tritonmoe.down(
            h,
            _native(permutation),
            inputs.w_down,
            down_bias=inputs.down_bias,
            input_precision=inputs.problem.input_precision,
        )

    def combine(self, inputs: Inputs, y: Tensor, weights: Tensor, permutation: Permutation) -> Tensor:
        return tritonmoe.combine(y, weights, _native(permutation), addend=inputs.addend)

    def forward(self, inputs: Inputs) -> Forward:
        shared = None
        if inputs.shared is not None:
            shared = tritonmoe.SharedExpert(**vars(inputs.shared))
        out, ids, weights = tritonmoe.moe_forward(
            inputs.x,
            inputs.router_weight,
            inputs.w_gate,
            inputs.w_up,
            inputs.w_down,
            top_k=inputs.top_k,
            rule=_rule(inputs.problem.router),
            activation=tritonmoe.Activation(inputs.problem.activation),
            logit_bias=inputs.logit_bias,
            selection_bias=inputs.selection_bias,
            expert_scale=inputs.expert_scale,
            gate_bias=inputs.gate_bias,
            up_bias=inputs.up_bias,
            down_bias=inputs.down_bias,
            shared_expert=shared,
            input_precision=inputs.problem.input_precision,
        )
        return Forward(out, ids, weights)

    def compiled_variants(self) -> int:
        """Kernel variants compiled so far in this process, on every device."""
        return sum(len(cache[0]) for kernel in _kernels() for cache in kernel.device_caches.values())


def _kernels() -> list[Any]:
    """The compiled entry points of every kernel module of tritonmoe."""
    import importlib
    import pkgutil

    from triton.runtime.jit import JITFunction

    from tritonmoe import stages

    modules = [importlib.import_module(f"{stages.__name__}.{m.name}") for m in pkgutil.iter_modules(stages.__path__)]
    return [value for module in modules for value in vars(module).values() if isinstance(value, JITFunction)]
