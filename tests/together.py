"""Launches that wait until their kernels are compiled (tritonmoe.first_call), with TRITON_INTERPRET=0.

The device is simulated on the CPU, where the package compiles nothing ahead: the tests say that it should. Run as a
program by test_host_path.py: an assertion that fails is its only word.
"""

from __future__ import annotations

import sys
import threading
import time
from unittest import mock

import torch
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

import tritonmoe
import wavefront
from tritonmoe import arguments, first_call
from tritonmoe.launch import waiting

RULE = tritonmoe.RouterRule("softmax", renormalize=True)
EXPERTS, HIDDEN, FFN = 4, 32, 16


def forward(tokens: int, **changed: object) -> torch.Tensor:
    draw = torch.Generator().manual_seed(tokens)
    shapes = {
        "x": (tokens, HIDDEN),
        "router_weight": (EXPERTS, HIDDEN),
        "w_gate": (EXPERTS, FFN, HIDDEN),
        "w_up": (EXPERTS, FFN, HIDDEN),
        "w_down": (EXPERTS, HIDDEN, FFN),
    }
    tensors = {name: torch.randn(shape, generator=draw).bfloat16() for name, shape in shapes.items()}
    return tritonmoe.moe_forward(**{**tensors, "top_k": 2, "rule": RULE, **changed}).out


def forget() -> None:
    arguments.forget()
    first_call._known.clear()


class Watched:
    """Which kernels were compiled ahead and launched, in what order, and by which threads."""

    def __init__(self) -> None:
        self.ahead: list[str] = []
        self.launched: list[str] = []
        self.threads: set[int] = set()

    def __enter__(self) -> Watched:
        run = JITFunction.run

        def noted(kernel: JITFunction, *given: object, warmup: bool, **named: object) -> object:
            (self.ahead if warmup else self.launched).append(kernel.__name__)
            if warmup:
                self.threads.add(threading.get_ident())
            return run(kernel, *given, warmup=warmup, **named)

        self._patches = [
            mock.patch.object(JITFunction, "run", noted),
            mock.patch.object(first_call, "_has_compiler", return_value=True),
        ]
        for each in self._patches:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()


def the_result_is_the_same(tokens: int) -> None:
    want = forward(tokens)
    forget()
    with Watched() as seen:
        assert torch.equal(forward(tokens), want)
        assert torch.equal(forward(tokens), want)
    assert len(seen.ahead) > 1
    assert threading.get_ident() not in seen.threads
    # What was compiled ahead is what was launched.
    assert set(seen.ahead) == set(seen.launched)
    assert waiting.collected is None


def known_kinds_are_not_looked_up_twice() -> None:
    forget()
    with Watched() as seen:
        forward(40)
        seen.ahead.clear()
        forward(41)
    assert seen.ahead == []


def kernels_are_loaded_one_at_a_time() -> None:
    inside, most, load = 0, 0, CompiledKernel.__getitem__

    def noted(compiled: CompiledKernel, grid: object) -> object:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)  # any other thread that may is here by then
        try:
            return load(compiled, grid)
        finally:
            inside -= 1

    forget()
    with Watched() as seen, mock.patch.object(CompiledKernel, "__getitem__", noted):
        forward(40)
    assert len(seen.ahead) > 1
    assert most == 1


def a_failure_ahead_is_the_launchs_to_tell() -> None:
    forget()
    with Watched(), mock.patch.object(JITFunction, "warmup", side_effect=RuntimeError("no compiler")):
        assert torch.equal(forward(3), forward(3))
    assert waiting.collected is None


def what_is_raised_on_the_way_launches_nothing() -> None:
    forget()
    with Watched() as seen, mock.patch.object(tritonmoe.forward, "run_combine_direct", side_effect=MemoryError):
        raised = False
        try:
            forward(3)
        except MemoryError:
            raised = True
    assert raised
    assert seen.launched == []
    assert waiting.collected is None


def an_operator_of_torch_keeps_its_place() -> None:
    """What a launcher does beside launching sees what was launched before it, in every call: none is a replay."""
    combine, given = tritonmoe.forward.run_combine_direct, []

    def doubled(y: torch.Tensor, *rest: object) -> torch.Tensor:
        given.append(float(y.abs().sum()))
        return combine(y, *rest).mul_(2)

    want = forward(3)
    forget()
    with Watched() as seen, mock.patch.object(tritonmoe.forward, "run_combine_direct", doubled):
        found = [forward(3) for _ in range(3)]
        launched = len(seen.launched)
    assert all(torch.equal(each, 2 * want) for each in found)
    assert given[0] > 0
    assert given == given[:1] * 3
    assert launched == 15, "five launches a call"
    assert waiting.collected is None
    forget()


def nothing_of_torch_compile_is_imported() -> None:
    """That alone takes seconds, and a call has no use for it."""
    assert "torch._dynamo" not in sys.modules


def main() -> None:
    with wavefront.device("gfx942"):
        forward(3)
        nothing_of_torch_compile_is_imported()
        for tokens in (1, 3, 40):
            the_result_is_the_same(tokens)
        known_kinds_are_not_looked_up_twice()
        kernels_are_loaded_one_at_a_time()
        a_failure_ahead_is_the_launchs_to_tell()
        what_is_raised_on_the_way_launches_nothing()
        an_operator_of_torch_keeps_its_place()


if __name__ == "__main__":
    main()
