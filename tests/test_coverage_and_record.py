"""Coverage that a run must have, the verdict that follows, and the files a run leaves behind."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from moe_conformance import run as module
from moe_conformance.backends import Backend
from moe_conformance.coverage import features, required
from moe_conformance.implementation import STAGES, Declaration, load
from moe_conformance.kinds import KINDS
from moe_conformance.plan import FULL, RunOptions, chosen_properties, expected_problems, parts, reach
from moe_conformance.problem import Problem, Router
from moe_conformance.profiles import PROFILE_NAMES, landmarks, profile
from moe_conformance.record import Collected, Floor, Part, Record, problem_set_digest
from moe_conformance.registry import all_properties, make_trial
from moe_conformance.report import print_verdict
from moe_conformance.runlog import RunLog, Tail

CPU = Backend("cpu", "cpu")
SIZES = {"tokens": 3, "hidden": 5, "ffn": 7, "experts": 4, "top_k": 2}


def problem(**fields) -> Problem:
    return Problem(**SIZES | fields)


@pytest.mark.parametrize(
    ("fields", "kind", "feature"),
    [
        ({"tokens": 0}, "permute", "T=0"),
        ({"tokens": 1}, "route", "T=1"),
        ({"top_k": 4}, "permute", "k=E"),
        ({"dtype": "bf16"}, "combine", "dtype bf16"),
        ({"tokens": 9}, "permute", "tail tile in rows"),
        ({"hidden": 17}, "experts", "tail tile in hidden"),
        ({"ffn": 33}, "experts", "tail tile in ffn"),
        ({"activation": "gelu_tanh"}, "experts", "activation gelu_tanh"),
        ({"router": Router(scoring="sigmoid")}, "route", "router sigmoid"),
        ({"router": Router(renormalize=True)}, "route", "router renormalize"),
        ({"router": Router(groups=2, groups_kept=2)}, "forward", "router groups"),
        ({"router": Router(selection_bias=True)}, "forward", "router selection bias"),
        ({"router": Router(logit_bias=True)}, "forward", "router logit bias"),
        ({"router": Router(expert_scale=True)}, "forward", "router expert scale"),
        ({"router": Router(scaling_factor=2.5)}, "forward", "router scaling factor"),
    ],
)
def test_features_follow_the_fields(fields, kind, feature):
    assert feature in features(problem(**fields), KINDS[kind])
    assert feature not in features(problem(), KINDS[kind])


def test_features_of_a_stage_that_does_not_use_them_do_not_count():
    """A permute problem has a router rule and a hidden size, but meets neither."""
    rich = problem(hidden=17, ffn=17, activation="gelu_tanh", router=Router(scoring="sigmoid"))
    assert features(rich, KINDS["permute"]) == {"dtype fp32"}
    assert not any("activation" in f or "ffn" in f for f in features(rich, KINDS["route"]))
    assert not any("router" in f for f in features(rich, KINDS["experts"]))


def test_multiples_of_a_tile_and_single_tiles_are_no_tails():
    for size in (1, 15, 16, 32):
        assert "tail tile in hidden" not in features(problem(hidden=size), KINDS["experts"])
    assert "tail tile in rows" not in features(problem(tokens=8), KINDS["permute"])


def routed(ids) -> set[str]:
    trial = make_trial(all_properties()["route"], problem(), load("eager"), "eager", CPU)
    trial.features.clear()
    trial.note_routing(torch.tensor(ids))
    return trial.features


def test_routing_features_come_from_the_ids():
    assert routed([[0, 1], [2, 3], [0, 2]]) == set()
    assert routed([[0, 1], [2, 1], [0, 2]]) == {"empty expert"}
    assert routed([[0, 1], [2, 1], [3, 1]]) == {"one hot expert"}
    assert routed([[0, 1], [0, 1], [0, 1]]) == {"empty expert", "one hot expert"}


def test_every_required_feature_can_be_met():
    """Some problem, field by field, has each feature that a full run demands; the routing ones are tested above."""
    plain = Declaration("plain", groups=False, selection_bias=False, logit_bias=False, expert_scale=False)
    met = {"empty expert", "one hot expert", "tie", "near tie, decided", "near tie, undecided"}
    for mark in landmarks():
        for dtype in mark.dtypes:
            for kind in mark.kinds:
                met |= features(Problem.from_json({**mark.problem, "dtype": dtype}), KINDS[kind])
    assert required(STAGES, plain) <= met, "the fixed problems alone meet what every implementation must"
    everything = required(STAGES, Declaration("everything"))
    flags = {f"router {n}" for n in ("groups", "selection bias", "logit bias", "expert scale")}
    assert everything - required(STAGES, plain) == flags


def test_required_follows_stages_and_declaration():
    full = Declaration("full")
    small = Declaration("small", dtypes=("bf16",), scorings=("softmax_selected",), activations=("silu",))
    permute = required(["permute"], full)
    assert "tail tile in rows" in permute
    assert not any(f.startswith(("activation", "router", "tie")) for f in permute)
    assert {f for f in required(STAGES, small) if f.startswith("dtype")} == {"dtype bf16"}
    assert "router renormalize" not in required(STAGES, small)
    assert {f for f in required(["down"], small) if f.startswith("activation")} == {"activation silu"}
    assert {"tie", "router softmax", "router renormalize"} <= required(["route"], full)


# -- from events to a verdict ----------------------------------------------------------------------------------------


def planned(tmp_path: Path) -> module.Plan:
    options = RunOptions("eager", "cpu", "dev", ("permute",), 0, 40)
    return module.make_plan(options, CPU, load("eager"), 1, tmp_path / "run")


def events(plan: module.Plan, outcome: str = "passed", skip: tuple[str, ...] = ()) -> list[dict]:
    """The events of a run in which everything that was planned happened, with all features."""
    found = []
    verdicts = [
        {"requirement": r, "tier": "sound", "outcome": outcome, "worst": 0.5} for r in ("PERM-1", "PERM-2", "PERM-3")
    ]
    wanted = sorted(required(["permute"], plan.implementation.declaration) - set(skip))
    for i in range(plan.problems):
        key = {"property": "permute", "id": f"{i:012x}"}
        found.append({"event": "start", "problem": {"tokens": i}, **key})
        end = {"event": "end", "counts": True, "seconds": 0.25, "features": wanted, "verdicts": verdicts}
        found.append(end | key)
    return found + [{"event": "item", "name": name, "seconds": 1.0} for name in plan.items]


def verdict_of(plan: module.Plan, happened: list[dict], exit_code: int = 0) -> Record:
    collected = Collected()
    for event in happened:
        collected.add(event)
    return module._record(plan, collected, exit_code, module.datetime.now(module.UTC), 1.0)


def test_a_complete_run_passes(tmp_path):
    plan = planned(tmp_path)
    record = verdict_of(plan, events(plan))
    assert (record.verdict, record.reasons, record.missing_coverage) == ("passed", [], [])
    assert [t.requirement for t in record.requirements] == ["PERM-1", "PERM-2", "PERM-3"]
    assert all(t.passed == t.problems == plan.problems for t in record.requirements)
    assert {case.seconds for case in record.cases} == {0.25}
    assert record.parts == dict.fromkeys(plan.items, Part(seconds=1.0))


@pytest.mark.parametrize("feature", ["T=0", "k=E", "empty expert", "one hot expert", "dtype bf16", "tail tile in rows"])
def test_missing_coverage_makes_a_run_incomplete(tmp_path, feature):
    plan = planned(tmp_path)
    record = verdict_of(plan, events(plan, skip=(feature,)))
    assert record.verdict == "incomplete"
    assert record.missing_coverage == [feature]
    assert record.reasons == [f"never met: {feature}"]


def test_features_met_while_shrinking_do_not_count(tmp_path):
    plan = planned(tmp_path)
    extra = {"event": "end", "property": "permute", "id": "x", "counts": False, "seconds": 0.0, "features": ["T=0"]}
    record = verdict_of(plan, [*events(plan, skip=("T=0",)), extra | {"verdicts": []}])
    assert record.missing_coverage == ["T=0"]
    assert record.problems == plan.problems


def test_what_did_not_happen_makes_a_run_incomplete(tmp_path):
    plan = planned(tmp_path)
    full = events(plan)
    lost = verdict_of(plan, full[:-1])
    assert "1 of 3 parts never reported" in lost.reasons[0]
    half = verdict_of(plan, full[: plan.problems // 2 * 2] + full[-3:])
    assert "fewer than 80%" in half.reasons[0]
    crashed = {"event": "start", "property": "permute", "id": "crash", "problem": {"tokens": 77}}
    hung = verdict_of(plan, [*full, crashed])
    assert "permute never came back from {'tokens': 77}" in hung.reasons[0]
    assert [c.outcome for c in hung.cases if c.problem == "crash"] == ["unfinished"]
    killed = verdict_of(plan, full, exit_code=-9)
    assert "exit code -9" in killed.reasons[0]
    powerless = verdict_of(plan, events(plan, outcome="refused"))
    assert "were refused" in " ".join(powerless.reasons)
    assert "requirements without one passing problem: PERM-1, PERM-2, PERM-3" in powerless.reasons
    assert {r.verdict for r in (lost, half, hung, killed, powerless)} == {"incomplete"}
    assert verdict_of(plan, events(plan, outcome="failed")).verdict == "failed"


# -- the floor -------------------------------------------------------------------------------------------------------

PERMUTE_ONLY = replace(load("eager").declaration, stages=frozenset({"permute"}))


class PermuteOnly(type(load("eager"))):
    declaration = PERMUTE_ONLY


def whole(tmp_path: Path, implementation) -> module.Plan:
    """A plan of the whole profile."""
    return module.make_plan(RunOptions("mine", "cpu", "dev"), CPU, implementation, 1, tmp_path / "run")


@pytest.mark.parametrize("backend", [CPU, Backend("cuda", "cuda"), Backend("rocm", "cuda")], ids=lambda b: b.name)
@pytest.mark.parametrize("name", PROFILE_NAMES)
def test_the_floor_of_a_full_declaration_lies_well_below_its_plan_and_not_far_below(name, backend):
    """A plan that shrinks by a third falls below its profile's floor, whatever made it shrink."""
    chosen, options = profile(name, backend), RunOptions("full", backend.name, name)
    made = [p for prop in chosen_properties(options, backend, FULL) for p in parts(prop, options, chosen, FULL)]
    assert 0.66 < chosen.floor / expected_problems(made, FULL) < 0.8
    assert reach(options, backend, chosen, FULL) == 1.0


def test_the_floor_is_scaled_by_what_the_declaration_reaches(tmp_path):
    full, narrow = whole(tmp_path, load("eager")).floor, whole(tmp_path, PermuteOnly()).floor
    assert full.profile == narrow.profile == profile("dev", CPU).floor
    assert full.reach > 0.95, "eager declares all but refusals of bad arguments"
    assert 0.02 < narrow.reach < 0.2
    assert narrow.required == pytest.approx(narrow.profile * narrow.reach, abs=1)


def test_a_run_below_the_floor_is_incomplete(tmp_path):
    plan = whole(tmp_path, PermuteOnly())
    passed = verdict_of(plan, events(plan))
    assert (passed.verdict, passed.floor, passed.partial) == ("passed", plan.floor, [])
    # The plan itself has become small: all of it was executed, and that is not enough.
    floor = Floor(profile=300, reach=1.0, required=300)
    small = replace(plan, expected=plan.expected.model_copy(update={"floor": floor}))
    record = verdict_of(small, events(plan))
    assert record.verdict == "incomplete"
    text = "problems were executed, fewer than the floor of 300 (the declaration reaches 100.0% of the suite)"
    assert record.reasons == [f"{plan.problems} {text}"]


def test_a_partial_run_has_no_floor_and_says_what_it_is(tmp_path, capsys):
    plan = planned(tmp_path)
    record = verdict_of(plan, events(plan))
    assert (record.verdict, record.floor, record.partial) == ("passed", None, ["--stage permute", "--problems 40"])
    print_verdict(Console(width=200), record)
    assert "; partial: --stage permute, --problems 40" in capsys.readouterr().out
    plan = whole(tmp_path, PermuteOnly())
    print_verdict(Console(width=200), verdict_of(plan, events(plan)))
    assert re.search(r"; floor \d+ \(the declaration reaches [\d.]+% of the suite\)", capsys.readouterr().out)


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path) -> Record:
    plan = planned(tmp_path)
    crash = {"event": "start", "property": "permute", "id": "crash", "problem": {"tokens": 77}}
    return verdict_of(plan, [*events(plan), crash])


def test_a_record_can_be_read_back(record, tmp_path):
    path = tmp_path / "new folder" / "record.json"
    record.write(path)
    again = Record.read(path)
    assert again == record
    assert any(math.isinf(case.worst) for case in again.cases), "infinity survives the file"
    assert os.listdir(path.parent) == ["record.json"]


def test_a_record_replaces_an_older_one_whole_or_not_at_all(record, tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    record.write(path)
    before = path.read_bytes()

    def broken(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        record.model_copy(update={"seed": 9}).write(path)
    assert path.read_bytes() == before
    assert [name for name in os.listdir(tmp_path) if name != "run"] == ["record.json"], "no half-written file stays"


def test_truncated_or_foreign_files_raise(record, tmp_path):
    path = tmp_path / "record.json"
    record.write(path)
    text = path.read_text(encoding="utf-8")
    for length in (0, 1, len(text) // 3, len(text) // 2, len(text) - 2):
        path.write_text(text[:length], encoding="utf-8")
        with pytest.raises(ValueError, match="Invalid JSON"):
            Record.read(path)
    data = json.loads(text)
    for change in ({"schema_version": 4}, {"surprise": 1}, {"verdict": "fine"}, {"cases": None}):
        path.write_text(json.dumps({**data, **change}), encoding="utf-8")
        with pytest.raises(ValueError, match=next(iter(change))):
            Record.read(path)
    with pytest.raises(FileNotFoundError):
        Record.read(tmp_path / "none.json")


def test_a_record_of_an_older_schema_is_refused_in_words(record, tmp_path):
    path = tmp_path / "record.json"
    old = {**json.loads(record.model_dump_json()), "schema_version": 1}
    path.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="this record has schema_version 1; this version of the suite reads 3 only"):
        Record.read(path)


def test_the_digest_of_a_problem_set_is_of_the_set(record):
    cases = record.cases
    assert problem_set_digest(reversed(cases)) == problem_set_digest([*cases, cases[0]]) == record.problem_set
    assert problem_set_digest(cases[1:]) != record.problem_set


def test_tail_never_returns_a_half_line(tmp_path):
    """Byte by byte, as a reader may meet a file that is being written: every event once, whole, in order."""
    wanted = [{"event": "item", "name": "Ünïcode", "seconds": i} for i in range(5)]
    data = b"".join(json.dumps(e, ensure_ascii=False).encode() + b"\n" for e in wanted)
    tail, path, found = Tail(tmp_path), tmp_path / "events-gw0.jsonl", []
    assert list(tail.new_events()) == []
    with path.open("ab", buffering=0) as file:
        for i in range(len(data)):
            file.write(data[i : i + 1])
            found += tail.new_events()
            assert len(found) == data[: i + 1].count(b"\n")
        file.write(b'{"event": "start", "prop')
    assert list(tail.new_events()) == []
    assert found == wanted


def test_tail_reads_every_worker(tmp_path):
    log, other = RunLog(tmp_path, "gw0-1"), RunLog(tmp_path, "gw1-2")
    tail = Tail(tmp_path)
    log.item("a", 1.0, stopped=False, problems=None)
    assert [e["name"] for e in tail.new_events()] == ["a"]
    other.item("b", 1.0, stopped=False, problems=None)
    log.item("c", 1.0, stopped=True, problems=["0a"])
    assert sorted(e["name"] for e in tail.new_events()) == ["b", "c"]
    assert list(tail.new_events()) == []
    for opened in (log, other):
        opened.close()  # a worker keeps it open until its process ends
