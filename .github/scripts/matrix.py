"""Which GPU jobs run, and where: the plan of gpu.yml, from runners.toml and the repository's variables.

Reads SHA, PROFILE, REQUEST and KINDS (inputs of the workflow), GPU_KINDS and ROCM_IMAGE (variables of the
repository); writes outputs for the jobs. Whatever is missing, malformed or unknown is an error: a plan that
quietly became empty would look like a run that passed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNNERS = Path(__file__).resolve().parents[1] / "runners.toml"
NONE = "none"  # what GPU_KINDS says in a repository without a GPU
BACKENDS = ("cuda", "rocm")
PROFILES = ("dev", "gate", "nightly")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # kinds, groups, labels: they end up in names of artifacts
COMMIT = re.compile(r"[0-9a-f]{40}")
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}")


class Refused(ValueError):
    """The plan cannot be made; the message says what to change."""


@dataclass(frozen=True)
class Runner:
    """A kind of GPU machine."""

    kind: str
    backend: str
    group: str
    label: str
    architecture: str = ""


@dataclass(frozen=True)
class Runners:
    """runners.toml."""

    runners: tuple[Runner, ...]
    options: str

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(runner.kind for runner in self.runners)


def read(path: Path = RUNNERS) -> Runners:
    """The file, checked entry by entry."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused(f"{path.name} cannot be read: {error}") from error
    entries = data.get("runner")
    container = data.get("container")
    if not isinstance(entries, list) or not entries:
        raise Refused(f"{path.name} has no [[runner]]")
    if not isinstance(container, dict) or set(container) != {"options"} or not isinstance(container["options"], str):
        raise Refused(f"{path.name} needs [container] with `options`, a string, and nothing else")
    if unknown := set(data) - {"runner", "container"}:
        raise Refused(f"{path.name} has unknown tables: {', '.join(sorted(unknown))}")
    runners = tuple(_runner(entry, number, path.name) for number, entry in enumerate(entries, 1))
    kinds = [runner.kind for runner in runners]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise Refused(f"{path.name} has more than one entry for {', '.join(twice)}")
    return Runners(runners, container["options"])


def _runner(entry: Any, number: int, name: str) -> Runner:
    where = f"{name}, runner {number}"
    if not isinstance(entry, dict):
        raise Refused(f"{where} is no table")
    required, optional = {"kind", "backend", "group", "label"}, {"architecture"}
    if missing := required - set(entry):
        raise Refused(f"{where} lacks {', '.join(sorted(missing))}")
    if unknown := set(entry) - required - optional:
        raise Refused(f"{where} has unknown fields: {', '.join(sorted(unknown))}")
    for field, value in entry.items():
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise Refused(f"{where}: {field} = {value!r} is no name")
    if entry["backend"] not in BACKENDS:
        raise Refused(f"{where}: backend {entry['backend']!r} is none of {', '.join(BACKENDS)}")
    if entry["kind"] == NONE:
        raise Refused(f"{where}: a kind cannot be called {NONE}")
    return Runner(**entry)


def available(runners: Runners, gpu_kinds: str) -> tuple[Runner, ...]:
    """The kinds that the repository says it has. `none` is an answer; nothing is not."""
    known = ", ".join(runners.kinds)
    names = [name.strip() for name in gpu_kinds.split(",")]
    if names == [""]:
        raise Refused(
            f"the repository's variable GPU_KINDS is not set: name the GPU runners it has (of {known}), or say {NONE}"
        )
    if names == [NONE]:
        return ()
    return _named(runners.runners, names, f"GPU_KINDS must be {NONE}, or some of {known}")


def selected(runners: Runners, gpu_kinds: str, asked: str) -> tuple[Runner, ...]:
    """The kinds that this run is for: all that exist, or those of them that were asked for."""
    existing = available(runners, gpu_kinds)
    if not asked.strip():
        return existing
    names = [name.strip() for name in asked.split(",")]
    return _named(existing, names, f"this repository has {', '.join(r.kind for r in existing) or 'no GPU'}")


def _named(runners: tuple[Runner, ...], names: list[str], message: str) -> tuple[Runner, ...]:
    by_kind = {runner.kind: runner for runner in runners}
    if unknown := [name for name in names if name not in by_kind]:
        raise Refused(f"unknown GPU kinds {', '.join(map(repr, unknown))}: {message}")
    return tuple(runner for runner in runners if runner.kind in names)


def plan(runners: Runners, environment: Mapping[str, str]) -> dict[str, str]:
    """The outputs of the plan job. Raises Refused."""
    sha = environment.get("SHA", "")
    profile = environment.get("PROFILE", "")
    request = environment.get("REQUEST", "")
    if not COMMIT.fullmatch(sha):
        raise Refused(f"sha is {sha!r}: a full commit is 40 hexadecimal digits")
    if profile not in PROFILES:
        raise Refused(f"profile is {profile!r}: none of {', '.join(PROFILES)}")
    if request and not NAME.fullmatch(request):
        raise Refused(f"request is {request!r}: letters, digits, dots, dashes and underscores only")
    found = selected(runners, environment.get("GPU_KINDS", ""), environment.get("KINDS", ""))
    if not found:
        raise Refused(f"GPU_KINDS is {NONE}: this repository says that it has no GPU, so there is nothing to run")
    image = environment.get("ROCM_IMAGE", "")
    if any(runner.backend == "rocm" for runner in found) and not IMAGE.fullmatch(image):
        raise Refused(f"ROCM_IMAGE is {image!r}: an AMD kind needs the container's image as name@sha256:digest")
    jobs = {
        "cuda": [{"kind": r.kind, "group": r.group, "label": r.label} for r in found if r.backend == "cuda"],
        "rocm": [
            {"kind": r.kind, "group": r.group, "label": r.label, "image": image, "options": runners.options}
            for r in found
            if r.backend == "rocm"
        ],
    }
    return {
        "sha": sha,
        "profile": profile,
        "kinds": ",".join(runner.kind for runner in found),
        **{name: json.dumps(entries) for name, entries in jobs.items()},
    }


def main() -> int:
    try:
        outputs = plan(read(), os.environ)
    except Refused as error:
        print(f"::error title=no GPU plan::{error}")
        return 1
    for name, value in outputs.items():
        print(f"{name}={value}")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in outputs.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
