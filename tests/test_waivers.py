"""Waivers: what a file may say, what they waive, and when one makes the run fail."""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from moe_conformance import run as module
from moe_conformance.backends import Backend, architecture
from moe_conformance.cli import main
from moe_conformance.explore import explore
from moe_conformance.findings import NonConformance
from moe_conformance.implementations.eager import Eager
from moe_conformance.judge import Verdict
from moe_conformance.plan import RunOptions, parts
from moe_conformance.problem import Load, Problem, Router
from moe_conformance.profiles import profile
from moe_conformance.record import Collected, Record
from moe_conformance.registry import all_properties, make_trial, run_trial
from moe_conformance.runlog import RunLog, Tail
from moe_conformance.waivers import Waiver, Waivers, WaiversInvalid, read

CPU = Backend("cpu", "cpu")
DAY = date(2027, 3, 1)
ENTRY = {
    "id": "known",
    "implementation": "mine",
    "backend": "cpu",
    "requirement": "PERM-1",
    "where": {},
    "reason": "a reason",
    "link": "https://example.org/1",
    "expires": DAY,
}
SMALL = {"tokens": 3, "hidden": 5, "ffn": 7, "experts": 4, "top_k": 2}


def problem(**fields) -> Problem:
    return Problem(**SMALL | fields)


def waiver(**fields) -> Waiver:
    return Waiver.model_validate(ENTRY | fields)


def waivers(*entries: Waiver, today: date = DAY, path: Path | None = None) -> Waivers:
    return Waivers(entries, "mine", "cpu", architecture(CPU), today, path)


# -- the file --------------------------------------------------------------------------------------------------------

TEXT = """
[[waiver]]
id = "known"
implementation = "mine"
backend = "cpu"
requirement = "PERM-1"
where = {}
reason = "a reason"
link = "https://example.org/1"
expires = 2027-03-01
"""


def test_a_file_is_read(tmp_path):
    path = tmp_path / "waivers.toml"
    path.write_text(
        TEXT.replace("where = {}", 'where = { dtype = ["fp16", "bf16"], router.groups = ">1", "load.s" = 1.5 }')
    )
    (found,) = read(path)
    assert (found.id, found.backend, found.expires) == ("known", ["cpu"], DAY)
    assert found.where == {"dtype": ["fp16", "bf16"], "router.groups": ">1", "load.s": 1.5}
    path.write_text("")
    assert read(path) == ()


BAD_FILES = {
    "no TOML": ("where = {}", "where = {", "is not TOML"),
    "another table": ("[[waiver]]", "[[waver]]", "expected nothing but"),
    "one table": ("[[waiver]]", "[waiver]", "expected nothing but"),
    "unknown field": ("where = {}", "where = {}\nwhen = 1", r"waiver 1 \(known\): when: Extra inputs"),
    "no reason": ('reason = "a reason"', "", "reason: Field required"),
    "empty reason": ('"a reason"', '""', "reason: String should have at least 1"),
    "no link": ('link = "https://example.org/1"', "", "link: Field required"),
    "link that is none": ("https://example.org/1", "later", "link: String should match"),
    "no expiry": ("expires = 2027-03-01", "", "expires: Field required"),
    "expiry that is no date": ("2027-03-01", '"2027-03-01"', "expires: Input should be a valid date"),
    "unknown requirement": ("PERM-1", "PERM-9", "requirement: SPEC.md has no requirement 'PERM-9'"),
    "unknown backend": ('"cpu"', '"tpu"', "backend"),
    "no backend": ('"cpu"', "[]", "backend: an empty list"),
    "unknown property": ("where = {}", 'property = "sorting"\nwhere = {}', "no property 'sorting' checks PERM-1"),
    "property of another requirement": (
        "where = {}",
        'property = "down"\nwhere = {}',
        "no property 'down' checks PERM-1",
    ),
    "no predicate": ("where = {}", "", "where: Field required"),
    "unknown problem field": ("{}", "{ rows = 1 }", "where: a problem has no field 'rows'"),
    "unknown nested field": ("{}", '{ "router.group" = 1 }', "where: a problem has no field 'router.group'"),
    "a field of no group": ("{}", '{ "tokens.x" = 1 }', "where: a problem has no field 'tokens.x'"),
    "a group": ("{}", "{ router = 1 }", "where: 'router' is a group of fields"),
    "malformed comparison": ("{}", '{ tokens = "=>5" }', "where: tokens: '=>5' is no comparison"),
    "comparison without a number": ("{}", '{ tokens = ">" }', "where: tokens: '>' is no comparison"),
    "comparison of a name": ("{}", '{ dtype = ">1" }', "where: dtype: '>1' can never be its value"),
    "unknown name": ("{}", '{ dtype = "fp8" }', "where: dtype: 'fp8' can never be its value"),
    "unknown name in a list": ("{}", '{ values = ["tiny", "big"] }', "where: values: 'big' can never be"),
    "impossible number": ("{}", "{ tokens = -1 }", "where: tokens: -1 can never be its value"),
    "number for a flag": ("{}", "{ ties = 1 }", "where: ties: 1 can never be its value"),
    "flag for a number": ("{}", "{ tokens = true }", "where: tokens: True can never be its value"),
    "empty list": ("{}", "{ dtype = [] }", "where: dtype: an empty list matches nothing"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_with_the_place(tmp_path, name):
    old, new, message = BAD_FILES[name]
    assert old in TEXT
    path = tmp_path / "waivers.toml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(WaiversInvalid, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_and_doubled_ids(tmp_path):
    with pytest.raises(WaiversInvalid, match="cannot be read"):
        read(tmp_path / "none.toml")
    path = tmp_path / "twice.toml"
    path.write_text(TEXT + TEXT)
    with pytest.raises(WaiversInvalid, match="the id 'known' is given twice"):
        read(path)


# -- the predicate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "fields", "not_fields"),
    [
        ({"dtype": "fp16"}, {"dtype": "fp16"}, {"dtype": "bf16"}),
        ({"values": ["tiny", "huge"]}, {"values": "huge"}, {"values": "normal"}),
        ({"tokens": ">=3"}, {"tokens": 3}, {"tokens": 2}),
        ({"tokens": "> 3"}, {"tokens": 4}, {"tokens": 3}),
        ({"tokens": "<3"}, {"tokens": 2}, {"tokens": 3}),
        ({"tokens": "!=3"}, {"tokens": 2}, {"tokens": 3}),
        ({"tokens": [1, 2]}, {"tokens": 2}, {"tokens": 3}),
        ({"routed_rows": ">6"}, {"tokens": 4}, {"tokens": 3}),
        ({"router.groups": ">1"}, {"router": Router(groups=2, groups_kept=2)}, {}),
        ({"router.scaling_factor": "<=1.5"}, {}, {"router": Router(scaling_factor=2.5)}),
        ({"load.kind": "zipf"}, {"load": Load(kind="zipf")}, {}),
        ({"ties": True}, {"ties": True}, {"ties": False}),
        ({"dtype": "fp16", "tokens": ">2"}, {"dtype": "fp16"}, {"dtype": "fp16", "tokens": 2}),
    ],
)
def test_predicates(where, fields, not_fields):
    assert waiver(where=where).matches("permute", problem(**fields))
    assert not waiver(where=where).matches("permute", problem(**not_fields))


def test_where_a_waiver_applies():
    assert waiver().concerns("mine", "cpu", "x86_64")
    assert not waiver().concerns("others", "cpu", "x86_64")
    assert not waiver(backend=["cuda", "rocm"]).concerns("mine", "cpu", "x86_64")
    amd = waiver(backend="rocm", architecture="gfx942")
    assert amd.concerns("mine", "rocm", "gfx942:sramecc+:xnack-")
    assert not amd.concerns("mine", "rocm", "gfx950:sramecc+:xnack-")
    assert waiver(property="permute").matches("permute", problem())
    assert not waiver(property="route").matches("permute", problem())


def test_the_last_day_still_waives():
    assert waivers(waiver(), today=DAY).matching("permute", problem())
    assert not waivers(waiver(), today=date(2027, 3, 2)).matching("permute", problem())


# -- a trial ---------------------------------------------------------------------------------------------------------


class BadOffsets(Eager):
    """Offsets that are off by one, for problems with four experts."""

    def permute(self, ids, num_experts):
        found = super().permute(ids, num_experts)
        return found._replace(offsets=found.offsets + 1) if num_experts == 4 else found


class BadOrder(BadOffsets):
    def permute(self, ids, num_experts):
        found = super().permute(ids, num_experts)
        return found._replace(order=found.order.flip(0))


class NoOrder(BadOffsets):
    """A result that trips the property behind its first claim."""

    def permute(self, ids, num_experts):
        return super().permute(ids, num_experts)._replace(order=None)


class Raises(Eager):
    def permute(self, ids, num_experts):
        raise LookupError("no room")


def tried(implementation, *entries: Waiver):
    prop = all_properties()["permute"]
    trial = make_trial(prop, problem(), implementation, "mine", CPU, waivers=waivers(*entries))
    run_trial(trial, prop.check)
    return trial


def test_a_waived_failure_lets_the_property_go_on():
    trial = tried(BadOffsets(), waiver(), waiver(id="again"))
    failed = [v for v in trial.verdicts if v.outcome != "passed"]
    assert [(v.requirement, v.outcome) for v in failed] == [("PERM-1", "waived")]
    assert {v.requirement for v in trial.verdicts} >= {"PERM-1", "PERM-2", "PERM-3"}
    assert "offsets[0] is 1, expected 0" in failed[0].message, "what was wrong is kept"
    assert trial.waiver_use() == {"known": True, "again": True}


def test_a_waiver_waives_its_requirement_alone():
    with pytest.raises(NonConformance, match="PERM-2 is not met") as caught:
        tried(BadOrder(), waiver())
    assert "PERM-1 is not met" not in str(caught.value)
    with pytest.raises(NonConformance, match="PERM-1 is not met"):
        tried(BadOffsets(), waiver(requirement="PERM-2"))
    with pytest.raises(NonConformance):
        tried(BadOffsets(), waiver(where={"tokens": ">3"}))


def test_a_waiver_waives_an_exception_of_the_implementation():
    trial = tried(Raises(), waiver())
    assert [(v.requirement, v.outcome) for v in trial.verdicts if v.outcome != "passed"] == [("PERM-1", "waived")]
    with pytest.raises(NonConformance, match="raised LookupError"):
        tried(Raises(), waiver(requirement="PERM-2"))


def test_a_property_may_trip_over_a_waived_result_and_over_no_other():
    outcomes = [(v.requirement, v.outcome) for v in tried(NoOrder(), waiver()).verdicts]
    assert ("PERM-1", "waived") in outcomes
    assert "PERM-2" not in dict(outcomes), "what was not judged stays unjudged"

    class Elsewhere(NoOrder):
        def permute(self, ids, num_experts):
            return Eager.permute(self, ids, num_experts)._replace(order=None)

    with pytest.raises(Exception, match="NoneType") as caught:
        tried(Elsewhere(), waiver())
    assert not isinstance(caught.value, NonConformance)


def test_a_waiver_that_was_not_needed_is_known():
    assert tried(Eager(), waiver()).waiver_use() == {"known": False}
    assert tried(Eager(), waiver(requirement="PERM-3"), waiver(where={"tokens": 9})).waiver_use() == {"known": False}


def test_shrinking_keeps_away_from_waived_failures():
    """The defect is waived below 8 tokens; what is reported is a failure that is not waived."""
    prop = all_properties()["permute"]
    entries = waivers(waiver(where={"tokens": "<8"}))
    part = parts(prop, RunOptions("mine", "cpu", "dev", problems=1500), profile("dev", CPU), Eager.declaration)[0]

    class AllOffsets(Eager):
        def permute(self, ids, num_experts):
            found = super().permute(ids, num_experts)
            return found._replace(offsets=found.offsets + 1)

    def run(drawn: Problem, counts: bool) -> None:
        run_trial(make_trial(prop, drawn, AllOffsets(), "mine", CPU, waivers=entries), prop.check)

    with pytest.raises(NonConformance) as caught:
        explore(part, profile("dev", CPU).limits, Eager.declaration, run)
    assert caught.value.findings.problem.tokens == 8, "the smallest that is not waived"


# -- a run -----------------------------------------------------------------------------------------------------------


def record_of(tmp_path: Path, implementation, *entries: Waiver, today: date = DAY) -> Record:
    """The Record of a run of the permute stage, its trials made in this process."""
    options = RunOptions("mine", "cpu", "dev", ("permute",), 0, 40)
    plan = module.make_plan(options, CPU, implementation, 1, tmp_path / "run", waivers(*entries, today=today))
    prop, log = all_properties()["permute"], RunLog(tmp_path / "run", "one")
    exit_code = 0
    for part in parts(prop, options, profile("dev", CPU), implementation.declaration):

        def trial(drawn: Problem, counts: bool) -> None:
            made = make_trial(prop, drawn, implementation, "mine", CPU, waivers=plan.waivers)
            log.started(prop.name, drawn)
            try:
                run_trial(made, prop.check)
            finally:
                log.finished(made, 0.0, counts=counts)

        try:
            explore(part, profile("dev", CPU).limits, implementation.declaration, trial)
        except NonConformance as failure:
            log.failed(failure.findings)
            exit_code = 1
        log.item(part.name, 0.0, stopped=False, problems=None)
    log._file.close()
    collected = Collected()
    for event in Tail(tmp_path / "run").new_events():
        collected.add(event)
    return module._record(plan, collected, exit_code, module.datetime.now(module.UTC), 1.0)


def test_a_run_with_a_needed_waiver_passes_and_says_so(tmp_path):
    record = record_of(tmp_path, BadOffsets(), waiver(where={"experts": [3, 4, 5]}), waiver(id="far", backend="cuda"))
    assert (record.verdict, record.reasons) == ("passed", [])
    offsets = next(t for t in record.requirements if t.requirement == "PERM-1")
    assert offsets.waived > 0
    assert (offsets.failed, offsets.passed) == (0, offsets.problems - offsets.waived)
    assert [c.outcome for c in record.cases].count("waived") == offsets.waived
    used, far = record.waivers
    assert (used.status, used.waived) == ("used", offsets.waived)
    assert used.matched > used.waived, "problems with three experts match and pass"
    assert (far.status, far.matched) == ("elsewhere", 0)
    path = tmp_path / "record.json"
    record.write(path)
    assert Record.read(path) == record


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (waiver(where={"tokens": 4000}), "no problem matched it (unmatched)"),
        (waiver(requirement="PERM-3"), "matching problems failed (unexpected pass)"),
    ],
)
def test_a_run_fails_with_a_waiver_that_says_too_much(tmp_path, entry, complaint):
    record = record_of(tmp_path, Eager(), entry)
    assert record.verdict == "failed"
    assert len(record.reasons) == 1
    assert complaint in record.reasons[0]
    assert not record.failures


def test_an_expired_waiver_waives_nothing_and_is_reported(tmp_path):
    late = date(2027, 3, 2)
    record = record_of(tmp_path, BadOffsets(), waiver(), today=late)
    assert record.verdict == "failed"
    assert [u.status for u in record.waivers] == ["expired"]
    assert record.failures
    fine = record_of(tmp_path / "right", Eager(), waiver(), today=late)
    assert (fine.verdict, [u.status for u in fine.waivers]) == ("passed", ["expired"])


def test_a_waiver_of_a_stage_that_was_not_asked_for_is_left_alone(tmp_path):
    entries = waiver(requirement="FWD-1"), waiver(id="b", requirement="NONFIN-1", property="sick_token_is_isolated")
    record = record_of(tmp_path, Eager(), *entries)
    assert (record.verdict, [u.status for u in record.waivers]) == ("passed", ["not planned"] * 2)


# -- the command line ------------------------------------------------------------------------------------------------

DEFECT = """
from moe_conformance.implementations.eager import Eager

class Mine(Eager):
    def permute(self, ids, num_experts):
        found = super().permute(ids, num_experts)
        return found._replace(offsets=found.offsets + 1) if num_experts == 4 else found
"""


LINE = ("--backend", "cpu", "--implementation", "waived_defect:Mine")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a defective implementation and a waiver for it."""
    (tmp_path / "waived_defect.py").write_text(DEFECT)
    entry = TEXT.replace('"mine"', '"waived_defect:Mine"').replace("2027-03-01", "2999-01-01")
    (tmp_path / "waivers.toml").write_text(entry.replace("{}", "{ experts = 4 }"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_a_run_reads_the_waivers_where_the_user_stands(cli_here, folder):
    done = cli_here(
        "run", *LINE, "--stage", "permute", "--problems", "60", "--workers", "1", "--in-process", "--record", "r.json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = Record.read(folder / "r.json")
    assert [(u.status, u.waived == u.matched > 0) for u in record.waivers] == [("used", True)]
    assert any(case.outcome == "waived" for case in record.cases)
    assert re.search(r"passed: \d+ problems, \d+ waived,", done.stdout)
    assert "waiver known (PERM-1, until 2999-01-01): used" in done.stdout


def test_replay_names_the_waiver_and_fails_all_the_same(folder):
    case = '{"property":"permute","problem":' + problem().to_json() + "}"
    done = CliRunner().invoke(main, ["replay", *LINE, case])
    assert done.exit_code == 1
    assert "PERM-1 is not met" in done.output
    assert "a run waives this by known until 2999-01-01: a reason" in done.output


def test_a_bad_file_stops_a_run_before_it_starts(folder):
    missing = CliRunner().invoke(main, ["run", *LINE, "--waivers", "none.toml"])
    (folder / "waivers.toml").write_text(TEXT.replace("reason", "because"))
    for done, message in ((missing, "cannot be read"), (CliRunner().invoke(main, ["run", *LINE]), "because: Extra")):
        assert isinstance(done.exception, SystemExit)
        assert done.exit_code == 2
        assert message in re.sub(r"\W+", " ", done.output).replace("because Extra", "because: Extra")


def test_the_verdict_keeps_what_was_wrong():
    made = make_trial(all_properties()["permute"], problem(), Eager(), "mine", CPU, waivers=waivers(waiver()))
    made._add(Verdict("PERM-1", "failed", 7.0, "off by one"))
    assert made.verdicts == [Verdict("PERM-1", "waived", 7.0, "off by one", waivers=("known",))]
