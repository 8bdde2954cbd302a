"""A script of this folder in a process of its own, where Triton compiles: this process may hold its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import wavefront


def results(script: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What the script prints, JSON."""
    here = Path(__file__).parent
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_", "COVERAGE"))}
    cache = os.environ.get("TRITON_CACHE_DIR", str(folder / "cache"))
    settings |= {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
    package = str(Path(wavefront.__file__).resolve().parents[1])
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, str(here / script)]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found
