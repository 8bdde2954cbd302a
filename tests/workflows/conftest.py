"""What the tests of the workflows share: the scripts as modules, and the files under .github as data. No torch here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .files import ROOT, Files, read

for folder in (".github/scripts", ".github/actions/conformance"):
    sys.path.insert(0, str(ROOT / folder))


@pytest.fixture(scope="session")
def files() -> Files:
    return read(ROOT)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that GITHUB_OUTPUT names."""
    path = tmp_path / "output"
    path.touch()
    monkeypatch.setenv("GITHUB_OUTPUT", str(path))
    return path
