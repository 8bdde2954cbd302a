"""How problems come into the golden corpus: failures are promoted, answers are written, nothing is replaced unasked."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

SIZES = {"experts": 1, "ffn": 1, "hidden": 1, "tokens": 1, "top_k": 1}
MINIMAL = {"property": "down", "problem": {"dtype": "bf16", **SIZES}}

# -- promote ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder


def test_promote_json_and_file(empty, golden, tmp_path):
    assert golden("promote", "--corpus", empty, "--note", "seen once", json.dumps(MINIMAL))[0] == 0
    path = empty / "regressions" / "down-ba2a5a191b38.json"
    data = json.loads(path.read_text())
    assert data["note"] == "seen once"
    assert data["property"] == "down"
    assert data["problem"] == MINIMAL["problem"]
    assert len(data["promoted"]) == len("2026-11-21")
    case = tmp_path / "case.json"
    case.write_text(json.dumps({**MINIMAL, "property": "gate_up"}))
    assert golden("promote", "--corpus", empty, "--note", "n", case)[0] == 0
    assert {p.name for p in (empty / "regressions").iterdir()} == {path.name, "gate_up-ba2a5a191b38.json"}


def test_promote_refuses_what_is_there(empty, golden):
    assert golden("promote", "--corpus", empty, "--note", "n", json.dumps(MINIMAL))[0] == 0
    before = (empty / "regressions" / "down-ba2a5a191b38.json").read_bytes()
    code, output = golden("promote", "--corpus", empty, "--note", "again", json.dumps(MINIMAL))
    assert code == 2
    assert "already in the corpus: down-ba2a5a191b38.json" in output
    assert (empty / "regressions" / "down-ba2a5a191b38.json").read_bytes() == before


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (json.dumps({**MINIMAL, "property": "nothing"}), "there is no property 'nothing'"),
        (json.dumps({**MINIMAL, "property": 3}), "there is no property 3"),
        (json.dumps({**MINIMAL, "problem": {"tokens": 1}}), "down: not a problem"),
        (json.dumps({**MINIMAL, "problem": 5}), "down: not a problem"),
        (json.dumps({**MINIMAL, "property": "products_may_exceed_the_format"}), "does not speak of"),
        ('{"property": "down"}', "CASE must be"),
        ("{", "no JSON"),
        ("/nowhere/at/all.json", "neither JSON nor a readable file"),
        ('{"schema_version": 1}', "CASE is no Record"),
    ],
)
def test_promote_refuses_what_is_no_case(empty, golden, case, message):
    code, output = golden("promote", "--corpus", empty, "--note", "n", case)
    assert code == 2
    assert message in output
    assert not (empty / "regressions").exists()


def test_promote_needs_a_note_and_a_folder(empty, golden):
    assert golden("promote", "--corpus", empty, json.dumps(MINIMAL))[0] == 2
    assert golden("promote", "--corpus", empty, "--note", "", json.dumps(MINIMAL))[0] == 2
    assert golden("promote", "--corpus", empty / "none", "--note", "n", json.dumps(MINIMAL))[0] == 2


def test_promote_every_failure_of_a_record(empty, golden, tmp_path):
    failures = [
        {"property": prop, "requirement": "DOWN-1", "problem": MINIMAL["problem"], "report": "r"}
        for prop in ("down", "gate_up", "down")
    ]
    expected = {"problems": 0, "parts": [], "requirements": [], "coverage": [], "floor": None}
    record = {
        **dict.fromkeys(("spec_digest", "implementation", "source_digest", "profile", "started", "problem_set"), "x"),
        **dict.fromkeys(("commit", "dirty", "interpreter_repair")),
        **{name: [] for name in ("stages", "reasons", "requirements", "coverage", "missing_coverage", "cases")},
        **{"environment": {}, "seed": 0, "workers": 1, "seconds": 1.0, "verdict": "failed", "parts": {}},
        **{
            "schema_version": 3,
            "expected": expected,
            "partial": [],
            "floor": None,
            "waivers": [],
            "suite": "0",
            "failures": failures,
        },
    }
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    assert golden("promote", "--corpus", empty, "--note", "n", path)[0] == 0
    names = {p.name for p in (empty / "regressions").iterdir()}
    assert names == {"down-ba2a5a191b38.json", "gate_up-ba2a5a191b38.json"}
    path.write_text(json.dumps({**record, "failures": []}))
    code, output = golden("promote", "--corpus", empty, "--note", "n", path)
    assert code == 2
    assert "the Record holds no failure" in output


# -- write -----------------------------------------------------------------------------------------------------------

SMALL = """
[[problem]]
why = "small"
stages = ["down", "route"]
dtypes = ["bf16"]
problem = { tokens = 2, hidden = 3, ffn = 2, experts = 3, top_k = 2, seed = 4 }
"""


def test_write_is_repeatable_and_replaces_nothing_unasked(empty, golden):
    (empty / "problems.toml").write_text(SMALL)
    assert golden("write", "--corpus", empty) == (0, "2 entries: 2 new, 0 changed, 0 gone\n")
    before = {path: path.read_bytes() for path in empty.rglob("*") if path.is_file()}
    assert golden("write", "--corpus", empty) == (0, "2 entries: 0 new, 0 changed, 0 gone\n")
    assert {path: path.read_bytes() for path in empty.rglob("*") if path.is_file()} == before

    # A file that was tampered with does not fit its manifest: the right one comes back.
    answers = next((empty / "answers").glob("down-*"))
    answers.write_bytes(b"other")
    assert golden("write", "--corpus", empty) == (0, "2 entries: 0 new, 0 changed, 0 gone\n")
    assert {path: path.read_bytes() for path in before} == before

    # Another answer, as an earlier version of the independent path may have written it.
    save_file({**load_file(answers), "unrounded/answer": np.ones((4, 3))}, answers)
    manifest = json.loads((empty / "manifest.json").read_text())
    manifest["entries"][0]["sha256"] = hashlib.sha256(answers.read_bytes()).hexdigest()
    (empty / "manifest.json").write_text(json.dumps(manifest))
    earlier = {path: path.read_bytes() for path in before}
    code, output = golden("write", "--corpus", empty)
    assert code == 2
    assert answers.stem in output
    assert {path: path.read_bytes() for path in before} == earlier
    assert golden("write", "--corpus", empty, "--replace") == (0, "2 entries: 0 new, 1 changed, 0 gone\n")
    assert {path: path.read_bytes() for path in before} == before

    (empty / "problems.toml").write_text(SMALL.replace('"down", ', ""))
    assert golden("write", "--corpus", empty)[0] == 2
    assert golden("write", "--corpus", empty, "--replace") == (0, "1 entries: 0 new, 0 changed, 1 gone\n")
    assert [path.name[:6] for path in (empty / "answers").iterdir()] == ["route-"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + SMALL, "twice"),
        (SMALL.replace("top_k = 2", "top_k = 4"), "top_k must be at most"),
        (SMALL.replace('why = "small"', 'why = ""'), "why"),
        ("[[problem]", "problems.toml"),
        # Two experts with the same logit in different groups: no rule decides between them.
        (
            '[[problem]]\nwhy = "tie"\nstages = ["route"]\ndtypes = ["fp32"]\nproblem = { tokens = 1, hidden = 1, '
            "ffn = 1, experts = 2, top_k = 1, ties = true, router = { groups = 2, groups_kept = 2 } }\n",
            "more than one set of experts may be right",
        ),
        (SMALL.replace("seed = 4", 'dtype = "fp32", input_precision = "tf32"').replace("bf16", "fp32"), "ieee only"),
    ],
    ids=["twice", "problem", "why", "toml", "contested", "tf32"],
)
def test_write_refuses_problems_without_an_answer(empty, golden, text, message):
    (empty / "problems.toml").write_text(text)
    code, output = golden("write", "--corpus", empty)
    assert code == 2
    assert message in output
    assert not (empty / "manifest.json").exists()
