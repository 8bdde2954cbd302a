"""Calls that are made again (tritonmoe.replay): compiled kernels on a simulated device, with TRITON_INTERPRET=0.

Run as a program by test_host_path.py: an assertion that fails is its only word.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import triton
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.jit import JITFunction

import tritonmoe
import wavefront
from tritonmoe import arguments
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


class Allocations(TorchDispatchMode):
    """What a mode of torch sees allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
        made = function(*arguments, **(named or {}))
        if function.overloadpacket is torch.ops.aten.empty_strided:
            self.shapes.append(tuple(made.shape))
        return made


class Named(TorchFunctionMode):
    """The functions of torch that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[object] = []

    def __torch_function__(self, function, types, arguments=(), named=None):  # type: ignore[no-untyped-def]
        self.functions.append(function)
        return function(*arguments, **(named or {}))


def modes_see_what_is_allocated() -> None:
    select()
    with asked() as kernels, Allocations() as watched:
        select()
    assert watched.shapes == [(1, 2), (1, 2)], "ids and weights"
    with asked() as more, Named() as named:
        select()
    assert named.functions.count(torch.empty_strided) == 2
    assert kernels + more == []


# -- whole calls -------------------------------------------------------------------------------------------------------

TOKENS = (1, 3, 40)  # a single token, few rows, sorted rows
EXPERTS, HIDDEN, FFN = 4, 32, 16
TILE = tritonmoe.Tile(32, 32, 32, 2, 1, 1, descriptors=True, gather_below=FFN)
Call = Callable[..., torch.Tensor]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def tensors(seed: int, tokens: int) -> list[torch.Tensor]:
    """x, router_weight, w_gate, w_up, w_down."""
    shapes = [
        (tokens, HIDDEN),
        (EXPERTS, HIDDEN),
        (EXPERTS, FFN, HIDDEN),
        (EXPERTS, FFN, HIDDEN),
        (EXPERTS, HIDDEN, FFN),
    ]
    return [draw(seed + number, *shape) for number, shape in enumerate(shapes)]


def forward(given: list[torch.Tensor], *shared: torch.Tensor) -> torch.Tensor:
    expert = tritonmoe.SharedExpert(*shared) if shared else None
    found = tritonmoe.moe_forward(*given, top_k=2, rule=RULE, shared_expert=expert)
    return torch.cat((found.out.float(), found.ids.float(), found.weights), dim=1)


def with_a_shared_expert(given: list[torch.Tensor]) -> torch.Tensor:
    return forward(given, *[draw(9, *shape) for shape in ((FFN, HIDDEN), (FFN, HIDDEN), (HIDDEN, FFN), (1, HIDDEN))])


def of_stages(given: list[torch.Tensor]) -> torch.Tensor:
    """The same by the stages; rows and weights come through descriptors."""
    x, router_weight, w_gate, w_up, w_down = given
    ids, weights = tritonmoe.route(x, router_weight, 2, RULE)
    permutation = tritonmoe.permute(ids, EXPERTS)
    activation = tritonmoe.Activation("silu")
    h = tritonmoe.gate_up(x, permutation, w_gate, w_up, activation, tile=TILE)
    y = tritonmoe.down(h, permutation, w_down, tile=TILE)
    return tritonmoe.combine(y, weights, permutation)


def replays_are_the_call(call: Call, tokens: int) -> None:
    """Of other tensors than the recorded ones: the bits of a first call; kept results stay as they are."""
    arguments.forget()
    want = []
    for seed in (20, 40):
        want.append(call(tensors(seed, tokens)))
        arguments.forget()
    call(tensors(60, tokens))
    with asked() as kernels:
        found = [call(tensors(seed, tokens)) for seed in (20, 40)]
    assert kernels == []
    assert not torch.equal(*want)
    assert all(map(torch.equal, found, want))


def memory_given_twice_is_not_taken_for_one() -> None:
    """A call whose gate and up are the same tensor leaves nothing for calls where they are two."""
    one, other = tensors(20, 3), tensors(40, 3)
    arguments.forget()
    want = forward(one)
    arguments.forget()
    forward([*other[:3], other[2], other[4]])
    assert torch.equal(forward(one), want)


def no_tensor_is_kept() -> None:
    given = tensors(20, 40)
    arguments.forget()
    found = [of_stages(given), of_stages(given)]
    kept = [weakref.ref(tensor) for tensor in (*given, *found)]
    del given, found
    gc.collect()
    assert [each() for each in kept] == [None] * 7


def main() -> None:
    with wavefront.device("gfx942") as session:
        the_jit_is_asked_once()
        assert session.executed > 0
        another_alignment_has_another_kernel()
        hooks_are_called()
        a_switch_is_looked_at()
        modes_see_what_is_allocated()
        a_hook_of_the_kernel_is_called()
        a_cleared_table_is_filled_again()
        for call in (forward, with_a_shared_expert, of_stages):
            for tokens in TOKENS:
                replays_are_the_call(call, tokens)
        memory_given_twice_is_not_taken_for_one()
        no_tensor_is_kept()
        arguments.forget()
        select()
    with wavefront.device("gfx1100") as session:
        the_jit_is_asked_once()
        assert session.executed > 0
    assert compiled_for() == {"gfx942", "gfx1100"}
    with wavefront.device("gfx942"), asked() as kernels:
        select()
    assert kernels == [], "the first device's replay is still known"


if __name__ == "__main__":
    main()
