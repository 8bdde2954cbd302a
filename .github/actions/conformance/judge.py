"""The two steps of the action: install the suite that this file belongs to, and run it with the action's inputs.

Inputs come as environment variables and leave as arguments of a process: no shell reads them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NOT_RUN = "not-run"
OPTIONS = ("implementation", "backend", "profile", "problems", "seed", "workers", "waivers", "record")


def install_command(root: Path = ROOT) -> list[str]:
    """The suite, with the Hypothesis that draws the gate's problems: another one draws other problems."""
    groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    return [sys.executable, "-m", "pip", "install", str(root), *groups["conformance"]]


def run_command(environment: Mapping[str, str]) -> list[str]:
    """`moe-conformance run` with every input that is not empty."""
    command = [sys.executable, "-m", "moe_conformance.cli", "run"]
    for name in OPTIONS:
        if value := environment.get(f"MOE_{name.upper()}", "").strip():
            command.append(f"--{name}={value}")
    command += [f"--stage={stage}" for stage in environment.get("MOE_STAGES", "").split()]
    return command


def verdict(record: Path) -> str:
    """What the Record says, or that there is none."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))["verdict"]
    except (OSError, ValueError, KeyError, TypeError):
        return NOT_RUN
    return found if found in ("passed", "failed", "incomplete") else NOT_RUN


def run(environment: Mapping[str, str]) -> int:
    """The suite's exit code; 1 where it is 0 and the Record does not say that it passed."""
    if not environment.get("MOE_IMPLEMENTATION", "").strip():
        print("::error title=conformance::the input `implementation` is empty")
        code, record = 2, None
    else:
        record = Path(environment.get("MOE_RECORD", "").strip() or "moe-conformance-record.json").absolute()
        record.unlink(missing_ok=True)  # an older run's Record is none of this one
        code = subprocess.run(run_command({**environment, "MOE_RECORD": str(record)})).returncode
    found = verdict(record) if record else NOT_RUN
    if code == 0 and found != "passed":
        print(f"::error title=conformance::the suite ended well, but its Record says {found}")
        code = 1
    written = str(record) if record and record.exists() else ""
    with Path(environment["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write(f"verdict={found}\nrecord={written}\n")
    return code


def main(arguments: list[str]) -> int:
    if arguments == ["install"]:
        return subprocess.run(install_command()).returncode
    if arguments == ["run"]:
        return run(os.environ)
    print("usage: judge.py install|run", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
