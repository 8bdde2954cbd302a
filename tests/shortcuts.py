"""What launches remember of Triton's JIT, on compiled kernels that a simulated device executes (TRITON_INTERPRET=0).

Run as a program by test_host_path.py: an assertion that fails is its only word.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import triton
from triton.runtime.jit import JITFunction

import tritonmoe
import wavefront
from tritonmoe import plans
from tritonmoe.stages.route_kernel import select_kernel

RULE = tritonmoe.RouterRule("softmax", renormalize=True)
LOGITS = torch.tensor([[0.5, 2.0, -1.0, 1.0]])


def select(logits: torch.Tensor = LOGITS) -> torch.Tensor:
    ids, weights = tritonmoe.select_experts(logits, 2, RULE)
    assert ids.tolist() == [[1, 3]]
    return weights


@contextmanager
def asked() -> Iterator[list[JITFunction]]:
    """The kernels that the JIT is asked for."""
    kernels: list[JITFunction] = []
    run = JITFunction.run

    def noted(self: JITFunction, *arguments: object, **named: object) -> object:
        kernels.append(self)
        return run(self, *arguments, **named)

    with mock.patch.object(JITFunction, "run", noted):
        yield kernels


def compiled_for() -> set[str]:
    return {one.metadata.target.arch for table in select_kernel.device_caches.values() for one in table[0].values()}


def the_jit_is_asked_once() -> None:
    with asked() as kernels:
        first = select()
        second = select()
        third = select(LOGITS.clone())
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert kernels == [select_kernel]


def another_alignment_has_another_kernel() -> None:
    buffer = torch.zeros(9)
    crooked = buffer[1:5].copy_(LOGITS[0])[None]
    assert crooked.data_ptr() % 16
    with asked() as kernels:
        select(crooked)
        select(crooked)
        select()
    assert kernels == [select_kernel]
    assert len({key for table in select_kernel.device_caches.values() for key in table[0]}) == 2


def hooks_are_called() -> None:
    names: list[str] = []

    def hook(metadata: object) -> None:
        names.append(metadata.get()["name"])

    triton.knobs.runtime.launch_enter_hook.add(hook)
    select()
    triton.knobs.runtime.launch_enter_hook.remove(hook)
    assert names == ["select_kernel"]


def a_switch_is_looked_at() -> None:
    triton.knobs.runtime.debug = True
    with asked() as kernels:
        select()
        select()
    triton.knobs.runtime.debug = False
    assert kernels == [select_kernel] * 2
    with asked() as kernels:
        select()
    assert kernels == []


def a_hook_of_the_kernel_is_called() -> None:
    calls: list[object] = []
    select_kernel.add_pre_run_hook(lambda *_, **__: calls.append(1))
    select()
    select_kernel.pre_run_hooks.clear()
    assert calls == [1]


def a_cleared_table_is_filled_again() -> None:
    select_kernel.device_caches.clear()
    assert compiled_for() == set()
    with asked() as kernels:
        select()
        select()
    assert kernels == [select_kernel]
    assert compiled_for()


def main() -> None:
    with wavefront.device("gfx942") as session:
        the_jit_is_asked_once()
        assert session.executed > 0
        another_alignment_has_another_kernel()
        hooks_are_called()
        a_switch_is_looked_at()
        a_hook_of_the_kernel_is_called()
        a_cleared_table_is_filled_again()
    known = len(plans._plans)
    with wavefront.device("gfx1100") as session:
        the_jit_is_asked_once()
        assert session.executed > 0
    assert compiled_for() == {"gfx942", "gfx1100"}
    with wavefront.device("gfx942"), asked() as kernels:
        select()
    assert kernels == [], "the first device's kernel is still known"
    assert len(plans._plans) == known, "a plan is no device's"


if __name__ == "__main__":
    main()
