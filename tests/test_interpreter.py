"""The repaired interpreter: bfloat16 conversions against torch, and a self-check that can fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moe_conformance import interpreter
from moe_conformance.interpreter import narrow, widen

EVERY_PATTERN = np.arange(2**16, dtype=np.uint32).astype(np.uint16)


def torch_narrow(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()


def assert_same_bfloat16(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal bits; any NaN stands for any other."""
    assert found.dtype == wanted.dtype == np.uint16
    assert found.shape == wanted.shape
    nan = np.isnan(widen(wanted))
    assert np.array_equal(np.isnan(widen(found)), nan)
    assert np.array_equal(found[~nan], wanted[~nan])


def test_widen_equals_torch_for_every_pattern():
    wanted = torch.from_numpy(EVERY_PATTERN.copy()).view(torch.bfloat16).float().numpy()
    assert np.array_equal(widen(EVERY_PATTERN).view(np.uint32), wanted.view(np.uint32))


def test_narrow_undoes_widen():
    assert_same_bfloat16(narrow(widen(EVERY_PATTERN)), EVERY_PATTERN)


@pytest.mark.parametrize("low", [0x0001, 0x4000, 0x7FFF, 0x8000, 0x8001, 0xC000, 0xFFFF])
def test_narrow_equals_torch_around_every_tie(low):
    """Every bfloat16 with a tail of 16 bits below, at and above the tie: subnormals, carries, overflow and NaN."""
    values = ((EVERY_PATTERN.astype(np.uint32) << np.uint32(16)) | np.uint32(low)).view(np.float32)
    assert_same_bfloat16(narrow(values), torch_narrow(values))


def test_narrow_equals_torch_for_random_patterns():
    values = np.random.default_rng(3).integers(0, 2**32, 300_000, dtype=np.uint32).view(np.float32)
    assert_same_bfloat16(narrow(values), torch_narrow(values))


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1 + 2.0**-8, 1.0),  # tie to even, down
        (1 + 3 * 2.0**-8, 1 + 2.0**-6),  # tie to even, up
        (2 - 2.0**-20, 2.0),  # carry into the exponent
        (3.4e38, np.inf),  # carry into infinity
        (2.0**-134, 0.0),  # half of the smallest subnormal
        (2.0**-134 * (1 + 2.0**-15), 2.0**-133),
        (2.0**-126 - 2.0**-149, 2.0**-126),  # carry out of the subnormals
        (-0.0, -0.0),
        (-np.inf, -np.inf),
    ],
)
def test_narrow_at_known_values(value, rounded):
    found = widen(narrow(np.array([value], dtype=np.float32)))[0]
    assert found == rounded
    assert np.signbit(found) == np.signbit(rounded)


def test_shapes_and_strides_survive():
    values = np.random.default_rng(4).standard_normal((6, 4)).astype(np.float32)
    for view in (values, values.T, values[::2, 1:], values[0, 0], values[:0]):
        found = narrow(view)
        assert found.shape == np.shape(view)
        assert np.array_equal(found, torch_narrow(np.array(view, copy=True)))


def test_the_repaired_interpreter_passes_its_self_check():
    assert interpreter.enabled()
    assert interpreter.self_check() == []


WITHOUT_REPAIR = """
from moe_conformance.interpreter_check import failures
found = failures()
print("\\n".join(found))
raise SystemExit(len(found))
"""


def test_the_self_check_fails_without_the_repair(python):
    """The plain interpreter is wrong in all three respects; the day it is not, the repair can go. On some
    processors its rows differ too."""
    done = python("-c", WITHOUT_REPAIR, TRITON_INTERPRET="1")
    assert done.returncode in (3, 4), done.stdout + done.stderr
    for text in ("tl.dot is off", "fp32 -> bfloat16", "addition is wrong"):
        assert text in done.stdout


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(16, 16, 16), (64, 71, 69), (33, 150, 2), (5, 3, 1)])
def test_a_row_of_a_product_does_not_depend_on_its_place(dtype, shape):
    """BLAS may add up the last rows of a matrix otherwise than the first. Both orders of storage of either factor."""
    rows, depth, cols = shape
    generator = np.random.default_rng(6)
    a = generator.standard_normal((rows, depth)).astype(dtype)
    b = generator.standard_normal((depth, cols)).astype(dtype)
    start = generator.standard_normal((rows, cols)).astype(np.float32)
    order = generator.permutation(rows)
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            whole = interpreter.product(left, right, start)
            assert np.array_equal(interpreter.product(left[order], right, start[order]), whole[order])
            assert np.array_equal(interpreter.product(left[-1:], right, start[-1:]), whole[-1:])


def test_a_product_is_rounded_once():
    a, b = np.float32([[1, 2.0**-13, 1]]), np.float32([[2.0**24], [2.0**13], [2.0**-30]])
    assert interpreter.product(a, b, np.float32([[0]])) == np.float32(2.0**24), "ties go to even"
    assert interpreter.product(a, b, np.float32([[2.0**-20]])) == np.float32(2.0**24 + 2), "above the tie"
    infinite = interpreter.product(np.float16([[np.inf, 1]]), np.float16([[0], [1]]), np.float32([[1]]))
    assert np.isnan(infinite).all()


def test_a_failing_self_check_stops_a_run(monkeypatch):
    from click.testing import CliRunner

    from moe_conformance import cli

    monkeypatch.setattr(interpreter, "self_check", lambda: ["a planted fault"])
    for command in (["run", "--problems", "1"], ["doctor"]):
        done = CliRunner().invoke(cli.main, [*command, "--backend", "cpu"])
        assert done.exit_code == (2 if command[0] == "run" else 1)
        assert "a planted fault" in done.output


@pytest.mark.parametrize(("setting", "meaning"), [("1", True), ("", False), ("0", False), (None, False)])
def test_enabled_reads_the_environment(setting, meaning, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    if setting is not None:
        monkeypatch.setenv("TRITON_INTERPRET", setting)
    assert interpreter.enabled() is meaning


ARITHMETIC = """
import torch, triton, triton.language as tl
from moe_conformance import interpreter
interpreter.repair()

@triton.jit
def kernel(a_ptr, b_ptr, out_ptr, less_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(a_ptr + i), tl.load(b_ptr + i)
    tl.store(out_ptr + i, a + b)
    tl.store(out_ptr + N + i, a * b)
    tl.store(out_ptr + 2 * N + i, a - b)
    tl.store(out_ptr + 3 * N + i, -a)
    tl.store(less_ptr + i, (a < b).to(tl.int32))
"""


def test_arithmetic_in_the_interpreter_equals_torch(python, tmp_path):
    """A kernel on bfloat16 tensors: sum, product, difference, negation and comparison, to the last bit."""
    (tmp_path / "kernels_bf16.py").write_text(ARITHMETIC)
    check = """
from kernels_bf16 import kernel, torch
g = torch.Generator().manual_seed(5)
a, b = (torch.randn(256, generator=g).mul(4).to(torch.bfloat16) for _ in range(2))
out, less = torch.empty(4, 256, dtype=torch.bfloat16), torch.empty(256, dtype=torch.int32)
kernel[(1,)](a, b, out, less, N=256)
assert torch.equal(out, torch.stack((a + b, a * b, a - b, -a))), "values"
assert torch.equal(less.bool(), a < b), "comparison"
print("equal")
"""
    done = python("-c", check, TRITON_INTERPRET="1", PYTHONPATH=str(tmp_path))
    assert done.stdout.strip() == "equal", done.stderr
