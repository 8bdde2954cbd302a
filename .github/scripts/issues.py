"""One open issue for each nightly job that fails, found by its label: commented on, or made where there is none.

Reads NEEDS (toJSON(needs)), GPU_KINDS, REPOSITORY and RUN_URL; talks to GitHub through `gh`, as arguments and
never through a shell. Nobody's issue is closed: that is for who mended it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping

import gate
import matrix

Gh = Callable[..., str]


def gh(*arguments: str) -> str:
    return subprocess.run(["gh", *arguments], stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


def failures(environment: Mapping[str, str]) -> dict[str, str]:
    """Job: result, of what failed. The GPU job may be skipped where the repository says that it has no GPU."""
    no_gpu = environment.get("GPU_KINDS", "").strip() == matrix.NONE
    try:
        needs = json.loads(environment.get("NEEDS", ""))
    except json.JSONDecodeError:
        needs = None
    return gate.failing(needs, frozenset({gate.GPU_JOB}) if no_gpu else frozenset())


def keep_open(call: Gh, repository: str, job: str, result: str, run_url: str) -> None:
    """Comment on the open issue with the job's label, or open one."""
    label = f"nightly-{job}"
    there = ("--repo", repository)
    text = f"`{job}` ended as {result} in {run_url}. The Records and outputs of the run are its artifacts."
    call("label", "create", label, *there, "--force", "--description", f"nightly.yml: {job} fails", "--color", "B60205")
    listed = json.loads(call("issue", "list", *there, "--label", label, "--state", "open", "--json", "number"))
    if listed:
        oldest = min(issue["number"] for issue in listed)
        call("issue", "comment", str(oldest), *there, "--body", text)
    else:
        call("issue", "create", *there, "--label", label, "--title", f"nightly: {job} fails", "--body", text)


def main(environment: Mapping[str, str] = os.environ, call: Gh = gh) -> int:
    """0 where every failure, if any, has its issue: the jobs themselves have made the run red already."""
    repository, run_url = environment.get("REPOSITORY", ""), environment.get("RUN_URL", "")
    if not repository or not run_url:
        print("REPOSITORY and RUN_URL are not set", file=sys.stderr)
        return 2
    found = failures(environment)
    missed = 0
    for job, result in found.items():
        print(f"{job}: {result}")
        try:
            keep_open(call, repository, job, result, run_url)
        except (subprocess.SubprocessError, json.JSONDecodeError) as error:
            print(f"::error title=issue::no issue for {job}: {error}")
            missed += 1
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
