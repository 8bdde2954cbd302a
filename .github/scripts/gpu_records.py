"""Whether the GPU jobs left the Records that were asked for: each kind's, of this commit, from its hardware.

`gpu_records.py FOLDER` expects FOLDER/record-KIND/record.json for each kind in KINDS; SHA and PROFILE are the plan's.
Prints the paths, one a line, for `moe-conformance diff`. Records are data that code under test wrote: they are
parsed as JSON and nothing in them is run. What they say about problems is for `diff` to judge.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matrix

MAX_BYTES = 500_000_000  # a gate's Record has a few megabytes


def complaints(record: Any, runner: matrix.Runner, sha: str, profile: str) -> list[str]:
    """What a kind's Record says that it should not."""
    if not isinstance(record, dict) or not isinstance(record.get("environment"), dict):
        return ["this is no Record"]
    environment = record["environment"]
    expected = {
        "commit": (record.get("commit"), sha),
        "profile": (record.get("profile"), profile),
        "verdict": (record.get("verdict"), "passed"),
        "implementation": (record.get("implementation"), "tritonmoe"),
        "backend": (environment.get("backend"), runner.backend),
        "dirty": (record.get("dirty"), False),
        "partial": (record.get("partial"), []),
    }
    found = [f"{name} is {value!r}, not {wanted!r}" for name, (value, wanted) in expected.items() if value != wanted]
    architecture = str(environment.get("architecture")).split(":")[0]
    if runner.architecture and architecture != runner.architecture:
        found.append(
            f"architecture is {architecture!r}, not {runner.architecture!r}: the label is on the wrong machine"
        )
    return found


def look(folder: Path, runners: matrix.Runners, environment: Mapping[str, str]) -> tuple[list[Path], list[str]]:
    """The Records' paths and what is wrong with them."""
    kinds = [kind for kind in environment.get("KINDS", "").split(",") if kind]
    by_kind = {runner.kind: runner for runner in runners.runners}
    if not kinds or (unknown := set(kinds) - set(by_kind)):
        return [], [f"KINDS is {environment.get('KINDS', '')!r}: {unknown if kinds else 'no kind'} to look for"]
    paths, wrong = [], []
    for kind in kinds:
        path = folder / f"record-{kind}" / "record.json"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            wrong.append(f"{kind}: no Record can be read: {error}")
            continue
        paths.append(path)
        sha, profile = environment.get("SHA", ""), environment.get("PROFILE", "")
        wrong += [f"{kind}: {text}" for text in complaints(record, by_kind[kind], sha, profile)]
    return paths, wrong


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: KINDS=kind,... SHA=commit PROFILE=name gpu_records.py FOLDER", file=sys.stderr)
        return 2
    try:
        paths, wrong = look(Path(arguments[0]), matrix.read(), os.environ)
    except matrix.Refused as error:
        paths, wrong = [], [str(error)]
    for text in wrong:
        print(f"::error title=Records::{text}", file=sys.stderr)
    if not wrong:
        print("\n".join(map(str, paths)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
