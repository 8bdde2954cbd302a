"""Certificates: what deserves one, what it says, and the check against the repository at its commit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent))
from records import record

from moe_conformance.evidence import repository as git
from moe_conformance.evidence.certificate import objections, read_certificate
from moe_conformance.evidence.certify_command import certify
from moe_conformance.implementation import source_digest
from moe_conformance.implementations.eager import Eager
from moe_conformance.implementations.triton_moe import TritonMoE
from moe_conformance.mutants.matrix import Control, Finding, Matrix
from moe_conformance.portability import cases as cases_file
from moe_conformance.record import Record, spec_digest

ROOT = Path(__file__).parents[1]


def run(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with kernels, a contract and a compile baseline of one cell."""
    folder = tmp_path / "checkout"
    case = next(iter(cases_file.read().cases.values()))
    target = next(iter(case.levels))
    for name, text in {
        "kernels/tritonmoe/a.py": "A = 1\n",
        "kernels/tritonmoe/stages/b_kernel.py": "B = 2\n",
        "kernels/tritonmoe/README.txt": "no source\n",
        git.SPEC: "the contract\n",
        git.BASELINE: f"triton 3\nlevels slice\n{case.id} {case.describe()}\n\t{target} 10 0 0 0 64 4 100 bf16\nend\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run(folder, "init", "-q")
    run(folder, "add", ".")
    run(folder, "commit", "-q", "-m", "first")
    return folder


def at_head(folder: Path, backend: str = "cuda", **fields) -> Record:
    """A Record of the gate at the repository's commit."""
    here = git.Repository(folder, "HEAD")
    digests = {"source_digest": here.source_digest("tritonmoe"), "spec_digest": here.digest(git.SPEC)}
    return record(backend, **{**digests, "commit": here.commit, **fields})


@pytest.fixture
def call(checkout: Path, tmp_path: Path):
    """`certify` on this repository."""

    def invoke(*arguments: object) -> Result:
        done = CliRunner().invoke(certify, [*map(str, arguments), "--repository", str(checkout)])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return done

    return invoke


@pytest.fixture
def files(tmp_path: Path):
    def write(*records: Record) -> list[Path]:
        paths = [tmp_path / f"{index}.json" for index in range(len(records))]
        for path, each in zip(paths, records, strict=True):
            each.write(path)
        return paths

    return write


def test_digests_from_git_are_those_of_a_run() -> None:
    """At a commit with these very sources: the rule is one, whichever side computes it."""
    here = git.Repository(ROOT, "HEAD")
    command = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "kernels", "conformance"]
    changed = subprocess.run(command, capture_output=True, text=True).stdout
    for name, made in (("tritonmoe", TritonMoE()), ("eager", Eager())):
        if git.SOURCES[name] not in changed and "kernels/" not in changed:
            assert here.source_digest(name) == source_digest(made)
    assert here.source_digest("someone:Else") is None
    if git.SPEC not in changed:
        assert here.digest(git.SPEC) == spec_digest()


def test_a_certificate_is_issued_and_holds(checkout, call, files, tmp_path) -> None:
    paths = files(at_head(checkout), at_head(checkout, "rocm"))
    out = tmp_path / "certificate.json"
    done = call(*paths, "--out", out)
    assert done.exit_code == 0, done.output
    made = read_certificate(out)
    assert [made.runs[0].label, made.runs[1].label] == ["cuda x1", "rocm x1"]
    assert (made.runs[0].problems, made.runs[0].floor, made.runs[0].worst.requirement) == (50, 40, "DOWN-1")
    assert made.agreements[0].common == 50
    assert made.compiled[0].cells == 1
    page = out.with_suffix(".html").read_text()
    for part in (made.commit, made.source_digest, made.seal, "DOWN-1", "a rocm device", "driver 7"):
        assert part in page
    assert "<script" not in page
    assert "http" not in page
    done = call("--check", out, *paths)
    assert done.exit_code == 0, done.output
    assert "2 of 2 Records compared" in done.output


def test_the_mutation_score_is_in_it(checkout, call, files, tmp_path) -> None:
    (path,) = files(at_head(checkout))
    found = [Finding(id=v, stage="down", bug_class="x", source="x", verdict=v) for v in ("killed", "survived")]
    fields = {"environment": {"backend": "cuda"}, "profile": "gate", "seed": 0, "seconds": 1.0, "findings": found}
    score = Matrix(**fields, source_digest=at_head(checkout).source_digest, control=Control(problems=1, seconds=1.0))
    score.write(tmp_path / "mutants.json")
    done = call(path, "--out", tmp_path / "c.json", "--mutants", tmp_path / "mutants.json")
    assert done.exit_code == 0, done.output
    assert "1 of 2 planted defects were seen" in (tmp_path / "c.html").read_text()
    score.model_copy(update={"source_digest": "9" * 64}).write(tmp_path / "mutants.json")
    done = call(path, "--out", tmp_path / "d.json", "--mutants", tmp_path / "mutants.json")
    assert done.exit_code == 1
    assert "other kernels" in done.output


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dirty": True}, "uncommitted changes"),
        ({"dirty": None}, "clean"),
        ({"commit": None}, "no commit"),
        ({"partial": ["--stage down"], "floor": None}, "a partial run"),
        ({"floor": None}, "no floor"),
        ({"profile": "nightly"}, "profile nightly"),
        ({"verdict": "incomplete", "reasons": ["never met: T=0"]}, "the verdict is incomplete"),
        ({"missing_coverage": ["T=0"]}, "never met: T=0"),
        ({"source_digest": "b" * 64}, "other kernels ran"),
        ({"spec_digest": "b" * 64}, "the contract"),
    ],
)
def test_what_deserves_no_certificate(checkout, call, files, tmp_path, fields: dict, message: str) -> None:
    (path,) = files(at_head(checkout, **fields))
    out = tmp_path / "certificate.json"
    out.write_text("mine")
    done = call(path, "--out", out)
    assert done.exit_code == 1, done.output
    assert message in done.output
    assert out.read_text() == "mine"


def test_a_floor_that_was_not_reached(checkout) -> None:
    made = at_head(checkout)
    low = made.model_copy(update={"floor": made.floor.model_copy(update={"required": 60})})
    assert any("fewer than the floor of 60" in text for text in objections(low))
    assert "the Record has no seal: it was written by an older suite" in objections(made)


def test_platforms_that_disagree_and_kernels_of_others(checkout, call, files) -> None:
    cases = [
        each.model_copy(update={"outcome": "refused"}) if each.problem == "p003" else each for each in record().cases
    ]
    done = call(*files(at_head(checkout), at_head(checkout, "rocm", cases=cases)))
    assert done.exit_code == 1
    assert "different outcomes" in done.output
    done = call(*files(at_head(checkout, implementation="my_adapter:Mine")))
    assert done.exit_code == 1
    assert "are not in this repository" in done.output


def test_a_planted_kernel_edit_is_caught(checkout, call, files, tmp_path) -> None:
    """Kernels that are committed later than they ran: another commit, another digest."""
    (path,) = files(at_head(checkout))
    out = tmp_path / "certificate.json"
    assert call(path, "--out", out).exit_code == 0
    (checkout / "kernels/tritonmoe/a.py").write_text("A = 3\n")
    run(checkout, "commit", "-q", "-a", "-m", "second")
    assert call("--check", out).exit_code == 0, "it holds for the commit that it names"
    head = git.Repository(checkout, "HEAD").commit
    (path,) = files(Record.read(path).model_copy(update={"commit": head}))
    done = call(path, "--out", tmp_path / "other.json")
    assert done.exit_code == 1
    assert "other kernels ran" in done.output


def test_a_certificate_that_was_changed(checkout, call, files, tmp_path) -> None:
    (path,) = files(at_head(checkout))
    out = tmp_path / "certificate.json"
    assert call(path, "--out", out).exit_code == 0
    text = out.read_text()
    for bad in (text.replace('"problems": 50', '"problems": 5000'), text[:300], "{}", text.replace(": 1,", ": 3,", 1)):
        out.write_text(bad)
        done = call("--check", out)
        assert done.exit_code == 2, done.output
    made = json.loads(text)
    out.write_text(json.dumps({**made, "seal": None}))
    assert call("--check", out).exit_code == 2
    out.write_text(text)
    (other,) = files(at_head(checkout, seconds=2.0))
    done = call("--check", out, other)
    assert done.exit_code == 1
    assert "not among the certificate's runs" in done.output


def test_calls_that_make_no_sense(checkout, call, files, tmp_path) -> None:
    (path,) = files(at_head(checkout))
    before = path.read_bytes()
    assert call().exit_code == 2
    assert call(path, "--out", path).exit_code == 2
    assert path.read_bytes() == before
    assert call(tmp_path / "none.json").exit_code == 2
    assert call("--check", path).exit_code == 2
    assert call(*files(at_head(checkout, commit="d" * 40)), "--out", tmp_path / "x.json").exit_code == 2
    done = CliRunner().invoke(certify, [str(path), "--repository", str(tmp_path)])
    assert done.exit_code == 2
    assert not (tmp_path / "x.json").exists()
