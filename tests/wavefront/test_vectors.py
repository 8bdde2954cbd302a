"""Recorded vectors: files from AMD cards, where there are any; loader and comparison on a file of our own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wavefront.record_vectors import compare, load
from wavefront.vector_cases import Case, cases, from_text, to_text

VECTORS = Path(__file__).parent / "vectors"
RECORDED = sorted(VECTORS.glob("*.json"))

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


def script(python: Python, kept: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """record_vectors in a process of its own, where kernels are compiled whatever this process does with them."""
    cache = str(kept / "triton-cache")
    return python("-m", "wavefront.record_vectors", *arguments, TRITON_INTERPRET="0", TRITON_CACHE_DIR=cache)


@pytest.fixture
def own(python: Python, kept: Path) -> Path:
    """A file that the executor has written, once for all tests. It proves the machinery and nothing about hardware."""
    path = kept / "gfx942.json"
    if not path.exists():
        done = script(python, kept, str(path), "--executed", "gfx942")
        assert done.returncode == 0, done.stdout + done.stderr
    return path


def test_the_executor_agrees_with_every_file_from_hardware(python: Python, kept: Path) -> None:
    print(f"{len(RECORDED)} files recorded on hardware")
    for path in RECORDED:
        # The executor's own file among those from cards would pass for hardware.
        assert json.loads(path.read_text(encoding="utf-8"))["executed"] is False, path.name
        done = script(python, kept, str(path), "--check")
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_executor_reproduces_its_own_file_to_the_bit(own: Path, python: Python, kept: Path) -> None:
    architecture, found = load(own)
    assert architecture == "gfx942"
    assert {case.kind for case, _ in found} == {"unary", "instruction", "binary", "convert", "dot"}
    done = script(python, kept, str(own), "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(found)} cases, {len(found)} the same to the bit, 0 wrong, 0 not modelled" in done.stdout


def test_a_changed_bit_of_a_file_is_found(own: Path, python: Python, kept: Path) -> None:
    data = json.loads(own.read_text(encoding="utf-8"))
    data["cases"] = [entry for entry in data["cases"] if entry["name"] in ("float32 to int32", "tl.exp2")]
    for entry in data["cases"]:
        words = entry["output"]["bits"].split()
        words[1] = f"{int(words[1], 16) ^ 1:08x}"
        entry["output"]["bits"] = " ".join(words)
    changed = kept / "changed.json"
    changed.write_text(json.dumps(data), encoding="utf-8")
    done = script(python, kept, str(changed), "--check")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "WRONG: float32 to int32: 1 of " in done.stdout
    assert "differs: tl.exp2: 1 of " in done.stdout


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1}', '{"format": 1, "architecture": "gfx942", "cases": [7]}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="vector file"):
        load(path)


def test_tensors_survive_being_written_down() -> None:
    for case in cases("gfx942"):
        for tensor in case.inputs:
            read = from_text(json.loads(json.dumps(to_text(tensor))))
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
            assert to_text(read) == to_text(tensor)


def test_without_a_card_recording_says_so(python: Python, kept: Path) -> None:
    if torch.version.hip is not None:
        pytest.skip("there may be a card")
    done = script(python, kept, str(kept / "none.json"))
    assert done.returncode == 2
    assert "no AMD GPU" in done.stderr


ONE = torch.tensor([1.0, 2.0, float("nan"), 4.0])


def moved(ulp: int) -> torch.Tensor:
    found = ONE.clone()
    found.view(torch.int32)[1] += ulp
    return found


@pytest.mark.parametrize(
    ("kind", "ulp", "differing", "wrong"),
    [
        ("instruction", 0, 0, False),
        ("instruction", 1, 1, False),
        ("instruction", 3, 1, True),
        ("unary", 3, 1, False),
        ("convert", 0, 0, False),
        ("convert", 1, 1, True),
    ],
)
def test_what_counts_as_wrong(kind: str, ulp: int, differing: int, wrong: bool) -> None:
    found = compare(Case("case", kind, (ONE,), "float32"), moved(ulp), ONE)
    assert (found.differing, found.wrong) == (differing, wrong)


def test_an_instruction_may_cut_subnormals() -> None:
    inputs = torch.tensor([2.0**-130, 1.0, 1.0])
    zeros = torch.tensor([0.0, 0.0, 1.0])
    case = Case("v_exp_f32", "instruction", (inputs,), "float32")
    assert not compare(case, zeros, torch.tensor([1.0, 2.0**-130, 1.0])).wrong
    assert compare(case, zeros, torch.tensor([1.0, 2.0**-120, 1.0])).wrong
    assert not compare(replace(case, name="v_sin_f32"), zeros, torch.tensor([1.0, 0.5, 1.0])).wrong


def test_a_lost_number_is_wrong_and_two_kinds_of_nan_are_not() -> None:
    case = Case("case", "instruction", (ONE,), "float32")
    other = ONE.clone()
    other.view(torch.int32)[2] ^= 1
    assert compare(case, other, ONE).differing == 0
    other[0] = float("nan")
    assert compare(case, other, ONE).wrong
    assert compare(case, ONE[:2], ONE).wrong


def test_a_dot_product_may_add_in_another_order_and_read_subnormals_as_zero() -> None:
    (case,) = [each for each in cases("gfx942") if each.name == "tl.dot float16 ieee 16"]
    a, b, c = (tensor.to(torch.float64) for tensor in case.inputs)
    exact = (a @ b + c).to(torch.float32)
    flushed = (torch.where(a.abs() < 2.0**-14, 0, a) @ torch.where(b.abs() < 2.0**-14, 0, b) + c).to(torch.float32)
    assert not torch.equal(exact, flushed)
    assert not compare(case, flushed, exact).wrong
    assert compare(replace(case, kind="convert"), flushed, exact).wrong
    halved = exact.clone()
    halved[14, 14] /= 2
    assert compare(case, halved, exact).wrong
