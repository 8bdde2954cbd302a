"""`moe-conformance diff`: what can be compared, what makes platforms agree, and files that are not to be believed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))
from records import case, record

from moe_conformance.evidence.comparison import NotComparable, compare, compare_all
from moe_conformance.evidence.diff_command import diff
from moe_conformance.evidence.distributions import flagged, kolmogorov_smirnov, signed_rank, spread
from moe_conformance.evidence.reading import RecordInvalid, read_record
from moe_conformance.record import Record

GPU = ("cuda", "rocm")


def written(folder: Path, *records: Record) -> list[str]:
    paths = [folder / f"{index}.json" for index in range(len(records))]
    for path, each in zip(paths, records, strict=True):
        each.write(path)
    return [str(path) for path in paths]


def call(*arguments: str) -> Result:
    done = CliRunner().invoke(diff, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done


def test_two_platforms_that_agree(tmp_path: Path) -> None:
    out = tmp_path / "diff.json"
    done = call(*written(tmp_path, *map(record, GPU)), "--json", str(out))
    assert done.exit_code == 0, done.output
    assert "50 problems in common" in done.output
    pair = json.loads(out.read_text())["pairs"][0]
    assert (pair["common"], pair["missing"], pair["disagreements"]) == (50, [0, 0], [])
    assert [each["name"] for each in pair["spreads"]] == ["down"], "claims without an error have no distribution"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"verdict": "incomplete", "reasons": ["a worker was lost"]}, "verdict is incomplete"),
        ({"profile": "dev"}, "profile dev and not gate"),
        ({"partial": ["--stage down"], "floor": None}, "a partial run (--stage down)"),
        ({"dirty": True}, "uncommitted changes"),
        ({"dirty": None, "commit": None}, "no checkout"),
    ],
)
def test_a_run_that_is_no_clean_whole_gate_shows_nothing(tmp_path: Path, fields: dict, message: str) -> None:
    both = {"profile": fields["profile"]} if "profile" in fields else {}
    done = call(*written(tmp_path, record("cuda", **both), record("rocm", **fields)))
    assert done.exit_code == 1
    assert message in done.output


@pytest.mark.parametrize(
    "fields", [{"source_digest": "b" * 64}, {"implementation": "eager"}, {"spec_digest": "6" * 64}, {"seed": 1}]
)
def test_runs_of_different_things_are_refused(tmp_path: Path, fields: dict) -> None:
    done = call(*written(tmp_path, record("cuda"), record("rocm", **fields)))
    assert done.exit_code == 2
    assert "different" in done.output
    with pytest.raises(NotComparable):
        compare_all([record("cuda"), record("rocm", **fields)], GPU)


def test_a_case_that_one_platform_did_not_run(tmp_path: Path) -> None:
    fewer = record("rocm", cases=record().cases[:-1], floor=None, partial=[])
    pair = compare(record("cuda"), fewer)
    assert (pair.common, pair.missing, pair.by_design) == (49, (0, 1), (0, 0))
    done = call(*written(tmp_path, record("cuda"), fewer))
    assert done.exit_code == 1
    assert "1 cases were not run by rocm" in done.output


def test_platforms_of_other_sizes_are_compared_where_they_meet(tmp_path: Path) -> None:
    small = record("cpu", cases=[*record().cases[:30], *(case("down", number) for number in range(100, 120))])
    pair = compare(record("cuda"), small)
    assert (pair.common, pair.missing, pair.by_design) == (30, (0, 0), (20, 20))
    done = call(*written(tmp_path, record("cuda"), small, record("exec:gfx942", cases=small.cases)))
    assert done.exit_code == 0, done.output
    assert "bf16" in done.output, "the interpreter's repair is named"
    apart = record("cpu", cases=[case(prop, number) for prop in ("down", "permute") for number in range(100, 120)])
    assert "not one problem in common" in "".join(compare_all([record("cuda"), apart], GPU).differences)


def test_another_outcome_is_a_disagreement(tmp_path: Path) -> None:
    cases = list(record().cases)
    cases[3] = cases[3].model_copy(update={"outcome": "refused"})
    done = call(*written(tmp_path, record("cuda"), record("rocm", cases=cases)))
    assert done.exit_code == 1
    assert "passed | refused" in done.output


def test_distributions_that_differ_are_flagged_and_fail_when_asked(tmp_path: Path) -> None:
    bits = random.Random(1)
    first = [case("down", number, worst=bits.uniform(0, 0.9)) for number in range(60)]
    second = [each.model_copy(update={"worst": each.worst * 1.02 + 1e-3}) for each in first]
    rest = [each for each in record().cases if each.property == "permute"]
    files = written(tmp_path, record("cuda", cases=first + rest), record("rocm", cases=second + rest))
    assert "differs" in call(*files).output
    assert call(*files).exit_code == 0
    assert call(*files, "--strict").exit_code == 1


def test_tests_of_distributions() -> None:
    bits = random.Random(2)
    one = [bits.random() for _ in range(200)]
    other = [bits.random() for _ in range(200)]
    assert kolmogorov_smirnov(one, one) == 1.0
    assert kolmogorov_smirnov(one, other) > 0.01
    assert kolmogorov_smirnov(one, [x**2 for x in one]) < 1e-4
    assert signed_rank(one, other) > 0.01
    assert signed_rank(one, [x + 1e-9 for x in one]) < 1e-9
    assert signed_rank(one[:10], [x + 1 for x in one[:10]]) == 1.0, "ten pairs say nothing"
    # Ranks 1 to 25 of which the negative ones are 1, 2 and 3: W+ = 319, mean 162.5, variance 1381.25.
    pairs = [-1.0, -2.0, -3.0, *range(4, 26)]
    assert signed_rank([0.0] * 25, pairs) == pytest.approx(2.68e-5, rel=0.02)
    assert flagged([spread("a", one, [x + 1e-6 for x in one]), spread("b", one, one)])[0].name == "a"


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_truncated_record(tmp_path: Path, length: int) -> None:
    good, bad = written(tmp_path, record("cuda"), record("rocm"))
    text = Path(bad).read_text()
    Path(bad).write_text(text[:length])
    done = call(good, bad)
    assert done.exit_code == 2
    assert "1.json is no whole record" in done.output


def test_a_tampered_record(tmp_path: Path) -> None:
    (path,) = written(tmp_path, record())
    text = Path(path).read_text()
    Path(path).write_text(text.replace('"verdict": "passed"', '"verdict": "failed"'))
    with pytest.raises(RecordInvalid, match="its seal does not fit"):
        read_record(Path(path))
    Path(path).write_text(text.replace(read_record_seal(text), "0" * 64))
    with pytest.raises(RecordInvalid, match="its seal does not fit"):
        read_record(Path(path))


def read_record_seal(text: str) -> str:
    return str(json.loads(text)["seal"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_set": "0" * 64}, "digest of the problem set"),
        ({"verdict": "failed"}, "names no reason"),
        ({"cases": [*record().cases, record().cases[0]]}, "a case occurs twice"),
        ({"reasons": ["x"]}, "lists failures or reasons"),
    ],
)
def test_a_record_that_contradicts_itself(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(record().model_copy(update=change).model_dump_json())
    with pytest.raises(RecordInvalid, match=message):
        read_record(path)


def test_records_of_other_schemas(tmp_path: Path) -> None:
    good, bad = written(tmp_path, record("cuda"), record("rocm"))
    Path(bad).write_text(Path(bad).read_text().replace('"schema_version": 3', '"schema_version": 7'))
    done = call(good, bad)
    assert done.exit_code == 2
    assert "schema_version 7" in done.output


def test_calls_that_make_no_sense(tmp_path: Path) -> None:
    first, second = written(tmp_path, record("cuda"), record("rocm"))
    assert call(first).exit_code == 2
    assert call(first, str(tmp_path / "none.json")).exit_code == 2
    before = Path(first).read_bytes()
    assert call(first, second, "--json", first).exit_code == 2
    assert Path(first).read_bytes() == before
