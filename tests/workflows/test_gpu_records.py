"""Records that the GPU jobs left: the ones that were asked for, or an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu_records
import matrix
import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
RUNNERS = matrix.read()


def record(backend: str = "rocm", architecture: str = "gfx942:sramecc+:xnack-", **change: Any) -> dict[str, Any]:
    found = {
        "commit": SHA,
        "dirty": False,
        "profile": "gate",
        "verdict": "passed",
        "implementation": "tritonmoe",
        "partial": [],
        "environment": {"backend": backend, "architecture": architecture},
    }
    return found | change


def write(folder: Path, kind: str, data: object) -> Path:
    path = folder / f"record-{kind}" / "record.json"
    path.parent.mkdir()
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def look(folder: Path, kinds: str) -> tuple[list[Path], list[str]]:
    return gpu_records.look(folder, RUNNERS, {"KINDS": kinds, "SHA": SHA, "PROFILE": "gate"})


def test_good_records(tmp_path: Path):
    paths = [write(tmp_path, "nvidia", record("cuda", "sm_90")), write(tmp_path, "amd-gfx942", record())]
    assert look(tmp_path, "nvidia,amd-gfx942") == (paths, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"commit": SHA[::-1]}, "commit is"),
        ({"commit": None}, "commit is None"),
        ({"dirty": True}, "dirty is True"),
        ({"dirty": None}, "dirty is None"),
        ({"profile": "dev"}, "profile is 'dev'"),
        ({"verdict": "failed"}, "verdict is 'failed'"),
        ({"verdict": "incomplete"}, "verdict is 'incomplete'"),
        ({"implementation": "eager"}, "implementation is 'eager'"),
        ({"partial": ["--problems 3"]}, "partial is"),
        ({"environment": {"backend": "cuda", "architecture": "gfx942"}}, "backend is 'cuda'"),
        ({"environment": {"backend": "cpu", "architecture": "x86_64"}}, "backend is 'cpu'"),
        ({"environment": {"backend": "rocm", "architecture": "gfx1100"}}, "on the wrong machine"),
        ({"environment": {"backend": "rocm", "architecture": "gfx9420"}}, "on the wrong machine"),
        ({"environment": {"backend": "rocm"}}, "on the wrong machine"),
        ({"environment": None}, "no Record"),
    ],
)
def test_a_record_of_something_else_is_an_error(tmp_path: Path, change: dict[str, Any], says: str):
    write(tmp_path, "amd-gfx942", record(**change))
    assert any(says in text for text in look(tmp_path, "amd-gfx942")[1])


@pytest.mark.parametrize("data", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_what_is_no_record_is_an_error(tmp_path: Path, data: str):
    write(tmp_path, "nvidia", data)
    assert look(tmp_path, "nvidia")[1]


@pytest.mark.parametrize("kinds", ["", "nvidia", "mi300", "nvidia,amd-gfx942", "../nvidia"])
def test_a_missing_record_is_an_error(tmp_path: Path, kinds: str):
    write(tmp_path, "amd-gfx942", record())
    assert look(tmp_path, kinds)[1]


def test_a_record_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, "amd-gfx942", record())
    monkeypatch.setattr(gpu_records, "MAX_BYTES", 10)
    assert "more than 10 bytes" in look(tmp_path, "amd-gfx942")[1][0]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    path = write(tmp_path, "amd-gfx942", record())
    for name, value in {"KINDS": "amd-gfx942", "SHA": SHA, "PROFILE": "gate"}.items():
        monkeypatch.setenv(name, value)
    assert gpu_records.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    monkeypatch.setenv("KINDS", "amd-gfx942,nvidia")
    assert gpu_records.main([str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert (captured.out, "::error" in captured.err) == ("", True)
    assert gpu_records.main([]) == 2
