"""A script of this folder in a process of its own, where Triton compiles: this process may hold its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock

import wavefront


def results(script: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What the script prints, JSON. `folder` is of one pytest process; those of one run share what the first got."""
    shared = folder.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else folder.parent
    kept = shared / f"{script}.json"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(_printed(script, folder), encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _printed(script: str, folder: Path) -> str:
    here = Path(__file__).parent
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_", "COVERAGE"))}
    cache = os.environ.get("TRITON_CACHE_DIR", str(folder / "cache"))
    settings |= {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
    package = str(Path(wavefront.__file__).resolve().parents[1])
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    command = [sys.executable, str(here / script)]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1]
