"""Start gpu.yml on main for a commit, wait for it, and end as it ended.

Why it is started and not called: the runner groups admit jobs that are defined in gpu.yml at main, and a called
workflow is the caller's version of the file, at the merge queue's ref. Reads REPOSITORY, SHA, REQUEST and
GPU_KINDS; talks to GitHub through `gh`. `gpu_run.py cancel` ends the run again, where the caller is cancelled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import matrix

WORKFLOW = "gpu.yml"
BRANCH = "main"
APPEARS_S = 600  # a started run is listed within seconds; one that is not after this never will be
ENDS_S = 5 * 3600  # below the timeout of the job that waits
PAUSE_S = 30

Gh = Callable[..., str]


def gh(*arguments: str) -> str:
    """Run gh and return what it prints. Raises CalledProcessError."""
    done = subprocess.run(["gh", *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return done.stdout


def title(sha: str, request: str) -> str:
    """The run-name of gpu.yml: how a run is found again. (A test holds the two together.)"""
    return f"GPU suite of {sha} ({request})"


def start(call: Gh, repository: str, sha: str, request: str) -> None:
    fields = ("-f", f"sha={sha}", "-f", f"request={request}")
    call("workflow", "run", WORKFLOW, "--repo", repository, "--ref", BRANCH, *fields)


def find(call: Gh, repository: str, wanted: str) -> dict[str, Any] | None:
    """The run with this title, started on main by hand or by a program. More than one is an error."""
    listed = call(
        *("run", "list", "--repo", repository, "--workflow", WORKFLOW, "--branch", BRANCH),
        *("--event", "workflow_dispatch", "--limit", "100", "--json", "databaseId,displayTitle,status,conclusion,url"),
    )
    runs = [run for run in json.loads(listed) if run["displayTitle"] == wanted]
    if len(runs) > 1:
        raise RuntimeError(f"{len(runs)} runs are called {wanted!r}: which of them is meant cannot be told")
    return runs[0] if runs else None


def wait(call: Gh, repository: str, wanted: str, sleep: Callable[[float], None], clock: Callable[[], float]) -> str:
    """Wait until the run is over and return its conclusion. Raises TimeoutError.

    A question that GitHub does not answer is asked again: over hours, one will fail.
    """
    began = clock()
    seen = False
    while clock() - began < (ENDS_S if seen else APPEARS_S):
        try:
            run = find(call, repository, wanted)
        except (subprocess.SubprocessError, json.JSONDecodeError) as error:
            print(f"no answer, asking again: {type(error).__name__}", flush=True)
            run = None
        if run is not None:
            if not seen:
                print(f"waiting for {run['url']}", flush=True)
            seen = True
            if run["status"] == "completed":
                return str(run["conclusion"])
        sleep(PAUSE_S)
    raise TimeoutError(f"{wanted!r} {'did not end' if seen else 'did not appear'} in time")


def cancel(call: Gh, repository: str, wanted: str) -> None:
    run = find(call, repository, wanted)
    if run is not None and run["status"] != "completed":
        call("run", "cancel", str(run["databaseId"]), "--repo", repository)


def main(
    arguments: list[str],
    environment: Mapping[str, str] = os.environ,
    call: Gh = gh,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    repository, sha, request = (environment.get(name, "") for name in ("REPOSITORY", "SHA", "REQUEST"))
    if arguments not in ([], ["cancel"]) or not repository or not matrix.NAME.fullmatch(request):
        print("usage: REPOSITORY=owner/name SHA=commit REQUEST=name gpu_run.py [cancel]", file=sys.stderr)
        return 2
    wanted = title(sha, request)
    if arguments:
        cancel(call, repository, wanted)
        return 0
    try:
        kinds = matrix.available(matrix.read(), environment.get("GPU_KINDS", ""))
        if not kinds:
            print(f"GPU_KINDS is {matrix.NONE}: no GPU job is run. The gate says so too.")
            return 0
        if not matrix.COMMIT.fullmatch(sha):
            raise matrix.Refused(f"SHA is {sha!r}, and no commit")
        start(call, repository, sha, request)
        conclusion = wait(call, repository, wanted, sleep, clock)
    except (matrix.Refused, RuntimeError, TimeoutError, subprocess.SubprocessError) as error:
        print(f"::error title=GPU suite::{error}")
        return 1
    print(f"{wanted}: {conclusion}")
    return 0 if conclusion == "success" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
