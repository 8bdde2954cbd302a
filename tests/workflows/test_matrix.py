"""The plan of the GPU jobs: every runner of the data file, every selection, and malformed data."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import matrix
import pytest

from .files import ROOT

RUNNERS = matrix.read(ROOT / ".github" / "runners.toml")
SHA = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"rocm/dev@sha256:{'a' * 64}"
GOOD = {"SHA": SHA, "PROFILE": "gate", "GPU_KINDS": ",".join(RUNNERS.kinds), "ROCM_IMAGE": IMAGE}
ENTRY = 'kind = "x"\nbackend = "cuda"\ngroup = "g"\nlabel = "l"\n'
CONTAINER = '[container]\noptions = ""\n'


def jobs(plan: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    return {name: json.loads(plan[name]) for name in matrix.BACKENDS}


@pytest.mark.parametrize("runner", RUNNERS.runners, ids=lambda runner: runner.kind)
def test_every_runner_gets_its_job(runner: matrix.Runner):
    plan = matrix.plan(RUNNERS, {**GOOD, "KINDS": runner.kind})
    (job,) = jobs(plan)[runner.backend]
    assert (job["kind"], job["group"], job["label"]) == (runner.kind, runner.group, runner.label)
    assert (job.get("image"), "--device=/dev/kfd" in job.get("options", "")) == (
        (IMAGE, True) if runner.backend == "rocm" else (None, False)
    )
    assert plan["kinds"] == runner.kind
    assert not [each for name, found in jobs(plan).items() if name != runner.backend for each in found]


def test_all_selections_of_all_kinds():
    for count in range(1, len(RUNNERS.kinds) + 1):
        for kinds in combinations(RUNNERS.kinds, count):
            for environment in ({"GPU_KINDS": ",".join(kinds)}, {"KINDS": " , ".join(reversed(kinds))}):
                plan = matrix.plan(RUNNERS, GOOD | environment)
                planned = [job["kind"] for found in jobs(plan).values() for job in found]
                assert sorted(planned) == sorted(kinds)
                assert plan["kinds"].split(",") == list(kinds)


def test_both_vendors_are_known():
    assert {runner.backend for runner in RUNNERS.runners} == set(matrix.BACKENDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GPU_KINDS": ""}, "GPU_KINDS is not set"),
        ({"GPU_KINDS": "  "}, "GPU_KINDS is not set"),
        ({"GPU_KINDS": "none"}, "no GPU, so there is nothing to run"),
        ({"GPU_KINDS": "nvidia,none"}, "unknown GPU kinds 'none'"),
        ({"GPU_KINDS": "nvidia,,amd-gfx942"}, "unknown GPU kinds ''"),
        ({"GPU_KINDS": "Nvidia"}, "unknown GPU kinds 'Nvidia'"),
        ({"GPU_KINDS": "nvidia", "KINDS": "amd-gfx942"}, "this repository has nvidia"),
        ({"KINDS": "nvidia,mi300"}, "unknown GPU kinds 'mi300'"),
        ({"KINDS": ","}, "unknown GPU kinds ''"),
        ({"GPU_KINDS": "none", "KINDS": "nvidia"}, "this repository has no GPU"),
        ({"SHA": "main"}, "sha is 'main'"),
        ({"SHA": SHA[:39]}, "40 hexadecimal digits"),
        ({"SHA": SHA.upper()}, "40 hexadecimal digits"),
        ({"SHA": f"{SHA}\n"}, "40 hexadecimal digits"),
        ({"SHA": f"{SHA} --upload-pack=x"}, "40 hexadecimal digits"),
        ({"PROFILE": ""}, "profile is ''"),
        ({"PROFILE": "gate --stage down"}, "none of dev, gate, nightly"),
        ({"REQUEST": "pr 7"}, "request is 'pr 7'"),
        ({"REQUEST": "a\nkinds=nvidia"}, "letters, digits"),
        ({"ROCM_IMAGE": ""}, "as name@sha256:digest"),
        ({"ROCM_IMAGE": "rocm/dev:latest"}, "as name@sha256:digest"),
        ({"ROCM_IMAGE": f"{IMAGE}0"}, "as name@sha256:digest"),
        ({"ROCM_IMAGE": f"--privileged {IMAGE}"}, "as name@sha256:digest"),
    ],
)
def test_a_plan_that_cannot_be_made_is_an_error(change: dict[str, str], message: str):
    with pytest.raises(matrix.Refused) as caught:
        matrix.plan(RUNNERS, GOOD | change)
    assert message in str(caught.value)


def test_an_image_is_asked_for_where_it_is_used():
    assert matrix.plan(RUNNERS, GOOD | {"GPU_KINDS": "nvidia", "ROCM_IMAGE": ""})["rocm"] == "[]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no [[runner]]"),
        ("[[runner]", "cannot be read"),
        ("runner = 3\n" + CONTAINER, "no [[runner]]"),
        ("runner = []\n" + CONTAINER, "no [[runner]]"),
        ("runner = [3]\n" + CONTAINER, "runner 1 is no table"),
        ("[[runner]]\n" + ENTRY, "needs [container]"),
        ("[[runner]]\n" + ENTRY + "[container]\noptions = 3\n", "needs [container]"),
        ("[[runner]]\n" + ENTRY + CONTAINER + 'image = "x"\n', "needs [container]"),
        ("[[runner]]\n" + ENTRY + CONTAINER + "[other]\n", "unknown tables: other"),
        ("[[runner]]\n" + ENTRY.replace('kind = "x"\n', "") + CONTAINER, "lacks kind"),
        ("[[runner]]\n" + ENTRY + 'arch = "x"\n' + CONTAINER, "unknown fields: arch"),
        ("[[runner]]\n" + ENTRY.replace('"g"', "7") + CONTAINER, "group = 7 is no name"),
        ("[[runner]]\n" + ENTRY.replace('"x"', '"x,y"') + CONTAINER, "kind = 'x,y' is no name"),
        ("[[runner]]\n" + ENTRY.replace('"x"', '"../x"') + CONTAINER, "is no name"),
        ("[[runner]]\n" + ENTRY.replace('"x"', '"none"') + CONTAINER, "cannot be called none"),
        ("[[runner]]\n" + ENTRY.replace('"cuda"', '"hip"') + CONTAINER, "backend 'hip'"),
        (("[[runner]]\n" + ENTRY) * 2 + CONTAINER, "more than one entry for x"),
    ],
)
def test_malformed_data_is_an_error(tmp_path: Path, text: str, message: str):
    path = tmp_path / "runners.toml"
    path.write_text(text)
    with pytest.raises(matrix.Refused) as caught:
        matrix.read(path)
    assert message in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(matrix.Refused, match="cannot be read"):
        matrix.read(tmp_path / "runners.toml")


def test_the_command_writes_outputs(output: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for name, value in {**GOOD, "KINDS": "nvidia", "REQUEST": "pr-7"}.items():
        monkeypatch.setenv(name, value)
    assert matrix.main() == 0
    assert f"sha={SHA}" in output.read_text().splitlines()
    assert json.loads(output.read_text().partition("cuda=")[2].splitlines()[0])[0]["kind"] == "nvidia"
    output.write_text("")
    monkeypatch.setenv("GPU_KINDS", "")
    assert matrix.main() == 1
    assert output.read_text() == ""
    assert "::error" in capsys.readouterr().out


def test_the_outputs_are_the_plan_job_s(files):
    declared = files.job("gpu.yml", "plan").data["outputs"]
    assert set(declared) == set(matrix.plan(RUNNERS, GOOD))
    assert all(value == f"${{{{ steps.plan.outputs.{name} }}}}" for name, value in declared.items())
