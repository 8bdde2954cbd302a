"""Shards of a run, and the Record of the whole that they are merged into."""

from __future__ import annotations

import json
import math
import sys
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from records import case, record

from moe_conformance.cli import main
from moe_conformance.evidence.merging import NotMergeable, merge_shards
from moe_conformance.record import Expected, Floor, Part, Record, Tally, problem_set_digest, spread
from moe_conformance.shards import Shard
from moe_conformance.waivers import WaiverUse

ids = st.text("0123456789abcdef", min_size=12, max_size=12)


@given(ids, st.integers(1, 40))
def test_every_problem_belongs_to_one_shard(problem_id, count):
    assert sum(Shard(index, count).holds(problem_id) for index in range(1, count + 1)) == 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "3", "1/2/3", "-1/3", "a/b", "", "1/3 ", "1.5/2"])
def test_what_is_no_shard(text):
    with pytest.raises(ValueError, match="a shard is written I/N"):
        Shard.parse(text)


def test_a_shard_is_written_as_it_is_read():
    assert str(Shard.parse("2/8")) == "2/8"


# -- merging ---------------------------------------------------------------------------------------------------------

PROBLEMS = {"down": [f"{n:012x}" for n in range(40)], "permute": [f"{n:012x}" for n in range(100, 125)]}
WORST = {"down": 0.5, "permute": 0.0}


def whole_cases():
    return [_case(prop, number, name) for prop, names in PROBLEMS.items() for number, name in enumerate(names)]


def _case(prop: str, number: int, name: str):
    return case(prop, number).model_copy(update={"problem": name})


def tally(requirement: str, cases, *, values: bool) -> Tally:
    count = {name: sum(each.outcome == name for each in cases) for name in ("passed", "failed", "refused", "waived")}
    worst = max(cases, key=lambda each: each.worst)
    tiers = {"sound": spread([each.worst for each in cases], count["failed"], count["refused"], keep_values=values)}
    fields = {
        "worst": worst.worst,
        "worst_problem": worst.problem if worst.worst else None,
        "tiers": tiers,
        "problems": len(cases),
    }
    return Tally(requirement=requirement, title="", **fields, **count)


EXPECTED = Expected(
    problems=65,
    parts=["down[fp32-0]", "permute[fp32-0]"],
    requirements=["PERM-1", "DOWN-1"],
    coverage=["T=0", "k=E"],
    floor=Floor(profile=60, reach=1.0, required=60),
)


def one(shard: Shard | None, change=lambda cases: cases, **fields) -> Record:
    """The Record of a shard, or of the whole run."""
    cases = change([each for each in whole_cases() if shard is None or shard.holds(each.problem)])
    by_requirement = (("PERM-1", "permute"), ("DOWN-1", "down"))
    parts = {f"{prop}[fp32-0]": Part(seconds=1.0, problems=names if shard else []) for prop, names in PROBLEMS.items()}
    coverage = ["T=0", "k=E"] if shard is None else [["T=0"], ["k=E"], []][(shard.index - 1) % 3]
    made = {
        "cases": sorted(cases, key=lambda each: (each.property, each.problem)),
        "problem_set": problem_set_digest(cases),
        "requirements": [
            tally(name, found, values=shard is not None)
            for name, prop in by_requirement
            if (found := [each for each in cases if each.property == prop])
        ],
        "shard": str(shard) if shard else None,
        "partial": [f"--shard {shard}"] if shard else [],
        "floor": None if shard else EXPECTED.floor,
        "expected": EXPECTED,
        "parts": parts,
        "coverage": coverage,
    }
    return record(**{**made, **fields}).sealed()


def shards(count: int = 3) -> list[Record]:
    return [one(Shard(index, count)) for index in range(1, count + 1)]


def merged(records: list[Record]) -> Record:
    return merge_shards(records, [f"{number}.json" for number in range(1, len(records) + 1)])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_shards_make_the_whole(count):
    """Everything but the workers and the times is what one run would have written."""
    found, want = merged(shards(count)), one(None)
    same = set(Record.model_fields) - {"workers", "seconds", "started", "parts", "seal", "coverage", "missing_coverage"}
    if count >= 2:
        same |= {"coverage", "missing_coverage"}
        assert found.verdict == "passed"
    else:
        same -= {"verdict", "reasons"}
        assert found.reasons == ["never met: k=E"]
    for name in same:
        assert getattr(found, name) == getattr(want, name), name
    assert found.seal == found.digest()
    assert found.workers == count
    assert {name: part.problems for name, part in found.parts.items()} == {name: [] for name in EXPECTED.parts}


def test_order_does_not_matter():
    made = shards()
    back = merge_shards(made[::-1], ["c", "b", "a"])
    assert back.model_copy(update={"seal": None}) == merged(made).model_copy(update={"seal": None})


def without(prop: str, number: int):
    return lambda cases: [each for each in cases if (each.property, each.problem) != (prop, PROBLEMS[prop][number])]


REFUSED = {
    "a shard is missing": (lambda s: s[:2], "missing: 3/3"),
    "two are missing": (lambda s: s[:1], "missing: 2/3, 3/3"),
    "a shard is there twice": (lambda s: [*s, s[0]], "shard 1/3 is there twice: 1.json and 4.json"),
    "shards of different cuts": (lambda s: [*s, one(Shard(4, 4))], "different numbers of shards"),
    "a whole run": (lambda s: [one(None)], "is no shard"),
    "a merged run": (lambda s: [merged(s)], "is no shard"),
    "another source": (lambda s: [*s[:2], one(Shard(3, 3), source_digest="b" * 64)], "different source digest"),
    "another seed": (lambda s: [*s[:2], one(Shard(3, 3), seed=4)], "different seed"),
    "another plan": (
        lambda s: [*s[:2], one(Shard(3, 3), expected=EXPECTED.model_copy(update={"problems": 9}))],
        "different plan",
    ),
    "another device": (lambda s: [*s[:2], one(Shard(3, 3), environment={"backend": "rocm"})], "different backend"),
    "another commit": (lambda s: [*s[:2], one(Shard(3, 3), commit="d" * 40)], "different commit"),
    "a problem of another shard": (
        lambda s: [one(Shard(1, 3), lambda cases: [*cases, _case("down", 1, PROBLEMS["down"][1])]), *s[1:]],
        "does not belong to shard 1/3",
    ),
    "a problem nobody ran": (lambda s: [one(Shard(1, 3), without("down", 3)), *s[1:]], "1 problems of down are in no"),
    "a problem nobody drew": (
        lambda s: [one(Shard(1, 3), lambda cases: [*cases, _case("down", 1, f"{300:012x}")]), *s[1:]],
        "was run and is not one that was drawn",
    ),
    "other problems were drawn": (
        lambda s: [
            *s[:2],
            one(Shard(3, 3), parts={name: Part(seconds=1, problems=["0a"]) for name in EXPECTED.parts}),
        ],
        "3.json drew other problems than 1.json in down",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    change, message = REFUSED[name]
    with pytest.raises(NotMergeable, match=message.replace("(", r"\(")):
        merged(change(shards()))


def failing(cases):
    return [each.model_copy(update={"outcome": "failed"}) if each.property == "down" else each for each in cases]


def test_a_failure_of_one_shard_is_one_of_the_whole():
    """Its part stopped early: what it did not run is a gap that has a reason."""
    stopped = {"down[fp32-0]": Part(seconds=1.0, stopped=True, problems=PROBLEMS["down"][:5])}
    parts = {"permute[fp32-0]": Part(seconds=1.0, problems=PROBLEMS["permute"])} | stopped
    second = one(
        Shard(2, 3),
        lambda cases: failing(without("down", 37)(cases)),
        verdict="failed",
        reasons=["1 properties failed"],
        parts=parts,
    )
    found = merged([one(Shard(1, 3)), second, one(Shard(3, 3))])
    assert found.verdict == "failed"
    assert "shard 2/3 (2.json) failed: 1 properties failed" in found.reasons
    assert found.parts["down[fp32-0]"].stopped


def test_coverage_and_floor_are_judged_of_the_whole():
    missed = merged([one(Shard(1, 2), coverage=[]), one(Shard(2, 2))])
    assert (missed.verdict, missed.missing_coverage, missed.reasons) == ("incomplete", ["T=0"], ["never met: T=0"])
    high = EXPECTED.model_copy(update={"floor": Floor(profile=900, reach=1.0, required=900)})
    few = merged([one(Shard(index, 2), expected=high) for index in (1, 2)])
    assert few.verdict == "incomplete"
    assert "65 problems were executed, fewer than the floor of 900" in few.reasons[0]


def use(status: str, matched: int = 0, waived: int = 0) -> WaiverUse:
    fields = {"requirement": "DOWN-1", "expires": date(2030, 1, 1), "reason": "r", "link": "l"}
    return WaiverUse(id="w", status=status, matched=matched, waived=waived, **fields)


@pytest.mark.parametrize(
    ("uses", "status", "verdict"),
    [
        ((use("unmatched"), use("used", 2, 1)), "used", "passed"),
        ((use("unmatched"), use("unexpected pass", 2)), "unexpected pass", "failed"),
        ((use("unmatched"), use("unmatched")), "unmatched", "failed"),
        ((use("elsewhere"), use("elsewhere")), "elsewhere", "passed"),
    ],
)
def test_waivers_are_judged_of_the_whole(uses, status, verdict):
    found = merged([one(Shard(index + 1, 2), waivers=[each]) for index, each in enumerate(uses)])
    assert (found.waivers[0].status, found.verdict) == (status, verdict)


def test_the_command(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, each in enumerate(shards(), 1):
        each.write(tmp_path / f"{number}.json")
    done = CliRunner().invoke(main, ["merge", "1.json", "2.json", "3.json", "--record", "whole.json"])
    assert done.exit_code == 0, done.output
    assert Record.read(tmp_path / "whole.json").verdict == "passed"
    done = CliRunner().invoke(main, ["merge", "1.json", "3.json", "--record", "other.json"])
    assert done.exit_code == 2
    assert "missing: 2/3" in done.output
    done = CliRunner().invoke(main, ["merge", "1.json", "2.json", "3.json", "--record", "3.json"])
    assert done.exit_code == 2
    text = (tmp_path / "2.json").read_text()
    (tmp_path / "2.json").write_text(text[: len(text) // 2])
    done = CliRunner().invoke(main, ["merge", "1.json", "2.json", "3.json", "--record", "other.json"])
    assert done.exit_code == 2
    assert "2.json is no whole record" in done.output
    assert not (tmp_path / "other.json").exists()


def test_a_real_run_in_shards_is_the_run_in_one(cli_here, tmp_path):
    """Two runs of a shard each, and one of all: the same cases, counts and distributions."""
    what = ("--stage", "permute", "--profile", "dev", "--problems", "200")
    asked = ("run", "--backend", "cpu", "--implementation", "eager", *what, "--workers", "1", "--in-process")
    for index in (1, 2):
        done = cli_here(*asked, "--shard", f"{index}/2", "--record", f"{index}.json")
        assert done.returncode == 0, done.stdout
        assert f"partial: --stage permute, --problems 200, --shard {index}/2" in done.stdout
    assert cli_here(*asked, "--record", "one.json").returncode == 0
    assert cli_here("merge", "1.json", "2.json", "--record", "whole.json").returncode == 0
    whole, alone = (Record.read(tmp_path / name) for name in ("whole.json", "one.json"))
    assert whole.requirements == alone.requirements
    assert whole.problem_set == alone.problem_set
    assert (whole.verdict, whole.partial, whole.coverage) == (alone.verdict, alone.partial, alone.coverage)
    shard = json.loads((tmp_path / "1.json").read_text())
    assert 0 < len(shard["cases"]) < len(alone.cases)
    assert not any(math.isinf(each["worst"]) for each in shard["cases"])
