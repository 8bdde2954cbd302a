"""The files under .github, parsed, and the same with one edit: what the rules judge."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
HOSTED = "ubuntu-24.04"  # the only hosted runner: a name that ends in `latest` is another machine one day


@dataclass(frozen=True)
class Job:
    """A job of a workflow; a composite action's steps are one too, without anything else."""

    file: str
    name: str
    data: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}, job {self.name}"

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.data.get("steps", [])

    @property
    def needs(self) -> list[str]:
        needs = self.data.get("needs", [])
        return [needs] if isinstance(needs, str) else list(needs)

    @property
    def on_gpu(self) -> bool:
        return isinstance(self.data.get("runs-on"), dict)


class Files:
    """Texts by path, from the root of the repository, and what they say."""

    def __init__(self, texts: dict[str, str], parsed: dict[str, Any] | None = None) -> None:
        self.texts = texts
        names = [name for name in texts if name.endswith((".yml", ".yaml"))]
        known = parsed or {}
        self.data = {
            name: known[name] if name in known else YAML(typ="safe", pure=True).load(texts[name]) for name in names
        }
        self.tox = configparser.RawConfigParser(comment_prefixes=("#",))
        self.tox.read_string(texts["tox.ini"])

    def edited(self, name: str, old: str, new: str) -> Files:
        """The same files with the first occurrence of a text replaced by another."""
        assert old in self.texts[name], f"{name} does not contain {old!r}: the planted edit is out of date"
        parsed = {other: data for other, data in self.data.items() if other != name}
        return Files({**self.texts, name: self.texts[name].replace(old, new, 1)}, parsed)

    @property
    def workflows(self) -> dict[str, dict[str, Any]]:
        return {Path(name).name: data for name, data in self.data.items() if name.startswith(".github/workflows/")}

    @property
    def actions(self) -> dict[str, dict[str, Any]]:
        return {name: data for name, data in self.data.items() if name.startswith(".github/actions/")}

    def triggers(self, workflow: str) -> set[str]:
        found = self.workflows[workflow]["on"]
        return {found} if isinstance(found, str) else set(found)

    def jobs(self, workflow: str | None = None) -> Iterator[Job]:
        """The jobs of one workflow, or of all."""
        for file, data in self.workflows.items():
            if workflow in (None, file):
                for name, job in data["jobs"].items():
                    yield Job(file, name, job)

    def job(self, workflow: str, name: str) -> Job:
        return Job(workflow, name, self.workflows[workflow]["jobs"].get(name, {}))

    def units(self) -> Iterator[Job]:
        """Everything that has steps: jobs, and composite actions."""
        yield from self.jobs()
        for file, action in self.actions.items():
            yield Job(file, "-", action["runs"])

    def uses(self) -> Iterator[tuple[str, str]]:
        """(file, value) of every `uses`."""
        for unit in self.units():
            for holder in (unit.data, *unit.steps):
                if "uses" in holder:
                    yield unit.file, holder["uses"]

    def path(self, file: str) -> str:
        """The path of a workflow that is known by its name."""
        return file if "/" in file else f".github/workflows/{file}"

    @property
    def environments(self) -> set[str]:
        """The names of all tox environments, braces expanded."""
        found = set()
        for section in self.tox.sections():
            if section.startswith("testenv:"):
                parts = re.split(r"\{([^{}]*)\}", section.removeprefix("testenv:"))
                choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
                found |= {"".join(choice) for choice in product(*choices)}
        return found

    @property
    def env_list(self) -> list[str]:
        return [name.strip() for name in self.tox["tox"]["env_list"].split(",")]


def read(root: Path) -> Files:
    patterns = ("**/*.yml", "**/*.yaml", "*.toml", "scripts/*.py")
    paths = [path for pattern in patterns for path in (root / ".github").glob(pattern)]
    paths += [root / "tox.ini"]
    return Files({path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths})
