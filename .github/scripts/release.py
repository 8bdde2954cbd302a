"""Whether a tag may become a release: the version's own tag, on main, at a commit whose gate has passed.

Reads TAG, SHA and REPOSITORY; needs the history of main in the checkout. The gate is looked up as the runs of
ci.yml for a push to main at this commit: only who may push to main can make one, while a check called `gate` can
be made by any workflow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import matrix

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., str]


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout


def objections(tag: str, sha: str, repository: str, version: str, call: Run = run) -> list[str]:
    """Why this tag is no release."""
    if not matrix.COMMIT.fullmatch(sha):
        return [f"SHA is {sha!r}, and no commit"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag!r}, but pyproject.toml says {version}: v{version} was expected")
    try:
        call("git", "merge-base", "--is-ancestor", sha, "origin/main")
    except subprocess.CalledProcessError:
        found.append(f"{sha} is not on main")
    asked = ["run", "list", "--repo", repository, "--workflow", "ci.yml", "--branch", "main", "--event", "push"]
    try:
        listed = json.loads(call("gh", *asked, "--commit", sha, "--json", "headSha,status,conclusion", "--limit", "20"))
    except (subprocess.CalledProcessError, json.JSONDecodeError) as error:
        return [*found, f"the gate's result cannot be looked up: {error}"]
    runs = [each for each in listed if each["headSha"] == sha]
    if not runs:
        found.append(f"ci.yml has not run for {sha} on main")
    # gh lists the newest first: a later run may have repaired an earlier one, never the other way.
    elif (runs[0]["status"], runs[0]["conclusion"]) != ("completed", "success"):
        found.append(f"the gate of {sha}: {runs[0]['status']}, {runs[0]['conclusion'] or 'no conclusion yet'}")
    return found


def main(environment: Mapping[str, str] = os.environ) -> int:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tag, sha, repository = (environment.get(name, "") for name in ("TAG", "SHA", "REPOSITORY"))
    found = objections(tag, sha, repository, version)
    for text in found:
        print(f"::error title=no release::{text}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
