"""Recording compile cases: the public launchers are driven under a driver that compiles and runs nothing.

For each target the launchers see its limits, choose, and ask Triton's JIT for a kernel; what the compiler would have
been given becomes a case. Nothing here knows a kernel: a new one is recorded as soon as a launcher starts it.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any
from unittest import mock

import torch

from ..mnemonic_cases import DTYPES, GROUPS, builds
from ..problem import Problem
from ..profiles import models
from .cases import CHOSEN, POSSIBLE, SLICE, Case, merge_level
from .targets import Target, settings, targets

_NORESERVE = 0x4000  # Linux's MAP_NORESERVE, for which Python has a name from 3.13 on
Take = Callable[[Case], None]


class _Utils:
    def __init__(self, target: Target) -> None:
        self._target = target

    def get_device_properties(self, device: int) -> dict[str, Any]:
        chosen = self._target
        return {
            "max_shared_mem": chosen.shared_memory,
            "multiprocessor_count": chosen.processors,
            "warpSize": chosen.warp,
            "max_num_regs": 65536,
        }


def _driver(target: Target) -> Any:
    """A Triton driver whose device is a target and whose tensors lie on the CPU."""
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase

    class Driver(DriverBase):
        def __init__(self) -> None:
            self.utils = _Utils(target)

        @classmethod
        def is_active(cls) -> bool:
            return False

        def map_python_to_cpp_type(self, ty: str) -> str:
            return ty

        def get_current_target(self) -> Any:
            return GPUTarget(target.backend, target.arch, target.warp)

        def get_current_device(self) -> int:
            return 1000 + list(targets()).index(target.name)  # Triton keeps compiled kernels by device

        def set_current_device(self, device: int) -> None:
            pass

        def get_current_stream(self, device: int | None = None) -> int:
            return 0

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

        def get_device_interface(self) -> Any:
            return torch.cpu

        def get_benchmarker(self) -> Any:
            raise NotImplementedError("nothing is run while cases are recorded")

    return Driver()


def _encoded(value: Any) -> Any:
    """A compile-time constant as JSON. Raises TypeError for one of a kind that no kernel had when this was written."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__module__.startswith("triton.language") and type(value).__name__ == "dtype":
        return {"dtype": value.name}
    raise TypeError(f"a compile-time constant of type {type(value).__name__} cannot be kept in a file of cases")


def _path(path: Any) -> str:
    return ".".join(str(part) for part in path)


def _plain(signature: Any) -> Any:
    return [_plain(part) for part in signature] if isinstance(signature, tuple | list) else signature


@contextmanager
def recording(target: Target, take: Take) -> Iterator[None]:
    """Inside, every kernel launch on CPU tensors gives `take` its case, and nothing is compiled or run."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    asked: list[dict[str, Any]] = []
    run = JITFunction.run

    def remembered(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        asked.append({k: v for k, v in named.items() if k not in self.arg_names})
        try:
            return run(self, *arguments, grid=grid, warmup=warmup, **named)
        finally:
            asked.pop()

    def noted(
        self: Any, key: Any, signature: Any, device: Any, constants: Any, options: Any, attributes: Any, *rest: Any
    ) -> Any:
        case = Case(
            kernel=f"{self.fn.__module__}:{self.fn.__name__}",
            signature={name: _plain(kind) for name, kind in signature.items()},
            constants={_path(path): _encoded(value) for path, value in constants.items()},
            attributes={_path(path): [list(each) for each in value] for path, value in attributes.items() if value},
            options=dict(sorted(asked[-1].items())),
        )
        take(case)
        return mock.MagicMock(name="a kernel that was not compiled")

    before = driver._active
    driver.set_active(_driver(target))
    try:
        with mock.patch.object(JITFunction, "run", remembered), mock.patch.object(JITFunction, "_do_compile", noted):
            yield
    finally:
        driver._active = before


def storage(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A contiguous tensor that costs address space alone: a model's weights are many gigabytes."""
    size = max(prod(shape) * dtype.itemsize, 1)
    flat = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    return torch.frombuffer(flat, dtype=dtype, count=prod(shape)).view(shape)


def forward(problem: Problem) -> None:
    """tritonmoe.moe_forward on a problem's sizes, dtype and rule, on tensors without values."""
    import tritonmoe

    dtype, router = DTYPES[problem.dtype], problem.router
    e, f, h, t = problem.experts, problem.ffn, problem.hidden, problem.tokens
    shared = None
    if problem.shared_ffn:
        s = problem.shared_ffn
        gate = storage(dtype, 1, h) if problem.shared_gate else None
        shared = tritonmoe.SharedExpert(storage(dtype, s, h), storage(dtype, s, h), storage(dtype, h, s), gate)
    bias = problem.expert_bias
    tritonmoe.moe_forward(
        storage(dtype, t, h),
        storage(dtype, e, h),
        storage(dtype, e, f, h),
        storage(dtype, e, f, h),
        storage(dtype, e, h, f),
        top_k=problem.top_k,
        rule=tritonmoe.RouterRule(
            router.scoring,
            renormalize=router.renormalize,
            n_group=router.groups,
            topk_group=router.groups_kept,
            group_score=router.group_score,
            scaling_factor=router.scaling_factor,
        ),
        activation=tritonmoe.Activation(problem.activation),
        logit_bias=storage(torch.float32, e) if router.logit_bias else None,
        selection_bias=storage(torch.float32, e) if router.selection_bias else None,
        expert_scale=storage(torch.float32, e) if router.expert_scale else None,
        gate_bias=storage(dtype, e, f) if bias else None,
        up_bias=storage(dtype, e, f) if bias else None,
        down_bias=storage(dtype, e, h) if bias else None,
        shared_expert=shared,
    )


def model_problems(dtype: str) -> Iterator[tuple[str, Problem]]:
    """Every model of models.toml at every token count of targets.toml: its name and the problem."""
    for name, layer in models().items():
        for tokens in settings().tokens:
            yield name, Problem.from_json({**layer, "tokens": tokens, "dtype": dtype})


def launches(target: Target, problem: Problem) -> list[Case]:
    """What one forward compiles on a target, in the order of first use."""
    made: list[Case] = []
    for kernel in _all_kernels():
        kernel.device_caches.clear()
    with recording(target, made.append):
        forward(problem)
    return made


def _all_kernels() -> tuple[Any, ...]:
    from ..mnemonics import _kernels

    return _kernels()


def _tile_key(case: Case) -> str:
    """What the slice of the gate has once: kernel, options, element types, numbers (blocks), not the switches."""
    numbers = {k: v for k, v in case.named_constants().items() if isinstance(v, int) and not isinstance(v, bool)}
    return f"{case.kernel} {case.options} {numbers}"


def _keep(cases: dict[str, Case], case: Case, target: str, level: str) -> None:
    known = cases.setdefault(case.id, case)
    known.levels[target] = merge_level(known.levels.get(target), level)


def record_target(target: Target, cases: dict[str, Case]) -> None:
    """Add a target's cases: chosen for the models, then everything that can be chosen."""
    seen: set[str] = set()
    for dtype in ("bf16", "fp16", "fp32"):
        for _, problem in model_problems(dtype):
            for case in launches(target, problem):
                fresh = _tile_key(case) not in seen and dtype == "bf16"
                seen.add(_tile_key(case))
                _keep(cases, case, target.name, SLICE if fresh else CHOSEN)
    for kernel in _all_kernels():
        kernel.device_caches.clear()
    with recording(target, lambda case: _keep(cases, case, target.name, POSSIBLE)):
        for group in GROUPS:
            for _, call in builds(group, target.name, target.shared_memory):
                call()


def record(names: list[str]) -> dict[str, Case]:
    """The cases of several targets by id. In a process with TRITON_INTERPRET=0."""
    cases: dict[str, Case] = {}
    for name in names:
        record_target(targets()[name], cases)
    for case in cases.values():
        case.levels = {name: case.levels[name] for name in targets() if name in case.levels}
    return cases
