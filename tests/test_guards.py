"""Guard bands: what they hold and see, and that an implementation that writes or reads beside its memory fails."""

from __future__ import annotations

import gc
import os
import weakref

import pytest
import torch

from moe_conformance import guards as module
from moe_conformance.backends import Backend
from moe_conformance.generate import generate
from moe_conformance.guards import BAND, Guards, Watched
from moe_conformance.implementation import Forward, Guarded, load
from moe_conformance.implementations.eager import Eager
from moe_conformance.problem import Problem
from moe_conformance.registry import all_properties, make_trial, run_trial

SIZES = {"tokens": 6, "hidden": 20, "ffn": 18, "experts": 6, "top_k": 2}
LAYOUTS = ("contiguous", "padded", "spaced", "transposed", "offset", "packed", "interleaved")
NAMES = ("x", "router_weight", "w_gate", "w_up", "w_down", "ids", "weights", "h", "y", "addend", "down_bias")


def around(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The bytes before and after a tensor's own storage."""
    everything = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    return everything[:BAND], everything[-BAND:]


# -- what lies where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_keep_their_layout_between_bands(layout, dtype):
    problem = Problem(**SIZES, layout=layout, dtype=dtype, expert_bias=True, shared_ffn=5, shared_gate=True)
    plain, guarded = generate(problem, "cpu"), generate(problem, "cpu", guards=Guards())
    for name in (*NAMES, "shared.w_gate", "shared.gate"):
        a, b = plain.tensor(name), guarded.tensor(name)
        assert a.equal(b), name
        assert a.stride() == b.stride()
        assert b.storage_offset() == a.storage_offset() + BAND // b.element_size()
        assert a.untyped_storage().nbytes() + 2 * BAND == b.untyped_storage().nbytes()
        assert (a.data_ptr() - a.untyped_storage().data_ptr()) % 512 == (
            b.data_ptr() - b.untyped_storage().data_ptr()
        ) % 512, "bands must not change the alignment"
        assert all(bool((band == 0xFF).all()) for band in around(b))
    gate, up = guarded.w_gate, guarded.w_up
    shares = gate.untyped_storage().data_ptr() == up.untyped_storage().data_ptr()
    assert shares == (layout in ("packed", "interleaved"))


def test_rows_beyond_the_last_read_as_nan_and_minus_one():
    """What a kernel sees that computes a row or a column too many."""
    inputs = generate(Problem(**SIZES, dtype="bf16"), "cpu", guards=Guards())
    for tensor in (inputs.x, inputs.y, inputs.h, inputs.weights):
        rows, columns = tensor.shape
        beyond = tensor.as_strided((1, columns), (columns, 1), tensor.storage_offset() + rows * columns)
        assert bool(beyond.isnan().all())
        before = tensor.as_strided((1, columns), (columns, 1), tensor.storage_offset() - columns)
        assert bool(before.isnan().all())
    ids = inputs.ids
    assert ids.as_strided((3,), (1,), ids.storage_offset() + ids.numel()).tolist() == [-1, -1, -1]


def test_replaced_tensors_have_bands_and_views_of_guarded_ones_stay_views():
    guards = Guards()
    inputs = generate(Problem(**SIZES), "cpu", guards=guards)
    changed = inputs.replaced(x=inputs.x.clone(), w_up=inputs.w_up[:, :3])
    assert guards.holds(changed.x)
    assert changed.x.data_ptr() != inputs.x.data_ptr()
    assert changed.w_up.data_ptr() == inputs.w_up.data_ptr()
    expanded = inputs.replaced(x=inputs.x[:1].clone().expand(2**30, 20)).x
    assert expanded.stride() == (0, 1)
    assert expanded.untyped_storage().nbytes() == 80 + 2 * BAND


UNWRITTEN = {
    "empty": lambda: torch.empty(3, 5),
    "empty_like": lambda: torch.empty_like(torch.ones(3, 5, dtype=torch.float16).t()),
    "new_empty": lambda: torch.ones(1).new_empty(3, 5),
    "empty_strided": lambda: torch.empty_strided((3, 5), (7, 1)),
    "new_empty_strided": lambda: torch.ones(1).new_empty_strided((3, 5), (1, 3)),
    "empty_permuted": lambda: torch.empty_permuted((3, 5), (1, 0)),
}
WRITTEN = {
    "zeros": lambda: torch.zeros(3, 5),
    "ones_like": lambda: torch.ones_like(torch.empty(3, 5)),
    "full": lambda: torch.full((3, 5), 2.5),
    "new_zeros": lambda: torch.ones(1).new_zeros(3, 5),
    "new_full": lambda: torch.ones(1).new_full((3, 5), 7.0),
    "zeros_like": lambda: torch.zeros_like(torch.ones(3, 5).t()),
}


@pytest.mark.parametrize("name", [*UNWRITTEN, *WRITTEN])
def test_allocations_lie_between_bands(name):
    make = (UNWRITTEN | WRITTEN)[name]
    plain, guards = make(), Guards()
    with Watched(guards):
        made = make()
    assert guards.holds(made)
    assert (made.shape, made.stride(), made.dtype) == (plain.shape, plain.stride(), plain.dtype)
    assert all(bool((band == 0xFF).all()) for band in around(made))
    assert bool(made.isnan().all()) if name in UNWRITTEN else made.equal(plain)
    assert make().untyped_storage().nbytes() < BAND, "outside of the call nothing is watched"


def test_unwritten_integers_are_minus_one_and_booleans_true():
    with Watched(Guards()):
        assert torch.empty(4, dtype=torch.int32).tolist() == [-1] * 4
        assert torch.empty(4, dtype=torch.int64).tolist() == [-1] * 4
        assert torch.empty(2, dtype=torch.bool).view(torch.uint8).tolist() == [1, 1]
        assert torch.empty(4, dtype=torch.bfloat16).isnan().all()


def test_what_has_no_plain_memory_is_left_alone(monkeypatch):
    guards = Guards()
    odd = {"meta": torch.ones(3, device="meta"), "sparse": torch.eye(3).to_sparse(), "conj": torch.ones(3) + 0j}
    odd["conj"] = odd["conj"].conj()
    assert all(value is odd[name] for name, value in guards.placed(odd).items())
    monkeypatch.setattr(module, "LARGEST", 100)
    assert not guards.holds(guards.placed({"x": torch.ones(26)})["x"])
    assert guards.holds(guards.placed({"x": torch.ones(25)})["x"])


def test_what_a_property_wrote_to_inputs_is_not_held_against_the_implementation(monkeypatch):
    """Also where the inputs nearly fill what is remembered: the first copies must not count beside the second."""
    monkeypatch.setattr(module, "HELD", 1000)
    guards = Guards()
    made = guards.placed({"x": torch.zeros(200), "y": torch.zeros(40)})
    for tensor in made.values():
        tensor.fill_(1.0)
    guards.renew()
    assert guards.changed_inputs() == []
    made["x"][0] = 2.0
    assert guards.changed_inputs() == ["x"]


def test_buffers_of_old_calls_are_let_go(monkeypatch):
    monkeypatch.setattr(module, "HELD", 5 * (2 * BAND + 40))
    guards = Guards()
    with Watched(guards):
        made = [torch.empty(10) for _ in range(7)]
    assert all(guards.holds(t) for t in made), "within a call all are kept"
    assert guards.stray_writes() == []
    assert [guards.holds(t) for t in made] == [False] * 2 + [True] * 5


@pytest.mark.parametrize(("at", "text"), [(-1, "before its first"), (15, "behind its last")])
def test_a_stray_write_is_named_once(at, text):
    guards = Guards()
    with Watched(guards):
        made = torch.empty(3, 5)
    made.as_strided((1,), (1,), made.storage_offset() + at).fill_(1e9)
    (message,) = guards.stray_writes()
    byte = {-1: -1, 15: 60}[at]
    buffer = "a buffer that it allocated (float32 (3, 5), 60 bytes)"
    assert message == f"byte {byte} of {buffer}, {text} byte, was written; 4 bytes in all"
    assert guards.stray_writes() == [], "the band is mended"


def test_problems_of_gigabytes_and_unbanded_calls_are_not_watched():
    seen = []

    class Looks(Eager):
        def route(self, inputs):
            seen.append(torch.empty(10).untyped_storage().nbytes())
            return super().route(inputs)

    trial = make_trial(all_properties()["route"], Problem(**SIZES), Looks(), "looks", Backend("cpu", "cpu"))
    trial.implementation.route(trial.inputs)
    trial.implementation.unbanded.route(trial.inputs)
    assert seen == [40 + 2 * BAND, 40]
    large = make_trial(all_properties()["model_layers"], Problem(**SIZES), Looks(), "looks", Backend("cpu", "cpu"))
    assert large.guards is None
    assert large.inputs.x.untyped_storage().nbytes() == 6 * 20 * 4
    large.implementation.route(large.inputs)
    assert seen[-1] == 40


def test_inputs_made_during_a_call_are_inputs():
    """An implementation may be the first to ask for a tensor: it is generated outside of the watched memory."""
    problem, guards = Problem(**SIZES, layout="padded"), Guards()
    inputs, reference = generate(problem, "cpu", guards=guards), generate(problem, "cpu")
    with Watched(guards):
        x, w_up = inputs.x, inputs.w_up
    assert x.equal(reference.x)
    assert w_up.equal(reference.w_up)
    x.as_strided((1,), (1,), x.storage_offset() - 1).fill_(0)
    (message,) = guards.stray_writes()
    assert message.startswith("byte -1 of x (float32 (6, 20), 648 bytes), before")


# -- implementations that go astray ----------------------------------------------------------------------------------


class Defective(Eager):
    right = Eager


def beside(tensor: torch.Tensor, after: bool) -> torch.Tensor:
    """The element before or after a contiguous tensor."""
    return tensor.as_strided((1,), (1,), tensor.storage_offset() + (tensor.numel() if after else -1))


class Strays(Defective):
    """Writes one element too many: to its output, a workspace of its own, or an input."""

    def __init__(self, where: str, after: bool) -> None:
        super().__init__()
        self.where, self.after = where, after

    def forward(self, inputs) -> Forward:
        found = super().forward(inputs)
        out = torch.empty_like(found.out).copy_(found.out)
        workspace = inputs.x.new_zeros(inputs.problem.experts + 1)
        beside({"out": out, "workspace": workspace, "x": inputs.x}[self.where], self.after).fill_(0)
        return found._replace(out=out)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("where", ["out", "workspace", "x"])
def test_one_element_too_many_fails(assert_fails, where, after, dtype):
    message = "of x" if where == "x" else "of a buffer that it allocated"
    assert_fails(Strays(where, after), "forward", Problem(**SIZES, dtype=dtype), "MEM-4", f"forward: byte .* {message}")


class LeavesRows(Defective):
    """Returns memory of torch.empty whose last row nothing wrote: any number, and zeros on a fresh process."""

    def down(self, inputs, h, permutation):
        y = super().down(inputs, h, permutation)
        unwritten = torch.empty_like(y)
        unwritten[:-1] = y[:-1]
        return unwritten

    def permute(self, ids, num_experts):
        found = super().permute(ids, num_experts)
        offsets = torch.empty_like(found.offsets)
        offsets[:-1] = found.offsets[:-1]
        return found._replace(offsets=offsets)


def test_rows_that_nothing_wrote_fail(assert_fails):
    assert_fails(LeavesRows(), "permute", Problem(**SIZES), "PERM-1", r"offsets\[6\] is -1, expected 12")
    leaves = LeavesRows()
    leaves.permute = Eager.permute.__get__(leaves)
    assert_fails(leaves, "down", Problem(**SIZES), "DOWN-1", "value nan")


class ReadsOn(Defective):
    """Takes a row or a column more than there is, times zero: right as long as the memory there holds numbers."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def down(self, inputs, h, permutation):
        y = super().down(inputs, h, permutation)
        last = (h.shape[0] - 1) * h.shape[1]
        beyond = h.as_strided((self.columns,), (1,), h.storage_offset() + last + h.shape[1])
        y[-1] += 0 * beyond.sum()
        return y


@pytest.mark.parametrize("columns", [1, 18])
def test_reading_past_the_end_fails(assert_fails, columns):
    assert_fails(ReadsOn(columns), "down", Problem(**SIZES), "DOWN-1", "value nan")


def test_a_triton_kernel_that_stores_one_element_too_many_fails(assert_fails):
    """The kernel is launched in the interpreter: its pointers are the addresses that devices would see."""
    assert os.environ.get("TRITON_INTERPRET") == "1", "these tests run in Triton's interpreter"
    import triton
    import triton.language as tl

    @triton.jit
    def fill(out, count, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        tl.store(out + at, 0.0, mask=at <= count)  # should be <

    class Fills(Defective):
        def route(self, inputs):
            workspace = torch.empty(inputs.problem.experts, device=inputs.x.device)
            fill[(1,)](workspace, inputs.problem.experts, BLOCK=16)
            return super().route(inputs)

    assert_fails(Fills(), "route", Problem(**SIZES), "MEM-4", r"byte 24 of .*float32 \(6,\), 24 bytes")


def test_every_trial_records_that_its_bands_are_whole(judge_with):
    trial = judge_with(Eager(), "down", Problem(**SIZES))
    assert [v.requirement for v in trial.verdicts] == ["DOWN-1", "DOWN-1", "MEM-4", "MEM-1"]


def test_a_collecting_trial_goes_on_after_a_stray_write():
    prop = all_properties()["repetition_is_bitwise_equal"]
    trial = make_trial(prop, Problem(**SIZES), Strays("out", True), "strays", Backend("cpu", "cpu"), collects=True)
    with pytest.raises(AssertionError, match="MEM-4 is not met"):
        run_trial(trial, prop.check)
    outcomes = {(v.requirement, v.outcome) for v in trial.verdicts}
    assert outcomes == {("MEM-4", "failed"), ("DET-1", "passed")}


def test_a_guarded_implementation_alone_needs_no_guards():
    inputs = generate(Problem(**SIZES), "cpu")
    assert Guarded(Eager()).forward(inputs).out.shape == (6, 20)


@pytest.mark.parametrize("name", ["model_layers", "forward"])
def test_a_trial_is_freed_without_the_garbage_collector(name):
    """Its inputs may fill most of a device, and the next problem needs the room at once."""
    prop = all_properties()[name]
    problem = Problem.from_json({"tokens": 3, "hidden": 16, "ffn": 16, "experts": 2, "top_k": 1})
    trial = make_trial(prop, problem, load("eager"), "eager", Backend("cpu", "cpu"))
    run_trial(trial, prop.check)
    kept = weakref.ref(trial.inputs)
    gc.disable()
    try:
        del trial
        assert kept() is None
    finally:
        gc.enable()
