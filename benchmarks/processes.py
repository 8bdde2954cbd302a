"""Fresh Python processes that find the same packages as this one, wherever they are started."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with PYTHONPATH made absolute, and the variables given."""
    folders = [str(ROOT)]
    for package in ("tritonmoe", "moe_conformance"):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            folders.append(str(Path(spec.origin).resolve().parents[1]))
    given = [str(Path(each).resolve()) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    path = os.pathsep.join(dict.fromkeys([*folders, *given]))
    return {**os.environ, "PYTHONPATH": path, **variables}
