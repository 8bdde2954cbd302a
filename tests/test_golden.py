"""The golden corpus: what `golden verify` accepts, and that every way of spoiling the corpus is seen and named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moe_conformance.generate import generate
from moe_conformance.golden import corpus
from moe_conformance.golden.oracle_check import against_oracle
from moe_conformance.golden.write import write
from moe_conformance.implementations.eager import Eager
from moe_conformance.oracle import ball, experts, router

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "golden"
MINIMAL = {
    "property": "down",
    "problem": {"dtype": "bf16", "experts": 1, "ffn": 1, "hidden": 1, "tokens": 1, "top_k": 1},
}


@pytest.fixture
def verify(golden):
    return lambda folder, implementation="eager": golden(
        "verify", "--corpus", folder, "--backend", "cpu", "--implementation", implementation
    )


# One entry for each stage: what is spoiled below is a copy of this.
SIX = """
[[problem]]
why = "every stage"
stages = ["route", "permute", "gate_up", "down", "combine", "forward"]
dtypes = ["bf16"]
problem = { tokens = 4, hidden = 5, ffn = 3, experts = 6, top_k = 2, seed = 4 }
"""


@pytest.fixture(scope="session")
def six(tmp_path_factory):
    folder = tmp_path_factory.mktemp("six") / "golden"
    folder.mkdir()
    (folder / "problems.toml").write_text(SIX)
    write(folder, replace=False)
    shutil.copytree(CORPUS / "regressions", folder / "regressions")
    return folder


@pytest.fixture
def copy(six, tmp_path):
    return Path(shutil.copytree(six, tmp_path / "golden"))


def edit_manifest(folder: Path, stage: str, change) -> dict:
    """Apply `change` to the first entry of a stage in manifest.json; the entry after it."""
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    entry = next(e for e in data["entries"] if e["stage"] == stage)
    change(entry)
    path.write_text(json.dumps(data))
    return entry


def edit_answers(folder: Path, stage: str, change) -> str:
    """Apply `change` to the tensors of a stage's first entry and make the manifest believe it; the entry's name."""

    def rewrite(entry):
        path = folder / entry["file"]
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    entry = edit_manifest(folder, stage, rewrite)
    return f"{stage}-{entry['id']}"


# -- what is there ---------------------------------------------------------------------------------------------------


def test_the_corpus_covers_what_it_should():
    entries = corpus.read_manifest(CORPUS).entries
    problems = [entry.parsed() for entry in entries]
    assert len(entries) >= 66
    for stage in ("route", "gate_up", "down", "combine", "forward"):
        assert {e.dtype for e in entries if e.stage == stage} == {"fp32", "fp16", "bf16"}
    regimes = {"normal", "aligned", "positive", "integers", "spiky", "mixed", "tiny", "huge"}
    assert {p.values for p in problems} >= regimes
    assert {p.router.scoring for p in problems} == {"softmax", "sigmoid", "softmax_selected"}
    assert {p.router.group_score for p in problems if p.router.groups > 1} == {"max", "top2"}
    assert {p.layout for p in problems} == {"contiguous", "padded", "transposed", "offset", "packed", "interleaved"}
    assert {p.activation for p in problems} == {"silu", "gelu_tanh", "swiglu_clamped"}
    assert {p.tokens for p in problems} >= {0, 1}
    assert any(p.top_k == p.experts > 1 for p in problems)
    assert any(p.ties for p in problems)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 2_000_000


def test_a_right_implementation_agrees(verify):
    code, output = verify(CORPUS)
    assert code == 0, output
    assert f"agrees: {len(corpus.read_manifest(CORPUS).entries)} entries" in output
    assert "regressions: 2 passed" in output


def test_a_wrong_implementation_disagrees_and_fails_its_regression(verify, copy):
    code, output = verify(copy, "wrong")
    assert code == 1
    assert re.search(
        r"^down-.*: implementation: y: \d+ of 40 elements out of bound, the first at ", output, re.MULTILINE
    )
    assert re.search(r"^forward-.*: implementation: out: \d+ of 20 elements out of bound", output, re.MULTILINE)
    assert not re.search(r"^(route|permute|gate_up|combine)-.*: ", output, re.MULTILINE)
    assert "regression down-ba2a5a191b38 failed: DOWN-1 is not met" in output
    assert "disagrees" in output.splitlines()[-1]


# -- a corpus that cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:]), "was changed: SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "was changed: SHA-256"),
        (lambda path: path.write_bytes(b""), "was changed: SHA-256"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
    ],
    ids=["tampered", "truncated", "empty", "missing"],
)
def test_a_spoiled_answer_is_named(copy, verify, spoil, message):
    entry = corpus.read_manifest(copy).entries[2]
    spoil(copy / entry.file)
    code, output = verify(copy)
    assert code == 2
    assert entry.file in output
    assert message in output


def test_a_truncated_file_with_the_right_digest_is_no_safetensors_file(copy, verify):
    def cut(entry):
        path = copy / entry["file"]
        path.write_bytes(path.read_bytes()[:-40])
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()

    entry = edit_manifest(copy, "down", cut)
    code, output = verify(copy)
    assert code == 2
    assert f"{entry['file']} is no safetensors file" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("unrounded/radius"), "wants the tensors unrounded/answer"),
        (lambda t: t.update({"unrounded/radius": t["unrounded/radius"][:-1]}), "unrounded/radius must be"),
        (lambda t: t.update({"unrounded/size": t["unrounded/size"].astype(np.float32)}), "unrounded/size must be"),
        (lambda t: t["unrounded/radius"].fill(np.nan), "unrounded/radius must be above zero"),
        (lambda t: t["unrounded/radius"].fill(np.inf), "nothing is claimed about most of unrounded"),
        (lambda t: t["unrounded/answer"].fill(np.nan), "unrounded/answer must be finite"),
    ],
)
def test_answers_that_would_judge_nothing_are_unusable(copy, verify, change, message):
    """A NaN or infinite radius would let everything pass."""
    name = edit_answers(copy, "down", change)
    code, output = verify(copy)
    assert code == 2
    assert f"{name}: " in output
    assert message in output


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text(path.read_text()[:500]), "cannot be read"),
        (lambda path: path.write_text(path.read_text().replace('schema_version": 1', 'schema_version": 2')), "schema"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda path: path.write_text('{"schema_version": 1, "entries": []}'), "lists no entry"),
    ],
    ids=["missing", "truncated", "schema", "bytes", "empty"],
)
def test_a_spoiled_manifest_is_named(copy, verify, spoil, message):
    spoil(copy / "manifest.json")
    code, output = verify(copy)
    assert code == 2
    assert "manifest.json" in output
    assert message in output


def test_a_folder_without_a_corpus(tmp_path, verify):
    code, output = verify(tmp_path / "nowhere")
    assert code == 2
    assert "no golden corpus" in output


def test_an_entry_that_was_dropped_is_missed(copy, verify):
    data = json.loads((copy / "manifest.json").read_text())
    gone = data["entries"].pop(3)
    (copy / "manifest.json").write_text(json.dumps(data))
    code, output = verify(copy)
    assert code == 2
    assert f"{gone['stage']}-{gone['id']} is in problems.toml only" in output


def test_a_file_that_no_entry_names(copy, verify):
    (copy / "answers" / "left.safetensors").write_bytes(b"")
    code, output = verify(copy)
    assert code == 2
    assert "answers/left.safetensors" in output


def test_an_entry_belongs_to_its_problem(copy, verify):
    entry = edit_manifest(copy, "gate_up", lambda entry: entry["problem"].update(seed=12345))
    code, output = verify(copy)
    assert code == 2
    assert f"gate_up-{entry['id']} does not belong to its problem" in output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no regression"),
        (json.dumps({**MINIMAL, "property": "nothing", "note": "n", "promoted": "2026-01-01"}), "no property nothing"),
        (json.dumps({**MINIMAL, "note": "n", "promoted": "2026-01-01"}), "belongs into down-ba2a5a191b38.json"),
        (json.dumps({**MINIMAL, "problem": {"tokens": 1}, "note": "n", "promoted": "2026-01-01"}), "is no regression"),
    ],
    ids=["json", "property", "name", "problem"],
)
def test_a_spoiled_regression_is_named(copy, verify, text, message):
    (copy / "regressions" / "odd.json").write_text(text)
    code, output = verify(copy)
    assert code == 2
    assert "odd.json" in output
    assert message in output


# -- disagreement ----------------------------------------------------------------------------------------------------


def test_inputs_with_other_bytes(copy, verify):
    def change(entry):
        entry["inputs"]["w_up"] = "0" * 64

    entry = edit_manifest(copy, "gate_up", change)
    code, output = verify(copy)
    assert code == 1
    assert f"gate_up-{entry['id']}: generate() makes other bytes of w_up" in output


@pytest.mark.parametrize("stage", ["down", "gate_up", "combine", "forward"])
def test_an_answer_that_is_off_by_a_millionth_of_a_millionth(copy, verify, stage):
    def shift(tensors):
        tensors["unrounded/answer"] = tensors["unrounded/answer"] + 1e-12 * tensors["unrounded/size"]

    name = edit_answers(copy, stage, shift)
    code, output = verify(copy)
    assert code == 1
    assert f"{name}: oracle: unrounded: " in output
    assert "midpoints are off by up to 1e-12" in output


def test_an_answer_outside_the_ball_and_an_output_outside_the_radius(copy, verify):
    def shift(tensors):
        tensors["weights/answer"] = tensors["weights/answer"] * (1 + 1e-4)

    name = edit_answers(copy, "route", shift)
    code, output = verify(copy)
    assert code == 1
    assert f"{name}: oracle: weights: " in output
    assert "answers lie outside the oracle's ball" in output
    assert f"{name}: implementation: weights: " in output


def test_other_experts(copy, verify):
    def swap(tensors):
        left_out = min(set(range(6)) - set(tensors["ids"][0].tolist()))
        tensors["ids"][0] = sorted([tensors["ids"][0, 1], left_out])

    name = edit_answers(copy, "route", swap)
    code, output = verify(copy)
    assert code == 1
    assert f"{name}: oracle: the oracle refuses the ids: ROUTE-2" in output
    assert f"{name}: implementation: ids at token 0 are" in output


def test_ids_that_are_none(copy, verify):
    name = edit_answers(copy, "forward", lambda tensors: tensors["ids"].fill(9))
    code, output = verify(copy)
    assert code == 1
    assert f"{name}: oracle: the oracle refuses the ids: ROUTE-1" in output


def test_bounds_that_are_blank_cheques(copy, verify):
    name = edit_answers(copy, "down", lambda tensors: tensors["unrounded/radius"].__iadd__(1.0))
    code, output = verify(copy)
    assert code == 1
    assert re.search(rf"^{name}: oracle: unrounded: the golden bounds are .* times the oracle's", output, re.MULTILINE)


def test_another_permutation(copy, verify):
    def swap(tensors):
        tensors["order"][[0, 1]] = tensors["order"][[1, 0]]

    name = edit_answers(copy, "permute", swap)
    code, output = verify(copy)
    assert code == 1
    assert f"{name}: oracle: order is another one" in output
    assert f"{name}: implementation: order is wrong" in output


# -- implementations -------------------------------------------------------------------------------------------------


class Raises(Eager):
    def combine(self, *arguments):
        raise RuntimeError("no combine today")


class WrongDtype(Eager):
    def down(self, *arguments):
        return super().down(*arguments).double()


class OtherPoints(Eager):
    declaration = replace(Eager.declaration, name="other points", rounds=frozenset({"activation", "y"}))


class Coarse(Eager):
    declaration = replace(Eager.declaration, name="coarse", kappa=3.0)


class NothingComparable(Eager):
    declaration = replace(
        Eager.declaration, name="nothing", stages=frozenset({"gate_up"}), rounds=frozenset({"activation"})
    )


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("Raises", 1, "implementation: raised RuntimeError: no combine today"),
        ("WrongDtype", 1, "implementation: y must be (8, 5) torch.bfloat16, got (8, 5) torch.float64"),
        ("OtherPoints", 0, "2 entries say nothing about other points: no answer for the declared rounding points"),
        ("Coarse", 0, "4 entries say nothing about coarse: declared arithmetic is coarser than the golden bounds"),
        ("NothingComparable", 1, "no entry could be compared with nothing"),
    ],
)
def test_implementations(verify, copy, monkeypatch, name, code, message):
    shutil.rmtree(copy / "regressions")
    monkeypatch.setitem(sys.modules, "golden_implementations", sys.modules[__name__])
    found, output = verify(copy, f"golden_implementations:{name}")
    assert found == code, output
    assert message in output


def test_verify_needs_no_mpmath_and_write_says_so(golden, verify, copy, monkeypatch):
    for module in ("arithmetic", "independent", "write", "independence"):
        monkeypatch.delitem(sys.modules, f"moe_conformance.golden.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "mpmath", None)
    assert verify(copy)[0] == 0
    for command in (("write", "--corpus", copy), ("independence",)):
        code, output = golden(*command)
        assert code == 2
        assert "needs mpmath" in output


# -- what it would see -----------------------------------------------------------------------------------------------

NEAREST, COMBINE, ACTIVATED = ball.nearest, experts.combine, experts.activated
DEFECTS = {
    "another alpha": (experts, "ALPHA", 1.7),
    "two roundings": (ball, "nearest", lambda values, fmt: NEAREST(values.float().double(), fmt)),
    "renormalization left out": (router, "_renormalized", lambda weights: weights),
    "no shared expert": (experts, "combine", lambda y, w, inverse, *_, **__: COMBINE(y, w, inverse)),
    "gate and up swapped": (experts, "activated", lambda gate, up, *rest: ACTIVATED(up, gate, *rest)),
    "a gate left open": (experts, "sigmoid", lambda x: ball.Ball.exact(x.mid * 0 + 1)),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_of_the_oracle_disagrees_with_the_corpus(monkeypatch, name):
    monkeypatch.setattr(*DEFECTS[name])
    for entry in corpus.read_manifest(CORPUS).entries:
        inputs = generate(entry.parsed(), "cpu", whole_forward=entry.stage == "forward")
        if against_oracle(entry.stage, inputs, corpus.read_answers(CORPUS, entry)).faults:
            return
    pytest.fail("no entry sees it")
